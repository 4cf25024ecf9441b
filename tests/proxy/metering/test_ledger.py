"""Claims about reading journals back: exact sums, every unknown call named, every planted violation found."""

from __future__ import annotations

import gzip
import itertools
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.metering import journal, journal_files, ledger, periods
from proxy.metering.totals import Group, Totals
from tests.proxy.metering.records import Json, closed, line, opened, upstream_call, used, write

# A call over a limit: it was never admitted, and has no name.
REFUSED = closed(None, outcome="throttled", attempts=[], basis="none", packets=0) | dict.fromkeys(
    ("usage", "generated"), journal.NOTHING
)


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
    group = Group("2026-11-22", "deepseek-v3", "team a", "ok", "http://a", "deepseek-chat", "upstream_final")
    assert ledger.read([path]).totals == {
        group: Totals(2, 6, 2, 8, 1, 6, 2, 8, 1, 2),
        group._replace(key="9f86d081884c"): Totals(1, 3, 0, 4, 0, 3, 0, 4, 0, 1),
        group._replace(key="-"): Totals(1, 3, 0, 4, 0, 3, 0, 4, 0, 1),
        group._replace(period="2026-11-23", outcome="client_gone_mid_stream"): Totals(1, 3, 0, 1, 0, 3, 0, 4, 0, 1),
    }


def test_a_call_without_an_end_is_unknown_and_named(path: Path) -> None:
    """MET-2."""
    read = check(write(path, opened("1"), closed("1"), opened("2")))
    (unknown,) = read.unknown
    assert (str(unknown.place), unknown.opening["request_id"]) == (f"{path}:3", "id-2")
    group = Group("2026-11-22", "deepseek-v3", "team a", "unknown", upstream_model="deepseek-chat", basis="unknown")
    assert read.totals[group] == Totals(1)
    assert read.violations == []


def test_a_torn_last_line_is_recognised_and_not_believed(path: Path) -> None:
    """MET-2: at every byte."""
    whole = line(closed("1"))
    for end in range(1, len(whole)):
        read = check(write(path, opened("1"), whole[:end]))
        assert [str(place) for place in read.torn] == [f"{path}:2"]
        assert len(read.unknown) == 1
        assert read.violations == []


@pytest.mark.parametrize("end", [b"\r\n", b" \n", b"\t\r\n", b"\n\r\n", b"\n \n"])
def test_blanks_behind_a_record_are_none_of_it(path: Path, end: bytes) -> None:
    records = [opened("1"), closed("1"), opened("2")]
    whole = check(write(path, *records))
    read = check(write(path, *(line(record)[:-1] + end for record in records)))
    assert (read.totals, read.violations, read.torn, len(read.unknown)) == (whole.totals, [], [], 1)


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


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("end", [b"", b"\n", line(closed("1"))])
def test_of_a_line_that_never_ends_a_beginning_is_kept(tmp_path: Path, suffix: str, end: bytes) -> None:
    """MET-2: a file of something else, or of zeros after a crash, takes no more memory or time than one of lines."""
    path = tmp_path / f"usage.jsonl{suffix}"
    # As the second line and as the first, which is read before all others.
    for before in (line(opened("1")), b""):
        content = before + b"\0" * (journal_files.LINE_BYTES * 24) + end
        path.write_bytes(gzip.compress(content) if suffix else content)
        del content
        tracemalloc.start()
        read = check(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        for found in (read, ledger.read([path])):
            assert [(str(violation.place), violation.rule) for violation in found.violations] == [
                (f"{path}:{2 if before else 1}", "MET-2")
            ]
            assert len(found.unknown) == bool(before)
        assert peak < journal_files.LINE_BYTES * 12


@pytest.mark.parametrize("parses", [False, True])
def test_lines_behind_one_that_is_too_long_are_read_and_numbered(
    path: Path, monkeypatch: pytest.MonkeyPatch, parses: bool
) -> None:
    monkeypatch.setattr(journal_files, "BUFFER_BYTES", 4_000)
    monkeypatch.setattr(journal_files, "LINE_BYTES", 9_000)
    write(
        path,
        opened("1"),
        b"x" * 99_999 + b"\n",
        closed("1"),
        b'{"ev":"open' + b"y" * 99_999 + b"\n",
        b"x\n",
        closed("2"),
    )
    read = ledger.read([path], rules=ledger.RULES) if parses else ledger.read([path])
    assert [str(violation.place) for violation in read.violations] == [f"{path}:2", f"{path}:5"]
    assert [str(place) for place in read.torn] == [f"{path}:4"]
    assert (read.unknown, read.begun_elsewhere) == ([], 1)


def test_of_what_breaks_a_rule_in_each_line_the_first_are_named_and_all_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "NAMED", 3)
    read = check(write(path, *[b"x\n"] * 5, *[b'{"ev"\n'] * 4, *[b'{"ev":"open"}\n'] * 2))
    assert [violation.place.line for violation in read.violations] == [1, 2, 3]
    assert [place.line for place in read.torn] == [6, 7, 8]
    assert (read.violations.total, read.torn.total) == (7, 4)


def test_why_a_line_is_no_record_is_said_in_words(path: Path) -> None:
    """No name of Python's, and no more of the line than a reader can take in."""
    ended = closed("1")
    records = [
        {**ended, "ev": "opne"},
        {name: value for name, value in ended.items() if name != "usage"},
        {**ended, "usage": 3},
        {**ended, "usage": used(-1, 4)},
        {**ended, "at": "x" * 999},
    ]
    assert [violation.text for violation in check(write(path, *records)).violations] == [
        "not a record: ev is none of open, close and seal",
        "not a record: usage is missing",
        "not a record: a member is of another type",
        "not a record: a figure is negative, or no whole number",
        f"not a record: Invalid isoformat string: '{'x' * 16}+00:00'",
    ]


def test_empty_and_blank_files_hold_nothing(path: Path) -> None:
    assert check(write(path, b"")) == ledger.Ledger()
    assert check(write(path, b"\n\n")) == ledger.Ledger()


def test_progress_ends_at_the_size_of_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_files, "BUFFER_BYTES", 700)
    write(path, *(opened(f"{number}") for number in range(5 * ledger.TOGETHER)))
    steps: list[int] = []
    ledger.read([path], advance=steps.append)
    assert len(steps) > 1
    assert sum(steps) == path.stat().st_size


# What lies twice on the disk, and what was cut


def test_a_file_and_its_copy_are_counted_once_and_the_copy_is_named(tmp_path: Path) -> None:
    """MET-1, MET-6: what a copy, `gzip -k`, a link, or copytruncate that could not truncate leaves."""
    original = write(tmp_path / "usage.jsonl", opened("a-1"), closed("a-1"), REFUSED)
    once = check(original).totals
    packed = tmp_path / "usage.jsonl.1.gz"
    packed.write_bytes(gzip.compress(original.read_bytes()))
    (tmp_path / "copy").write_bytes(original.read_bytes())
    (tmp_path / "hard").hardlink_to(original)
    (tmp_path / "soft").symlink_to(original)
    (tmp_path / "older").write_bytes(line(opened("a-1")))
    for name in ("usage.jsonl.1.gz", "copy", "hard", "soft", "older"):
        for paths in ([original, tmp_path / name], [tmp_path / name, original]):
            read = check(*paths)
            assert (read.totals, read.violations) == (once, [])
            assert len(read.copies) == 1
    assert len(check(*tmp_path.iterdir()).copies) == 5


def test_lines_that_are_there_twice_are_counted_once_and_are_one_fault(tmp_path: Path) -> None:
    """MET-1: also in files that are no copies of each other."""
    calls = [[opened(f"a-{number:x}"), closed(f"a-{number:x}")] for number in range(5_000)]
    records = list(itertools.chain.from_iterable(calls))
    first = write(tmp_path / "first", *records[:6_000])
    second = write(tmp_path / "second", closed("b-1"), *records[4_000:])
    read = check(first, second)
    assert sum(totals.calls for totals in read.totals.values()) == 5_001
    (violation,) = read.violations
    assert str(violation).startswith(f"{second}:2: I1: 2000 lines to 2001 ")


def test_a_rotated_file_by_itself_is_true_where_only_its_borders_cut_calls(path: Path) -> None:
    """MET-6: yesterday's file, checked every day."""
    read = check(write(path, closed("1"), opened("2"), closed("2"), opened("3")))
    assert read.violations == []
    assert read.begun_elsewhere == 1
    assert [unknown.opening["call"] for unknown in read.unknown] == ["3"]
    assert sum(totals.calls for totals in read.totals.values()) == 3


@pytest.mark.parametrize("figure", [None, "9", -1, 1.5, True, [], {}])
@pytest.mark.parametrize("column", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("usage", ["usage", "generated"])
def test_a_malformed_record_adds_nothing(path: Path, usage: str, column: str, figure: object) -> None:
    """MET-6: and leaves its call without an end."""
    wrong = closed("1", **{usage: used(30_903, 12) | {column: figure}})
    read = ledger.read([write(path, opened("1"), wrong)])
    assert [violation.rule for violation in read.violations] == ["MET-3"]
    assert list(read.totals.values()) == [Totals(1)]
    assert len(read.unknown) == 1


@pytest.mark.parametrize("name", ["model", "key_name", "outcome", "upstream_model", "basis", "api"])
def test_a_name_that_is_no_text_adds_nothing(path: Path, name: str) -> None:
    """MET-6: whatever the other names are."""
    read = ledger.read([write(path, opened("1"), closed("1", **{name: 5}))])
    assert [violation.rule for violation in read.violations] == ["MET-3"]
    assert list(read.totals.values()) == [Totals(1)]


@pytest.mark.parametrize(
    "calls",
    [None, {}, [None], [{}], [upstream_call(-1, 2)], [upstream_call(1, 2.0)], [upstream_call(3, 4, basis="guess")]],
)
def test_malformed_upstream_calls_add_nothing(path: Path, calls: object) -> None:
    """MET-3."""
    read = ledger.read([write(path, closed("1", calls=calls))])
    assert [violation.rule for violation in read.violations] == ["MET-3"] * (calls != {})
    assert len(read.totals) == (calls == {})


def test_upstream_calls_are_counted_where_a_line_names_them_and_else_are_one(path: Path) -> None:
    """MET-3: journals of before and after it."""
    write(
        path,
        closed("1", calls=[upstream_call(3, None), upstream_call(0, 4, cached=None)]),
        closed("2"),
        closed("3", basis="none", usage=used(0, 0), generated=used(0, 0), outcome="rejected"),
    )
    (totals,) = [totals for group, totals in ledger.read([path]).totals.items() if group.outcome == "ok"]
    assert totals.upstream_calls == 3


def test_calls_whose_name_is_no_running_number_are_told_apart_all_the_same(path: Path) -> None:
    names = ["1", "a-1", "a-01", "a-0001", "a-1001", "b-1", "a-x", "-1", "", "a-1-1"]
    records = [record for name in names for record in (opened(name), closed(name))]
    read = check(write(path, *records))
    assert (read.violations, read.unknown, read.begun_elsewhere) == ([], [], 0)
    assert sum(totals.calls for totals in read.totals.values()) == len(names)
    assert len(check(write(path, *records, *records[1::2])).violations) == 1


# Rules: each planted violation, and its line


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("I2", {"usage": used(3, 4) | {"total_tokens": 8}, "outcome": "upstream_cut"}),
        ("I2", {"generated": used(3, 4) | {"total_tokens": 8}, "outcome": "upstream_cut"}),
        ("I2", {"usage": used(3, 4, 5), "generated": used(3, 4, 5)}),
        ("I2", {"usage": used(3, 4, None, 5), "generated": used(3, 4, None, 5)}),
        ("I4", {"usage": used(3, 3)}),
        ("I4", {"usage": used(3, 0), "generated": used(3, 0), "basis": "none"}),
        ("I5", {"basis": "none", "outcome": "upstream_cut"}),
        ("I7", {"attempts": [], "outcome": "throttled"}),
        ("MET-1", {"outcome": "fine"}),
        ("MET-3", {"packets": 0, "outcome": "upstream_error"}),
        ("MET-3", {"usage": None}),
        ("MET-3", {"generated": {}}),
        ("MET-3", {"model": []}),
        ("MET-3", {"calls": [upstream_call(3, 3)]}),
        ("MET-3", {"calls": [upstream_call(3, 4, basis="counted")]}),
        ("I4", {"calls": [upstream_call(1, 2), upstream_call(1, 2)], "generated": used(2, 4)}),
    ],
)
def test_verify_finds_a_broken_rule_in_its_line(path: Path, rule: str, said: Json) -> None:
    """MET-6; SOURCES#usage-record."""
    assert broken(path, opened("0"), closed("0"), opened("1"), closed("1", **said)) == [(4, rule)]


@pytest.mark.parametrize("figures", [used(-3, 4), used(3, -4)], ids=["input", "output"])
@pytest.mark.parametrize("side", ["usage", "generated"])
def test_tokens_are_never_fewer_than_none(path: Path, side: str, figures: Json) -> None:
    said = {"usage": used(3, 4), "generated": used(3, 4), side: figures, "outcome": "upstream_cut"}
    (violation,) = check(write(path, opened("1"), closed("1", **said))).violations
    assert violation.rule == "MET-3"


@pytest.mark.parametrize(
    ("rule", "records", "at"),
    [
        ("I1", [opened("1"), closed("1"), closed("1")], 3),
        ("I1", [closed("1"), closed("1")], 2),
        ("I1", [opened("1"), opened("1"), closed("1")], 2),
        ("I1", [opened("1"), closed("1"), closed("1"), closed("1")], 3),
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


@pytest.mark.parametrize("rules", [(), ledger.RULES])
@pytest.mark.parametrize(("at", "zone"), [("0001-01-01", "-05:00"), ("9999-12-31", "+08:00")])
def test_a_moment_that_lies_in_no_calendar_of_a_zone_is_named(
    path: Path, rules: tuple[ledger.Rule, ...], at: str, zone: str
) -> None:
    span = periods.Span(periods.zone_of(zone))
    moment = f"{at}T{'00' if at < '1' else '23'}:30:00.000Z"
    read = ledger.read([write(path, opened("1"), closed("1") | {"at": moment})], rules=rules, span=span)
    assert [(violation.place.line, violation.rule) for violation in read.violations] == [(2, "MET-3")]
    assert [unknown.opening["call"] for unknown in read.unknown] == ["1"]


@pytest.mark.parametrize(
    "said",
    [
        {"basis": "counted"},
        {"basis": "upstream_last"},
        {"usage": used(3, 0), "generated": used(3, 0)},
        {"usage": used(3, 2), "outcome": "client_gone_mid_stream"},
        {"usage": used(3, 5), "outcome": "client_gone_mid_stream"},
        {"usage": used(3, 5), "outcome": "client_gone_mid_stream", "basis": "counted"},
        {"calls": [upstream_call(3, 4)]},
        {"calls": [upstream_call(3, 4), upstream_call(3, 2)], "generated": used(6, 6)},
        {"usage": journal.NOTHING, "packets": 0, "outcome": "client_gone_before_first_packet"},
        {"usage": journal.NOTHING, "generated": journal.NOTHING, "packets": 0, "basis": "none", "outcome": "rejected"},
        {"usage": journal.NOTHING, "packets": 0, "outcome": "moderated_output"},
    ],
)
def test_what_may_happen_is_no_violation(path: Path, said: Json) -> None:
    """I4, I5: upstream's figure and the last packet may correct downward, an explicit zero stays zero (USE-2)."""
    assert broken(path, opened("1"), closed("1", **said)) == []


def test_a_call_turned_away_needs_no_opening(path: Path) -> None:
    """I7."""
    assert broken(path, REFUSED, REFUSED) == []
    assert broken(path, REFUSED | {"attempts": [{"target": "http://a"}]}) == [(1, "I7")]


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


@settings(max_examples=60)
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
    for name, usage, figure in (
        ("input", "usage", "input_tokens"),
        ("output", "usage", "output_tokens"),
        ("generated_input", "generated", "input_tokens"),
        ("generated_output", "generated", "output_tokens"),
    ):
        sums = sum(getattr(totals, name) for totals in read.totals.values())
        assert sums == sum(record[usage][figure] for record in ended)
    assert sum(totals.calls for totals in read.totals.values()) == len(calls)
