"""Every judge of the compatible surface at its bounds, and which of its checks apply to whom."""

from __future__ import annotations

from typing import Final

import orjson
import pytest

from proxy.protocol import compatible_checks as checks
from proxy.protocol.judgements import Came
from tests.proxy.protocol.judged import (
    ALWAYS,
    BROKE,
    BUSY,
    HYBRID,
    KEPT,
    MISSHAPEN,
    PLAIN,
    UNKNOWN,
    Case,
    answer,
    broken,
    case,
    unshown,
)
from translators.dialogue import Json

SSE: Final = {"content-type": "text/event-stream;charset=UTF-8"}
JSON: Final = {"content-type": "application/json"}


def figures(given: object, generated: object, total: object = None, **details: object) -> Json:
    whole = given + generated if isinstance(given, int) and isinstance(generated, int) and total is None else total
    return {"prompt_tokens": given, "completion_tokens": generated, "total_tokens": whole, **details}


def choice(content: object = "hi", finish: object = "stop", index: object = 0, **message: object) -> Json:
    said = {"role": "assistant", "content": content, **message}
    return {"message": said, "index": index, "finish_reason": finish}


def reply(*choices: Json, headers: Json | None = None, **fields: object) -> Came:
    document = {
        "id": "chatcmpl-x",
        "object": "chat.completion",
        "created": 1,
        "model": "deepseek-v3",
        "choices": list(choices or (choice(),)),
        "usage": figures(5, 2),
    }
    return answer({**document, **fields}, headers=headers or {})


def refusal(status: int, code: object = "X", *, headers: Json | None = None, **error: object) -> Came:
    said = {"message": "m", "type": "t", "param": None, "code": code}
    return answer({"error": {**said, **error}, "request_id": "r"}, status, headers=headers or {})


def chunk(finish: object = None, *, usage: object = None, **delta: object) -> Json:
    return {
        "id": "chatcmpl-x",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": usage,
    }


def last(usage: object) -> Json:
    """The chunk that has no choices, and the usage."""
    return {**chunk(), "choices": [], "usage": usage}


def stream(*chunks: Json, end: bytes = b"data: [DONE]\n\n") -> Came:
    return Came(200, SSE, (b"".join(b"data: %b\n\n" % orjson.dumps(each) for each in chunks) + end,))


def told(text: str, said: object, chain: str = "") -> Came:
    """A stream of a chain and a text, in two pieces each, and the tokens it says it has."""
    half, middle = len(chain) // 2, len(text) // 2
    pieces = (chunk(reasoning_content=chain[:half]), chunk(reasoning_content=chain[half:], content=None))
    texts = (chunk(content=text[:middle]), chunk(content=text[middle:]))
    return stream(*pieces, *texts, last(figures(5, said)))


def calling(*calls: Json, finish: str = "tool_calls") -> Came:
    return reply(choice("", finish, tool_calls=list(calls)))


def call(name: str = "get_current_weather", index: int = 0) -> Json:
    return {"id": "c", "type": "function", "index": index, "function": {"name": name, "arguments": "{}"}}


def first(index: int = 0, arguments: str = "", name: str = "f", **changed: object) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": "c", "type": "function", "function": function, **changed}


def later(arguments: str, index: int = 0, **changed: object) -> Json:
    return {"index": index, "function": {"arguments": arguments}, **changed}


def fragments(*listed: Json) -> Came:
    return stream(chunk(role="assistant", tool_calls=None), *(chunk(tool_calls=[each]) for each in listed))


OK: Final = reply()
TEN: Final = "a" * 10
TWO: Final = (chunk(content="alpha "), chunk(content="beta"))

CASES: Final = (
    # Replies
    case(checks.whole, OK),
    *(case(checks.whole, reply(choice(finish=finish))) for finish in ("length", "tool_calls")),
    case(checks.whole, reply(choice(), choice(None))),
    case(checks.whole, reply(object="text"), found=broken("object 'text', created 1")),
    case(checks.whole, reply(created=0), found=broken("object 'chat.completion', created 0")),
    case(checks.whole, reply(choice(role="user")), found=broken("a choice {'message': {'role': 'user', …")),
    case(
        checks.whole, reply(choice(None)), found=broken("a choice {'message': {'role': 'assistant', 'content': None…")
    ),
    case(checks.whole, reply(choice(index=1)), found=broken("a choice {'message': …")),
    case(checks.whole, reply(choice(finish=None)), found=broken("finish_reason None")),
    case(checks.whole, BUSY, found=unshown("answered 429: slow down")),
    case(checks.whole, BROKE, found=broken("answered 500: oops")),
    case(checks.echoed, OK),
    case(checks.echoed, OK, target=HYBRID, found=broken("asked 'deepseek-v3.2', answered 'deepseek-v3'")),
    case(checks.identified, reply(headers={"x-request-id": "x"})),
    case(checks.identified, reply(headers={"x-request-id": "y"}), found=broken("id 'chatcmpl-x', x-request-id 'y'")),
    case(checks.identified, reply(id="chatcmpl-"), found=broken("id 'chatcmpl-', x-request-id ''")),
    case(checks.is_document, OK),
    case(checks.is_document, stream(), found=broken(f"{MISSHAPEN} (JSONDecodeError: …")),
    case(checks.is_document, BROKE, found=broken("answered 500: oops")),
    case(checks.models, answer({"object": "list", "data": [{"id": "a"}, {"id": "b"}]})),
    case(
        checks.models, answer({"object": "list", "data": [{"id": "a"}, {"id": ""}]}), found=broken('{"object":"list"…')
    ),
    case(checks.models, answer({"object": "models", "data": [{"id": "a"}]}), found=broken('{"object":"models",…')),
    # Refusals
    case(checks.error_shape, refusal(400), refusal(500)),
    case(checks.error_shape, refusal(400), refusal(500, request_id="r"), found=broken("an error {'message': 'm', …")),
    case(checks.error_shape, refusal(400, message=None), found=broken("an error {'message': None, …")),
    case(checks.error_shape, answer({"error": {"message": "m"}}, 400), found=broken("an error {'message': 'm'}")),
    case(
        checks.error_shape,
        answer({**orjson.loads(refusal(400).body), "request_id": None}, 400),
        found=broken("no request_id"),
    ),
    case(checks.error_shape, refusal(400), refusal(399), found=broken('answered 399 {"error":{"message"…')),
    case(checks.error_shape, Came(503, pieces=(b"full",)), found=unshown("answered 503: full")),
    case(checks.refused_as(404, "model_not_found"), refusal(404, "model_not_found")),
    case(checks.refused_as(404, "X"), refusal(400), found=broken('404 X is due: 400 {"error":…')),
    case(checks.refused_as(400, "Y"), refusal(400), found=broken('400 Y is due: 400 {"error":…')),
    case(checks.locked, refusal(401)),
    case(checks.locked, refusal(403), found=broken('401 is due: 403 {"error":…')),
    case(checks.locked, refusal(401, type=""), found=broken('401 is due: 401 {"error":…')),
    case(checks.locked, OK, found=unshown("this gateway lets any key in")),
    case(checks.true_status, refusal(400), refusal(400, headers=JSON)),
    case(checks.true_status, refusal(400), refusal(401, headers=JSON), found=broken('401 {"error":…')),
    case(checks.true_status, refusal(400), refusal(400, headers=SSE), found=broken('400 {"error":…')),
    case(checks.true_status, refusal(400), refusal(400), found=broken('400 {"error":…')),
    case(checks.true_status, OK, refusal(200, headers=JSON), found=broken('answered 200 {"id":…')),
    # Frames
    case(checks.framed, stream(chunk()), stream(chunk(), end=b": a comment\n\n:heartbeat\n\ndata: [DONE]\n\n")),
    case(checks.framed, stream(chunk(), end=b":heartbeat\n:heartbeat\ndata: [DONE]\n\n")),
    case(
        checks.framed,
        *(stream(chunk()), stream(end=b"data: 1\n\ndata: [DONE]\n")),
        found=broken("the last frame has no blank line behind it: b'data: [DONE]\\n'"),
    ),
    case(checks.framed, stream(end=b"id:1\ndata: 1\n\n"), found=broken("not a frame: b'id:1\\ndata: 1'")),
    case(checks.framed, OK, found=broken("no stream but None: …")),
    case(checks.done, stream(chunk())),
    case(checks.done, stream(chunk(), end=b""), found=broken("[DONE] is not the last frame")),
    case(checks.done, stream(chunk(), end=b"data: [DONE]\n\n" * 2), found=broken("[DONE] is not the last frame")),
    case(checks.done, stream(chunk(), {"error": {}}), found=broken('an error in the stream: {"error":{}}')),
    case(checks.done, stream({"error": {}}, chunk())),
    case(checks.done, stream(), found=broken("no chunks: data: [DONE]\n\n")),
    case(checks.chunked, stream(*TWO, last(None)), stream(chunk())),
    case(checks.chunked, stream(chunk()), stream(chunk(), {**chunk(), "id": "y"}), found=broken("the id changes")),
    case(checks.chunked, stream(chunk(), {**chunk(), "object": "chat.completion"}), found=broken('a chunk {"id":…')),
    case(checks.chunked, stream({**chunk(), "choices": chunk()["choices"] * 2}), found=broken('a chunk {"id":…')),
    case(checks.role_once, stream(chunk(role="assistant"), *TWO)),
    case(checks.role_once, stream(*TWO), found=broken("the first delta is {'content': 'alpha '}")),
    case(checks.role_once, stream(*[chunk(role="assistant")] * 2, *TWO), found=broken("the role comes again")),
    *(case(checks.finished, stream(*TWO, chunk(finish), last(None))) for finish in checks.FINISHES),
    case(checks.finished, stream(*TWO, chunk("end")), found=broken("the last finish_reason is 'end'")),
    case(checks.finished, stream(chunk("stop"), *TWO), found=broken("the last finish_reason is None")),
    case(checks.finished, stream(*TWO, *[chunk("stop")] * 2), found=broken("a finish before the end")),
    case(checks.finished, stream(chunk("stop"), *TWO, chunk("stop")), found=broken("a finish before the end")),
    case(checks.in_pieces, stream(chunk(role="assistant"), chunk(content="aaaa"), chunk(content="aaaa"))),
    case(
        checks.in_pieces, stream(chunk(content="a" * 8), chunk(content="")), found=broken("the whole text in one chunk")
    ),
    case(
        checks.in_pieces, stream(chunk(content="aaa"), chunk(content="aaaa")), found=unshown("the answer was too short")
    ),
    # Thinking
    case(checks.ordered, stream(chunk(reasoning_content="h"), chunk(reasoning_content="m"), *TWO)),
    case(checks.ordered, stream(*TWO), found=broken("no reasoning_content in any chunk")),
    *(
        case(checks.ordered, stream(*chunks), found=broken("reasoning after or beside content"))
        for chunks in (
            (*TWO, chunk(reasoning_content="h")),
            (chunk(content="a"), chunk(content=""), chunk(reasoning_content="h")),
            (chunk(reasoning_content="h", content="a"),),
            (chunk(reasoning_content="h"), chunk(content="a"), chunk(reasoning_content="h")),
        )
    ),
    # Usage
    *(
        case(
            checks.usage_asked,
            told(text, said, chain),
            found=KEPT if kept else broken(f"completion_tokens {said}, by our count {ours}"),
        )
        for text, chain, said, ours, kept in (
            (TEN, "", 8, 10, True),
            (TEN, "", 12, 10, True),
            (TEN, "", 13, 10, False),
            (TEN, "", 7, 10, False),
            # The one that ends a chain.
            (TEN, TEN, 23, 21, True),
            (TEN, TEN, 24, 21, False),
            (TEN, TEN, 19, 21, True),
            (TEN, TEN, 18, 21, False),
            (TEN, "a", 14, 12, True),
        )
    ),
    case(checks.usage_asked, told(TEN, 99), target=UNKNOWN),
    *(
        case(checks.usage_asked, stream(*chunks), found=broken("usage is not in one last chunk without choices"))
        for chunks in (
            (*TWO, chunk("stop", usage=figures(5, 2))),
            (*TWO, chunk(usage=figures(5, 2)), last(figures(5, 2))),
            (chunk(usage=figures(5, 2)), *TWO, last(figures(5, 2))),
        )
    ),
    case(checks.usage_asked, stream(*TWO, last(figures(5, 2.0, 7))), found=broken("usage {'prompt_tokens': 5, …")),
    case(checks.usage_unasked, stream(*TWO)),
    case(checks.usage_unasked, stream(*TWO, last(figures(5, 2))), found=broken("usage that nobody asked for")),
    case(checks.usage_running, stream(chunk(usage=figures(5, 1)), last(figures(5, 2)))),
    case(checks.usage_running, stream(chunk(), last(figures(5, 2))), found=broken("a chunk without usage")),
    *(
        case(checks.usage_reply, reply(choice(content, **said), usage=usage), found=found)
        for content, said, usage, found in (
            ("hi", {}, figures(1, 1), KEPT),
            ("", {"reasoning_content": "hm"}, figures(5, 1), KEPT),
            ("", {"tool_calls": [{}]}, figures(5, 1), KEPT),
            ("", {}, figures(5, 0), unshown("the model said nothing")),
            ("hi", {}, figures(5, 0), broken("usage 5 + 0 = 5")),
            ("hi", {}, figures(0, 1), broken("usage 0 + 1 = 1")),
            ("hi", {}, figures(5, 1, 7), broken("usage 5 + 1 = 7")),
            ("hi", {}, figures(5, 1, 4), broken("usage 5 + 1 = 4")),
            ("hi", {}, figures("5", 1), broken("usage {'prompt_tokens': '5', …")),
        )
    ),
    # Tools
    case(checks.called, calling(call(), call("f", 1))),
    case(checks.called, calling(call("f"), call()), found=broken("a call {'id': 'c', …")),
    case(checks.called, calling(call(), finish="stop"), found=broken("finish_reason 'stop' beside calls")),
    case(checks.called, OK, found=unshown("the model called nothing")),
    case(checks.fragments, fragments(first(), later('{"a":'), later("1}"), first(1, "{}"))),
    case(checks.fragments, fragments(first(arguments="{"), later("}"), first(1), later("{}", 1))),
    case(checks.fragments, stream(*TWO), found=unshown("the model called nothing")),
    *(
        case(checks.fragments, fragments(wrong), found=broken("a first fragment without id, name or type: {…"))
        for wrong in (first(id=""), first(name=""), first(type="tool"))
    ),
    *(
        case(
            checks.fragments,
            fragments(first(), wrong),
            found=broken("a later fragment of another call, or with an id…"),
        )
        for wrong in (later("{}", 2), later("{}", id="c"), first(), {**later(""), "function": first()["function"]})
    ),
    case(
        checks.fragments,
        fragments(first(), first(1), later("{}", 0)),
        found=broken("a later fragment of another call, or with an id…"),
    ),
    case(
        checks.fragments,
        fragments(first(arguments="{}"), first(1, "[]")),
        found=broken("arguments that are no JSON object: []"),
    ),
    # Answers
    case(checks.stopped, reply(choice("alpha beta "))),
    case(
        checks.stopped, reply(choice("alpha beta gamma")), found=broken("the stop is in the text: 'alpha beta gamma'")
    ),
    case(checks.cut_off, reply(choice("abc", "length"), usage=figures(5, 3))),
    case(
        checks.cut_off,
        reply(choice("abc", usage=None), usage=figures(5, 9, completion_tokens_details={"reasoning_tokens": 6})),
        found=broken("finish_reason 'stop' after 3 of 3 tokens"),
    ),
    case(
        checks.cut_off,
        reply(choice("abcde", "length"), usage=figures(5, 3)),
        found=broken("5 tokens of text at max_tokens 3"),
    ),
    case(checks.two, reply(choice(index=1), choice(index=0))),
    case(checks.two, OK, found=broken("choices [0]")),
    case(checks.two, reply(choice(), choice(index=2)), found=broken("choices [0, 2]")),
    case(checks.json_object, reply(choice("{}"))),
    case(checks.json_object, reply(choice("[]")), found=broken("no JSON object: '[]'")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_judge_says_of_an_answer(case: Case) -> None:
    """COM-2 to COM-30, as a caller meets them."""
    case.holds()


def test_every_judge_of_this_surface_has_been_asked() -> None:
    rows = (*checks.ROWS, *checks.THINKING, *checks.PLAIN)
    own = {row[-1] for row in rows if row[-1].__module__ == checks.__name__ and "." not in row[-1].__qualname__}
    assert own <= {case.judge for case in CASES}


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("range", 400, "invalid_parameter_error"),
        ("no-model", 404, "model_not_found"),
        ("no-path", 404, "NotFound"),
    ],
)
def test_a_refusal_is_due_as_the_service_says_it(name: str, status: int, code: str) -> None:
    """COM-6, COM-8, COM-30."""
    (judge,) = [row[-1] for row in checks.rows(PLAIN) if row[0] == name]
    case(judge, refusal(status, code)).holds()
    case(judge, refusal(status + 1, code), found=broken(f"{status} {code} is due: …")).holds()


def test_which_checks_apply_is_decided_by_how_a_model_thinks() -> None:
    """COM-18, COM-23: a chain where there is one, several answers where none is due."""
    names = [row[0] for row in checks.ROWS]
    applied = {target.thinks: [row[0] for row in checks.rows(target)] for target in (PLAIN, HYBRID, ALWAYS)}
    assert applied == {
        "never": [*names, "n"],
        "hybrid": [*names, "reasoning", "n"],
        "always": [*names, "reasoning"],
    }
    assert [row[0] for row in checks.rows(UNKNOWN)] == applied["never"]
