"""What a model sees of a call, template by template, and what it writes for tool calls.

Source: SOURCES#chat-templates, #recorded-completions.
"""

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proxy.vocabulary
from translators.deepseek import prompt
from translators.deepseek.markup import Piece, Special, pieces
from translators.deepseek.templates import LAYOUTS, layout
from translators.dialogue import Call, Effort, Image, Message, Model, ResponseFormat, Template, Tool, ToolCall

MODEL = Model("m", "hybrid", 1_000, 1_000, 100, 100, "v3.2", templates={"deepseek": "v4.1"})
SYSTEM, USER = Message("system", "S"), Message("user", "U")
WEATHER = Tool("w", {"name": "w", "description": "d", "strict": True, "parameters": {"type": "object"}})
CALLED = Message("assistant", "C", reasoning="R", tool_calls=(ToolCall("1", "w", '{"a": "x", "n": [1, 2]}'),))
RESULT = Message("tool", "T", tool_call_id="1")
TEMPLATES: tuple[Template, ...] = get_args(Template)
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
JSON_ONLY = "You are a helpful assistant designed to output JSON.\n## Response Format:\n\nReply with JSON object ONLY."
THOROUGH = "Reasoning Effort: Absolute maximum"


def asking(*messages: Message, **fields: Any) -> Call:
    return Call(MODEL, messages or (USER,), stream=False, **fields)


def spelled(rendering: list[Piece]) -> str:
    return "".join(piece if isinstance(piece, str) else piece.value for piece in rendering)


def seen(call: Call, template: Template, effort: Effort | None = None) -> str:
    """The prompt as a model sees it, its preface and its tool instruction shortened."""
    text, layout = spelled(prompt.rendered(call, template, effort)), LAYOUTS[template]
    for preface in filter(None, layout.prefaces.values()):
        text = text.replace(preface, "<preface>")
    before, lead, told = text.partition(layout.tools.lead)
    return f"{before}<tools>{told.replace(layout.tools.close, '</tools>', 1)}" if lead else text


def test_every_template_has_a_layout() -> None:
    assert set(LAYOUTS) == set(TEMPLATES)


TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["", "t", "\n\nu"])))


@pytest.mark.parametrize("template", TEMPLATES)
@given(turns=TURNS, thinks=st.booleans(), effort=st.sampled_from([None, *get_args(Effort)]), data=st.data())
def test_a_conversation_of_texts_is_counted_as_it_is_laid_out(
    template: Template, turns: list[tuple[Any, str]], thinks: bool, effort: Effort | None, data: st.DataObject
) -> None:
    """In one go: the pieces of the whole way are not made for it."""
    dialect = data.draw(st.sampled_from(["", "vllm", "sglang"]))
    call = asking(*(Message(*turn) for turn in turns), USER, thinking=thinks)
    specials, texts = 0, [""]
    for piece in prompt.rendered(call, template, effort, dialect):
        if isinstance(piece, str):
            texts[-1] += piece
        else:
            specials += 1
            texts.append("")
    preface = layout(template, dialect).prefaces.get(effort or "high", "")
    assert prompt.parts(call, template, effort, dialect) == (
        specials, tuple(filter(None, texts)), (preface,) if thinks else (), 0
    )  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"tools": (WEATHER,)},
        {"tools": (WEATHER,), "tool_choice": "required"},
        {"response_format": ResponseFormat("json_object")},
        {"response_format": ResponseFormat("json_schema", {"schema": {"a": 1}})},
        {"response_format": ResponseFormat("text")},
        {"tools": (WEATHER,), "response_format": ResponseFormat("json_object")},
    ],
    ids=str,
)
def test_so_is_one_with_tools_or_a_format(template: Template, fields: dict[str, Any], *, thinks: bool) -> None:
    said = Message("assistant", "Once", partial=True)
    for turns in ((USER,), (SYSTEM, USER), (USER, CALLED, RESULT), (USER, said)):
        call = asking(*turns, thinking=thinks, **fields)
        specials, texts = 0, [""]
        for piece in prompt.rendered(call, template):
            if isinstance(piece, str):
                texts[-1] += piece
            else:
                specials += 1
                texts.append("")
        assert prompt.parts(call, template)[:2] == (specials, tuple(filter(None, texts)))


def test_a_dialect_may_serve_a_model_by_another_template() -> None:
    assert prompt.template_of(MODEL, "deepseek") == "v4.1"
    assert prompt.template_of(MODEL, "vllm") == "v3.2"


@pytest.mark.parametrize(
    ("template", "thinks", "wanted"),
    [
        ("v3", False, "S<｜User｜>U<｜Assistant｜>"),
        ("r1", True, "S<｜User｜>U<｜Assistant｜><think>\n"),
        ("v3.1", False, "S<｜User｜>U<｜Assistant｜></think>"),
        ("v3.1", True, "S<｜User｜>U<｜Assistant｜><think>"),
        ("v3.2", False, "S<｜User｜>U<｜Assistant｜></think>"),
        ("v3.2", True, "S<｜User｜>U<｜Assistant｜><think>"),
        ("v4-preview", False, "S<｜User｜>U<｜Assistant｜></think>"),
        ("v4-preview", True, "S<｜User｜>U<｜Assistant｜><think>"),
        ("v4", False, "S<｜User｜>U<｜Assistant｜></think>"),
        ("v4", True, "<preface>S<｜User｜>U<｜Assistant｜><think>"),
        ("v4.1", False, "<｜System｜>S<｜User｜>U<｜Assistant｜></think>"),
        ("v4.1", True, "<｜System｜><preface>S<｜User｜>U<｜Assistant｜><think>"),
    ],
)
def test_a_question_is_laid_out(template: Template, thinks: bool, wanted: str) -> None:
    assert seen(asking(SYSTEM, USER, thinking=thinks), template) == BOS + wanted


@pytest.mark.parametrize(
    ("template", "specials", "texts"),
    [("v3", 3, ("S", "U")), ("r1", 4, ("S", "U", "\n")), ("v3.2", 4, ("S", "U")), ("v4.1", 5, ("S", "U"))],
)
def test_specials_count_one_each(template: Template, specials: int, texts: tuple[str, ...]) -> None:
    """SOURCES#chat-templates: overhead 3, 5 (`\n` is a token of text), 4; V4.1 has one more before a system message."""
    call = asking(SYSTEM, USER, thinking=template == "r1")
    assert prompt.parts(call, template)[:2] == (specials, texts)


@pytest.mark.parametrize(
    ("template", "effort", "preface"),
    [
        ("v4", None, THOROUGH),
        ("v4", "high", THOROUGH),
        ("v4", "low", BOS),
        ("v4", "max", "Reasoning Effort: Beyond maximum"),
        ("v4-preview", "high", BOS),
        ("v4-preview", "max", THOROUGH),
        ("v4.1", None, "Reasoning Effort: 75 "),
        ("v4.1", "low", "Reasoning Effort: 50 "),
        ("v4.1", "max", "Reasoning Effort: 100 "),
    ],
)
def test_an_effort_has_its_preface(template: Template, effort: Effort | None, preface: str) -> None:
    text = spelled(prompt.rendered(asking(thinking=True), template, effort))
    opening = text.removeprefix(BOS).removeprefix("<｜System｜>")
    assert opening.startswith(preface if preface != BOS else "<｜User｜>")


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_preface_without_thinking(template: Template) -> None:
    assert "Reasoning Effort" not in spelled(prompt.rendered(asking(), template, "max"))


def test_system_messages_stand_in_front_or_in_place() -> None:
    call = asking(SYSTEM, USER, Message("system", "late"), Message("user", "V"))
    assert seen(call, "v4") == BOS + "S\n\nlate<｜User｜>U\n\nV<｜Assistant｜></think>"
    assert seen(call, "v4.1") == BOS + "<｜System｜>S<｜User｜>U<｜System｜>late<｜User｜>V<｜Assistant｜></think>"
    assert seen(call, "v3") == BOS + "S\n\nlate<｜User｜>U<｜User｜>V<｜Assistant｜>"


def test_an_empty_system_message_is_a_token_in_v41_alone() -> None:
    call = asking(Message("system", ""), USER)
    assert seen(call, "v4.1") == BOS + "<｜System｜><｜User｜>U<｜Assistant｜></think>"
    assert seen(call, "v4") == BOS + "<｜User｜>U<｜Assistant｜></think>"
    assert seen(asking(), "v4.1") == BOS + "<｜User｜>U<｜Assistant｜></think>"


class TestTools:
    @pytest.mark.parametrize(
        ("template", "head"),
        [
            ("v3.1", "<tools>### w\nDescription: d\n\nParameters: {SCHEMA}\n</tools>"),
            ("v3.2", '<tools>{"name": "w", "description": "d", "strict": true, "parameters": {SCHEMA}}</tools>'),
            ("v4-preview", '<tools>{"name": "w", "description": "d", "parameters": {STRICT}}</tools>'),
            ("v4", '\n\n<tools>{"name": "w", "description": "d", "parameters": {STRICT}}</tools>'),
            ("v4.1", '<｜System｜>\n\n<tools>{"name": "w", "description": "d", "parameters": {STRICT}}</tools>'),
        ],
    )
    def test_are_told_without_a_system_message(self, template: Template, head: str) -> None:
        """V3.2 and the first V4 server have no blank line; V4 writes strict tools anew, and the later servers all."""
        text = seen(asking(tools=(WEATHER,)), template)
        strict = '{"type": "object", "properties": {}, "additionalProperties": false, "required": []}'
        expected = head.replace("{SCHEMA}", '{"type": "object"}').replace("{STRICT}", strict)
        assert text.removeprefix(BOS).split("<｜User｜>")[0] == expected

    def test_follow_a_system_message_after_a_blank_line(self) -> None:
        for template in TEMPLATES:
            assert "S\n\n<tools>" in seen(asking(SYSTEM, USER, tools=(WEATHER,)), template)

    def test_of_v3_are_fenced(self) -> None:
        text = spelled(prompt.rendered(asking(tools=(WEATHER,)), "v3"))
        assert '\n\n\n```json\n{"type": "function", "function": {"name": "w", ' in text
        assert text.endswith("}\n```\n<｜User｜>U<｜Assistant｜>")

    def test_stand_one_to_a_line(self) -> None:
        text = seen(asking(tools=(WEATHER, Tool("z", {"name": "z"}))), "v4")
        assert '}}\n{"name": "z", "description": "", "parameters": {}}</tools>' in text

    def test_are_not_told_where_none_may_be_called(self) -> None:
        assert seen(asking(tools=(WEATHER,), tool_choice="none"), "v4") == seen(asking(), "v4")
        for template in TEMPLATES:
            assert prompt.parts(asking(tools=(WEATHER,), tool_choice="none"), template) == (
                prompt.parts(asking(), template)
            )

    def test_a_named_one_is_the_only_one(self) -> None:
        other = Tool("z", {"name": "z"})
        call = asking(tools=(WEATHER, other), tool_choice=WEATHER)
        assert seen(call, "v4") == seen(call._replace(tools=(WEATHER,), tool_choice="required"), "v4")

    @pytest.mark.parametrize(
        ("template", "opening"),
        [
            *(("v3", None), ("r1", None), ("v3.1", None), ("v3.2", None)),
            *(("v4-preview", "<｜DSML｜tool_calls>"), ("v4", "<｜DSML｜tool_calls>"), ("v4.1", "<｜DSML｜ calls>")),
        ],
    )
    def test_a_forced_call_is_opened_in_the_prompt(self, template: Template, opening: str | None) -> None:
        text = seen(asking(tools=(WEATHER,), tool_choice="required"), template)
        assert text.endswith(f"</think>\n\n{opening}\n" if opening else ("</think>", "<｜Assistant｜>"))

    def test_thinking_forces_nothing(self) -> None:
        call = asking(tools=(WEATHER,), tool_choice="required", thinking=True)
        assert seen(call, "v4").endswith("<think>")


@pytest.mark.parametrize(
    ("template", "thinks", "wanted"),
    [
        (
            "v3",
            False,
            (
                "<｜Assistant｜>C<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>w"
                '\n```json\n{"a": "x", "n": [1, 2]}'
                "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
                "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>T<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
            ),
        ),
        (
            "v3.1",
            False,
            (
                "<｜Assistant｜></think>C<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>w<｜tool▁sep｜>"
                '{"a": "x", "n": [1, 2]}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
                "<｜tool▁output▁begin｜>T<｜tool▁output▁end｜>"
            ),
        ),
        (
            "v3.2",
            True,
            (
                '<｜Assistant｜><think>R</think>C\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="w">\n'
                '<｜DSML｜parameter name="a" string="true">x</｜DSML｜parameter>\n'
                '<｜DSML｜parameter name="n" string="false">[1, 2]</｜DSML｜parameter>\n'
                "</｜DSML｜invoke>\n</｜DSML｜function_calls><｜end▁of▁sentence｜>"
                "\n\n<function_results>\n<result>T</result>\n</function_results>\n\n<think>"
            ),
        ),
        (
            "v4",
            True,
            (
                '<｜Assistant｜><think>R</think>C\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="w">\n'
                '<｜DSML｜parameter name="a" string="true">x</｜DSML｜parameter>\n'
                '<｜DSML｜parameter name="n" string="false">[1, 2]</｜DSML｜parameter>\n'
                "</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>"
                "<｜User｜><tool_result>T</tool_result><｜Assistant｜><think>"
            ),
        ),
        (
            "v4.1",
            False,
            (
                '<｜Assistant｜></think>C\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name="w">\n'
                '<｜DSML｜ parameter name="a" string="true">x</｜DSML｜ parameter>\n'
                '<｜DSML｜ parameter name="n" string="false">[1, 2]</｜DSML｜ parameter>\n'
                "</｜DSML｜ invoke>\n</｜DSML｜ calls><｜end▁of▁sentence｜>"
                "<｜User｜><tool_result>T</tool_result><｜Assistant｜></think>"
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 9 else "",
)
def test_a_tool_loop_is_laid_out(template: Template, thinks: bool, wanted: str) -> None:
    text = seen(asking(USER, CALLED, RESULT, tools=(WEATHER,), thinking=thinks), template)
    assert text.split("<｜User｜>U")[1] == wanted


def test_results_in_a_row_share_a_block() -> None:
    call = asking(USER, CALLED, RESULT, RESULT, Message("user", "V"))
    together = "<tool_result>T</tool_result>\n\n<tool_result>T</tool_result>\n\nV<｜Assistant｜>"
    assert all(together in seen(call, template) for template in ("v4-preview", "v4", "v4.1"))
    assert "\n<result>T</result>\n<result>T</result>\n</function_results>\n\n</think><｜User｜>V" in seen(call, "v3.2")
    assert "<｜tool▁output▁end｜>\n<｜tool▁output▁begin｜>" in seen(call, "v3")


def test_an_old_chain_is_forgotten() -> None:
    said = Message("assistant", "A", reasoning="R")
    for template in TEMPLATES:
        assert "R" not in seen(asking(USER, said, USER, thinking=True), template)


def test_an_old_chain_beside_tools_stays_in_v4() -> None:
    call = asking(USER, CALLED, RESULT, Message("assistant", "A"), USER, tools=(WEATHER,), thinking=True)
    for template in ("v4-preview", "v4", "v4.1"):
        text = seen(call, template)
        assert "<think>R</think>C" in text
        assert "<think></think>A" in text
    assert "<think>R" not in seen(call, "v3.2")


def test_a_first_turn_may_be_the_assistants() -> None:
    text = seen(asking(CALLED, RESULT, Message("user", "V")), "v4")
    assert text.startswith(f"{BOS}<｜Assistant｜></think>C")


@pytest.mark.parametrize(
    ("thinks", "wanted"), [(False, "</think>It is"), (True, "<think></think>It is")], ids=["plain", "thinking"]
)
def test_a_prefix_is_left_open(thinks: bool, wanted: str) -> None:
    """REQ-6."""
    call = asking(USER, Message("assistant", "It is", partial=True), thinking=thinks)
    assert seen(call, "v4.1").endswith(f"<｜Assistant｜>{wanted}")


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("v3.1", ""),
        ("v3.2", JSON_ONLY),
        ("v4", "\n\n" + JSON_ONLY),
        (
            "v4.1",
            (
                "<｜System｜>\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
                '{"type": "json_object"}'
            ),
        ),
    ],
)
def test_json_mode_is_instructed(template: Template, wanted: str) -> None:
    call = asking(response_format=ResponseFormat("json_object"))
    assert seen(call, template).removeprefix(BOS).split("<｜User｜>")[0] == wanted


def test_a_schema_is_instructed() -> None:
    wanted = ResponseFormat("json_schema", {"name": "x", "schema": {"a": 1}})
    assert seen(asking(response_format=wanted), "v4").split("<｜User｜>")[0].endswith('to reply:\n{"a": 1}')
    assert seen(asking(response_format=wanted), "v3") == seen(asking(), "v3")
    assert seen(asking(response_format=ResponseFormat("text")), "v4") == seen(asking(), "v4")


class TestMarkup:
    def test_is_counted_together_with_the_answer_before_it(self) -> None:
        written = prompt.markup((ToolCall("1", "w", "{}"),), "v4", after="Well.")
        assert written == prompt.Prompt(
            4, ("Well.\n\n<", "tool_calls>\n<", 'invoke name="w">\n</', "invoke>\n</", "tool_calls>")
        )

    def test_of_a_forced_call_starts_after_what_the_prompt_holds(self) -> None:
        written = prompt.markup((ToolCall("1", "w", "{}"),), "v4", opened=True)
        assert written == prompt.Prompt(3, ("<", 'invoke name="w">\n</', "invoke>\n</", "tool_calls>"))

    @pytest.mark.parametrize("template", ["v3.2", "v4-preview", "v4.1"])
    def test_of_a_call_without_arguments_has_a_blank_line(self, template: Template) -> None:
        assert any(text.endswith('"w">\n\n</') for text in prompt.markup((ToolCall("1", "w", "{}"),), template).texts)

    @pytest.mark.parametrize("arguments", ["not json", "[1]", '"x"', "", "[" * 100_000])
    def test_arguments_that_are_no_object_are_one_argument(self, arguments: str) -> None:
        texts = prompt.markup((ToolCall("1", "w", arguments),), "v4").texts
        assert any(text.endswith(f'parameter name="arguments" string="true">{arguments}</') for text in texts)

    def test_text_that_spells_a_special_token_is_text(self) -> None:
        call = ToolCall("1", "w", '{"a": "</think>｜DSML｜"}')
        plain = prompt.markup((replace(call, arguments='{"a": "x"}'),), "v4")
        assert prompt.markup((call,), "v4").specials == plain.specials

    def test_of_two_calls_of_r1_is_parted_by_a_line(self) -> None:
        calls = (ToolCall("1", "w", "{}"), ToolCall("2", "z", "{}"))
        assert "\n" in prompt.markup(calls, "r1").texts
        assert prompt.markup(calls, "v3.1") == prompt.Prompt(8, ("w", "{}", "z", "{}"))


class TestOffsetKey:
    """USE-5: what moves together when a server's template moves."""

    BASE = asking()

    @pytest.mark.parametrize(
        "other",
        [
            asking(thinking=True),
            asking(SYSTEM, USER),
            asking(tools=(WEATHER,)),
            asking(tools=(WEATHER,), tool_choice="required"),
            asking(response_format=ResponseFormat("json_object")),
        ],
        ids=["thinking", "system", "tools", "forced", "json"],
    )
    def test_differs_where_the_template_does(self, other: Call) -> None:
        assert prompt.offset_key(other, "m") != prompt.offset_key(self.BASE, "m")

    def test_differs_by_upstream_model_and_by_effort(self) -> None:
        call = asking(thinking=True)
        keys = {prompt.offset_key(call, "m"), prompt.offset_key(call, "n"), prompt.offset_key(call, "m", "low")}
        assert len(keys) == 3

    @pytest.mark.parametrize(
        "other",
        [
            asking(tools=(WEATHER,), tool_choice="none"),
            asking(tool_choice="required"),
            asking(response_format=ResponseFormat("text")),
            asking(Message("user", "U"), Message("assistant", "A"), USER),
        ],
        ids=["none of the tools", "no tools", "text", "turns"],
    )
    def test_is_the_same_where_nothing_else_is_told(self, other: Call) -> None:
        assert prompt.offset_key(other, "m") == prompt.offset_key(self.BASE, "m")

    def test_of_a_call_that_thinks_nothing_is_forced(self) -> None:
        forced = asking(tools=(WEATHER,), tool_choice="required", thinking=True)
        assert prompt.offset_key(forced, "m") == prompt.offset_key(forced._replace(tool_choice="auto"), "m")

    def test_does_not_see_the_text(self) -> None:
        assert prompt.offset_key(asking(Message("user", "V")), "m") == prompt.offset_key(self.BASE, "m")
        assert hash(prompt.offset_key(self.BASE, "m"))


@given(st.text(), st.sampled_from(TEMPLATES), st.booleans())
def test_a_callers_text_never_adds_a_special_token(text: str, template: Template, thinks: bool) -> None:
    """Whatever it spells: the vendor's prompt encoder has it so (SOURCES#special-tokens-in-text)."""
    spelling = text + "</think><｜Assistant｜>｜DSML｜"
    taken = prompt.parts(asking(Message("system", spelling), Message("user", spelling), thinking=thinks), template)
    plain = prompt.parts(asking(SYSTEM, USER, thinking=thinks), template)
    assert taken.specials == plain.specials
    assert sum(spelling in kept for kept in taken.texts) == 2


@given(st.lists(st.sampled_from([*Special, "a", "<think", "｜"])))
def test_a_fixed_text_is_cut_at_the_tokens_it_spells(parts: list[Piece]) -> None:
    text = spelled(parts)
    cut = pieces(text)
    assert spelled(cut) == text
    assert not any(isinstance(piece, str) and special.value in piece for piece in cut for special in Special)


class TestStrictTools:
    """What the vendor's renderer makes of the schema of a strict tool (`deepseek-recipe` 0.2.0, run)."""

    @pytest.mark.parametrize(
        ("schema", "shown"),
        [
            ({"title": "T", "description": "d", "enum": ["x"], "minLength": 1, "type": "string", "pattern": "p"},
             {"type": "string", "description": "d", "pattern": "p", "enum": ["x"]}),
            ({"maximum": 9, "default": 3, "type": "integer", "enum": [1], "multipleOf": 2, "const": None},
             {"type": "integer", "default": 3, "maximum": 9, "multipleOf": 2}),
            ({"type": "boolean", "default": True, "description": "d"}, {"type": "boolean", "description": "d"}),
            ({"minItems": 1, "description": "d", "items": {"title": "T", "type": "null"}, "type": "array"},
             {"type": "array", "items": {"type": "null"}, "description": "d"}),
            ({"title": "T", "anyOf": [{"title": "T", "type": "string"}, {"type": "null"}]},
             {"anyOf": [{"type": "string"}, {"type": "null"}]}),
            ({"description": "d", "$ref": "#/$def/A"}, {"$ref": "#/$def/A"}),
            ({"properties": {"b": {"type": "string", "x": 1}}, "type": "object", "additionalProperties": True},
             {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": False,
              "required": ["b"]}),
            # What it refuses stays as it is: such a call never gets an answer.
            ({"title": "T", "type": ["string", "null"]}, {"title": "T", "type": ["string", "null"]}),
            ({"title": "T"}, {"title": "T"}),
            (True, True),
            ({"type": "object", "properties": "none"}, {"type": "object", "properties": {},
             "additionalProperties": False, "required": []}),
            ({"anyOf": "none"}, {"anyOf": "none"}),
        ],
    )  # fmt: skip
    def test_keep_the_keywords_of_their_type_in_its_order(self, schema: object, shown: object) -> None:
        given = {"$def": {"A": {"title": "T", "type": "string"}}, "type": "object", "properties": {"a": schema}}
        expected = {
            "type": "object",
            "properties": {"a": shown},
            "additionalProperties": False,
            "required": ["a"],
            "$def": {"A": {"type": "string"}},
        }
        for template in ("v4", "v4.1"):
            text = seen(asking(tools=(Tool("w", {"name": "w", "strict": True, "parameters": given}),)), template)
            assert json.dumps(expected) in text
            as_given = seen(asking(tools=(Tool("w", {"name": "w", "strict": False, "parameters": given}),)), template)
            assert json.dumps(given) in as_given

    def test_without_parameters_have_an_empty_object(self) -> None:
        text = seen(asking(tools=(Tool("w", {"name": "w", "strict": True}),)), "v4")
        assert '{"type": "object", "properties": {}, "additionalProperties": false, "required": []}' in text


class TestEngines:
    """V3.2 and V4's preview as vLLM and SGLang render them: the encoders published with the weights (read, and run)."""

    SYSTEMS = (SYSTEM, USER, Message("system", "late"), Message("user", "V"))

    @pytest.mark.parametrize("engine", ["vllm", "sglang"])
    def test_leave_system_messages_in_their_places(self, engine: str) -> None:
        assert spelled(prompt.rendered(asking(*self.SYSTEMS), "v4-preview", None, engine)) == (
            BOS + "S<｜User｜>Ulate<｜User｜>V<｜Assistant｜></think>"
        )
        assert spelled(prompt.rendered(asking(*self.SYSTEMS), "v3.2", None, engine)) == (
            BOS + "S<｜User｜>U<｜Assistant｜></think>late<｜User｜>V<｜Assistant｜></think>"
        )

    @pytest.mark.parametrize("template", ["v3.2", "v4-preview"])
    def test_tell_tools_behind_a_blank_line(self, template: Template) -> None:
        """SGLang in the first system message, vLLM in one of its own before all."""
        lead = LAYOUTS[template].tools.lead[:8]
        alone, behind = asking(tools=(WEATHER,)), asking(SYSTEM, USER, tools=(WEATHER,))
        for engine in ("vllm", "sglang"):
            assert spelled(prompt.rendered(alone, template, None, engine)).startswith(f"{BOS}\n\n{lead}")
        assert spelled(prompt.rendered(behind, template, None, "sglang")).startswith(f"{BOS}S\n\n{lead}")
        assert spelled(prompt.rendered(behind, template, None, "vllm")).startswith(f"{BOS}\n\n{lead}")
        assert ".\nS<｜User｜>U" in spelled(prompt.rendered(behind, "v4-preview", None, "vllm"))

    @pytest.mark.parametrize("template", ["v3.2", "v4-preview"])
    def test_write_every_tool_as_received(self, template: Template) -> None:
        for engine in ("vllm", "sglang"):
            text = spelled(prompt.rendered(asking(tools=(WEATHER,)), template, None, engine))
            assert json.dumps(WEATHER.function) in text

    @pytest.mark.parametrize("template", ["v3.2", "v4-preview"])
    def test_keep_a_response_format_to_themselves(self, template: Template) -> None:
        call = asking(response_format=ResponseFormat("json_object"))
        for engine in ("vllm", "sglang"):
            assert JSON_ONLY not in spelled(prompt.rendered(call, template, None, engine))
        assert JSON_ONLY in spelled(prompt.rendered(call, template, None, "deepseek"))

    @pytest.mark.parametrize("template", TEMPLATES)
    def test_of_any_other_dialect_or_template_are_as_the_template_says(self, template: Template) -> None:
        call = asking(*self.SYSTEMS, tools=(WEATHER,))
        assert prompt.rendered(call, template, None, "deepseek") == prompt.rendered(call, template)
        if template not in ("v3.2", "v4-preview"):
            assert prompt.rendered(call, template, None, "vllm") == prompt.rendered(call, template)


def test_v32_opens_an_answer_behind_every_question_and_every_result() -> None:
    """Also where none follows (the published encoder)."""
    text = seen(asking(USER, Message("user", "V"), thinking=True), "v3.2")
    assert text == BOS + "<｜User｜>U<｜Assistant｜></think><｜User｜>V<｜Assistant｜><think>"
    asked_again = seen(asking(USER, CALLED, RESULT, Message("user", "V"), thinking=True), "v3.2")
    assert "</function_results>\n\n</think><｜User｜>V<｜Assistant｜><think>" in asked_again


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"thinking": True},
        {"tools": (WEATHER,)},
        {"response_format": ResponseFormat("json_object")},
        {"response_format": ResponseFormat("json_schema", {"schema": {"a": 1}})},
    ],
    ids=str,
)
def test_the_templates_own_words_are_those_that_no_caller_has_said(template: Template, fields: dict[str, Any]) -> None:
    """USE-5: what an offset may take away at most; the fixed texts are parts of the prompt."""
    vocabulary = proxy.vocabulary.load()
    taken = prompt.parts(asking(**fields), template)
    assert all(any(fixed in text for text in taken.texts) for fixed in taken.fixed)
    overhead, whole = prompt.overhead(taken, vocabulary), prompt.length(taken, vocabulary)
    assert taken.specials <= overhead <= whole
    longer = prompt.parts(asking(Message("user", "U" + " many words" * 50), **fields), template)
    assert prompt.overhead(longer, vocabulary) == overhead


@pytest.mark.parametrize(
    ("messages", "least_turns"),
    [((USER,), 1), ((Message("user", "many words " * 5_000),), 6), ((USER, CALLED, RESULT) * 3_000, 2)],
    ids=["short", "one long text", "many short ones"],
)
def test_totals_on_the_way_end_with_the_length(messages: tuple[Message, ...], least_turns: int) -> None:
    """USE-8: every few thousand characters, for a thread that has more to do."""
    vocabulary = proxy.vocabulary.load()
    taken = prompt.parts(asking(*messages), "v3.2")
    totals = [*prompt.totals(taken, vocabulary)]
    assert totals[-1] == prompt.length(taken, vocabulary)
    assert totals == sorted(totals)
    assert len(totals) >= least_turns


@pytest.mark.parametrize("template", TEMPLATES)
def test_images_stand_among_the_texts_with_a_blank_line_between(template: Template) -> None:
    """SOURCES#images: the blank line is a part of the text beside it, an image is as many tokens as it says."""
    picture = Image("data:", None, "png", 192)
    shown = Message("user", "ab", parts=("a", picture, "b", picture, Image("https://a/b")))
    text = Message("user", "a")
    seeing = replace(MODEL, sees=True)
    plain = prompt.parts(asking(text)._replace(model=seeing), template)
    made = prompt.parts(asking(shown)._replace(model=seeing), template)
    assert (made.images, plain.images) == (384, 0)
    assert made.specials == plain.specials
    assert "".join(made.texts).replace("a\n\n\n\nb\n\n\n\n", "a") == "".join(plain.texts)
    vocabulary = proxy.vocabulary.load()
    assert [*prompt.totals(made, vocabulary)][-1] == prompt.length(made, vocabulary)
    assert prompt.overhead(made, vocabulary) == prompt.overhead(plain, vocabulary)
