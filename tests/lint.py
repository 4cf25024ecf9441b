"""The product's linter of finished streams, by the name the tests know."""

from __future__ import annotations

from proxy.protocol.lint import Json, check

__all__ = ["Json", "check"]
