"""`input` -> the messages of a call: either form read, each turn checked, every tool answer paired with its call.

The rules are checked in the order of spec REQ-2 to REQ-5; the first fault is the answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import orjson

from translators import faults, images, surrogates
from translators.dashscope import kinds
from translators.deepseek import image_tokens
from translators.dialogue import TEXT_ALONE, Image, Json, Message, ToolCall

Role = Literal["system", "user", "assistant", "tool"]

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    # Older words for the turn that brings a result back.
    "function": "tool",
    "plugin": "tool",
}
# The two ways to say a conversation.
FORM, TURNS = frozenset({"prompt", "history"}), frozenset({"messages"})
READ_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "partial"})

# Of a turn that has nothing but a role and a text.
PLAIN_NAMES = 2

# What a turn of the assistant may have beside a text.
CALLING = frozenset({"tool_calls", "reasoning_content"})

# A conversation of more turns, or a turn of more calls, is no conversation: it only costs time (spec, bad input).
MOST_TURNS = 8_192
MOST_CALLS = 1_024
# What DeepSeek takes in one call (SOURCES#images).
MOST_IMAGES = 600
LONGEST_SIDE = 8_192
# How closely to look at an image; another word says nothing.
DETAILS = frozenset({"low", "high", "original", "auto"})
# Who may show an image; what an assistant said is text.
SHOWING = frozenset({"user", "tool"})
# What else a part may be elsewhere, by its type or the key it stands under.
MODALITIES: Mapping[str, str] = {
    "video": "video",
    "video_url": "video",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "file": "file",
    "file_url": "file",
    "input_file": "file",
}
# Names that an image has in one tongue or another; and all under which a part may hold what is no text.
PICTURED = ("image", "image_url")
MEDIA = frozenset({*PICTURED, *MODALITIES})

BOTH_FORMS = 'Only one of the parameters "prompt" and "messages" can be present'
NO_FORM = 'Either "prompt" or "messages" must exist and cannot both be none'
NO_MESSAGES = "[] is too short"
WRONG_ROLE = (
    'Role must be in ["user","assistant","system","function","plugin","tool"]'
    ' and the role in last message must be in ["user","function","tool"]'
)
NO_USER = "The input messages do not contain elements with the role of user."
NO_CONTENT = "The content field is a required field."
NO_MODALITY = "The item of content should be a message of a certain modal."
OTHER_MODALITY = "This model does not support {} input."
ORPHAN = 'messages with role "tool" must be a response to a preceeding message with "tool_calls".'
NOT_JSON = 'The "function.arguments" parameter of the code model must be in JSON format.'
UNANSWERED = (
    'An assistant message with "tool_calls" must be followed by tool messages responding to each "tool_call_id".'
)


@dataclass(frozen=True, slots=True)
class Manner:
    """What differs between the tongues in which a conversation is told turn by turn.

    roles:         ours for theirs
    partial:       what says, by true, that the last assistant turn is to be gone on with
    place:         how a refusal names a turn, by its number
    image:         the address of the image that a part is, and how closely to look at it; None of another part
    wrong_role:    the fault of any other word for a role, in the turn of this number
    wrong_content: the fault of a content that is neither a text nor a list, in the turn of this number
    """

    roles: Mapping[str, Role]
    partial: tuple[str, ...]
    place: Callable[[int], str]
    image: Callable[[Json], tuple[Any, Any] | None]
    wrong_role: Callable[[Any, int], faults.Fault]
    wrong_content: Callable[[Any, int], faults.Fault]

    def goes_on(self, turn: Json) -> bool:
        """Whether this turn, the last, is to be gone on with."""
        return any(turn.get(name) is True for name in self.partial)


def _shown(part: Json) -> tuple[Any, Any] | None:
    """`{"image": URL}`; some clients put a type and an empty text beside it."""
    return None if part.get("image") is None else (part["image"], part.get("detail"))


MANNER = Manner(
    ROLES,
    partial=("partial",),
    place="input.messages.{}".format,
    image=_shown,
    wrong_role=lambda _, __: faults.invalid(WRONG_ROLE),
    wrong_content=lambda _, __: faults.NOT_TEXT,
)


def read(source: Json, *, sees: bool) -> tuple[Message, ...]:
    """The conversation in `input`.

    source: the `input` object of a document that `call.read` has read
    sees:   whether the model takes images
    """
    return converse(_turns(source), MANNER, sees=sees)


def plain(turns: object, roles: Mapping[str, Role]) -> tuple[Message, ...] | None:
    """A conversation that the user ends, each turn a role and a text alone, as most are: as `converse` reads it.

    None of any other, and of one that is to be refused. In such turns there is nothing that is ignored, either.
    In place of twelve calls for each conversation and one for each turn: 3 of the 68 µs of a small call.
    """
    if type(turns) is not list or not 0 < len(turns) <= MOST_TURNS:
        return None
    said, role = [], None
    for turn in turns:
        if type(turn) is not dict or len(turn) != PLAIN_NAMES:
            return None
        word, content = turn.get("role"), turn.get("content")
        role = roles.get(word) if type(word) is str else None
        if role is None or role == "tool" or type(content) is not str:
            return None
        said.append(tuple.__new__(Message, (role, content, *TEXT_ALONE)))
    return tuple(said) if role == "user" else None


def converse(turns: Sequence[Json], manner: Manner, *, sees: bool) -> tuple[Message, ...]:
    """The conversation these turns make; afterwards every tool message has the id of a call right before it."""
    roles = _roles(turns, manner)
    if sees:
        _check_number(turns, manner)
    said, calls = [], "tool" in roles
    for index, turn in enumerate(turns):
        role, content = roles[index], turn.get("content")
        if type(content) is str and (role != "assistant" or CALLING.isdisjoint(turn)):
            # A text and nothing else, as most turns are: as `_message` would read it, without six more calls.
            said.append(Message(role, content))
        else:
            said.append(message := _message(turn, role, index, manner, sees=sees))
            calls = calls or bool(message.tool_calls)
    if roles[-1] == "assistant":
        # The assistant's turn comes last only to be continued (spec REQ-3).
        said[-1] = said[-1]._replace(partial=True)
    return tuple(_paired(turns, said)) if calls else tuple(said)


def _check_number(turns: Sequence[Json], manner: Manner) -> None:
    """Refuse more images than any call may have, before one of them is looked at."""
    shown = 0
    for turn in turns:
        content = turn.get("content")
        if isinstance(content, list):
            shown += sum(isinstance(part, dict) and manner.image(part) is not None for part in content)
    if shown > MOST_IMAGES:
        raise faults.Refusal(faults.too_many_images(MOST_IMAGES, shown))


def ignored(source: Json) -> list[str]:
    """Names in `input` and its messages that nobody reads, dotted, repeated as often as they come (spec HTTP-8)."""
    turns = source.get("messages")
    found = [*kinds.unread(source, FORM if turns is None else TURNS)]
    for turn in turns or ():
        if not turn.keys() <= READ_FIELDS:
            found += [f"messages.{name}" for name in kinds.unread(turn, READ_FIELDS)]
    return found


def _turns(source: Json) -> list[Json]:
    """The caller's messages, or the same made of prompt and history (spec REQ-2)."""
    prompt, messages = source.get("prompt"), source.get("messages")
    if prompt is not None and messages is not None:
        raise faults.Refusal(faults.invalid(BOTH_FORMS))
    if prompt is not None:
        return [*_history(source.get("history")), {"role": "user", "content": prompt}]
    if messages is None:
        raise faults.Refusal(faults.invalid(NO_FORM))
    if messages == []:
        raise faults.Refusal(faults.invalid(NO_MESSAGES))
    listed = kinds.bounded(messages, "input.messages", MOST_TURNS)
    return [
        turn if isinstance(turn, dict) else kinds.dictionary(turn, f"input.messages.{index}")
        for index, turn in enumerate(listed)
    ]


def _history(history: Any) -> Iterator[Json]:
    listed = [] if history is None else kinds.bounded(history, "input.history", MOST_TURNS // 2)
    for index, pair in enumerate(listed):
        exchange = kinds.dictionary(pair, f"input.history.{index}")
        # Either side may be left out: both are optional in the protocol.
        for name, role in (("user", "user"), ("bot", "assistant")):
            if exchange.get(name) is not None:
                yield {"role": role, "content": exchange[name]}


def _roles(turns: Sequence[Json], manner: Manner) -> list[Role]:
    """Every turn's role, ours for theirs (spec REQ-3)."""
    roles: list[Role] = []
    for index, turn in enumerate(turns):
        word = turn.get("role")
        if not isinstance(word, str) or word not in manner.roles:
            raise faults.Refusal(manner.wrong_role(word, index))
        roles.append(manner.roles[word])
    if roles[-1] == "system" or (roles[-1] == "assistant" and not manner.goes_on(turns[-1])):
        raise faults.Refusal(faults.invalid(WRONG_ROLE))
    if "user" not in roles:
        raise faults.Refusal(faults.invalid(NO_USER))
    return roles


def _message(turn: Json, role: Role, index: int, manner: Manner, *, sees: bool) -> Message:
    """One turn, checked by itself; which call a tool turn answers is not known yet."""
    if role != "assistant":
        parts = _parts(turn, index, manner, sees=sees and role in SHOWING)
        return _told(role, parts)
    listed = turn.get("tool_calls")
    calls = _tool_calls(listed, f"{manner.place(index)}.tool_calls") if listed is not None else ()
    content = None if calls and turn.get("content") is None else "".join(_texts(turn, index, manner))
    reasoning = turn.get("reasoning_content")
    if reasoning is not None:
        kinds.string(reasoning, f"{manner.place(index)}.reasoning_content")
    return Message(role, content, reasoning=reasoning, tool_calls=calls)


def _told(role: Role, parts: Sequence[str | Image]) -> Message:
    texts = [part for part in parts if isinstance(part, str)]
    return Message(role, "".join(texts), parts=tuple(parts) if len(texts) < len(parts) else ())


def _texts(turn: Json, index: int, manner: Manner) -> Sequence[str]:
    """The parts of a turn that has nothing but text."""
    return [part for part in _parts(turn, index, manner, sees=False) if isinstance(part, str)]


def _parts(turn: Json, index: int, manner: Manner, *, sees: bool) -> Sequence[str | Image]:
    """What a turn says and shows, in the caller's order (spec REQ-4)."""
    content = turn.get("content")
    if isinstance(content, str):
        return (content,)
    if content is None:
        raise faults.Refusal(faults.invalid(NO_CONTENT))
    if not isinstance(content, list):
        raise faults.Refusal(manner.wrong_content(content, index))
    if not sees:
        return [_text(part) for part in content]
    return [one for part in content for one in _seen(part, manner)]


def _seen(part: Any, manner: Manner) -> Sequence[str | Image]:
    """What a part says and shows in a turn that may show images; of one that does both, in its own order."""
    if not isinstance(part, dict):
        raise faults.Refusal(faults.NOT_TEXT)
    for word in (part.get("type"), *(name for name, held in part.items() if held is not None)):
        if isinstance(word, str) and word in MODALITIES:
            raise faults.Refusal(faults.invalid(OTHER_MODALITY.format(MODALITIES[word])))
    if (shown := manner.image(part)) is not None:
        text, image = _said(part), _image(*shown)
        if not text:
            return (image,)
        first = next(name for name in part if name == "text" or name in PICTURED)
        return (text, image) if first == "text" else (image, text)
    if "text" not in part:
        raise faults.Refusal(faults.invalid(NO_MODALITY))
    return (_text(part),)


def _image(url: Any, detail: Any) -> Image:
    """An image by its address, its size read where it came along; nothing is ever fetched."""
    detail = detail if isinstance(detail, str) and detail in DETAILS else None
    if not isinstance(url, str) or not (images.is_inline(url) or images.is_address(url)):
        raise faults.Refusal(faults.IMAGE_NOT_LOADED, "an image whose address is not http, https or data")
    if not images.is_inline(url):
        return Image(url, detail)
    try:
        header = images.header(url)
    except images.UnknownKindError as error:
        raise faults.Refusal(faults.IMAGE_KIND, f"an image that cannot be read: {error}") from None
    except images.UnreadableError as error:
        raise faults.Refusal(faults.IMAGE_NOT_DECODED, f"an image that cannot be read: {error}") from None
    if not 1 <= min(header.width, header.height) <= max(header.width, header.height) <= LONGEST_SIDE:
        raise faults.Refusal(faults.IMAGE_MISSHAPEN)
    return Image(url, detail, header.kind, image_tokens.count(header.width, header.height, detail))


def _text(part: Any) -> str:
    """What a part says that is nothing but text: where it shows something as well, nobody would see it."""
    if not isinstance(part, dict) or part.get("type", "text") != "text" or "text" not in part:
        raise faults.Refusal(faults.NOT_TEXT)
    if not MEDIA.isdisjoint(part) and any(part.get(name) is not None for name in MEDIA):
        raise faults.Refusal(faults.NOT_TEXT, "a part that holds a text and something else")
    return _said(part)


def _said(part: Json) -> str:
    # AgentScope before 1.0.21 sends `[{"text": null}]` beside tool calls.
    text = "" if part.get("text") is None else part["text"]
    if not isinstance(text, str):
        raise faults.Refusal(faults.NOT_TEXT)
    return text


def _tool_calls(listed: Any, path: str) -> tuple[ToolCall, ...]:
    calls = kinds.bounded(listed, path, MOST_CALLS)
    return tuple(_tool_call(call, f"{path}.{index}") for index, call in enumerate(calls))


def _tool_call(call: Any, path: str) -> ToolCall:
    entry = kinds.dictionary(call, path)
    function = kinds.dictionary(kinds.required(entry, "function", path), f"{path}.function")
    name = kinds.string(kinds.required(function, "name", f"{path}.function"), f"{path}.function.name")
    return ToolCall(_word(entry.get("id")), name, _arguments(function.get("arguments"), path))


def _arguments(arguments: Any, path: str) -> str:
    """The arguments of an earlier call as the text of an object (spec REQ-9).

    Without any they are `{}`: our own answers of older releases, and other services, say nothing for it. An object is
    taken as it is: clients that merge a stream by themselves send it back parsed. What is no object is refused here,
    for vLLM, SGLang and llama.cpp refuse it as well, in words that blame themselves.
    """
    if arguments is None or isinstance(arguments, dict):
        return orjson.dumps(arguments or {}).decode()
    text = kinds.string(arguments, f"{path}.function.arguments")
    if text.strip() in ("", "null"):
        return "{}"
    try:
        found = surrogates.loads(text.encode())
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise faults.Refusal(faults.invalid(NOT_JSON))
    return surrogates.unescaped(text)


def _word(value: Any) -> str:
    """A name or an id, empty where the caller has none."""
    return value if isinstance(value, str) else ""


def _paired(turns: Sequence[Json], said: Sequence[Message]) -> Iterator[Message]:
    """The messages with every tool turn bound to its call, exchange by exchange (spec REQ-5)."""
    heads = [index for index, message in enumerate(said) if message.role != "tool"]
    if heads[0] > 0:
        raise faults.Refusal(faults.invalid(ORPHAN))
    for head, end in pairwise([*heads, len(said)]):
        if end == head + 1 and not said[head].tool_calls:
            yield said[head]
            continue
        calls = _told_apart(said[head].tool_calls, head)
        yield said[head]._replace(tool_calls=calls)
        # Dify leaves the id out and puts it, or the function's name, into `name` (SOURCES#dify-tools).
        keys = (_word(turn.get("tool_call_id")) or _word(turn.get("name")) for turn in turns[head + 1 : end])
        answered = _answered(said[head].tool_calls, keys)
        for message, position in zip(said[head + 1 : end], answered, strict=True):
            yield message._replace(tool_call_id=calls[position].id)


def _told_apart(calls: tuple[ToolCall, ...], head: int) -> tuple[ToolCall, ...]:
    """The calls of one message under ids of their own: the caller's, or all new where those leave any two alike.

    Dify's ids are function names, twice the same for two calls of one function; others have none at all
    (SOURCES#dify-tools).
    """
    ids = {call.id for call in calls}
    if len(ids) == len(calls) and "" not in ids:
        return calls
    return tuple(replace(call, id=f"call_{head}_{position}") for position, call in enumerate(calls))


def _answered(calls: Sequence[ToolCall], keys: Iterable[str]) -> list[int]:
    """The position of the call each key answers: the first open one of that id, else of that name; any for no key."""
    waiting: dict[str, deque[int]] = {"": deque(range(len(calls)))}
    for key, position in [
        *((call.id, position) for position, call in enumerate(calls) if call.id),
        *((call.name, position) for position, call in enumerate(calls)),
    ]:
        waiting.setdefault(key, deque()).append(position)
    answered: dict[int, None] = {}
    for key in keys:
        line = waiting.get(key, deque())
        while line and line[0] in answered:
            line.popleft()
        if not line:
            raise faults.Refusal(faults.invalid(ORPHAN))
        answered[line.popleft()] = None
    if len(answered) < len(calls):
        raise faults.Refusal(faults.invalid(UNANSWERED))
    return list(answered)
