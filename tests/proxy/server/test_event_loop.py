"""Claims about which event loop an operator gets (`--loop`)."""

from __future__ import annotations

import asyncio
import sys

import pytest

from config import settings, sources
from proxy.server import event_loop


def chosen(loop: str | None = None) -> settings.Settings:
    return sources.load({} if loop is None else {"loop": loop}, None, {})


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)


def test_where_uvloop_is_installed_it_turns() -> None:
    uvloop = pytest.importorskip("uvloop", reason="needs uvloop: pip install '.[fast]'")
    for one in (chosen(), chosen("uvloop")):
        assert event_loop.name_of(one) == "uvloop"
        loop = event_loop.factory(one)()
        assert isinstance(loop, uvloop.Loop)
        loop.close()


def test_asyncio_is_had_for_the_asking() -> None:
    assert event_loop.name_of(chosen("asyncio")) == "asyncio"
    assert event_loop.factory(chosen("asyncio")) is asyncio.new_event_loop


@pytest.mark.usefixtures("without")
def test_where_it_is_not_installed_asyncio_turns() -> None:
    assert event_loop.factory(chosen()) is asyncio.new_event_loop


@pytest.mark.usefixtures("without")
def test_who_names_it_where_it_is_not_installed_is_told_what_to_install() -> None:
    with pytest.raises(settings.SettingsError, match=r"loop \(--loop\): uvloop is not .* pip install '\.\[fast\]'"):
        event_loop.name_of(chosen("uvloop"))
