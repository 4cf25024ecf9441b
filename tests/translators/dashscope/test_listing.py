"""What is answered beside the calls, as the SDK reads it (spec HTTP-12)."""

from __future__ import annotations

import orjson
import pytest

from translators import faults
from translators.dashscope import listing

NAMES = [f"model-{number}" for number in range(45)]


@pytest.mark.parametrize(
    ("query", "page", "size", "first", "count"),
    [
        ({}, 1, 20, "model-0", 20),
        ({"page_no": ""}, 1, 20, "model-0", 20),
        ({"page_no": "3"}, 3, 20, "model-40", 5),
        ({"page_no": "2", "page_size": "7"}, 2, 7, "model-7", 7),
    ],
)
def test_a_page_of_models(query: dict[str, str], page: int, size: int, first: str, count: int) -> None:
    shown = orjson.loads(listing.models(NAMES, query, "r"))
    output = shown["output"]
    assert (shown["request_id"], output["total"], output["page_no"], output["page_size"]) == ("r", 45, page, size)
    assert output["models"][0] == {"model": first, "provider": "deepseek"}
    assert len(output["models"]) == count


def test_a_page_behind_the_last_is_empty() -> None:
    assert orjson.loads(listing.models(NAMES, {"page_no": "9"}, "r"))["output"]["models"] == []


@pytest.mark.parametrize("query", [{"page_no": "0"}, {"page_no": "-1"}, {"page_size": "101"}, {"page_size": "x"}])
def test_no_such_page(query: dict[str, str]) -> None:
    with pytest.raises(faults.Refusal) as refusal:
        listing.models(NAMES, query, "r")
    assert refusal.value.fault.code == "InvalidParameter"


def test_tokens_stand_beside_what_they_are_of() -> None:
    assert listing.tokens([1, 2], ["a", "b"], 5, "r") == (
        b'{"output":{"token_ids":[1,2],"tokens":["a","b"]},"usage":{"input_tokens":5},"request_id":"r"}'
    )
