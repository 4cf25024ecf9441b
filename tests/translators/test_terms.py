"""The terms of an answer follow from its call, its dialect and its upstream body (spec OUT-8, OUT-9, PAR-9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import corpus
from translators import dialogue
from translators.openai import dialects, request
from translators.terms import agreed


def test_what_upstream_does_not_do_is_agreed_to_be_done_here() -> None:
    """OUT-8, OUT-9, PAR-9."""
    call = corpus.ask(stops=("a",), max_tokens=9, thinking_budget=5)
    dialect = dialects.DIALECTS["deepseek"]
    terms = agreed(request.order(call, dialect), request_id=corpus.REQUEST_ID, own_key=False)
    assert (terms.rules.answer_limit, terms.rules.chain_limit) == (9, 5)
    assert (terms.chain_end, terms.answer_end, terms.prefix) == (1, 0, "")
    partial = call._replace(messages=(*call.messages, dialogue.Message("assistant", "Once", partial=True)))
    llama = dialects.DIALECTS["llamacpp"]
    assert agreed(request.order(partial, llama), request_id=corpus.REQUEST_ID, own_key=False).prefix == "Once"
    # Neither where a server repeats a prefix and there is none, nor where there is one and the server repeats nothing.
    for asked, elsewhere in ((call, llama), (partial, dialect)):
        order = request.order(asked, elsewhere)
        assert agreed(order, request_id=corpus.REQUEST_ID, own_key=False).prefix == ""


def test_whether_the_prompt_opens_calls_is_agreed() -> None:
    """USE-7: the template decides, which is that of the model that serves the call there."""
    tool = dialogue.Tool("f", {"name": "f"})
    call = corpus.ask(thinking=False, tools=(tool,), tool_choice="required")
    for template, opened in (("v4", True), ("v3.2", False)):
        order = request.order(
            call._replace(model=replace(call.model, template=template)), dialects.DIALECTS["deepseek"]
        )
        terms = agreed(order, request_id=corpus.REQUEST_ID, own_key=False)
        assert (terms.template, terms.calls_opened) == (template, opened)


@pytest.mark.parametrize(
    ("model", "where", "thinking", "rules"),
    [
        (corpus.ALWAYS, "auto", True, (True, False)),
        (corpus.HYBRID, "auto", True, (False, False)),
        (corpus.HYBRID, "yes", True, (True, True)),
        (corpus.HYBRID, "yes", False, (False, True)),
        (corpus.ALWAYS, "no", True, (False, False)),
    ],
)
def test_where_the_chain_is_looked_for_is_the_rows_word_and_the_calls_nature(
    model: dialogue.Model, where: dialogue.ThinkInContent, rules: tuple[bool, bool], *, thinking: bool
) -> None:
    """OUT-10: and a prefix has its chain behind it."""
    call = corpus.ask(replace(model, think_in_content=where), thinking=thinking)
    dialect = dialects.DIALECTS["openai"]
    for asked, split in (
        (call, rules[0]),
        (call._replace(messages=(*call.messages, dialogue.Message("assistant", "Once", partial=True))), False),
    ):
        terms = agreed(request.order(asked, dialect), request_id=corpus.REQUEST_ID, own_key=False)
        assert (terms.rules.think_tags, terms.rules.inside_chain) == (split, rules[1])


def test_what_a_call_may_not_hear_of_its_own_way_is_agreed() -> None:
    """ERR-3."""
    order = request.order(corpus.ask(tool_stream=True), dialects.DIALECTS["vllm"])
    terms = agreed(order, request_id=corpus.REQUEST_ID, own_key=False, known=("a-host",))
    assert terms.failures.known == ("a-host",)
    assert terms.rules.calls_in_pieces
