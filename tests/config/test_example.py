"""deploy/dashseek.toml is the settings, every one, and nothing but the defaults."""

from __future__ import annotations

import re

from config import example, settings, sources

TEXT = example.FILE.read_text("utf-8")
UNSET = re.findall(r"^#: (\w+) = ", TEXT, re.MULTILINE)
SECRET = re.findall(r"^#: (\w+) is no key", TEXT, re.MULTILINE)
SAID = re.findall(r"^(\w+) = ", TEXT, re.MULTILINE)


def test_it_is_fresh() -> None:
    """`python -m config.example` writes it."""
    assert example.page() == TEXT


def test_it_names_every_setting_once_in_the_order_of_the_help() -> None:
    assert re.findall(r"^(?:#: )?(\w+) (?:=|is no key) ?", TEXT, re.MULTILINE) == [*settings.NAMES]
    assert sorted(UNSET + SECRET + SAID) == sorted(settings.NAMES)
    assert set(SECRET) == settings.SECRETS


def test_loading_it_gives_exactly_the_defaults() -> None:
    loaded, defaults = sources.load({}, str(example.FILE), {}), settings.Settings()
    assert loaded.model_dump(exclude={"origins"}) == defaults.model_dump(exclude={"origins"})
    assert {name for name, origin in loaded.origins.items() if origin != "default"} == set(SAID)
