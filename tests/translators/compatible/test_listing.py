"""The models, as clients of the OpenAI protocol read them (spec COM-29)."""

from __future__ import annotations

from translators.compatible import listing


def test_a_list_and_one_of_it() -> None:
    row = b'{"id":"a/B","object":"model","created":0,"owned_by":"deepseek"}'
    assert listing.model("a/B") == row
    assert listing.models(["a/B"]) == b'{"object":"list","data":[' + row + b"]}"
    assert listing.models([]) == b'{"object":"list","data":[]}'
