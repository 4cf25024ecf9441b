"""Upstream bytes become events wherever they are cut (spec SSE-10; WHATWG "Server-sent events")."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translators import faults, sse

STREAMS = {
    "one event": (b"data: {}\n\n", [b" {}"]),
    "no space after the colon": (b"data:{}\n\n", [b"{}"]),
    "several events": (b"data: 1\n\ndata: 2\n\n", [b" 1", b" 2"]),
    "comments vanish": (b": keep-alive\n\n:\n\ndata: 1\n\n: OPENROUTER PROCESSING\n\n", [b" 1"]),
    "comment inside an event": (b": hi\ndata: 1\n\n", [b"1"]),
    "other fields vanish": (b"event: message\nid: 7\nretry: 3\ndata: 1\n\nevent: ping\n\n", [b"1"]),
    "data lines are joined": (b"data: [1,\ndata: 2]\n\n", [b"[1,\n2]"]),
    "CR LF": (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b" 1", b" 2"]),
    "CR": (b"data: 1\r\rdata: 2\r\r", [b" 1", b" 2"]),
    "mixed line ends": (b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\r", [b" 1", b" 2", b" 3"]),
    "blank lines before and between": (b"\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n", [b" 1", b" 2"]),
    "byte-order mark": (b"\xef\xbb\xbfdata: 1\n\n", [b" 1"]),
    "an error by its name": (b"event: error\ndata: 1\n\ndata: 2\n\n", [sse.ERROR + b"1", b" 2"]),
    "an error by its name, which comes last": (b"data: 1\nevent:error\n\n", [sse.ERROR + b"1"]),
    "an error without data": (b"event: error\n\n", [sse.ERROR]),
    "an error's name taken back": (b"event: error\nevent: message\ndata: 1\n\n", [b"1"]),
    "nothing": (b"", []),
}


def feed(wire: bytes, cut: int) -> list[bytes]:
    decoder = sse.Decoder(1 << 20)
    found = [data for at in range(0, len(wire), cut) for data in decoder.feed(wire[at : at + cut])]
    return [data.strip() for data in found + decoder.eof()]


@pytest.mark.parametrize("cut", [1, 7, 4096], ids="cut={}".format)
@pytest.mark.parametrize("name", STREAMS)
def test_the_data_of_events_does_not_depend_on_cuts(name: str, cut: int) -> None:
    wire, expected = STREAMS[name]
    assert feed(wire, cut) == [data.strip() for data in expected]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text("ab \u2028é", min_size=1), max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_any_cut_gives_the_same_events(texts: list[str], end: bytes, data: st.DataObject) -> None:
    wire = b"".join(b"data: " + text.encode() + end + end for text in texts)
    decoder, found, at = sse.Decoder(1 << 20), [], 0
    while at < len(wire):
        step = data.draw(st.integers(1, 9))
        found += decoder.feed(wire[at : at + step])
        at += step
    found += decoder.feed(b"") + decoder.eof()
    assert [event.decode().removeprefix(" ") for event in found] == texts


def test_an_event_without_its_closing_blank_line_is_kept_for_the_end() -> None:
    decoder = sse.Decoder(100)
    assert decoder.feed(b"data: [DONE]\n") == []
    assert decoder.eof() == [b"[DONE]"]
    assert decoder.eof() == []


@pytest.mark.parametrize("reads", [1, 20])
def test_an_event_larger_than_the_limit_is_refused_before_it_is_held(reads: int) -> None:
    decoder = sse.Decoder(100)
    pieces = iter([b"data: " + b"x" * 10 * reads] * (20 // reads))
    with pytest.raises(faults.Refusal) as refused:
        list(map(decoder.feed, pieces))
    assert refused.value.fault is faults.UPSTREAM_BROKEN


def test_an_event_is_large_and_too_large_by_the_bytes_that_are_held_of_it() -> None:
    """REQ-11: more than so many; what is handed out is looked at anew once it was taken."""
    decoder = sse.Decoder(20, 10)
    seen = []
    for piece in (b"data:12345", b"6", b"789012345"):
        decoder.feed(piece)
        seen.append((decoder.held_bytes, decoder.is_large))
    assert seen == [(10, False), (11, True), (20, True)]
    assert decoder.feed(b"\n\n") == [b"123456789012345"]
    assert decoder.is_large
    decoder.look()
    assert (decoder.held_bytes, decoder.is_large) == (0, False)
    decoder.feed(b"data:12345")
    decoder.look()
    assert not decoder.is_large
    decoder.feed(b"6")
    decoder.look()
    assert decoder.is_large
    with pytest.raises(faults.Refusal):
        decoder.feed(b"7890123456")


@pytest.mark.parametrize("cut", [1, 7, 4096], ids="cut={}".format)
@pytest.mark.parametrize("before", [b"", b"\n\n\n", b"\xef\xbb\xbf", b" \r\n"])
def test_a_body_is_what_its_first_byte_says(before: bytes, cut: int) -> None:
    """SSE-10: whatever its label; blank lines keep alive."""
    body = before + b'{"a":"\n\ndata: 1\n\n"}'
    assert not sse.is_stream(body)
    decoder = sse.Decoder(1 << 20)
    assert [event for at in range(0, len(body), cut) for event in decoder.feed(body[at : at + cut])] == []
    assert decoder.is_document
    assert decoder.document() == body.removeprefix(before)
    with pytest.raises(faults.Refusal):
        decoder.feed(b" " * (1 << 20))


@pytest.mark.parametrize("body", [b"data: 1", b"\n: hi", b"event: x", b"\xef\xbb\xbfid: 1", b"retry: 3"])
def test_events_are_known_by_their_first_field(body: bytes) -> None:
    """SSE-10"""
    assert sse.is_stream(body)


@pytest.mark.parametrize(
    ("reads", "is_between"),
    [
        ([], False),
        ([b"data: x\n\n"], True),
        ([b"data: x\n"], False),
        ([b"data: x\r\n\r"], False),
        ([b"data: x\r\n\r\n"], True),
        ([b'{"choices":'], False),
    ],
)
def test_it_knows_whether_an_event_begins_with_the_next_read(reads: list[bytes], *, is_between: bool) -> None:
    """COM-34: nothing is held, and it is no document."""
    decoder = sse.Decoder(1024)
    for read in reads:
        decoder.feed(read)
    assert decoder.is_between is is_between
