"""Claims about what a gateway is put together from, as an operator asks for it."""

from __future__ import annotations

import sys

import pytest

import proxy.admission
from config import settings, sources
from proxy.admission.memory_limiter import MemoryLimiter
from proxy.call import gateway


async def test_limits_are_in_memory_by_default() -> None:
    async with gateway.open_limiter(sources.load({}, None, {})) as limiter:
        assert isinstance(limiter, MemoryLimiter)


async def test_a_redis_without_its_client_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "proxy.admission.redis_limiter", raising=False)
    monkeypatch.delattr(proxy.admission, "redis_limiter", raising=False)
    chosen = sources.load({}, None, {"DASHSEEK_REDIS_URL": "redis://127.0.0.1:1"})
    with pytest.raises(settings.SettingsError, match=r"pip install '\.\[redis\]'"):
        async with gateway.open_limiter(chosen):
            raise AssertionError
