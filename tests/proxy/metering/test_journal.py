"""Claims about the journal: every admitted call has its two lines, and whoever cannot write them says so."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from structlog.testing import capture_logs

from config import settings, sources
from proxy.metering import append_file, journal, ledger
from translators import faults
from translators.dialogue import Usage

CANARY = "sk-canary-0123456789"


def opening(**said: Any) -> journal.Opening:
    facts: Any = {
        "at": journal.timestamp(1_795_375_439.123),
        "request_id": "5354a793-a130-4b36-b1dc-2610c5f49071",
        "model": "deepseek-v3",
        "upstream_model": "deepseek-chat",
        "key_id": "9f86d081884c",
        "key_name": None,
        "stream": True,
        "thinking": False,
    }
    return cast(journal.Opening, facts | said)


def closing(outcome: journal.Outcome = journal.Outcome.OK, **said: Any) -> journal.Closing:
    used = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    facts: Any = {
        "outcome": outcome.value,
        "status": 200,
        "code": None,
        "usage": used,
        "generated": used,
        "basis": "upstream_final",
        "calls": [],
        "drift_tokens": 0,
        "packets": 5,
        "bytes_out": 600,
        "attempts": [{"target": "http://a", "result": "200", "reused": False}],
        "t": {"upstream_sent": 1.0, "first_packet": 2.0, "last_packet": 3.0, "closed": 4.0},
    }
    return cast(journal.Closing, facts | said)


def closed(*args: Any, **told: Any) -> bytes:
    """The same as the journal takes it."""
    return journal.render(closing(*args, **told))


def throttled() -> journal.Closing:
    return closing(
        journal.Outcome.THROTTLED,
        status=429,
        code=faults.RATE_LIMITED.code,
        usage=journal.NOTHING,
        generated=journal.NOTHING,
        basis="none",
        drift_tokens=None,
        packets=0,
        attempts=[],
    )


def written_to(path: Path, policy: journal.Policy = "refuse") -> journal.Journal:
    return journal.Journal(append_file.LineFile(path, max_bytes=None, sync="never"), policy)


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


def test_a_call_leaves_one_open_and_one_close_line_with_the_same_facts(path: Path) -> None:
    """MET-1, MET-3."""
    book = written_to(path)
    entry = book.open(opening())
    (first,) = lines(path)
    entry.close(closed())
    entry.close(closed(journal.Outcome.INTERNAL_ERROR))
    _, last = lines(path)
    assert first == {"ev": "open", "call": first["call"], **opening()}
    assert last == {"ev": "close", "call": first["call"], **opening(), **closing()}
    assert (book.written, book.dropped) == (2, 0)


def test_every_line_begins_as_the_ledger_recognises_a_torn_one(path: Path) -> None:
    """MET-2."""
    book = written_to(path)
    book.open(opening(model=ledger.BEGINNING.decode())).close(closed())
    for line in path.read_bytes().splitlines():
        assert line.startswith(ledger.BEGINNING)
        assert line.rfind(ledger.BEGINNING) == 0


def test_calls_with_one_request_id_are_two_calls(path: Path) -> None:
    """HTTP-6: the id is the caller's to choose."""
    book = written_to(path)
    for _ in range(2):
        book.open(opening()).close(closed())
    assert len({line["call"] for line in lines(path)}) == 2
    assert ledger.read([path], rules=ledger.RULES).violations == []


def test_two_processes_name_no_call_alike(path: Path) -> None:
    for _ in range(2):
        written_to(path).open(opening())
    names = [line["call"] for line in lines(path)]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"[0-9a-f]{12}-1", name) for name in names)


def test_a_call_that_was_never_admitted_leaves_a_lone_close(path: Path) -> None:
    """Rows 39-43; I7."""
    written_to(path).turn_away(journal.render(opening()), journal.render(throttled()))
    (line,) = lines(path)
    assert (line["ev"], line["call"], line["outcome"], line["attempts"]) == ("close", None, "throttled", [])
    assert ledger.read([path], rules=ledger.RULES).violations == []


async def test_a_finally_that_is_being_cancelled_closes_all_the_same(path: Path) -> None:
    """MET-1: no cancellation can skip it."""
    book = written_to(path)
    begun = asyncio.Event()

    async def call() -> None:
        entry = book.open(opening())
        try:
            begun.set()
            await asyncio.sleep(60)
        finally:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            entry.close(closed(journal.Outcome.CLIENT_GONE_MID_STREAM, status=499))

    task = asyncio.create_task(call())
    await begun.wait()
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [line["ev"] for line in lines(path)] == ["open", "close"]


# When it cannot be written


def test_a_full_disk_refuses_calls_and_names_the_operator() -> None:
    """Row 67: policy refuse."""
    book = written_to(Path("/dev/full"))
    with capture_logs() as logged:
        for _ in range(3):
            with pytest.raises(faults.Refusal) as refused:
                book.open(opening())
    assert (refused.value.fault.status, refused.value.fault.code) == (503, "ModelUnavailable")
    assert refused.value.fault.blame == "operator"
    assert (book.written, book.dropped, book.writable()) == (0, 3, False)
    assert [event["event"] for event in logged] == ["journal_unwritable"]


def test_with_the_other_policy_calls_go_on_and_the_missing_lines_are_counted() -> None:
    """Row 67: policy continue, the exact number."""
    book = written_to(Path("/dev/full"), "continue")
    with capture_logs():
        book.open(opening()).close(closed())
        book.turn_away(journal.render(opening()), journal.render(throttled()))
    assert (book.written, book.dropped, book.writable()) == (0, 3, True)


def test_a_disk_with_room_again_is_noticed_and_logged(path: Path) -> None:
    home = path.parent / "home"
    book = written_to(home / path.name)
    with capture_logs() as logged:
        with pytest.raises(faults.Refusal):
            book.open(opening())
        home.mkdir()
        book.open(opening()).close(closed())
    assert [(event["event"], event.get("dropped")) for event in logged] == [
        ("journal_unwritable", None),
        ("journal_writable_again", 1),
    ]
    assert (book.written, book.dropped) == (2, 1)


def test_without_a_file_nothing_is_written_and_nothing_refused() -> None:
    book = journal.Journal(None, "refuse")
    book.open(opening()).close(closed())
    book.close()
    assert (book.written, book.dropped, book.writable()) == (0, 0, True)


# As an operator asks for it


async def test_opened_by_settings_it_writes_syncs_and_lets_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(journal, "SYNC_EVERY_S", 0.001)
    monkeypatch.setattr(os, "fdatasync", lambda _: loop.call_soon_threadsafe(forced.set))
    chosen = sources.load({"journal_file": str(path), "journal_max_bytes": "1"}, None, {})
    before = os.listdir("/proc/self/fd")
    async with journal.opened(chosen) as book:
        entry = book.open(opening())
        await asyncio.wait_for(forced.wait(), 5)
        # A disk that never answers keeps no process from ending.
        assert {thread.name for thread in threading.enumerate() if thread.daemon} >= {"journal", "seals"}
        entry.close(closed())
    assert [line["ev"] for line in lines(path)] == ["open", "close"]
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_a_file_that_was_rotated_away_is_sealed_in_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MET-6."""
    monkeypatch.setattr(journal, "SYNC_EVERY_S", 0.001)
    monkeypatch.setattr(append_file, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(append_file, "SETTLED_S", 0.0)
    chosen = sources.load({"journal_file": str(path), "journal_max_bytes": "1"}, None, {})
    with capture_logs() as logged:
        async with asyncio.timeout(20), journal.opened(chosen) as book:
            book.open(opening()).close(closed())
            while all(line["ev"] != "seal" for line in lines(path)):  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.002)
    first = path.with_name(f"{path.name}.1").read_bytes()
    (seal,) = (line for line in lines(path) if line["ev"] == "seal")
    assert (seal["opened"], seal["ended"], seal["bytes"]) == (1, 0, len(first))
    assert {(event["event"], event["sha256"]) for event in logged} == {("journal_sealed", seal["sha256"])}


async def test_a_disk_that_fails_to_sync_is_logged_and_serving_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(journal, "SYNC_EVERY_S", 0.001)
    monkeypatch.setattr(os, "fdatasync", broken)
    with capture_logs() as logged:
        async with journal.opened(sources.load({"journal_file": str(path)}, None, {})) as book:
            entry = book.open(opening())
            while not logged:  # noqa: ASYNC110 - nothing else tells that the line is there
                await asyncio.sleep(0.002)
            entry.close(closed())
    assert {event["event"] for event in logged} == {"journal_sync_failed"}
    assert len(lines(path)) == 2


async def test_a_disk_that_never_answers_does_not_keep_the_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MET-1: a bounded flush at shutdown; every line has been written by then."""
    answers = threading.Event()
    monkeypatch.setattr(journal, "LAST_SYNC_S", 0.1)
    monkeypatch.setattr(os, "fdatasync", lambda _: answers.wait(10))
    try:
        with capture_logs() as logged:
            async with asyncio.timeout(5), journal.opened(sources.load({"journal_file": str(path)}, None, {})) as book:
                book.open(opening()).close(closed())
        assert [event["event"] for event in logged] == ["journal_sync_failed"]
        assert len(lines(path)) == 2
    finally:
        answers.set()


async def test_none_is_asked_for_by_default() -> None:
    async with journal.opened(sources.load({}, None, {})) as book:
        book.open(opening()).close(closed())
        assert (book.written, book.writable()) == (0, True)


async def test_a_file_that_cannot_be_written_is_a_wrong_setting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPS-1: told at the start, with the setting's name."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(settings.SettingsError, match=r"^journal_file \(--journal-file\): cannot be written"):
        async with journal.opened(sources.load({"journal_file": str(path)}, None, {})):
            raise AssertionError


# Its words


def test_the_outcomes_are_those_of_the_specification() -> None:
    """MET-1."""
    spec = (
        "ok rejected throttled moderated_input moderated_output client_gone_before_first_packet "
        "client_gone_mid_stream client_stalled upstream_error upstream_cut shutdown_cut internal_error"
    )
    named = {outcome.value for outcome in journal.Outcome}
    assert {name for name in named if not name.startswith("timeout_")} == set(spec.split())
    assert named >= {f"timeout_{name}" for name in ("connect", "first_token", "idle", "total")}


def test_every_field_of_a_line_is_explained() -> None:
    for shape in (journal.Opening, journal.Closing, journal.Attempt):
        for name in shape.__annotations__:
            assert re.search(rf"^    {name}: ", shape.__doc__ or "", re.MULTILINE), name


@pytest.mark.parametrize(
    ("used", "hybrid", "said"),
    [
        (Usage(3, 4), True, {}),
        (Usage(3, 4, reasoning=0), True, {"output_tokens_details": {"reasoning_tokens": 0, "text_tokens": 4}}),
        (Usage(3, 4, reasoning=1), True, {"output_tokens_details": {"reasoning_tokens": 1, "text_tokens": 3}}),
        (Usage(3, 4, reasoning=1), False, {"output_tokens_details": {"reasoning_tokens": 1}}),
        (Usage(3, 4, cached=0), True, {"prompt_tokens_details": {"cached_tokens": 0}}),
        (Usage(3, 4, image=2), True, {"image_tokens": 2}),
    ],
)
def test_usage_says_what_is_known_and_no_more(used: Usage, hybrid: bool, said: dict[str, Any]) -> None:
    """MET-3: nothing stands for what is not known, 0 for what is known to be 0."""
    assert journal.usage(used, hybrid=hybrid) == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, **said}
    assert set(journal.NOTHING.values()) == {0}


def test_times_are_utc_to_the_millisecond() -> None:
    assert journal.timestamp(0.0014) == "1970-01-01T00:00:00.001Z"
    assert journal.timestamp(1_795_341_599.9996) == "2026-11-22T09:59:59.999Z"
