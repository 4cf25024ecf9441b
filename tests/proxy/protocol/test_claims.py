"""The words of the checks, in both languages."""

from __future__ import annotations

import pytest

from proxy.protocol import claims, claims_zh


@pytest.mark.parametrize(("rule", "key"), [("SSE-9", "SSE-9"), ("USE-3", "USE"), ("ERR-2", "ERR"), ("KEY-1", "")])
def test_the_specification_is_quoted_by_rule_or_by_its_family_or_in_general(rule: str, key: str) -> None:
    assert claims.sentence(rule) == claims.SENTENCES[key]


def test_a_rule_that_nothing_holds_from_outside_has_its_reason_or_that_of_its_family() -> None:
    assert claims.why_unchecked("LIM-1") == claims.OPERATORS
    assert claims.why_unchecked("USE-8") == claims.UNCHECKED["USE-8"]
    assert claims.why_unchecked("POOL-3") == claims.OPERATORS
    assert claims.why_unchecked("PAR-1") is None


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("reasoning before content", "思维链先于正文"),
        ('{"n":4} is taken', '接受 {"n":4}'),
        ('{"n":5} is 400 InvalidParameter', '{"n":5} 为 400 InvalidParameter'),
        ("{} in the service's words", "{} 的报错文本与服务一致"),
        ("nobody has said so", "nobody has said so"),
    ],
)
def test_a_claim_in_chinese(sentence: str, said: str) -> None:
    assert claims_zh.chinese(sentence) == said
