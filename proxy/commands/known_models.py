"""A model's name that nobody knows, into what the caller may have meant: for `translate` and `check --online`."""

from __future__ import annotations

from collections.abc import Collection

from config import sources


def hint(name: str, known: Collection[str]) -> str:
    """The names there are, and the one that is nearest; `known` in the order of the table."""
    return f"known: {', '.join(known)}{sources.guess(name.lower().rpartition('/')[2], known)}"
