"""What differs between two answers to one call, and what is made anew for each and does not count."""

from __future__ import annotations

import pytest

from proxy.inspector.comparison import PLAUSIBLE_DIFFERENCE, SHOWN_CHARS, correction, differences

PACKET = b'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"n":[1,2]},"request_id":"a"}\n\n'


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (PACKET, []),
        (PACKET.replace(b'"a"', b'"b"'), []),
        (PACKET.replace(b"[1,2]", b"[1,3]"), ["event 1.output.n[1]: 2 before, 3 now"]),
        (PACKET.replace(b"[1,2]", b'"12"'), ['event 1.output.n: [1,2] before, "12" now']),
        (PACKET.replace(b"[1,2]", b"[1]"), ["event 1.output.n[1]: 2 before, nothing now"]),
        (PACKET.replace(b"[1,2]", b"[1,2.0]"), ["event 1.output.n[1]: 2 before, 2.0 now"]),
        (b"", ["1 events before, 0 now", 'event 1: {"output":{"n":[1,2]},"request_id":"a"} before, nothing now']),
        (b'{"output":{"n":[1,2]}}', []),
    ],
)
def test_each_place_that_differs_has_a_line(after: bytes, said: list[str]) -> None:
    assert [*differences(PACKET, after)] == said


def test_what_is_no_json_is_compared_as_text_and_cut_where_it_is_long() -> None:
    (line,) = differences(b"data: [DONE]\n\n", b"data: %b\n\n" % (b"x" * 500))
    assert line == f'event 1: "[DONE]" before, "{"x" * 59}… now'


def test_what_is_equal_is_no_difference_and_what_is_just_short_enough_is_not_cut() -> None:
    long = b'data: {"text":"%b"}\n\n' % (b"x" * (SHOWN_CHARS - 2))
    assert [*differences(long, bytes(bytearray(long)))] == []
    (line,) = differences(long, b"data: {}\n\n")
    assert line == f'event 1.text: "{"x" * (SHOWN_CHARS - 2)}" before, nothing now'


def stream(*figures: tuple[int, int]) -> bytes:
    """Packets that say so much of the prompt, and of the answer."""
    return b"".join(
        b'data:{"usage":{"input_tokens":%d,"output_tokens":%d,"total_tokens":%d}}\n\n' % (given, made, given + made)
        for given, made in figures
    )


@pytest.mark.parametrize(
    ("now", "learned"),
    [
        (stream((7, 1), (7, 2), (9, 3)), 2),
        (stream((3, 1), (3, 2), (9, 3)), -2),
        (stream((7, 1), (7, 2), (11, 3)), 2),
        (stream((5, 1), (5, 2), (9, 3)), 0),
        # What is not the same in every packet, or is more than is ever learned, differs.
        (stream((7, 1), (8, 2), (9, 3)), 0),
        (stream((5, 1), (7, 2), (9, 3)), 0),
        (stream((205, 1), (205, 2), (9, 3)), 0),
        (b"", 0),
        (b"data: [DONE]\n\n", 0),
    ],
)
def test_a_correction_of_the_prompt_is_the_same_until_upstream_tells(now: bytes, learned: int) -> None:
    before = stream((5, 1), (5, 2), (9, 3))
    assert correction(before, now) == learned
    assert (not [*differences(before, now)]) is (learned != 0 or now == before)


def test_a_correction_is_no_larger_than_one_that_is_learned() -> None:
    for more, learned in ((PLAUSIBLE_DIFFERENCE, True), (PLAUSIBLE_DIFFERENCE + 1, False)):
        assert correction(stream((5, 1)), stream((5 + more, 1))) == (more if learned else 0)


def test_what_differs_beside_a_correction_is_told() -> None:
    now = stream((7, 1), (7, 4), (9, 3))
    assert [*differences(stream((5, 1), (5, 2), (9, 3)), now)] == [
        "event 2.usage.output_tokens: 2 before, 4 now",
        "event 2.usage.total_tokens: 7 before, 11 now",
    ]


def test_a_figure_that_is_gone_is_no_correction() -> None:
    now = stream((7, 1)).replace(b'"total_tokens":8', b'"total_tokens":null')
    assert [*differences(stream((5, 1)), now)] == ["event 1.usage.total_tokens: 6 before, null now"]
