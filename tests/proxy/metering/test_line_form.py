"""Claims about lines known by their form: a journal's own are known, and nothing that is none passes for one."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.metering import journal_files, ledger
from proxy.metering.append_file import LineFile
from proxy.metering.journal import NOTHING, Journal, render
from proxy.metering.ledger import Ledger
from proxy.metering.line_form import LINE, Columns, is_other, numbers, summed, upstream_calls
from proxy.metering.periods import Span
from tests.proxy.metering.records import Json, closed, named, opened, upstream_call, used, written

WHOLE = 0x1000
END: Json = {"calls": [upstream_call(3, 4)]}


def begin(number: int, **said: Any) -> bytes:
    return written(opened(named(WHOLE + number), **said))


def end(number: int, **said: Any) -> bytes:
    return written(closed(named(WHOLE + number), **{**END, **said}))


def known(line: bytes) -> bool:
    """Whether it is a line of the form, and one line."""
    (groups,) = LINE.findall(line)
    return not is_other(groups)


# One try where there are pools.
POOLED: Json = {
    "target": "http://a",
    "result": "200",
    "reused": True,
    "pool": "p",
    "used": {"prompt": 5, "cached": None, "completion": 4, "reasoning": None},
}


def test_what_a_journal_writes_is_known(tmp_path: Path) -> None:
    """MET-3: the order of members is that of the journal's own code."""
    path = tmp_path / "usage.jsonl"
    journal = Journal(LineFile(path, max_bytes=None, sync="never"), "refuse")
    facts = closed("1", **END)
    of_opening = {name: facts[name] for name in opened(None) if name not in {"ev", "call"}}
    of_closing = {name: said for name, said in facts.items() if name not in opened(None)}
    of_closing = {
        "outcome": "",
        "status": 0,
        "code": None,
        "usage": 0,
        "generated": 0,
        "basis": "",
        "calls": [],
    } | of_closing
    for _ in range(300):
        journal.open(of_opening).close(render(of_closing))  # type: ignore[arg-type]
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 600
    assert all(map(known, lines))


@pytest.mark.parametrize(
    ("said", "is_known"),
    [
        ({}, True),
        ({"usage": used(5, 4, 3, 2), "generated": used(9, 8, 7, 6)}, True),
        ({"usage": NOTHING, "generated": NOTHING, "calls": [], "attempts": [], "basis": "none"}, True),
        ({"key_name": None, "code": "Throttling", "outcome": "throttled"}, True),
        ({"calls": [upstream_call(None, 4, cached=None, end=None)]}, True),
        ({"calls": [upstream_call(3, 4), upstream_call(3, 4)]}, False),
        ({"attempts": [{"target": "http://a", "result": "cut", "reused": True}] * 2}, False),
        ({"attempts": [{"target": "http://[::1]:80", "result": "200", "reused": True, "pool": "a"}]}, True),
        ({"attempts": [POOLED]}, True),
        ({"attempts": [{**POOLED, "used": None}]}, True),
        ({"attempts": [POOLED, POOLED]}, False),
        ({"attempts": [{**POOLED, "used": {"prompt": "}"}}]}, False),
        ({"key_name": 'of {one} "team"'}, True),
        ({"upstream_model": "of" * 60, "key_name": 'of {one} "team"'}, False),
        ({"usage": used(-1, 4)}, False),
        ({"usage": used(3, 10**15)}, False),
        ({"request_id": 'a"b'}, False),
        ({"calls": [upstream_call(3, 4, basis="", end="")]}, True),
        (dict.fromkeys(("request_id", "api", "model", "upstream_model", "key_id", "key_name", "code"), ""), True),
        ({"t": dict.fromkeys(("upstream_sent", "first_packet", "last_packet", "closed"), 0)}, True),
    ],
)
def test_what_is_no_ordinary_call_is_parsed(said: Json, is_known: bool) -> None:
    assert known(end(1, **said)) is is_known


# What a line may say of figures: input, output, reasoning with or without the rest, cached, image.
SHAPES: list[Json] = [
    {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14, **details, **prompt, **image}
    for details in (
        {},
        {"output_tokens_details": {"reasoning_tokens": 7}},
        {"output_tokens_details": {"reasoning_tokens": 7, "text_tokens": 2}},
    )
    for prompt in ({}, {"prompt_tokens_details": {"cached_tokens": 3}})
    for image in ({}, {"image_tokens": 1})
]


def put_aside(usage: Json) -> bytes:
    """Its figures, as a line is known to say them."""
    columns = Columns(*zip(*LINE.findall(end(1, usage=usage)), strict=True))
    assert columns.made != (b"",)
    return columns.figures[0]


@given(st.lists(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4), max_size=50))
def test_figures_of_any_shape_are_summed_together(said: list[list[Json]]) -> None:
    """Of each column by itself, however many there are: no two of them have the same figures."""
    columns, expected = [], []
    for input_tokens, column in enumerate(said, 100):
        cached = [usage.get("prompt_tokens_details", {"cached_tokens": 0})["cached_tokens"] for usage in column]
        reasoning = [
            usage.get("output_tokens_details", {"reasoning_tokens": 0})["reasoning_tokens"] for usage in column
        ]
        columns.append([put_aside({**usage, "input_tokens": input_tokens}) for usage in column])
        expected.append((input_tokens * len(column), sum(cached), 9 * len(column), sum(reasoning)))
    assert summed(columns) == expected


def test_what_is_generated_is_put_aside_where_it_is_not_what_was_used() -> None:
    columns = Columns(*zip(*LINE.findall(end(1) + end(2, generated=used(9, 8, 7, 6))), strict=True))
    assert columns.made[0] == b""
    assert summed([columns.made[1:]]) == [(9, 6, 8, 7)]


def test_a_line_without_an_upstream_call_is_told_by_its_pieces() -> None:
    for said, calls in ((END, 1), ({"calls": []}, 0)):
        columns = Columns(*zip(*LINE.findall(end(1, **said)), strict=True))
        assert upstream_calls((columns.said[0], columns.basis[0], columns.tries[0])) == calls


def test_a_column_of_figures_is_read_as_json_says_it() -> None:
    assert numbers([b"3", b"null", b"-4"]) == [3, None, -4]
    assert numbers([]) == []
    for read in (numbers, lambda said: summed([[b'%b,"output_tokens":0,"total_tokens":0}' % said[0]]])):
        with pytest.raises(ValueError, match="leading zero"):
            read([b"07"])


@pytest.mark.parametrize("altered", [b'"drift_tokens":0', b'"input_tokens":3', b'"cached_tokens":6'])
@pytest.mark.parametrize("span", [Span(), Span(until="2026-11-22T10:00:00.000Z")])
def test_a_figure_that_is_none_is_found_when_all_are_added_up(altered: bytes, span: Span, tmp_path: Path) -> None:
    """MET-2, MET-3: it looks like one, is not counted, and its line is named; others are counted."""
    lines = [begin(1), end(1, usage=used(3, 4, 1, 6), generated=used(3, 4, 1, 6)), begin(2), end(2)]
    number = altered.rpartition(b":")[2]
    lines[1] = lines[1].replace(altered, altered.removesuffix(number) + b"0" + number)
    (path := tmp_path / "usage.jsonl").write_bytes(b"".join(lines))
    behind: list[int] = []
    read = ledger.read([path], span=span, advance=behind.append)
    assert read == known_and_parsed([path], span, 1 << 16)[1]
    assert [violation.place.line for violation in read.violations] + [place.line for place in read.torn] == [2]
    assert sum(behind) == path.stat().st_size


def test_a_line_onto_which_another_one_was_written_is_never_known() -> None:
    """Two processes share a file, and one cannot know that the other's line was cut: at every byte, for every kind."""
    for torn in (
        begin(1),
        end(1),
        end(1, usage=used(9, 8, 7, 6), generated=used(9, 8, 7, 7)),
        end(1, attempts=[POOLED]),
    ):
        for whole in (begin(2), end(2), end(2, usage=used(5, 4, 3, 2)), end(2, calls=[], attempts=[], basis="none")):
            for cut in range(1, len(torn) - 1):
                lines = [groups for groups in LINE.findall(torn[:cut] + whole) if not is_other(groups)]
                columns = Columns(*zip(*lines, strict=True)) if lines else Columns(*[()] * len(Columns._fields))
                # What stands in the pieces of a line that was never parsed is not believed.
                assert not any(columns.begun)
                pieces = map(b"".join, zip(columns.said, columns.basis, columns.tries, strict=True))
                assert all(b'"ev"' in piece for piece in pieces if piece), (torn, cut)


@pytest.mark.parametrize("at", ["x" * 24, "2026-13-01T00:00:00.000Z", "2026-11-22T10:0\u00e9:00.00Z"])
def test_a_moment_that_is_none_is_a_line_that_cannot_be_read(tmp_path: Path, at: str) -> None:
    """MET-3: of any number of bytes, and the lines around it are counted."""
    (path := tmp_path / "usage.jsonl").write_bytes(
        begin(1) + begin(2, at=at) + end(1) + end(2, at=at) + begin(3) + end(3)
    )
    read = ledger.read([path])
    assert [violation.rule for violation in read.violations] == ["MET-3", "MET-3"]
    assert sum(totals.calls for totals in read.totals.values()) == 2


def known_and_parsed(paths: list[Path], span: Span, block_bytes: int) -> tuple[Ledger, Ledger]:
    """The same files, known by their form in blocks of that size, and all parsed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_files, "BUFFER_BYTES", block_bytes)
        return ledger.read(paths, span=span), ledger.read(paths, span=span, each=lambda *_: None)


PROCESSES = ["0ba9543b5961", "0ba9543b5962", "f00000000000"]


def of_call(draw: random.Random, call: str) -> list[bytes]:
    """Both lines of a call, or one of them, or all of them twice."""
    said: Json = {
        "at": f"2026-11-{draw.choice([1, 1, 1, draw.randrange(1, 29)]):02}T10:{draw.randrange(3):02}:00.000Z",
        "model": draw.choice(["a", "b"]),
        "key_name": draw.choice(["team a", "team a", "team {b}", None]),
    }
    amounts = used(draw.randrange(99), draw.randrange(50, 99), *draw.choice([(), (3,), (3, 2)]))
    single: Json = {"target": "http://a", "result": "200", "reused": False}
    ending: Json = {
        "drift_tokens": draw.choice([0, 0, -3, 12, None, "x", 1.5]),
        "usage": amounts,
        "generated": draw.choice([amounts, amounts, used(100, 100, 5, 5)]),
        "attempts": draw.choice([[single], [single], [POOLED], [POOLED] * 2]),
        "calls": draw.choice([[], [upstream_call(3, 4)], [upstream_call(3, 4)], [upstream_call(3, 4)] * 2]),
    }
    opening, ended = written(opened(call, **said)), written(closed(call, **said, **ending))
    both = [opening, ended]
    return draw.choice([both, both, both, both, both, both, [opening], [ended], both * 2])


def journal_of(draw: random.Random) -> list[bytes]:
    """Lines of several processes, whose calls end in any order: as written, with gaps, or in no order at all."""
    lines: list[tuple[float, bytes]] = []
    for process in PROCESSES[: draw.randrange(1, 4)]:
        first, last_ms = draw.choice([1, WHOLE - 9, WHOLE * 3]), draw.choice([2, 20, 400])
        for number in range(first, first + draw.randrange(1, 60)):
            if draw.random() < 0.97:
                begun = number - first + draw.random()
                both = of_call(draw, f"{process}-{number:x}")
                lines += [(begun + place * draw.randrange(1, last_ms), line) for place, line in enumerate(both)]
    turned_away = written(closed(None, attempts=[], calls=[], basis="none", usage=NOTHING, generated=NOTHING))
    lines += [(draw.randrange(60), turned_away) for _ in range(draw.randrange(4))]
    if draw.random() < 0.8:
        lines.sort(key=lambda timed: timed[0])
    else:
        draw.shuffle(lines)
    return [line for _, line in lines]


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32),
    block_bytes=st.sampled_from([300, 3_000, 30_000, 1 << 16]),
    span=st.sampled_from([Span(), Span(since="2026-11-01T10:01:00.000Z"), Span(until="2026-11-01T10:01:30.000Z")]),
)
def test_a_report_by_the_form_is_that_of_all_that_lines_say(
    seed: int, block_bytes: int, span: Span, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """MET-2, MET-6: whatever stands in the files, torn, doubled, shuffled, of strangers, the two are the same."""
    draw = random.Random(seed)
    content = io.BytesIO()
    worst = draw.choice([1_000, 100, 12])
    for one in journal_of(draw):
        match draw.randrange(worst):
            case 0:
                content.write(one[: draw.randrange(len(one))] + draw.choice([b"", b"\n"]))
            case 1:
                content.write(draw.choice([b"\n", b"x}\n", b"{}\n", b"\0" * 20 + b'"thinking":false}\n', one[50:]]))
        content.write(one)
    if draw.random() < 0.3:
        content.truncate(max(content.tell() - draw.randrange(1, 300), 0))
    home = tmp_path_factory.mktemp("form")
    whole = content.getvalue()
    cut = draw.choice([0, draw.randrange(len(whole) + 1), whole.find(b"\n", len(whole) // 2) + 1])
    # A piece of the one is in the other, too, or all of it.
    doubled = draw.choice([b"", b"", whole[:cut], b"".join(whole.splitlines(keepends=True)[3:9])])
    paths = [home / "usage.jsonl.1", home / "usage.jsonl"]
    for path, piece in zip(paths, (whole[:cut], whole[cut:] + doubled), strict=True):
        path.write_bytes(piece)
    known, parsed = known_and_parsed(paths, span, block_bytes)
    assert known == parsed
