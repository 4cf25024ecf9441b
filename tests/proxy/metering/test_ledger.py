"""Claims about reading journals back: exact sums, every unknown call named, every planted violation found."""

from __future__ import annotations

import gzip
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.metering import journal, ledger

Json = dict[str, Any]


def used(given: int, generated: int, reasoning: int | None = None, cached: int | None = None) -> Json:
    shape: Json = {"input_tokens": given, "output_tokens": generated, "total_tokens": given + generated}
    if reasoning is not None:
        shape["output_tokens_details"] = {"reasoning_tokens": reasoning, "text_tokens": generated - reasoning}
    if cached is not None:
        shape["prompt_tokens_details"] = {"cached_tokens": cached}
    return shape


def opened(call: str, **said: Any) -> Json:
    facts = {
        "at": "2026-11-22T10:00:00.000Z",
        "request_id": f"id-{call}",
        "model": "deepseek-v3",
        "upstream_model": "deepseek-chat",
        "key_id": "9f86d081884c",
        "key_name": "team a",
        "stream": True,
        "thinking": False,
    }
    return {"ev": "open", "call": call, **facts, **said}


def closed(call: str, **said: Any) -> Json:
    facts = {
        "outcome": "ok",
        "status": 200,
        "code": None,
        "usage": used(3, 4),
        "generated": used(3, 4),
        "basis": "upstream_final",
        "drift_tokens": 0,
        "packets": 2,
        "bytes_out": 100,
        "attempts": [{"target": "http://a", "result": "200", "reused": False}],
        "t": {"upstream_sent": 1.0, "first_packet": 2.0, "last_packet": 3.0, "closed": 4.0},
    }
    return {**opened(call), "ev": "close", **facts, **said}


def line(record: object) -> bytes:
    return orjson.dumps(record) + b"\n"


def write(path: Path, *records: Json | bytes) -> Path:
    path.write_bytes(b"".join(record if isinstance(record, bytes) else line(record) for record in records))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


def check(*paths: Path) -> ledger.Ledger:
    return ledger.read(paths, rules=ledger.RULES)


def broken(path: Path, *records: Json | bytes) -> list[tuple[int, str]]:
    return [(violation.place.line, violation.rule) for violation in check(write(path, *records)).violations]


# Totals


def test_calls_are_summed_by_day_model_key_and_outcome(path: Path) -> None:
    """MET-6."""
    write(
        path,
        *(opened("1"), closed("1", usage=used(3, 4, 1, 2), generated=used(3, 4, 1, 2))),
        *(opened("2"), closed("2")),
        *(opened("3", key_name=None), closed("3", key_name=None)),
        *(opened("4", key_name=None, key_id=None), closed("4", key_name=None, key_id=None)),
        closed("5", outcome="client_gone_mid_stream", usage=used(3, 1), at="2026-11-23T00:00:00.000Z"),
    )
    group = ledger.Group("2026-11-22", "deepseek-v3", "team a", "ok")
    assert ledger.read([path]).totals == {
        group: ledger.Totals(2, 6, 8, 1, 2, 8),
        group._replace(key="9f86d081884c"): ledger.Totals(1, 3, 4, 0, 0, 4),
        group._replace(key="-"): ledger.Totals(1, 3, 4, 0, 0, 4),
        group._replace(day="2026-11-23", outcome="client_gone_mid_stream"): ledger.Totals(1, 3, 1, 0, 0, 4),
    }


def test_a_call_without_an_end_is_unknown_and_named(path: Path) -> None:
    """MET-2."""
    read = check(write(path, opened("1"), closed("1"), opened("2")))
    (unknown,) = read.unknown
    assert (str(unknown.place), unknown.opening["request_id"]) == (f"{path}:3", "id-2")
    assert read.totals[ledger.Group("2026-11-22", "deepseek-v3", "team a", "unknown")] == ledger.Totals(1)
    assert read.violations == []


def test_a_torn_last_line_is_recognised_and_not_believed(path: Path) -> None:
    """MET-2: at every byte."""
    whole = line(closed("1"))
    for end in range(1, len(whole)):
        read = check(write(path, opened("1"), whole[:end]))
        assert [str(place) for place in read.torn] == [f"{path}:2"]
        assert len(read.unknown) == 1
        assert read.violations == []


def test_a_line_written_onto_a_torn_one_is_found_all_the_same(path: Path) -> None:
    """Of two processes, one cannot know that the other's line was cut."""
    whole = line(closed("1"))
    for end in range(1, len(whole) - 1):
        read = check(write(path, opened("1"), opened("2"), whole[:end] + line(closed("2")), b"\n"))
        assert [str(place) for place in read.torn] == [f"{path}:3"]
        assert [unknown.opening["call"] for unknown in read.unknown] == ["1"]
        assert read.violations == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_rotated_files_are_one_journal_in_whatever_order_they_are_named(tmp_path: Path, suffix: str) -> None:
    """MET-6: a call may begin in one file and end in the next."""
    later = write(tmp_path / "usage.jsonl", closed("1", at="2026-11-22T10:00:00.000Z"))
    earlier = tmp_path / f"usage.jsonl.1{suffix}"
    first = line(opened("0", at="2026-11-22T09:00:00.000Z")) + line(closed("0")) + line(opened("1"))
    earlier.write_bytes(gzip.compress(first) if suffix else first)
    for paths in ([earlier, later], [later, earlier, later]):
        read = check(*paths)
        assert (read.violations, read.unknown) == ([], [])
        assert sum(totals.calls for totals in read.totals.values()) == 2


def test_an_archive_that_breaks_off_is_named_and_read_as_far_as_it_goes(tmp_path: Path) -> None:
    records = [record for number in range(2_000) for record in (opened(f"{number}"), closed(f"{number}"))]
    random.Random(1).shuffle(whole := [line(record | {"salt": random.random()}) for record in records])
    path = tmp_path / "usage.jsonl.1.gz"
    packed = gzip.compress(b"".join(whole))
    path.write_bytes(packed[: len(packed) // 2])
    rules = {violation.rule for violation in check(path).violations}
    assert "MET-2" in rules
    path.write_bytes(b"no archive")
    assert [violation.rule for violation in check(path).violations] == ["MET-2"]


def test_empty_and_blank_files_hold_nothing(path: Path) -> None:
    assert check(write(path, b"")) == ledger.Ledger()
    assert check(write(path, b"\n\n")) == ledger.Ledger()


def test_progress_ends_at_the_size_of_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "ADVANCE_EVERY", 2)
    write(path, *(opened(f"{number}") for number in range(5)))
    steps: list[int] = []
    ledger.read([path], advance=steps.append)
    assert len(steps) == 3
    assert sum(steps) == path.stat().st_size


# Rules: each planted violation, and its line


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("I2", {"usage": used(3, 4) | {"total_tokens": 8}, "outcome": "upstream_cut"}),
        ("I2", {"generated": used(3, 4) | {"total_tokens": 8}, "outcome": "upstream_cut"}),
        ("I2", {"usage": used(-3, 4), "outcome": "upstream_cut"}),
        ("I2", {"usage": used(3, 4, 5), "generated": used(3, 4, 5)}),
        ("I2", {"usage": used(3, 4, None, 5), "generated": used(3, 4, None, 5)}),
        ("I3", {"generated": used(3, 3), "basis": "counted", "outcome": "client_gone_mid_stream"}),
        ("I4", {"usage": used(3, 3)}),
        ("I4", {"usage": used(3, 0), "generated": used(3, 0), "basis": "none"}),
        ("I5", {"basis": "none", "outcome": "upstream_cut"}),
        ("I7", {"attempts": [], "outcome": "throttled"}),
        ("MET-1", {"outcome": "fine"}),
        ("MET-3", {"packets": 0, "outcome": "upstream_error"}),
        ("MET-3", {"usage": None}),
        ("MET-3", {"generated": {}}),
        ("MET-3", {"model": []}),
    ],
)
def test_verify_finds_a_broken_rule_in_its_line(path: Path, rule: str, said: Json) -> None:
    """MET-6; reliability.md 5."""
    assert broken(path, opened("0"), closed("0"), opened("1"), closed("1", **said)) == [(4, rule)]


@pytest.mark.parametrize(
    ("rule", "records", "at"),
    [
        ("I1", [opened("1"), closed("1"), closed("1")], 3),
        ("I1", [closed("1")], 1),
        ("I1", [opened("1"), opened("1"), closed("1")], 2),
        ("I1", [opened("1"), closed("1"), closed("1"), closed("1")], 4),
        ("MET-2", [b"hello\n"], 1),
        ("MET-2", [b"\0\0\0\0\n"], 1),
        ("MET-3", [opened("1") | {"ev": "opne"}], 1),
        ("MET-3", [{"ev": "open", "call": "1"}], 1),
        ("MET-2", [b"[1,2]\n"], 1),
        ("MET-3", [b'[{"a":1}\n'.replace(b"[", b"")], 1),
        ("MET-2", [b"garbage" + line(opened("1")), closed("1")], 1),
        ("MET-3", [b'{"ev":"open","call":{}}\n'], 1),
    ],
)
def test_verify_finds_lines_that_do_not_go_together(
    path: Path, rule: str, records: list[Json | bytes], at: int
) -> None:
    """I1, I8: one open, one close."""
    assert broken(path, *records) == [(at, rule)]


@pytest.mark.parametrize(
    "said",
    [
        {"basis": "counted"},
        {"basis": "upstream_last"},
        {"usage": used(3, 0), "generated": used(3, 0)},
        {"usage": used(3, 2), "outcome": "client_gone_mid_stream"},
        {"usage": used(3, 5), "outcome": "client_gone_mid_stream"},
        {"usage": journal.NOTHING, "packets": 0, "outcome": "client_gone_before_first_packet"},
        {"usage": journal.NOTHING, "generated": journal.NOTHING, "packets": 0, "basis": "none", "outcome": "rejected"},
        {"usage": journal.NOTHING, "packets": 0, "outcome": "moderated_output"},
    ],
)
def test_what_may_happen_is_no_violation(path: Path, said: Json) -> None:
    """I3…I5: upstream's own figure may correct downward, an explicit zero stays zero."""
    assert broken(path, opened("1"), closed("1", **said)) == []


def test_a_call_turned_away_needs_no_opening(path: Path) -> None:
    """I7."""
    nothing = {"usage": journal.NOTHING, "generated": journal.NOTHING, "packets": 0, "attempts": [], "basis": "none"}
    refused = closed("1", outcome="throttled", **nothing) | {"call": None}
    assert broken(path, refused, refused) == []
    assert broken(path, refused | {"attempts": [{"target": "http://a"}]}) == [(1, "I7")]


# Histories: what a journal writes of any calls with any faults, the ledger adds up to the token

FAULTS: tuple[Callable[[Json], Json], ...] = (
    lambda record: record | {"outcome": "ok"},
    lambda record: record | {"outcome": "upstream_cut", "usage": journal.NOTHING, "packets": 0},
    lambda record: record | {"outcome": "client_gone_mid_stream", "basis": "upstream_last", "usage": used(2, 1)},
    lambda record: (
        record
        | {"outcome": "rejected", "attempts": [], "basis": "none", "packets": 0}
        | dict.fromkeys(("usage", "generated"), journal.NOTHING)
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(2, 999), st.integers(1, 999), st.sampled_from(FAULTS), st.booleans())),
    cuts=st.lists(st.integers(0, 10**6), max_size=2),
    data=st.data(),
)
def test_any_history_adds_up_and_what_was_cut_off_is_unknown(
    calls: list[tuple[int, int, Callable[[Json], Json], bool]],
    cuts: list[int],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """MET-1, MET-2, MET-6: over interleavings, crashes, and a file that is rotated anywhere."""
    whole = [
        (f"{number}", fault(closed(f"{number}", usage=used(a, b), generated=used(a, b))), ends)
        for number, (a, b, fault, ends) in enumerate(calls)
    ]
    todo = [[opened(call), *([record] if ends else [])] for call, record, ends in whole]
    lines: list[bytes] = []
    while any(todo):
        lines.append(line(data.draw(st.sampled_from([steps for steps in todo if steps])).pop(0)))
    home = tmp_path_factory.mktemp("history")
    edges = [0, *sorted(cut % (len(lines) + 1) for cut in cuts), len(lines)]
    paths = [
        write(home / f"usage.jsonl.{number}", *lines[begin:end])
        for number, (begin, end) in enumerate(itertools.pairwise(edges))
    ]
    read = check(*data.draw(st.permutations(paths)))
    ended = [record for _, record, ends in whole if ends]
    assert read.violations == []
    assert {unknown.opening["call"] for unknown in read.unknown} == {call for call, _, ends in whole if not ends}
    for name, figure in (("input", "input_tokens"), ("output", "output_tokens")):
        sums = sum(getattr(totals, name) for totals in read.totals.values())
        assert sums == sum(record["usage"][figure] for record in ended)
    assert sum(totals.generated for totals in read.totals.values()) == sum(
        record["generated"]["output_tokens"] for record in ended
    )
    assert sum(totals.calls for totals in read.totals.values()) == len(calls)
