"""What is masked and what is not; keys that reads cut are claimed by `test_recorded`."""

from __future__ import annotations

from typing import NamedTuple

from proxy.inspector.key_mask import SHORTEST_KEY, Mask, masked_headers, masked_text


def test_a_word_is_no_key_to_be_masked_in_a_text() -> None:
    mask = Mask()
    mask.add("a")
    mask.add(None)
    assert mask(b"a text") == b"a text"


def test_only_headers_that_let_in_are_masked() -> None:
    said = [("X-Api-Key", "k"), ("Cookie", "c"), ("Content-Type", "t"), ("X-DashScope-EncryptionKey", "e")]
    assert [*masked_headers(said).values()] == ["(masked)", "(masked)", "t", "(masked)"]


def test_a_key_in_a_header_of_another_name_or_in_a_path_is_masked() -> None:
    said = [("api-key", "k" * 20), ("X-Auth-Token", "t"), ("X-Note", "sk-0123456789abcdef"), ("Accept", "*/*")]
    assert [*masked_headers(said).values()] == ["(masked)", "(masked)", "(masked)", "*/*"]
    assert masked_text("/v1/sk-0123456789abcdef/chat") == "/v1/(masked)/chat"


def test_the_shortest_key_is_masked_and_what_is_shorter_is_a_word() -> None:
    mask = Mask()
    mask.add("k" * SHORTEST_KEY)
    mask.add("w" * (SHORTEST_KEY - 1))
    assert mask(b"k" * SHORTEST_KEY + b"wwwwwwww") == b"*" * SHORTEST_KEY + b"wwwwwwww"


class Read(NamedTuple):
    """One read."""

    wire: bytes


def test_as_many_reads_span_a_key_as_its_beginning_may_be_in() -> None:
    mask, reads = Mask(), [Read(b"and so"), Read(b"mysecre")]
    assert mask.spans(reads, b"t") == 0
    mask.add("mysecret")
    assert mask.spans([], b"t") == 0
    assert mask.spans(reads, b"x") == 0
    assert mask.spans(reads, b"t") == 1
    assert mask.spans([Read(b"mysec"), Read(b"re")], b"t") == 2
    # Its beginning may be all there is so far.
    assert mask.spans([Read(b"my")], b"secret") == 1


def test_a_key_that_reads_cut_is_masked_and_each_keeps_its_length() -> None:
    mask = Mask()
    mask.add("mysecret")
    assert mask.across([b"is mys", b"ec", b"ret, no?", b""]) == [b"is ***", b"**", b"***, no?", b""]


def test_the_longest_of_several_keys_says_how_far_back_one_may_begin() -> None:
    mask = Mask()
    mask.add("mysecret")
    mask.add("another-secret")
    assert mask.spans([Read(b"another"), Read(b"-sec")], b"ret") == 2
