"""What differs between two answers to one call, and what is made anew for each and does not count."""

from __future__ import annotations

import pytest

from proxy.inspector.comparison import differences

PACKET = b'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"n":[1,2]},"request_id":"a"}\n\n'


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (PACKET, []),
        (PACKET.replace(b'"a"', b'"b"'), []),
        (PACKET.replace(b"[1,2]", b"[1,3]"), ["event 1.output.n[1]: 2 before, 3 now"]),
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
