"""What a caller of the compatible surface reads, as types: the completion, the chunk and the failure, field by field.

`chunks` builds these, and the OpenAPI document is made of them (`proxy.protocol.openapi`): a field's line in a
docstring is its description there. The order of the fields is that of the wire. Source: spec COM-13 to COM-25.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # the only one pydantic reads before Python 3.12

Finish = Literal["stop", "length", "tool_calls"]


class Function(TypedDict):
    """The function of a tool call.

    arguments: JSON, or the next piece of it in a stream
    name:      only in the first fragment of a call
    """

    arguments: str
    name: NotRequired[str]


class ToolCall(TypedDict):
    """One call of a tool, or a fragment of one (spec COM-13, COM-19).

    function: what is called, and with what
    id:       to be named by the tool message that answers it; empty in later fragments
    index:    tells the calls of one message apart
    type:     always the same
    """

    function: Function
    id: str
    index: int
    type: Literal["function"]


class Message(TypedDict):
    """What the model said (spec COM-13).

    content:           the answer; never null
    reasoning_content: the chain of thought; where the call thinks, or one has come all the same
    role:              always the same
    tool_calls:        absent where there are none
    """

    content: str
    reasoning_content: NotRequired[str]
    role: Literal["assistant"]
    tool_calls: NotRequired[list[ToolCall]]


class Delta(TypedDict):
    """What the model said since the chunk before (spec COM-17 to COM-20).

    content:           the answer; null beside the other side
    role:              in the first chunk of a choice alone
    reasoning_content: the chain of thought; in a call that thinks
    tool_calls:        one fragment
    """

    content: str | None
    role: NotRequired[Literal["assistant"]]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCall]]


class Logprobs(TypedDict):
    """Log probabilities of the answer's tokens (spec OUT-6).

    content: one entry a token: `token`, `bytes`, `logprob`, `top_logprobs`, as upstream says them
    """

    content: list[dict[str, Any]]


class Choice(TypedDict):
    """One answer (spec COM-13).

    message:       what it says
    finish_reason: why it ended
    index:         which of `n` answers it is, from 0
    logprobs:      null unless the call asks for them
    """

    message: Message
    finish_reason: Finish
    index: int
    logprobs: Logprobs | None


class ChunkChoice(TypedDict):
    """What is new of one answer (spec COM-16).

    delta:         what it says
    finish_reason: null until the answer has ended
    index:         which of `n` answers it is, from 0
    logprobs:      of the text beside it; null without
    """

    delta: Delta
    finish_reason: Finish | None
    index: int
    logprobs: Logprobs | None


class CompletionDetails(TypedDict):
    """A part of `completion_tokens`.

    reasoning_tokens: the chain of thought, its closing mark included where upstream counts it so
    """

    reasoning_tokens: int


class PromptDetails(TypedDict):
    """A part of `prompt_tokens`.

    cached_tokens: what upstream read from its cache
    """

    cached_tokens: int


class Usage(TypedDict):
    """Tokens of all choices of a call (spec COM-14).

    prompt_tokens:             the prompt, as the model's chat template renders it
    completion_tokens:         everything generated: chain of thought, answer and tool markup
    total_tokens:              always their sum
    completion_tokens_details: where the call thinks
    prompt_tokens_details:     where upstream tells
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: NotRequired[CompletionDetails]
    prompt_tokens_details: NotRequired[PromptDetails]


class Completion(TypedDict):
    """A whole answer (spec COM-13).

    choices:            the answers
    object:             always the same
    usage:              the tokens of all of them
    created:            when the call came, in seconds since 1970
    system_fingerprint: always null
    model:              as the caller named it
    id:                 `chatcmpl-` and the request id
    """

    choices: list[Choice]
    object: Literal["chat.completion"]
    usage: Usage
    created: int
    system_fingerprint: None
    model: str
    id: str


class Chunk(TypedDict):
    """The data of one event of a stream (spec COM-16).

    choices:            one; none beside the usage at the end
    object:             always the same
    usage:              the tokens of all choices; null unless the call asks for them, and until the end
    created:            when the call came, in seconds since 1970
    system_fingerprint: always null
    model:              as the caller named it
    id:                 `chatcmpl-` and the request id
    """

    choices: list[ChunkChoice]
    object: Literal["chat.completion.chunk"]
    usage: Usage | None
    created: int
    system_fingerprint: None
    model: str
    id: str


class Error(TypedDict):
    """Why a call failed (spec COM-25).

    message: for people; some clients compare it
    type:    its class
    param:   always null
    code:    what clients tell errors apart by; null where the service has no word for it
    """

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(TypedDict):
    """The body of an answer that is a failure, or the data of the last event of a stream (spec COM-25, COM-26).

    error:      what happened
    id:         `chatcmpl-` and the request id
    request_id: what to name in a report, the same as in `x-request-id`
    """

    error: Error
    id: str
    request_id: str


class Model(TypedDict):
    """One model this key may call (spec COM-29).

    id:       a name to call it by
    object:   always the same
    created:  always 0: nobody says when it was
    owned_by: always the same
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["deepseek"]


class Models(TypedDict):
    """The models this key may call (spec COM-29).

    object: always the same
    data:   one row for each name
    """

    object: Literal["list"]
    data: list[Model]
