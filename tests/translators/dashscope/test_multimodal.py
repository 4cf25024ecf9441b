"""The multimodal path answers in parts, in every form a call may ask for (spec HTTP-3, OUT-1)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests import corpus
from tests.corpus import chunk, figures, usage_chunk
from translators import dialogue, faults
from translators.dashscope import multimodal
from translators.dashscope import tongue as dashscope
from translators.tongue import Tongue
from translators.usage import Tally

ENTRY = {"token": "The", "bytes": [84, 104, 101], "logprob": -0.5, "top_logprobs": []}
WIRE = (
    chunk({"reasoning_content": "We"})
    + chunk({"reasoning_content": " think"})
    + chunk({"content": "The"}, logprobs={"content": [ENTRY]})
    + chunk({"content": " \\"})
    + chunk({}, "stop")
    + usage_chunk(figures(9, 6, 2))
    + corpus.DONE
)


def told(spoken: Tongue, **fields: Any) -> list[corpus.Json]:
    """The packets of one stream on one of the two paths."""
    return corpus.packets(corpus.drive(corpus.open_pipe(corpus.ask(**fields), spoken=spoken), WIRE))


def said(packet: corpus.Json) -> corpus.Json:
    message: corpus.Json = corpus.choice_of(packet)["message"]
    return message


@pytest.mark.parametrize(
    "said_so", [{"thinking": True}, {"thinking": False}, {"model": corpus.NEVER, "thinking": False}]
)
@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("incremental", [False, True])
def test_the_packets_are_those_of_the_text_path_in_parts(
    said_so: dict[str, Any], *, incremental: bool, logprobs: bool
) -> None:
    """HTTP-3: nothing else differs but the parts of the input in the usage; of a chain that nobody expected, too."""
    fields = {"incremental": incremental, "logprobs": logprobs, **said_so}
    plain, parts = told(dashscope, **fields), told(multimodal, **fields)
    assert len(plain) == len(parts)
    for text, part in zip(plain, parts, strict=True):
        content = said(text)["content"]
        assert said(part)["content"] == ([{"text": content}] if content else [])
        assert part["usage"].pop("input_tokens_details") == {"text_tokens": part["usage"]["input_tokens"]}
        said(part)["content"] = content
        assert part == text


def test_a_reply_has_one_part_even_where_it_has_no_text() -> None:
    """D-13: Dify reads the first part of a reply unasked."""
    wire = corpus.fragment(0, "{}", name="f", id="c") + chunk({}, "tool_calls") + corpus.DONE
    reply = orjson.loads(corpus.drive(corpus.open_pipe(corpus.ask(stream=False), spoken=multimodal), wire))
    assert said(reply)["content"] == [{"text": ""}]
    assert said(reply)["tool_calls"]


def test_an_error_frame_is_that_of_the_text_path() -> None:
    """SSE-3."""
    wire = chunk({"content": "a"}) + b"data: {]\n\n"
    frames = [
        corpus.drive(corpus.open_pipe(corpus.ask(), spoken=spoken), wire).split(b"\n\n")[-2]
        for spoken in (dashscope, multimodal)
    ]
    assert frames[0] == frames[1]
    assert faults.UPSTREAM_BROKEN.message.encode() in frames[0]


@pytest.mark.parametrize(("image", "text"), [(None, 10), (4, 6), (10, 0), (11, 0)])
def test_the_parts_of_the_input_are_its_text_and_its_images(image: int | None, text: int) -> None:
    """OUT-4."""
    shape = multimodal.PartsShape(corpus.ask(corpus.NEVER), Tally(), corpus.REQUEST_ID)
    images = {} if image is None else {"image_tokens": image}
    assert shape.usage(dialogue.Usage(10, 7, image=image)) == {
        "input_tokens": 10,
        "output_tokens": 7,
        "total_tokens": 17,
        **images,
        "input_tokens_details": {"text_tokens": text, **images},
    }
