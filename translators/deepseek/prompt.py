"""`Call` -> the prompt as the model sees it, in pieces to be counted; nothing here is ever sent.

Tokens of a prompt are its special tokens plus those of each text between them, so counts are additive and a cache
keyed by text is exact (SOURCES#chat-templates). A server's template moves without notice: `offset_key` names what
moves together, and the difference is learned (spec USE-5).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from translators import tokens
from translators.deepseek import instructions
from translators.deepseek.markup import BOS, EOS, SYSTEM, THOUGHT, USER, Piece, pieces
from translators.deepseek.templates import Before, Layout, layout
from translators.dialogue import TEXT_ALONE, Call, Effort, Image, Message, Model, Template, Tool, ToolCall
from translators.tokens import Vocabulary

_ROLE_OF = itemgetter(Message._fields.index("role"))
# A total is said about as often as this: a millisecond of an ordinary text.
TURN_CHARS = 8_192


class Prompt(NamedTuple):
    """A rendered text, taken apart for counting.

    specials: special tokens, one each
    texts:    what stands between them, to be encoded as plain text whatever it spells
    fixed:    those parts of the texts that are the template's own words, whoever calls
    images:   tokens of the images whose size is known
    source:   spec USE-1; SOURCES#chat-templates, #images
    """

    specials: int
    texts: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    images: int = 0


def length(rendered_prompt: Prompt, vocabulary: Vocabulary) -> int:
    """How many tokens it has (spec USE-1)."""
    marks = rendered_prompt.specials + rendered_prompt.images
    return marks + sum(tokens.count(text, vocabulary) for text in rendered_prompt.texts)


def totals(rendered_prompt: Prompt, vocabulary: Vocabulary) -> Iterator[int]:
    """How many tokens it has up to each of a few thousand characters, the last time in all (spec USE-8)."""
    total, unsaid_chars = rendered_prompt.specials + rendered_prompt.images, 0
    for text in rendered_prompt.texts:
        if len(text) <= TURN_CHARS:
            total += len(vocabulary.encode(text))
        else:
            here = 0
            for here in tokens.totals(text, vocabulary):
                yield total + here
            total += here
        unsaid_chars += len(text)
        if unsaid_chars > TURN_CHARS:
            unsaid_chars = 0
            yield total
    yield total


def template_of(model: Model, dialect: str) -> Template:
    """The template of the model that serves `model` there."""
    return model.templates.get(dialect, model.template)


def parts(call: Call, template: Template, effort: Effort | None = None, dialect: str = "") -> Prompt:
    """Take apart the prompt of `call`, which is to be the call as upstream sees it (`messages.seen`)."""
    row = layout(template, dialect)
    if not call.tools and call.response_format is None and call.messages[-1].role == "user":
        for message in call.messages:
            if message[2:] != TEXT_ALONE:
                break
        else:
            return _of_texts(call, row, effort)
    return _counted(_rendered(call, row, effort), tuple(_fixed(call, row, effort)))


def _of_texts(call: Call, row: Layout, effort: Effort | None) -> Prompt:
    """The prompt of a conversation of texts alone which the user ends, without tools and format: most are such.

    The same as `_counted(_rendered(…))`, in one go and not in twelve calls: of a small call's instructions a twelfth.
    """
    preface = row.prefaces.get(effort or "high", "") if call.thinking else ""
    texts, last, before = [], len(call.messages) - 1, ""
    (closed, closed_text), (opened, opened_text) = row.asked[False], row.asked[call.thinking]
    is_joined = row.systems == "joined"
    # What has not met its next special token yet; these are counted, from the first of all.
    open_text = preface + (_all_systems(call) if is_joined else _first_text(call))
    specials = 2 if row.systems == "marked" and (open_text or _leads_with_system(call)) else 1
    for index, message in enumerate(call.messages):
        role, text = message.role, message.content or ""
        if role == "system":
            if is_joined or index == 0:
                continue
            if row.systems == "marked":
                texts.append(open_text)
                open_text = text
                specials += 1
            else:
                open_text += text
        elif role == "assistant":
            if row.opens_each:
                texts.append(open_text + text)
            else:
                texts += open_text, closed_text + text
                specials += closed
            specials += 1
            open_text = ""
        elif before == "user" and row.one_user_turn:
            open_text += "\n\n" + text
        else:
            texts.append(open_text)
            open_text = text
            specials += 1
            if row.opens_each and index < last:
                texts.append(open_text)
                open_text = closed_text
                specials += closed
        before = role
    texts += open_text, opened_text
    return tuple.__new__(
        Prompt, (specials + opened, tuple(filter(None, texts)), (preface,) if call.thinking else (), 0)
    )


def overhead(rendered_prompt: Prompt, vocabulary: Vocabulary) -> int:
    """How many of its tokens are the template's own: what an offset can take away at most (spec USE-5)."""
    return rendered_prompt.specials + sum(map(vocabulary.length, rendered_prompt.fixed))


def markup(calls: Sequence[ToolCall], template: Template, *, after: str = "", opened: bool = False) -> Prompt:
    """Take apart what the model wrote for `calls`: its completion tokens beyond the chain.

    after:  the answer before them, or its end, for the two are encoded together
    opened: whether a forced `tool_choice` had put the opening into the prompt
    source: SOURCES#recorded-completions
    """
    row = layout(template)
    return _counted([after, *row.calls.write(calls, opened=opened and row.opens_forced)])


def opens_calls(call: Call, template: Template) -> bool:
    """Whether a forced `tool_choice` has put what opens the calls into the prompt."""
    return bool(call.tools) and layout(template).opens_forced and is_forced(call)


def offset_key(call: Call, upstream_model: str, effort: Effort | None = None) -> Hashable:
    """Name the kind of prompt whose difference from upstream's figure is learned as one (spec USE-5)."""
    has_system = "system" in map(_ROLE_OF, call.messages)
    json_mode = call.response_format is not None and call.response_format.type != "text"
    thinking = (effort or "default") if call.thinking else None
    offered, forced = (bool(_offered(call)), is_forced(call)) if call.tools else (False, False)
    return (upstream_model, thinking, has_system, offered, forced, json_mode, call.model.sees and bool(call.images))


def rendered(call: Call, template: Template, effort: Effort | None = None, dialect: str = "") -> list[Piece | Image]:
    """Lay `call` out as `template` does where `dialect` is spoken."""
    return _rendered(call, layout(template, dialect), effort)


def _rendered(call: Call, row: Layout, effort: Effort | None) -> list[Piece | Image]:
    out: list[Piece | Image] = [BOS, *_head(call, row, effort)]
    before: Before = "user"
    turns = list(_turns(call.messages, row))
    asked_last = max([index for index, turn in enumerate(turns) if turn[0].role == "user"], default=-1)
    for index, turn in enumerate(turns):
        match turn[0].role:
            case "system":
                out += [*((SYSTEM,) if row.systems == "marked" else ()), turn[0].content or ""]
            case "assistant":
                kept = call.thinking and _keeps_chain(turn[0], index > asked_last, call, row)
                out += _assistant(turn[0], () if row.opens_each else row.opening[before, kept], kept, row)
                before = "user"
            case _:
                out += _asked(turn, row)
                before = "tool" if turn[-1].role == "tool" else "user"
                if row.opens_each:
                    out += row.opening[before, call.thinking and index >= asked_last]
    if not (row.opens_each or call.messages[-1].partial):
        out += row.opening[before, call.thinking]
    if row.opens_forced and call.tools and is_forced(call):
        out += row.calls.opening
    return out


def _counted(rendering: Iterable[Piece | Image], fixed: tuple[str, ...] = ()) -> Prompt:
    specials = images = 0
    texts: list[list[str]] = [[]]
    for piece in rendering:
        if isinstance(piece, str):
            if piece:
                # A long one that stands alone is not copied.
                texts[-1].append(piece)
            continue
        if isinstance(piece, Image):
            images += piece.tokens or 0
        else:
            specials += 1
        texts.append([])
    return Prompt(specials, tuple(filter(None, map("".join, texts))), fixed, images)


def _head(call: Call, row: Layout, effort: Effort | None) -> list[Piece]:
    """Everything before the first turn: preface, system messages, instructions for tools and format."""
    system = _all_systems(call) if row.systems == "joined" else _first_text(call)
    told: list[Piece] = []
    # Most calls have neither: then there is nothing to be said of them.
    if call.tools or call.response_format is not None:
        for index, section in enumerate(_sections(call, row)):
            parted = index or row.blank_first or system
            told += ["\n\n" if parted else "", *section]
    preface = _preface(row, effort) if call.thinking else ""
    out = [preface, *([*told, system] if row.tools_first else [system, *told])]
    if row.systems == "marked" and (_leads_with_system(call) or any(out)):
        return [SYSTEM, *out]
    return out


def _preface(row: Layout, effort: Effort | None) -> str:
    """What stands before everything in a call that thinks."""
    return row.prefaces.get(effort or "high", "")


def _fixed(call: Call, row: Layout, effort: Effort | None) -> list[str]:
    """The template's own words in a prompt; tools and schemas are the caller's."""
    fixed = [_preface(row, effort)] if call.thinking else []
    if call.tools and _offered(call):
        told = (*pieces(row.tools.lead), *pieces(row.tools.close))
        fixed += [piece for piece in told if isinstance(piece, str)]
    if _wants(call, "json_object"):
        fixed.append(row.json_mode)
    return fixed


def _wants(call: Call, kind: str) -> bool:
    return call.response_format is not None and call.response_format.type == kind


def _leads_with_system(call: Call) -> bool:
    return call.messages[0].role == "system"


def _first_text(call: Call) -> str:
    first = call.messages[0]
    return (first.content or "") if first.role == "system" else ""


def _all_systems(call: Call) -> str:
    if "system" not in map(_ROLE_OF, call.messages):
        return ""
    return "\n\n".join([message.content for message in call.messages if message.role == "system" and message.content])


def _sections(call: Call, row: Layout) -> Iterator[list[Piece]]:
    if tools := _offered(call):
        schemas = "\n".join(row.tools.schema(tool) for tool in tools)
        yield [*pieces(row.tools.lead), schemas, *pieces(row.tools.close)]
    if _wants(call, "json_object") and row.json_mode:
        yield [row.json_mode]
    if _wants(call, "json_schema") and row.json_mode:
        wanted = call.response_format
        yield [instructions.schema(((wanted.schema if wanted else None) or {}).get("schema", {}))]


def _offered(call: Call) -> tuple[Tool, ...]:
    """The tools the model is told of: none where it may not call, one where it must call that one."""
    if isinstance(call.tool_choice, Tool):
        return (call.tool_choice,)
    return () if call.tool_choice == "none" else call.tools


def is_forced(call: Call) -> bool:
    asked = call.tool_choice == "required" or isinstance(call.tool_choice, Tool)
    return asked and bool(call.tools) and not call.thinking


def _turns(messages: Sequence[Message], row: Layout) -> Iterator[Sequence[Message]]:
    """Messages as the template groups them; system messages that the head has taken are left out."""
    turn: list[Message] = []
    for index, message in enumerate(messages):
        if message.role == "system" and (index == 0 or row.systems == "joined"):
            continue
        if turn and not _joins(turn[-1], message, row):
            yield turn
            turn = []
        turn.append(message)
    yield turn


def _joins(last: Message, message: Message, row: Layout) -> bool:
    if row.one_user_turn:
        return {last.role, message.role} <= {"user", "tool"}
    return last.role == message.role == "tool"


def _keeps_chain(message: Message, since_user: bool, call: Call, row: Layout) -> bool:
    if row.keeps == "since_user":
        return since_user
    return row.keeps == "beside_tools" and (message.partial or bool(_offered(call)))


def _assistant(message: Message, opening: Sequence[Piece], kept: bool, row: Layout) -> list[Piece]:
    chain: list[Piece] = [message.reasoning or "", THOUGHT] if kept else []
    calls = row.calls.write(message.tool_calls) if message.tool_calls else []
    return [*opening, *chain, message.content or "", *calls, *([] if message.partial else [EOS])]


def _asked(turn: Sequence[Message], row: Layout) -> list[Piece | Image]:
    """A turn of the user's, tool results being the user's where the template has it so."""
    if not row.one_user_turn and turn[0].role == "tool":
        out: list[Piece | Image] = [*row.results.open]
        for index, message in enumerate(turn):
            out += [row.results.between if index else "", *_result(message, row)]
        return [*out, *row.results.close]
    out = [USER]
    for index, message in enumerate(turn):
        if index:
            out.append("\n\n")
        out += _result(message, row) if message.role == "tool" else _shown(message)
    return out


def _result(message: Message, row: Layout) -> list[Piece | Image]:
    opening, closing = row.results.each
    return [opening, *_shown(message), closing]


def _shown(message: Message) -> list[Piece | Image]:
    """What a turn says and shows; the renderer puts a blank line between its parts (SOURCES#images)."""
    if not message.parts:
        return [message.content or ""]
    out: list[Piece | Image] = []
    for index, part in enumerate(message.parts):
        out += ["\n\n" if index else "", part]
    return out
