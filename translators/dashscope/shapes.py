"""What a caller reads, as types: the reply, the packet and the failure, field by field.

`packets` and `reply` build these, the journal writes down their usage, and the OpenAPI document is made of them
(`proxy.protocol.openapi`): a field's line in a docstring is its description there.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # the only one pydantic reads before Python 3.12

Finish = Literal["null", "stop", "length", "tool_calls"]


class Function(TypedDict):
    """The function of a tool call.

    name:      only in the first fragment of a call
    arguments: JSON, or the next piece of it in an incremental stream
    """

    name: NotRequired[str]
    arguments: str


class ToolCall(TypedDict):
    """One call of a tool, or a fragment of one (spec OUT-5, SSE-7).

    function: what is called, and with what
    id:       to be named by the tool message that answers it; empty in later fragments
    index:    tells the calls of one message apart
    type:     always the same
    """

    function: Function
    id: str
    index: int
    type: Literal["function"]


class TextPart(TypedDict):
    """A part of an answer on the multimodal path.

    text: the answer, or what is new of it
    """

    text: str


class Message(TypedDict):
    """What the model said, so far or since the packet before (spec OUT-1, SSE-5).

    content:           the answer, never null; a list of at most one part on the multimodal path
    reasoning_content: the chain of thought; on models that think
    role:              always the same
    tool_calls:        absent where there are none
    """

    content: str | list[TextPart]
    reasoning_content: NotRequired[str]
    role: Literal["assistant"]
    tool_calls: NotRequired[list[ToolCall]]


class Logprobs(TypedDict):
    """Log probabilities of the answer's tokens (spec OUT-6).

    content: one entry a token: `token`, `bytes`, `logprob`, `top_logprobs`, as upstream says them
    """

    content: list[dict[str, Any]]


class Choice(TypedDict):
    """One answer (spec OUT-1, OUT-7).

    message:       what it says
    index:         which of `n` answers it is, from 0
    finish_reason: the string `"null"` until the answer has ended
    logprobs:      only where the call asks for them
    """

    message: Message
    index: int
    finish_reason: Finish
    logprobs: NotRequired[Logprobs]


class OutputDetails(TypedDict):
    """The parts of `output_tokens`.

    reasoning_tokens: the chain of thought, its closing mark included where upstream counts it so
    text_tokens:      everything else; only on models that think when asked
    """

    reasoning_tokens: int
    text_tokens: NotRequired[int]


class PromptDetails(TypedDict):
    """A part of `input_tokens`.

    cached_tokens: what upstream read from its cache
    """

    cached_tokens: int


class InputDetails(TypedDict):
    """The parts of `input_tokens`, on the multimodal path.

    text_tokens:  everything but the images
    image_tokens: the images; where there are some whose size is known, or upstream tells
    """

    text_tokens: int
    image_tokens: NotRequired[int]


class Usage(TypedDict):
    """Tokens of one choice, from the first packet to this one; in a reply, of all choices (spec OUT-4, USE-1).

    input_tokens:          the prompt, as the model's chat template renders it
    output_tokens:         everything generated: chain of thought, answer and tool markup
    total_tokens:          always their sum
    output_tokens_details: where the call thinks
    prompt_tokens_details: where upstream tells
    input_tokens_details:  on the multimodal path
    image_tokens:          there, the images once more
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    output_tokens_details: NotRequired[OutputDetails]
    prompt_tokens_details: NotRequired[PromptDetails]
    input_tokens_details: NotRequired[InputDetails]
    image_tokens: NotRequired[int]


class Output(TypedDict):
    """The answers.

    choices: one in a packet, `n` in a reply
    """

    choices: list[Choice]


class Answer(TypedDict):
    """A reply, or the data of one packet of a stream: these three members, nothing else (spec OUT-1).

    output:     what the model said
    usage:      the tokens so far
    request_id: lower-case UUID, the same in every packet and in `x-request-id`
    """

    output: Output
    usage: Usage
    request_id: str


class Failure(TypedDict):
    """Why a call failed: the whole body, or the data of the last frame of a stream (spec ERR-1).

    code:       one of the catalogue; none is invented
    message:    for people; some clients compare it
    request_id: what to name in a report
    """

    code: str
    message: str
    request_id: str
