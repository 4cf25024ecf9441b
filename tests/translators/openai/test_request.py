"""What is sent upstream, and what is left to us (spec: column "upstream" of PAR-*, REQ-6, REQ-7, OUT-7…OUT-9)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from translators import faults
from translators.catalogue import Catalogue
from translators.dashscope import call as dashscope
from translators.dialogue import Call, Image, Message, Model, ResponseFormat, Tool, ToolCall
from translators.openai import request
from translators.openai.dialects import DIALECTS, Dialect
from translators.openai.fields import FieldMapping

GOLDEN = Path(__file__).parents[2] / "golden" / "body"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/body.json"))
MODEL = Model(
    id="deepseek-v3.2",
    thinking="hybrid",
    context_tokens=131_072,
    input_tokens=98_304,
    chain_tokens=32_768,
    answer_tokens=65_536,
    template="v3.2",
    strict_thinking=True,
    upstream={"deepseek": "deepseek-flash", "siliconflow": "deepseek-ai/DeepSeek-V3.2"},
    templates={"deepseek": "v4.1"},
)
ASKED = Message("user", "Hello, as json")
WEATHER = Tool("get_weather", {"name": "get_weather", "parameters": {"type": "object", "properties": {}}})
TIME = Tool("get_time", {"name": "get_time"})


def asking(**fields: Any) -> Call:
    said: dict[str, Any] = {"model": MODEL, "messages": (ASKED,), "stream": False} | fields
    return Call(**said)


def thinking(**fields: Any) -> Call:
    return asking(**({"stream": True, "incremental": True, "thinking": True} | fields))


def translated(call: Call, dialect: str | Dialect, input_tokens: int | None = None) -> request.Body:
    row = DIALECTS[dialect] if isinstance(dialect, str) else dialect
    return request.order(call, row).body(input_tokens)


def trail(call: Call, dialect: str | Dialect) -> dict[str, FieldMapping]:
    row = DIALECTS[dialect] if isinstance(dialect, str) else dialect
    return {crossing.ours: crossing for crossing in request.order(call, row).fields()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}-{case.name}")
def test_a_call_becomes_the_body_written_by_hand(case: Path) -> None:
    given = json.loads((case / "call.json").read_text("utf-8"))
    call = dashscope.translate(given["call"], Catalogue([MODEL], {}), stream=given["sse"], decode=bytes)

    body = translated(call, case.parent.name)._asdict()

    assert body | {"stops": list(body["stops"])} == json.loads((case / "body.json").read_text("utf-8"))


def test_every_dialect_has_every_golden_case() -> None:
    cases = {dialect: {case.name for case in CASES if case.parent.name == dialect} for dialect in DIALECTS}
    assert len(CASES) == 77
    assert all(names == cases["deepseek"] for names in cases.values())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unsaid_field_is_not_sent(dialect: str) -> None:
    body = translated(asking(), dialect).json
    switch = DIALECTS[dialect].thinking[False]
    assert set(body) == {"model", "messages", "stream", "max_tokens", *switch}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("on", [True, False])
def test_thinking_is_always_said(dialect: str, on: bool) -> None:
    """PAR-14: an upstream's default is on."""
    body = translated(asking(thinking=on), dialect).json
    assert {key: body[key] for key in DIALECTS[dialect].thinking[on]} == DIALECTS[dialect].thinking[on]


class TestAnswerLimit:
    """OUT-8."""

    def test_the_models_answer_limit_is_sent_where_the_caller_says_none(self) -> None:
        assert translated(asking(), "deepseek").json["max_tokens"] == 65_536

    def test_a_chain_that_is_counted_gets_room_of_its_own(self) -> None:
        assert translated(thinking(max_tokens=100), "deepseek").json["max_tokens"] == 100 + 32_768

    def test_a_chain_that_is_not_counted_does_not(self) -> None:
        assert translated(thinking(max_tokens=100), "siliconflow").json["max_tokens"] == 100

    def test_no_limit_is_no_reason_to_stream(self) -> None:
        body = translated(thinking(stream=False), "deepseek")
        assert (body.stream, body.answer_limit) == (False, None)

    def test_an_answer_to_be_cut_is_seen_as_it_comes(self) -> None:
        body = translated(thinking(stream=False, max_tokens=100), "deepseek")
        assert (body.stream, body.answer_limit) == (True, 100)
        assert body.json["stream"] is True

    def test_the_context_that_is_left_bounds_it(self) -> None:
        assert translated(asking(), "deepseek", input_tokens=131_000).json["max_tokens"] == 72

    def test_a_full_context_still_asks_for_one_token(self) -> None:
        assert translated(asking(), "deepseek", input_tokens=200_000).json["max_tokens"] == 1

    def test_the_upstreams_own_bound_holds(self) -> None:
        vast = replace(MODEL, context_tokens=1_000_000, chain_tokens=393_216, answer_tokens=393_216)
        assert translated(thinking(model=vast), "deepseek").json["max_tokens"] == 393_216
        assert translated(thinking(model=vast), "vllm").json["max_tokens"] == 786_432

    def test_the_trail_names_what_was_done(self) -> None:
        assert trail(asking(max_tokens=5), "deepseek")["max_tokens"].action == "kept"
        assert trail(thinking(max_tokens=5), "deepseek")["max_tokens"].action == "emulated"
        whole = replace(MODEL, answer_tokens=200_000)
        assert trail(asking(model=whole), "deepseek")["max_tokens"].action == "clamped"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_as_many_choices_as_upstream_can_count_are_asked_for_at_once(dialect: str, n: int) -> None:
    """OUT-7: else one call for each, which says no `n`."""
    body = translated(asking(n=n), dialect)
    at_once = n > 1 and dialect in {"vllm", "sglang"}
    assert body.legs == (1 if at_once else n)
    assert body.json.get("n") == (n if at_once else None)
    assert (trail(asking(n=n), dialect).get("n") is None) is (n == 1)


class TestThinkingBudget:
    """PAR-15, OUT-9."""

    @pytest.mark.parametrize(("asked", "held"), [(1, 128), (2_000, 2_000), (32_768, 32_768), (40_000, 32_768)])
    def test_a_native_budget_is_held_within_its_range(self, asked: int, held: int) -> None:
        call = thinking(thinking_budget=asked)
        assert translated(call, "siliconflow").json["thinking_budget"] == held
        assert trail(call, "siliconflow")["thinking_budget"].action == ("renamed" if asked == held else "clamped")

    def test_a_native_budget_leaves_us_nothing_to_count(self) -> None:
        body = translated(thinking(thinking_budget=9), "vllm")
        assert (body.json["thinking_token_budget"], body.chain_limit) == (9, None)

    @pytest.mark.parametrize("dialect", ["deepseek", "sglang", "llamacpp"])
    def test_a_budget_that_upstream_cannot_hold_is_counted_here(self, dialect: str) -> None:
        call = thinking(stream=False, thinking_budget=9)
        body = translated(call, dialect)
        assert (body.chain_limit, body.stream) == (9, True)
        assert trail(call, dialect)["thinking_budget"].action == "emulated"

    @pytest.mark.parametrize(
        "beside", [{"tools": (WEATHER,)}, {"response_format": ResponseFormat("json_object")}], ids=["tools", "format"]
    )
    def test_a_chain_that_cannot_be_continued_gets_an_effort(self, beside: dict[str, Any]) -> None:
        """api.deepseek.com refuses a prefix beside tools and beside a response format."""
        body = translated(thinking(thinking_budget=9, **beside), "deepseek")
        assert (body.json["reasoning_effort"], body.effort, body.chain_limit) == ("low", "low", None)

    def test_text_is_no_response_format(self) -> None:
        call = thinking(thinking_budget=9, response_format=ResponseFormat("text"))
        assert translated(call, "deepseek").chain_limit == 9

    def test_a_prefix_has_its_chain_behind_it(self) -> None:
        call = thinking(thinking_budget=9, messages=(ASKED, Message("assistant", "It is", partial=True)))
        assert translated(call, "deepseek").chain_limit is None
        assert trail(call, "deepseek")["thinking_budget"].action == "dropped"

    def test_a_budget_without_a_chain_is_dropped(self) -> None:
        assert trail(asking(thinking_budget=9), "vllm")["thinking_budget"].action == "dropped"

    def test_a_budget_that_nobody_knows_is_dropped_with_a_reason(self) -> None:
        crossing = trail(thinking(thinking_budget=9), replace(DIALECTS["vllm"], budget="effort"))["thinking_budget"]
        assert (crossing.action, crossing.sent) == ("dropped", {})

    def test_a_dialect_that_holds_no_budget_says_so(self) -> None:
        unheld = {name for name, row in DIALECTS.items() if not request.enforces_budgets(row)}
        assert unheld == {"ark", "openai"}


class TestResume:
    """OUT-9: the second leg, after the closed chain."""

    def test_deepseek_closes_the_chain_before_text_alone(self) -> None:
        """Before an empty text its renderer leaves the chain open, and the model would think on."""
        call = thinking(thinking_budget=9, max_tokens=100)
        body = request.order(call, DIALECTS["deepseek"]).resumed("so far")
        assert body.path == "/beta/chat/completions"
        assert body.json["messages"][-1] == {
            "role": "assistant",
            "content": "\n\n",
            "reasoning_content": "so far",
            "prefix": True,
        }
        assert body.json["thinking"] == {"type": "enabled"}

    @pytest.mark.parametrize("dialect", ["sglang", "llamacpp"])
    def test_an_engine_is_given_the_chain_as_the_model_wrote_it(self, dialect: str) -> None:
        body = request.order(thinking(thinking_budget=9), DIALECTS[dialect]).resumed("so far")
        assert body.json["messages"][-1] == {"role": "assistant", "content": "so far</think>\n\n"}

    def test_sglang_renders_v4_by_the_vendors_code_which_reads_a_field(self) -> None:
        call = thinking(model=replace(MODEL, template="v4"), thinking_budget=9)
        body = request.order(call, DIALECTS["sglang"]).resumed("so far")
        last = {"role": "assistant", "content": "\n\n", "reasoning_content": "so far"}
        assert body.json["messages"][-1] == last
        assert body.json["continue_final_message"] is True

    def test_the_answer_keeps_its_limit_and_its_stops(self) -> None:
        call = thinking(stream=False, thinking_budget=9, max_tokens=100, stops=("x",))
        body = request.order(call, DIALECTS["sglang"]).resumed("so far", input_tokens=50)
        assert (body.json["max_tokens"], body.json["stop"]) == (100, ["x"])
        assert (body.chain_limit, body.stream) == (None, True)


class TestStops:
    """PAR-9."""

    def test_a_stop_never_ends_a_chain(self) -> None:
        body = translated(thinking(stops=("x",)), "vllm")
        assert ("stop" in body.json, body.stops) == (False, ("x",))

    def test_deepseek_looks_for_them_after_the_chain(self) -> None:
        body = translated(thinking(stops=("x",)), "deepseek")
        assert (body.json["stop"], body.stops) == (["x"], ())

    def test_those_that_upstream_does_not_take_are_looked_for_here(self) -> None:
        stops = tuple(map(str, range(18)))
        body = translated(asking(stops=stops), "deepseek")
        assert (body.json["stop"], body.stops, body.stream) == (list(stops[:16]), ("16", "17"), True)

    def test_the_trail_tells_whose_they_are(self) -> None:
        assert trail(asking(stops=("x",)), "vllm")["stops"].action == "renamed"
        assert trail(thinking(stops=("x",)), "vllm")["stops"].action == "emulated"


class TestTools:
    """PAR-16…PAR-18."""

    def test_a_choice_without_tools_is_dropped(self) -> None:
        call = asking(tool_choice="none")
        assert trail(call, "vllm")["tool_choice"].action == "dropped"
        assert "tool_choice" not in translated(call, "vllm").json

    def test_a_word_crosses(self) -> None:
        assert (
            translated(asking(tools=(WEATHER,), tool_choice="required"), "llamacpp").json["tool_choice"] == "required"
        )

    def test_a_function_is_sent_as_the_caller_wrote_it(self) -> None:
        assert translated(asking(tools=(TIME,)), "ark").json["tools"] == [
            {"type": "function", "function": {"name": "get_time"}}
        ]

    def test_calls_are_trimmed_here_where_upstream_cannot(self) -> None:
        assert trail(asking(tools=(WEATHER,)), "deepseek")["parallel_tool_calls"].action == "emulated"


class TestLogprobs:
    """PAR-10."""

    def test_alternatives_go_with_logprobs_only(self) -> None:
        body = translated(asking(top_logprobs=3), "vllm").json
        assert "top_logprobs" not in body
        assert "logprobs" not in body

    def test_llama_cpp_refuses_them_beside_tools_in_a_stream(self) -> None:
        call = asking(stream=True, tools=(WEATHER,), logprobs=True, top_logprobs=3)
        assert not {"logprobs", "top_logprobs"} & set(translated(call, "llamacpp").json)
        assert translated(call._replace(stream=False), "llamacpp").json["top_logprobs"] == 3


class TestHistory:
    """REQ-7."""

    CALLED = Message("assistant", None, tool_calls=(ToolCall("1", "get_weather", "{}"),))
    RESULT = Message("tool", "sunny", tool_call_id="1")

    def chains(self, call: Call, dialect: str = "deepseek") -> list[Any]:
        messages = translated(call, dialect).json["messages"]
        return [said.get("reasoning_content") for said in messages if said["role"] == "assistant"]

    def test_a_turn_of_the_loop_gets_an_empty_chain(self) -> None:
        call = thinking(messages=(ASKED, self.CALLED, self.RESULT), tools=(WEATHER,))
        assert self.chains(call) == [""]

    def test_an_earlier_turn_does_not(self) -> None:
        call = thinking(messages=(ASKED, self.CALLED, self.RESULT, ASKED), tools=(WEATHER,))
        assert self.chains(call) == [None]

    def test_without_tools_there_is_no_loop(self) -> None:
        assert self.chains(thinking(messages=(ASKED, Message("assistant", "Hi"), ASKED))) == [None]

    @pytest.mark.parametrize(
        "fields",
        [{"tools": (WEATHER,)}, {"thinking": True}, {"thinking": True, "tools": (WEATHER,), "tool_choice": "none"}],
        ids=["no thinking", "no tools", "none may be called"],
    )
    def test_nor_is_there_one_where_a_format_is_asked_for(self, fields: dict[str, Any]) -> None:
        messages = (ASKED, self.CALLED, self.RESULT)
        assert self.chains(asking(messages=messages, response_format=ResponseFormat("json_object"), **fields)) == [None]

    def test_a_loop_without_a_user_is_a_loop(self) -> None:
        call = thinking(messages=(Message("system", "Go."), self.CALLED, self.RESULT), tools=(WEATHER,))
        assert self.chains(call) == [""]

    def test_a_chain_that_upstream_would_not_understand_stays_here(self) -> None:
        said = Message("assistant", "Hi", reasoning="Greet.")
        assert self.chains(thinking(messages=(ASKED, said, ASKED)), "openai") == [None]


class TestResponseFormat:
    """PAR-11."""

    def test_text_is_the_default(self) -> None:
        assert trail(asking(response_format=ResponseFormat("text")), "vllm")["response_format"].action == "dropped"

    def test_a_schema_that_cannot_be_enforced_is_instructed(self) -> None:
        wanted = ResponseFormat("json_schema", {"name": "x", "schema": {"type": "object"}})
        body = translated(asking(response_format=wanted), "deepseek").json
        assert body["response_format"] == {"type": "json_object"}
        assert body["messages"][0]["role"] == "system"
        assert body["messages"][0]["content"].endswith('{"type":"object"}')

    def test_what_is_counted_is_what_is_sent(self) -> None:
        """USE-1: the instruction is part of the prompt."""
        wanted = ResponseFormat("json_schema", None)
        seen = request.order(asking(response_format=wanted), DIALECTS["ark"]).plan.call
        assert seen.response_format == ResponseFormat("json_object")
        assert (
            seen.messages[0].content == translated(asking(response_format=wanted), "ark").json["messages"][0]["content"]
        )


@pytest.mark.parametrize("seed", [0, 2**32 - 2])
def test_a_narrow_seed_crosses_as_it_is(seed: int) -> None:
    assert translated(asking(seed=seed), "llamacpp").json["seed"] == seed


@pytest.mark.parametrize("seed", [2**32 - 1, 2**63 - 1])
def test_llama_cpps_word_for_a_random_seed_is_never_sent(seed: int) -> None:
    """PAR-4: a caller's seed asks for the same answer twice; 2**32 - 1 would ask for a different one."""
    assert 0 <= translated(asking(seed=seed), "llamacpp").json["seed"] < 2**32 - 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_trail_is_the_body(dialect: str) -> None:
    call = thinking(
        thinking_budget=9,
        max_tokens=9,
        stops=("x",),
        temperature=0.5,
        top_k=7,
        seed=2**40,
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        logprobs=True,
        tools=(WEATHER, TIME),
    )
    sent: dict[str, Any] = {}
    for crossing in request.order(call, DIALECTS[dialect]).fields():
        sent |= crossing.sent
        assert (crossing.action == "dropped") <= (not crossing.sent and bool(crossing.why))
    assert sent == translated(call, dialect).json


SAID: dict[str, Any] = {
    "stream": True,
    "thinking": True,
    "thinking_budget": 9,
    "max_tokens": 9,
    "n": 2,
    "temperature": 0.5,
    "stops": ("x", "y"),
    "top_logprobs": 1,
    "response_format": ResponseFormat("json_object"),
    "tool_choice": "none",
    "messages": (ASKED, Message("assistant", "x", partial=True)),
}


@given(names=st.sets(st.sampled_from([*SAID])), dialect=st.sampled_from([*DIALECTS]))
def test_so_it_is_whatever_a_call_says(names: set[str], dialect: str) -> None:
    """Field by field and in their order, though no body is made of its trail."""
    call = asking(**{name: SAID[name] for name in names})
    sent: dict[str, Any] = {}
    for crossing in request.order(call, DIALECTS[dialect]).fields():
        sent |= crossing.sent
    assert orjson.dumps(sent) == orjson.dumps(translated(call, dialect).json)


def test_a_model_that_does_not_see_is_shown_nothing() -> None:
    assert asking().images == ()


def test_a_call_is_never_edited() -> None:
    call = thinking(tools=(WEATHER,), messages=(ASKED, Message("assistant", "x", partial=True)))
    before = repr(call)
    translated(call, "deepseek").json["messages"].clear()
    assert repr(call) == before


def test_stream_options_are_for_streams() -> None:
    """vLLM answers them with 400 elsewhere."""
    assert "stream_options" not in translated(asking(), "vllm").json
    assert translated(asking(stream=True), "vllm").json["stream_options"]["continuous_usage_stats"] is True


@pytest.mark.parametrize(("dialect", "known_as"), [("deepseek", "deepseek-flash"), ("vllm", MODEL.id)])
def test_a_model_is_asked_for_by_the_id_it_has_there(dialect: str, known_as: str) -> None:
    """MOD-1: its own name where nothing else is known of that upstream."""
    order = request.order(asking(), DIALECTS[dialect])
    assert order.upstream_model == order.body().json["model"] == known_as


class TestImages:
    """REQ-4."""

    PICTURE = Image("data:image/png;base64,AAAA", "low", "png", 192)

    def shown(self, role: Any) -> Call:
        asked = Message("assistant", None, tool_calls=(ToolCall("c", "f", "{}"),))
        said = Message(role, "a", parts=("a", self.PICTURE, Image("https://a/b")), tool_call_id="c")
        return asking(model=replace(MODEL, sees=True), messages=(Message("user", "hi"), asked, said))

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_they_stand_among_the_texts_in_the_callers_order(self, dialect: str) -> None:
        assert translated(self.shown("user"), dialect).json["messages"][-1]["content"] == [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": self.PICTURE.url, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://a/b"}},
        ]

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_in_a_tools_answer_they_go_where_they_are_known_to_be_taken(self, dialect: str) -> None:
        call = self.shown("tool")
        if dialect in {"deepseek", "vllm", "sglang", "llamacpp"}:
            assert len(translated(call, dialect).json["messages"][-1]["content"]) == 3
        else:
            with pytest.raises(faults.Refusal) as refusal:
                translated(call, dialect)
            assert refusal.value.fault == faults.NOT_TEXT

    def test_a_prompt_with_images_is_a_kind_of_its_own(self) -> None:
        """USE-5."""
        seeing, plain = self.shown("user"), asking(model=replace(MODEL, sees=True))
        keys = [request.order(call, DIALECTS["deepseek"]).offset_key for call in (seeing, plain)]
        assert keys[0] != keys[1]
