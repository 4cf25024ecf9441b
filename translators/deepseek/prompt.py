"""`Call` -> the prompt as the model sees it, in pieces to be counted; nothing here is ever sent.

Tokens of a prompt are its special tokens plus those of each text between them, so counts are additive and a cache
keyed by text is exact (tokenizer.md 4.1). A server's template moves without notice: `offset_key` names what
moves together, and the difference is learned (spec USE-5).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

from translators import tokens
from translators.deepseek import instructions
from translators.deepseek.markup import Piece, Special, pieces
from translators.deepseek.templates import LAYOUTS, Before, Layout
from translators.dialogue import Call, Effort, Message, Model, Template, Tool, ToolCall
from translators.tokens import Vocabulary


class Prompt(NamedTuple):
    """A rendered text, taken apart for counting.

    specials: special tokens, one each
    texts:    what stands between them, to be encoded as plain text whatever it spells
    source:   spec USE-1; tokenizer.md 4.1
    """

    specials: int
    texts: tuple[str, ...]


def length(rendered_prompt: Prompt, vocabulary: Vocabulary) -> int:
    """How many tokens it has (spec USE-1)."""
    return rendered_prompt.specials + sum(tokens.count(text, vocabulary) for text in rendered_prompt.texts)


def template_of(model: Model, dialect: str) -> Template:
    """The template of the model that serves `model` there."""
    return model.templates.get(dialect, model.template)


def parts(call: Call, template: Template, effort: Effort | None = None) -> Prompt:
    """Take apart the prompt of `call`, which is to be the call as upstream sees it (`messages.seen`)."""
    return _counted(rendered(call, template, effort))


def markup(calls: Sequence[ToolCall], template: Template, *, after: str = "", opened: bool = False) -> Prompt:
    """Take apart what the model wrote for `calls`: its completion tokens beyond the chain (tokenizer.md 4.3).

    after:  the answer before them, or its end, for the two are encoded together
    opened: whether a forced `tool_choice` had put the opening into the prompt
    """
    layout = LAYOUTS[template]
    written = layout.calls(calls)
    return _counted([after, *(written[len(layout.forced) :] if opened else written)])


def offset_key(call: Call, upstream_model: str, effort: Effort | None = None) -> Hashable:
    """Name the kind of prompt whose difference from upstream's figure is learned as one (spec USE-5)."""
    has_system = any(message.role == "system" for message in call.messages)
    json_mode = call.response_format is not None and call.response_format.type != "text"
    thinking = (effort or "default") if call.thinking else None
    return (upstream_model, thinking, has_system, bool(_offered(call)), is_forced(call), json_mode)


def rendered(call: Call, template: Template, effort: Effort | None = None) -> list[Piece]:
    """Lay `call` out as `template` does."""
    layout = LAYOUTS[template]
    out: list[Piece] = [Special.BOS, *_head(call, layout, effort)]
    before: Before = "user"
    turns = list(_turns(call.messages, layout))
    asked_last = max((index for index, turn in enumerate(turns) if turn[0].role == "user"), default=-1)
    for index, turn in enumerate(turns):
        match turn[0].role:
            case "system":
                out += [Special.SYSTEM, turn[0].content or ""]
            case "assistant":
                kept = call.thinking and _keeps_chain(turn[0], index > asked_last, call, layout)
                out += _assistant(turn[0], layout.opening[before, kept], kept, layout)
                before = "user"
            case _:
                out += _asked(turn, layout)
                before = "tool" if turn[-1].role == "tool" else "user"
    if not call.messages[-1].partial:
        out += layout.opening[before, call.thinking]
    if is_forced(call):
        out += layout.forced
    return out


def _counted(rendering: Iterable[Piece]) -> Prompt:
    specials, texts = 0, [""]
    for piece in rendering:
        if isinstance(piece, str):
            texts[-1] += piece
        else:
            specials += 1
            texts.append("")
    return Prompt(specials, tuple(text for text in texts if text))


def _head(call: Call, layout: Layout, effort: Effort | None) -> list[Piece]:
    """Everything before the first turn: preface, system messages, instructions for tools and format."""
    marked = layout.system_marked and _leads_with_system(call)
    system = _first_text(call) if layout.system_marked else _all_systems(call)
    out: list[Piece] = [layout.prefaces.get(effort or "high", "") if call.thinking else "", system]
    for index, section in enumerate(_sections(call, layout)):
        out += ["\n\n" if index or system or layout.blank_first else "", *section]
    return [Special.SYSTEM, *out] if layout.system_marked and (marked or any(out)) else out


def _leads_with_system(call: Call) -> bool:
    return call.messages[0].role == "system"


def _first_text(call: Call) -> str:
    return (call.messages[0].content or "") if _leads_with_system(call) else ""


def _all_systems(call: Call) -> str:
    return "\n\n".join(message.content for message in call.messages if message.role == "system" and message.content)


def _sections(call: Call, layout: Layout) -> Iterator[list[Piece]]:
    if tools := _offered(call):
        schemas = "\n".join(layout.tools.schema(tool) for tool in tools)
        yield [*pieces(layout.tools.lead), schemas, *pieces(layout.tools.close)]
    wanted = call.response_format
    if wanted is not None and wanted.type == "json_object" and layout.json_mode:
        yield [layout.json_mode]
    if wanted is not None and wanted.type == "json_schema" and layout.json_mode:
        yield [instructions.schema((wanted.schema or {}).get("schema", {}))]


def _offered(call: Call) -> tuple[Tool, ...]:
    """The tools the model is told of: none where it may not call, one where it must call that one."""
    if isinstance(call.tool_choice, Tool):
        return (call.tool_choice,)
    return () if call.tool_choice == "none" else call.tools


def is_forced(call: Call) -> bool:
    asked = call.tool_choice == "required" or isinstance(call.tool_choice, Tool)
    return asked and bool(call.tools) and not call.thinking


def _turns(messages: Sequence[Message], layout: Layout) -> Iterator[Sequence[Message]]:
    """Messages as the template groups them; system messages that the head has taken are left out."""
    turn: list[Message] = []
    for index, message in enumerate(messages):
        if message.role == "system" and (index == 0 or not layout.system_marked):
            continue
        if turn and not _joins(turn[-1], message, layout):
            yield turn
            turn = []
        turn.append(message)
    yield turn


def _joins(last: Message, message: Message, layout: Layout) -> bool:
    if layout.one_user_turn:
        return {last.role, message.role} <= {"user", "tool"}
    return last.role == message.role == "tool"


def _keeps_chain(message: Message, since_user: bool, call: Call, layout: Layout) -> bool:
    if layout.keeps == "since_user":
        return since_user
    return layout.keeps == "beside_tools" and (message.partial or bool(_offered(call)))


def _assistant(message: Message, opening: Sequence[Piece], kept: bool, layout: Layout) -> list[Piece]:
    chain: list[Piece] = [message.reasoning or "", Special.THOUGHT] if kept else []
    calls = layout.calls(message.tool_calls) if message.tool_calls else []
    return [*opening, *chain, message.content or "", *calls, *([] if message.partial else [Special.EOS])]


def _asked(turn: Sequence[Message], layout: Layout) -> list[Piece]:
    """A turn of the user's, tool results being the user's where the template has it so."""
    if not layout.one_user_turn and turn[0].role == "tool":
        out: list[Piece] = [*layout.results.open]
        for index, message in enumerate(turn):
            out += [layout.results.between if index else "", *_result(message, layout)]
        return [*out, *layout.results.close]
    out = [Special.USER]
    for index, message in enumerate(turn):
        said: list[Piece] = _result(message, layout) if message.role == "tool" else [message.content or ""]
        out += ["\n\n" if index else "", *said]
    return out


def _result(message: Message, layout: Layout) -> list[Piece]:
    opening, closing = layout.results.each
    return [opening, message.content or "", closing]
