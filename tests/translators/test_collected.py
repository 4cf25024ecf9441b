"""Whole choices become one JSON reply (spec OUT-1, OUT-4, OUT-7)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests import corpus
from tests.corpus import chunk, figures, usage_chunk
from translators import dialogue
from translators.tongue import ENTRY_BYTES


def reply(wire: bytes, model: dialogue.Model = corpus.HYBRID, **fields: object) -> corpus.Json:
    through = corpus.open_pipe(corpus.ask(model, stream=False, **fields))
    document: corpus.Json = orjson.loads(corpus.drive(through, wire))
    return document


def test_a_reply_has_three_members_and_a_whole_message() -> None:
    """OUT-1."""
    wire = chunk({"reasoning": "We"}) + chunk({"content": "The"}) + chunk({"content": " answer"}, "stop")
    assert reply(wire + usage_chunk(figures(9, 4, 1)) + corpus.DONE) == {
        "output": {
            "choices": [
                {
                    "message": {"content": "The answer", "reasoning_content": "We", "role": "assistant"},
                    "index": 0,
                    "finish_reason": "stop",
                }
            ]
        },
        "usage": {
            "input_tokens": 9,
            "output_tokens": 4,
            "total_tokens": 13,
            "output_tokens_details": {"reasoning_tokens": 1, "text_tokens": 3},
        },
        "request_id": corpus.REQUEST_ID,
    }


def test_content_is_a_string_beside_calls() -> None:
    """OUT-1, OUT-5: never null."""
    choice = corpus.choice_of(reply(corpus.fragment(0, "{}", name="f", id="c") + chunk({}, "tool_calls") + corpus.DONE))
    assert choice["message"]["content"] == ""
    assert choice["message"]["tool_calls"] == [
        {"function": {"name": "f", "arguments": "{}"}, "id": "c", "index": 0, "type": "function"}
    ]


@pytest.mark.parametrize(("model", "shows"), [(corpus.NEVER, False), (corpus.HYBRID, True)])
def test_an_empty_chain_is_shown_on_thinking_models_alone(model: dialogue.Model, *, shows: bool) -> None:
    """OUT-1."""
    message = corpus.choice_of(reply(chunk({"content": "The"}, "stop"), model))["message"]
    assert ("reasoning_content" in message) is shows


def test_a_chain_nobody_expected_is_shown_and_counted() -> None:
    """OUT-1."""
    document = reply(chunk({"reasoning": "We"}) + chunk({}, "stop"), corpus.NEVER)
    assert corpus.choice_of(document)["message"]["reasoning_content"] == "We"
    assert document["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}


def test_several_choices_come_in_order_with_one_usage() -> None:
    """OUT-7: input once, outputs and chains summed."""
    wire = b"".join(chunk({"reasoning": "We", "content": text}, "stop", index=n) for n, text in ((1, "No"), (0, "Yes")))
    document = reply(wire + corpus.DONE, n=2)
    assert [choice["message"]["content"] for choice in document["output"]["choices"]] == ["Yes", "No"]
    assert document["usage"]["input_tokens"] == corpus.PROMPT_TOKENS
    assert document["usage"]["output_tokens_details"] == {"reasoning_tokens": 2, "text_tokens": 4}


def test_log_probabilities_of_the_whole_answer_stand_beside_it() -> None:
    """OUT-6."""
    entries = [{"token": token, "bytes": list(token.encode()), "logprob": -1.0, "top_logprobs": []} for token in "ab"]
    wire = b"".join(chunk({"content": one["token"]}, logprobs={"content": [one]}) for one in entries)
    choice = corpus.choice_of(reply(wire + chunk({}, "stop"), logprobs=True))
    assert choice["logprobs"] == {"content": entries}


@pytest.mark.parametrize("asked", [{"stream": False}, {"incremental": False}, {"incremental": True}], ids=str)
def test_what_is_kept_of_an_answer_is_its_texts_and_so_much_for_each_log_probability(asked: dict[str, Any]) -> None:
    """REQ-11: answer and chain; packets of what is new keep nothing."""
    entries = [{"token": token, "bytes": list(token.encode()), "logprob": -1.0, "top_logprobs": []} for token in "ab"]
    through = corpus.open_pipe(corpus.ask(logprobs=True, **asked))
    kept = []
    for wire in (
        chunk({"reasoning": "We think"}) + chunk({"reasoning": " so"}),
        chunk({"content": "a"}, logprobs={"content": entries[:1]}),
        chunk({"content": "b c"}, "stop", logprobs={"content": entries[1:]}) + corpus.DONE,
    ):
        through.feed(wire)
        kept.append(through._writer.kept_bytes)
    keeps = [11, 11 + 1 + ENTRY_BYTES, 11 + 4 + 2 * ENTRY_BYTES]
    assert kept == ([0, 0, 0] if asked.get("incremental") else keeps)
    # Snapshots alone say all of it again with each packet.
    assert through._writer.repeats is (asked == {"incremental": False})
