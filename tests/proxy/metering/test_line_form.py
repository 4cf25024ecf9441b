"""Claims about lines known by their form: a journal's own are known, and nothing that is none passes for one."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.metering import ledger
from proxy.metering.append_file import LineFile
from proxy.metering.journal import NOTHING, Journal, render
from proxy.metering.ledger import Ledger
from proxy.metering.line_form import LINE, said_of
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
    return any(groups)


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
        ({"key_name": 'of {one} "team"'}, False),
        ({"usage": used(-1, 4)}, False),
        ({"usage": used(3, 10**15)}, False),
        ({"request_id": 'a"b'}, False),
    ],
)
def test_what_is_no_ordinary_call_is_parsed(said: Json, is_known: bool) -> None:
    assert known(end(1, **said)) is is_known


def test_figures_are_read_in_one_order() -> None:
    assert said_of(b'{"input_tokens":1,"output_tokens":2,"total_tokens":3}') == (1, 0, 2, 0)
    (groups,) = LINE.findall(end(1, usage=used(9, 8, 7, 6)))
    assert said_of(groups[7]) == (9, 6, 8, 7)


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
                groups = LINE.findall(torn[:cut] + whole)
                # What stands in the pieces of a line that was never parsed is not believed.
                assert not any(group[2] for group in groups)
                assert all(b'"ev"' in group[6] + group[13] + group[16] for group in groups if group[5]), (torn, cut)


def by_form(path: Path) -> Ledger:
    return ledger.read([path])


def by_parsing(path: Path) -> Ledger:
    return ledger.read([path], each=lambda *_: None)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_a_report_by_the_form_is_that_of_all_that_lines_say(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """MET-2, MET-6: whatever stands in the file, torn, doubled, shuffled, of strangers, the two are the same."""
    draw = random.Random(seed)
    lines: list[bytes] = []
    for number in range(draw.randrange(1, 60)):
        said: Json = {
            "at": f"2026-11-{draw.randrange(1, 29):02}T10:00:{draw.randrange(60):02}.000Z",
            "model": draw.choice(["a", "b"]),
            "key_name": draw.choice(["team a", "team {b}", None]),
            "drift_tokens": draw.choice([0, 0, -3, 12, None, "x", 1.5]),
        }
        amounts = used(draw.randrange(99), draw.randrange(50, 99), *draw.choice([(), (3,), (3, 2)]))
        made = draw.choice([amounts, used(100, 100, 5, 5)])
        tries = draw.choice([[{"target": "http://a", "result": "200", "reused": False}], [POOLED], [POOLED] * 2])
        said["attempts"] = tries
        calls = draw.choice([[], [upstream_call(3, 4)], [upstream_call(3, 4)] * 2])
        opening = {name: value for name, value in said.items() if name in opened(None)}
        whole = [begin(number, **opening), end(number, **said, usage=amounts, generated=made, calls=calls)]
        lines += draw.choice([whole, whole, whole, whole[:1], whole[1:], whole * 2])
    if draw.random() < 0.5:
        draw.shuffle(lines)
    content = io.BytesIO()
    for one in lines:
        match draw.randrange(12):
            case 0:
                content.write(one[: draw.randrange(len(one))] + draw.choice([b"", b"\n"]))
            case 1:
                content.write(draw.choice([b"\n", b"x}\n", b"{}\n", b"\0" * 20 + b'"thinking":false}\n', one[50:]]))
        content.write(one)
    if draw.random() < 0.3:
        content.truncate(content.tell() - draw.randrange(1, 300))
    path = tmp_path_factory.mktemp("form") / "usage.jsonl"
    path.write_bytes(content.getvalue())
    assert by_form(path) == by_parsing(path)
