"""Claims about what would go upstream for a call, and for whom it is written; nothing is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from config import sources
from config.settings import Settings, SettingsError
from config.values import toml
from proxy.admin import translation
from translators.faults import Refusal

CALL: dict[str, Any] = {
    "model": "deepseek-v3.2",
    "input": {"messages": [{"role": "user", "content": "Hi"}]},
    "parameters": {"top_k": 5},
}
POOLS = [
    # Asked after the other one, and serves but what it maps.
    {"name": "later", "urls": ["http://a"], "priority": 2, "models": ["deepseek-r1"]},
    {
        "name": "first",
        "urls": ["http://b"],
        "dialect": "vllm",
        "map": {"deepseek-v3.2": "of-b"},
        "models": ["deepseek-v3.2"],
    },
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "dashseek.toml"
    file.write_text(f"pools = {toml(POOLS)}\n")
    return sources.load({}, str(file), {})


def told(settings: Settings, call: dict[str, Any], *, stream: bool = True, **how: Any) -> dict[str, Any]:
    """What is said of a call, as the document that is printed."""
    asked = {name: how.pop(name) for name in ("model",) if name in how}
    translator = translation.build(settings, how.pop("api", "dashscope"), **how)
    return translator.call(orjson.dumps(call), stream=stream, **asked).document()


def one_upstream() -> Settings:
    return sources.load({"upstream": ("http://127.0.0.1:1",)}, None, {})


def test_a_call_is_said_whole() -> None:
    document = told(one_upstream(), {**CALL, "model": "deepseek-v3"})
    (model, messages, top_k, *others) = document.pop("fields")
    assert [[*line.values()][:3] for line in (model, messages, top_k)] == [
        ["model", "renamed", "model"],
        ["input.messages", "kept", "messages"],
        ["parameters.top_k", "dropped", ""],
    ]
    assert all([*line] == ["field", "action", "upstream", "why"] for line in (model, *others))
    assert document == {
        "path": "/chat/completions",
        "calls": 1,
        "input_tokens": document["input_tokens"],
        "body": {
            "model": "deepseek-flash",
            "messages": CALL["input"]["messages"],
            "max_tokens": 16384,
            "stream": True,
            "stream_options": {"include_usage": True},
            "thinking": {"type": "disabled"},
        },
    }
    assert document["input_tokens"] > 0


def test_of_pools_the_first_that_serves_the_model_is_asked_under_its_name_and_in_its_dialect(
    settings: Settings,
) -> None:
    document = told(settings, CALL)
    assert (document["pool"], document["body"]["model"], document["body"]["top_k"]) == ("first", "of-b", 5)
    other = told(settings, {**CALL, "model": "deepseek-r1"})
    assert (other["pool"], "top_k" in other["body"]) == ("later", False)


def test_the_pool_that_is_named_is_asked_or_refuses(settings: Settings) -> None:
    assert told(settings, CALL, pool="first")["pool"] == "first"
    assert told(settings, CALL, model="deepseek-r1", pool="later")["pool"] == "later"
    for pool in ("later", "first"):
        other = {"later": "deepseek-v3.2", "first": "deepseek-r1"}[pool]
        with pytest.raises(Refusal) as refused:
            told(settings, {**CALL, "model": other}, pool=pool)
        assert refused.value.cause == f"pool {pool} does not serve {other}"


def test_a_pool_that_is_not_there_is_a_mistake_that_names_those_that_are(settings: Settings) -> None:
    with pytest.raises(SettingsError) as wrong:
        translation.build(settings, "dashscope", "frist")
    assert "--pool: there is no pool frist: there are " in str(wrong.value)
    assert {"later", "first"} <= {*str(wrong.value).replace(",", "").replace(";", "").split()}
    assert "did you mean first?" in str(wrong.value)
    with pytest.raises(SettingsError, match=r"^--pool: there is no pool a: the configuration has none$"):
        translation.build(one_upstream(), "dashscope", "a")


@pytest.mark.parametrize(
    ("call", "stream", "streams"),
    [
        (CALL, True, True),
        (CALL, False, False),
        ({"model": "deepseek-v3.2", "messages": CALL["input"]["messages"], "stream": True}, False, True),
        ({"model": "deepseek-v3.2", "messages": CALL["input"]["messages"]}, False, False),
    ],
)
def test_whether_packets_are_wanted_is_said_by_a_header_or_the_body(
    call: dict[str, Any], stream: bool, streams: bool
) -> None:
    api = "dashscope" if "input" in call else "openai"
    found = told(one_upstream(), call, stream=stream, api=api)
    assert bool(found["body"].get("stream")) is streams
