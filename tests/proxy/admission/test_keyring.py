"""Claims about the keys file: who is known is found, who is not is refused, and a slip in the file locks nobody out."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError
from structlog.testing import capture_logs

from config import models, settings, sources, values
from proxy.admission import keyring
from translators import catalogue as catalogues
from translators import dialogue, faults

ROWS = tuple(dialogue.Model(**row) for row in models.load(sources.load({}, None, {})))
MODELS = catalogues.Catalogue(ROWS, {"qwen-turbo": "deepseek-v3"})
SECRET = "sk-canary-0123456789"
OTHER = "sk-canary-9876543210"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def row(secret: str = SECRET, name: str = "team a", more: str = "") -> str:
    return f'[[key]]\nname = "{name}"\nsha256 = "{digest(secret)}"\n{more}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def ring(path: Path, *rows: str) -> keyring.Keyring:
    path.write_text("".join(rows))
    return keyring.Keyring(path, MODELS)


def write(path: Path, text: str | None) -> None:
    """Replace a file, or strike it off."""
    path.unlink() if text is None else path.write_text(text)


def write_in_place(path: Path, text: str) -> None:
    """Put another text of the same length into a file, and its time back."""
    before = path.stat()
    with path.open("r+") as file:
        file.write(text)
    times = (before.st_atime_ns, before.st_mtime_ns)
    os.utime(path, ns=times)
    # The kernel's clock for files ticks every few milliseconds.
    while (after := path.stat()).st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=times)
    assert (after.st_mtime_ns, after.st_ino, after.st_size) == (before.st_mtime_ns, before.st_ino, before.st_size)


def refusal_of(held: keyring.Keyring, secret: str) -> faults.Fault:
    with pytest.raises(faults.Refusal) as refused:
        held.find(secret)
    assert secret not in str(refused.value) or not secret
    return refused.value.fault


# Finding


def test_who_brings_a_known_key_is_found_with_models_and_limits(path: Path) -> None:
    """KEY-1."""
    held = ring(path, row(), row(OTHER, "team b", 'models = ["DeepSeek-R1"]\nlimits = { rpm = 60, tpm = 1000 }'))
    assert len(held) == 2
    assert held.find(SECRET) == keyring.Key("team a", bytes.fromhex(digest(SECRET)))
    other = held.find(OTHER)
    limits = values.Limit(rpm=60, tpm=1000)
    assert (other.name, other.models, other.limits) == ("team b", frozenset({"deepseek-r1"}), limits)
    assert other.fingerprint == digest(OTHER)[:12]


@pytest.mark.parametrize("secret", ["", "sk-canary", f"{SECRET} ", SECRET.upper(), "ключ", "\udcff"])
def test_who_brings_another_is_refused(path: Path, secret: str) -> None:
    """HTTP-10."""
    assert refusal_of(ring(path, row()), secret) is faults.BAD_KEY


def test_what_decides_is_the_whole_digest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KEY-1: constant-time, over all of it; the index alone lets nobody in."""
    held = ring(path, row())
    forged = bytes.fromhex(digest(SECRET))[: keyring.INDEX_BYTES] + bytes(32 - keyring.INDEX_BYTES)
    monkeypatch.setattr(keyring, "digest_of", lambda _: forged)
    assert refusal_of(held, "forged") is faults.BAD_KEY


def test_a_model_that_is_not_allowed_is_denied(path: Path) -> None:
    """KEY-1."""
    narrow = ring(path, row(more='models = ["deepseek-r1"]')).find(SECRET)
    narrow.check_model("deepseek-r1")
    with pytest.raises(faults.Refusal) as refused:
        narrow.check_model("deepseek-v3")
    assert refused.value.fault is faults.ACCESS_DENIED
    ring(path, row()).find(SECRET).check_model("deepseek-v3")


@pytest.mark.parametrize("name", ["qwen-turbo", "DeepSeek-V3", "siliconflow/deepseek-v3"])
def test_a_model_goes_by_every_name_that_callers_may_use(path: Path, name: str) -> None:
    """MOD-2, MOD-3: what is compared are models, not their names."""
    known = ring(path, row(more=f'models = ["{name}"]')).find(SECRET)
    assert known.models == frozenset({"deepseek-v3"})


def test_a_model_that_is_not_known_is_a_slip_and_the_nearest_one_is_named(path: Path) -> None:
    """A key that can never be used for it is found out before the first call, not by it."""
    path.write_text(row() + row(OTHER, "team b", 'models = ["deepseek-v3", "deepsek-r1", "gpt"]'))
    with pytest.raises(settings.SettingsError) as refused:
        keyring.read(path, MODELS)
    assert refused.value.lines == (
        f"keys_file ({path}): key.1.models.1: there is no such model; did you mean deepseek-r1?",
        f"keys_file ({path}): key.1.models.2: there is no such model",
    )


def test_an_old_and_a_new_key_may_have_one_name(path: Path) -> None:
    held = ring(path, row(), row(OTHER))
    assert held.find(SECRET).name == held.find(OTHER).name


# The file


def test_no_entries_let_nobody_in(path: Path) -> None:
    assert refusal_of(ring(path), SECRET) is faults.BAD_KEY


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[key]]\nname = 'a'", "key.0.sha256: is missing"),
        (row() + 'limit = "rpm=1"', "key.0.limit: there is no such field"),
        (
            row() + 'limits = "rps=1"',
            f"key.0.limits: there is no limit rps: must name one or more of {', '.join(values.LIMITS)}",
        ),
        (row() + "models = []", "key.0.models: "),
        (row(name=""), "key.0.name: "),
        (f'[[key]]\nname = "a"\nsha256 = "{SECRET}"', "key.0.sha256: "),
        (f'[[keys]]\nname = "a"\nsha256 = "{SECRET}"', "keys: there is no such field"),
        (row() + row(name="b"), "one sha256 is there twice"),
        (SECRET, "is not TOML in UTF-8"),
        (f'key = "{SECRET}"', "key: "),
    ],
)
def test_a_file_that_cannot_be_is_told_without_repeating_what_stands_in_it(path: Path, text: str, told: str) -> None:
    """MET-4: keys are pasted into the wrong places."""
    path.write_text(text)
    with pytest.raises(settings.SettingsError) as refused:
        keyring.read(path, MODELS)
    assert any(line.startswith(f"keys_file ({path}): {told}") for line in refused.value.lines), refused.value.lines
    assert SECRET not in str(refused.value)


def test_a_file_that_is_not_there_or_not_text_is_told(path: Path) -> None:
    with pytest.raises(settings.SettingsError, match="cannot be read: No such file"):
        keyring.Keyring(path, MODELS)
    path.write_bytes(b"\xff")
    with pytest.raises(settings.SettingsError, match="not TOML in UTF-8"):
        keyring.Keyring(path, MODELS)


# Change


async def test_a_key_that_is_added_is_let_in_and_one_that_is_struck_off_is_not(path: Path) -> None:
    held = ring(path, row())
    await held.refresh()
    write(path, row(OTHER, "team b"))
    with capture_logs() as logged:
        await held.refresh()
    assert held.find(OTHER).name == "team b"
    assert refusal_of(held, SECRET) is faults.BAD_KEY
    assert logged == [{"event": "keys_read", "keys": 1, "log_level": "info"}]


async def test_a_file_that_stays_as_it_is_stays_in_force(path: Path) -> None:
    held = ring(path, row())
    with capture_logs() as logged:
        for _ in range(9):
            await held.refresh()
    assert (len(held), logged) == (1, [])


async def test_a_broken_new_file_keeps_the_old_one_and_is_logged_once(path: Path) -> None:
    held = ring(path, row())
    with capture_logs() as logged:
        write(path, f"broken {SECRET}")
        await held.refresh()
        await held.refresh()
        write(path, None)
        await held.refresh()
        await held.refresh()
    assert held.find(SECRET).name == "team a"
    assert [event["event"] for event in logged] == ["keys_kept", "keys_kept"]
    assert SECRET not in str(logged)
    write(path, row(OTHER))
    await held.refresh()
    assert held.find(OTHER)


async def test_a_file_swapped_as_kubernetes_does_is_noticed(path: Path) -> None:
    """A mounted secret is a link to a link, which is swapped; size and time may well be the same."""
    first, second = path.with_name("first"), path.with_name("second")
    write(first, row())
    write(second, row(OTHER))
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(1, 1))
    os.symlink(first, path)
    held = keyring.Keyring(path, MODELS)
    os.symlink(second, swapped := path.with_name("swapped"))
    os.rename(swapped, path)
    await held.refresh()
    assert held.find(OTHER)


async def test_a_file_that_is_emptied_keeps_the_old_keys_for_three_looks(path: Path) -> None:
    """KEY-1: an editor truncates, then writes; a shell's `>` too."""
    held = ring(path, row())
    with capture_logs() as logged:
        write(path, "")
        for _ in range(3):
            await held.refresh()
            assert held.find(SECRET)
        for _ in range(9):
            await held.refresh()
            assert refusal_of(held, SECRET) is faults.BAD_KEY
    assert [(event["event"], event["keys"]) for event in logged] == [("keys_kept", 1), ("keys_read", 0)]
    write(path, row())
    await held.refresh()
    assert held.find(SECRET)


async def test_a_file_that_is_written_anew_is_never_taken_for_empty(path: Path) -> None:
    """However long each step takes: looks that see the same begin anew with each step."""
    held = ring(path, row())
    for text, looks in (("", 3), (row()[:30], 5), ("# keys", 3), ("", 3), (row(OTHER, "team b"), 1)):
        write(path, text)
        for _ in range(looks):
            await held.refresh()
            assert len(held) == 1
    assert held.find(OTHER)


async def test_a_file_written_in_place_whose_time_and_size_are_put_back_is_read(path: Path) -> None:
    """KEY-1: a key that was revoked by `cp -p` would go on."""
    held = ring(path, row())
    write_in_place(path, row(OTHER))
    await held.refresh()
    assert held.find(OTHER)
    assert refusal_of(held, SECRET) is faults.BAD_KEY


async def test_opened_keys_are_kept_fresh(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KEY-1: re-read while it serves."""
    monkeypatch.setattr(keyring, "LOOK_EVERY_S", 0.001)
    write(path, row())
    async with keyring.opened(path, MODELS) as held:
        assert held.find(SECRET)
        write(path, row() + row(OTHER, "team b"))
        async with asyncio.timeout(5):
            while len(held) < 2:  # noqa: ASYNC110 - nothing else tells that it was read
                await asyncio.sleep(0.002)
        assert held.find(OTHER)
    left = [task for task in asyncio.all_tasks() if not task.cancelling()]
    assert left == [asyncio.current_task()], "nobody looks any more"


# Limits of a day or a month


@pytest.mark.parametrize(
    ("limits", "of_period", "refused_for"),
    [
        (None, False, {}),
        ("rpm=1", False, {}),
        ("rpm=1 tpd=5", True, {"none": "of a day or a month, need one process or DASHSEEK_REDIS_URL"}),
        (
            "cost_day=5",
            True,
            {
                "none": "of a day or a month, need one process or DASHSEEK_REDIS_URL",
                "tokens": "of money, need a prices_file with [[callers]]",
            },
        ),
    ],
)
def test_a_key_may_have_those_limits_that_are_kept_here(
    path: Path, limits: str | None, of_period: bool, refused_for: dict[str, str]
) -> None:
    """KEY-1: of a day or a month only where all processes know of each other's calls, of money only with prices."""
    held = ring(path, row(), row(OTHER, "team b", f'limits = "{limits}"' if limits else ""))
    assert held.has_budgets is of_period
    told = {}
    for budgets in get_args(keyring.Budgeted):
        try:
            assert len(keyring.read(path, MODELS, budgets)) == 2
        except settings.SettingsError as error:
            told[budgets] = error.lines
    assert told == {kept: (f"keys_file ({path}): key.1.limits: {why}",) for kept, why in refused_for.items()}


# Making one


def test_an_entry_is_what_the_file_takes(path: Path) -> None:
    # A pair of halves of a character, as JSON may write one, is none to TOML.
    path.write_text(keyring.entry('team "ä" 🚀', SECRET) + "\n" + keyring.entry("b", OTHER))
    held = keyring.Keyring(path, MODELS)
    assert (held.find(SECRET).name, held.find(OTHER).name) == ('team "ä" 🚀', "b")


@pytest.mark.parametrize("kind", [keyring.KeyRow, keyring.File])
def test_what_does_not_fit_a_row_is_never_repeated_and_a_row_stays_as_it_was_read(kind: type[BaseModel]) -> None:
    """MET-4: whoever prints the error itself prints no key."""
    with pytest.raises(ValidationError) as refused:
        kind.model_validate({"key": SECRET, "name": SECRET * 9, "sha256": SECRET})
    assert SECRET not in str(refused.value)
    read = keyring.KeyRow(name="a", sha256=digest(SECRET)) if kind is keyring.KeyRow else keyring.File()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(read, next(iter(kind.model_fields)), "b")


@pytest.mark.parametrize("secret", ["", "two words", "ключ", "a\nb"])
def test_a_key_that_no_header_carries_makes_no_entry(secret: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        keyring.entry("a", secret)
