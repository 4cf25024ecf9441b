"""Every judge at its bounds: answers written by hand, and what it says of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
import pytest

from proxy.protocol import asks, judgements
from proxy.protocol.asks import Target
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
    without,
)
from translators import faults
from translators.dialogue import Json

ID: Final = "7574ee8f-38a3-4b1e-9280-11c33ab46e50"
USAGE: Final = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
SSE: Final = {"content-type": "text/event-stream;charset=UTF-8"}


def choice(content: object = "hi", finish: object = "stop", index: object = 0, **message: object) -> Json:
    said = {"role": "assistant", "content": content, **message}
    return {"message": said, "index": index, "finish_reason": finish}


def reply(*choices: Json, usage: object = USAGE, **how: Any) -> Came:
    return answer({"output": {"choices": list(choices or (choice(),))}, "usage": usage, "request_id": ID}, **how)


def refusal(status: int, code: object = "X", message: object = "m", **more: object) -> Came:
    return answer({"code": code, "message": message, "request_id": ID, **more}, status)


def figures(given: object, generated: object, total: object = None, **details: object) -> Json:
    whole = given + generated if isinstance(given, int) and isinstance(generated, int) and total is None else total
    return {"input_tokens": given, "output_tokens": generated, "total_tokens": whole, **details}


def stream(*packets: tuple[Json, object] | bytes, piece: int = 0) -> Came:
    """Packets as (choice, usage), or the data of a frame as it is. piece: so many bytes at a time, 0: a frame."""
    frames = []
    for number, packet in enumerate(packets, 1):
        if isinstance(packet, bytes):
            data = packet
        else:
            said, usage = packet
            data = orjson.dumps({"output": {"choices": [said]}, "usage": usage, "request_id": ID})
        frames.append(b"id:%d\nevent:result\n:HTTP_STATUS/200\ndata:%b\n\n" % (number, data))
    whole = b"".join(frames)
    cut = [whole[at : at + piece] for at in range(0, len(whole), piece)] if piece else frames
    return Came(200, SSE, tuple(cut))


def texts(*said: tuple[str, int], given: int = 5, thoughts: Iterable[str] = ()) -> Came:
    """A stream of texts, each with its output_tokens; thoughts: packets of a chain before them, without tokens."""
    chain = [(choice("", "null", reasoning_content=thought), figures(given, 0)) for thought in thoughts]
    text = [(choice(text, "null"), figures(given, output)) for text, output in said]
    return stream(*chain, *text)


def calling(*calls: Json, finish: str = "tool_calls") -> Came:
    return reply(choice("", finish, tool_calls=list(calls)))


def call(index: object = 0, name: str = "get_current_weather", **changed: object) -> Json:
    function = {"name": name, "arguments": '{"city":"Beijing"}'}
    return {"id": "c", "type": "function", "index": index, "function": function, **changed}


def details(**said: object) -> Came:
    """Two packets, of which the last has details."""
    return stream((choice("", "null"), figures(5, 1)), (choice(), figures(5, 9, output_tokens_details=said)))


def logprobs(*entries: Json) -> Came:
    return reply({**choice(), "logprobs": {"content": list(entries)}})


def entry(most: int = 2, logprob: object = -0.5, **more: object) -> Json:
    return {"token": "a", "bytes": [97], "logprob": logprob, "top_logprobs": [{}] * most, **more}


OK: Final = reply()
CUT: Final = Came(200, pieces=OK.pieces, failed="not whole after 10 s")
BAD: Final = faults.BODY_INVALID
REFUSED: Final = refusal(BAD.status, BAD.code, BAD.message)
LIMIT: Final = faults.input_length(98_304)
TEN: Final = "a" * 10
HUNDRED: Final = "a" * 100

CASES: Final = (
    # What is an answer at all
    case(judgements.status, OK),
    case(judgements.status, BROKE, OK),
    case(judgements.status, OK, BROKE, found=broken("answered 500: oops")),
    case(judgements.status, BUSY, found=unshown("answered 429: slow down")),
    case(judgements.status, Came(503, failed="cut"), found=unshown("answered 503: ")),
    case(judgements.status, CUT, found=broken("not whole after 10 s")),
    case(judgements.status, Came(201, pieces=(b"no", b"thing")), found=broken("answered 201: nothing")),
    case(judgements.status, Came(500, pieces=(b"\xff",)), found=broken("answered 500: �")),
    case(judgements.is_json, OK),
    case(judgements.is_json, answer([]), found=broken(f"{MISSHAPEN} (TypeError: no object: [])")),
    case(judgements.is_json, stream(b"{}"), found=broken(f"{MISSHAPEN} (JSONDecodeError: …")),
    case(judgements.is_json, BROKE, found=broken("answered 500: oops")),
    case(judgements.is_stream, stream()),
    case(judgements.is_stream, reply(headers={}), found=broken('no stream but None: {"output":…')),
    # Surface
    case(judgements.whole, OK),
    case(
        judgements.whole, answer({**orjson.loads(OK.body), "code": ""}), found=broken("the keys ['code', 'output', …")
    ),
    case(judgements.whole, answer(without(orjson.loads(OK.body), "usage")), found=broken("the keys ['output', …")),
    case(judgements.whole, reply(choice(role="user")), found=broken("a message {'role': 'user', …")),
    case(judgements.whole, reply(choice(None)), found=broken("a message {'role': 'assistant', 'content': None}")),
    case(judgements.whole, reply(choice(index=True)), found=broken("no index")),
    case(judgements.whole, reply(choice(), choice(index="1"))),
    case(judgements.whole, BUSY, found=unshown("answered 429: slow down")),
    case(judgements.ended, OK),
    case(judgements.ended, reply(choice(finish="length"))),
    case(judgements.ended, reply(choice(finish="null")), found=broken("finish_reason 'null'")),
    case(judgements.identified, OK, REFUSED),
    case(judgements.identified, OK, refusal(400, request_id=ID.upper()), found=broken(f"request_id '{ID.upper()}'")),
    case(judgements.identified, OK, refusal(400, request_id=None), found=broken("request_id None")),
    case(judgements.identified_in_header, reply(headers={"x-request-id": ID})),
    case(judgements.identified_in_header, reply(headers={"x-request-id": "x"}), found=broken("x-request-id 'x', …")),
    case(judgements.kept, answer({"request_id": asks.KEPT_ID})),
    case(judgements.kept, OK, found=broken(f"asked with {asks.KEPT_ID}, answered with {ID}")),
    case(judgements.header("content-type", ".*;charset=utf-8"), Came(200, {"content-type": "a; Charset=UTF-8"})),
    case(judgements.header("x-accel-buffering", "no"), Came(200), found=broken("x-accel-buffering: absent")),
    case(judgements.header("x-accel-buffering", "no"), Came(200, {"x-accel-buffering": "now"}), found=broken("x-acc…")),
    case(judgements.header("content-encoding", "(identity)?"), Came(200)),
    case(judgements.header("content-encoding", "(identity)?"), BROKE, found=broken("answered 500: oops")),
    case(judgements.in_parts_or(BAD), OK, reply(choice([{"text": "hi"}]))),
    case(judgements.in_parts_or(BAD), reply(choice([]))),
    case(judgements.in_parts_or(BAD), reply(choice("text")), found=broken("content is no list of parts: 200 {…")),
    case(judgements.in_parts_or(BAD), reply(choice(["text"])), found=broken("content is no list of parts: 200 {…")),
    case(
        judgements.in_parts_or(BAD), reply(choice([{"text": ""}, {"image": ""}])), found=broken("content is no list…")
    ),
    case(judgements.in_parts_or(BAD), OK, REFUSED),
    case(judgements.in_parts_or(BAD), refusal(404), found=broken(f"400 {BAD.code} is due: 404 {{…")),
    case(judgements.models, answer({"output": {"models": [{"model": "a"}, {"model": "b"}]}})),
    case(
        judgements.models, answer({"output": {"models": [{"model": "a"}, {}]}}), found=broken('models [{"model":"a"}…')
    ),
    case(judgements.models, answer({"output": {"models": []}}), found=broken("models []")),
    case(judgements.models, Came(404), found=unshown("there is no such route")),
    case(judgements.models, BROKE, found=broken("answered 500: oops")),
    case(judgements.tokens, answer({"output": {"token_ids": [1]}, "usage": {"input_tokens": 1}})),
    case(
        judgements.tokens, answer({"output": {"token_ids": []}, "usage": {"input_tokens": 0}}), found=broken("no tok…")
    ),
    case(
        judgements.tokens,
        answer({"output": {"token_ids": [1]}, "usage": {"input_tokens": "1"}}),
        found=broken("no token_ids"),
    ),
    case(judgements.tokens, Came(404), found=unshown("there is no such route")),
    # Refusals
    case(judgements.refused_as(BAD), OK, REFUSED),
    case(judgements.refused_as(BAD), refusal(401, BAD.code), found=broken(f"400 {BAD.code} is due: 401 {{…")),
    case(judgements.refused_as(BAD), refusal(400, "Y"), found=broken(f"400 {BAD.code} is due: 400 {{…")),
    case(judgements.refused_as(BAD), BUSY, found=unshown("answered 429: slow down")),
    case(
        judgements.refused_as(BAD),
        Came(REFUSED.status, pieces=REFUSED.pieces, failed="cut"),
        found=broken("cut"),
    ),
    case(judgements.among_answers(judgements.refused_as(BAD)), OK, REFUSED),
    case(judgements.among_answers(judgements.refused_as(BAD)), OK, refusal(401), found=broken("400 …")),
    case(
        judgements.among_answers(judgements.refused_as(BAD)),
        *(BROKE, REFUSED),
        found=unshown("a good call is answered 500 as well"),
    ),
    case(judgements.worded_as(LIMIT, known=True), refusal(400, "X", LIMIT.message), REFUSED),
    case(
        judgements.worded_as(LIMIT, known=True),
        refusal(400, "X", LIMIT.message.replace("98304", "9")),
        found=broken(f"{LIMIT.message!r} is due: '…"),
    ),
    case(judgements.worded_as(LIMIT, known=False), refusal(400, "X", LIMIT.message.replace("98304", "9"))),
    case(judgements.worded_as(LIMIT, known=False), refusal(400, "X", "no"), found=broken(f"{LIMIT.message!r} is due…")),
    case(judgements.worded_as(LIMIT, known=True), OK, found=unshown("not refused")),
    case(judgements.locked, refusal(401, faults.BAD_KEY.code)),
    case(judgements.locked, refusal(403, faults.BAD_KEY.code), found=broken("401 …")),
    case(judgements.locked, OK, found=unshown("this gateway lets any key in")),
    case(judgements.error_shape, refusal(400), refusal(500)),
    case(
        judgements.error_shape, refusal(400), answer({"code": "X"}, 400), found=broken("an error with the keys ['cod…")
    ),
    case(judgements.error_shape, refusal(400, status_code=400), found=broken("an error with the keys …")),
    case(judgements.error_shape, refusal(400, 400), found=broken("an error with the keys …")),
    case(judgements.error_shape, refusal(400), refusal(399), found=unshown("not refused")),
    case(judgements.error_codes, *(refusal(400, code) for code in judgements.CODES), OK),
    case(judgements.error_codes, refusal(400, "Conflict")),
    case(
        judgements.error_codes, refusal(500, "b"), refusal(400, "a"), found=broken("codes of another service: ['a',…")
    ),
    case(judgements.error_codes, refusal(399, "a"), found=unshown("not refused")),
    case(judgements.true_status, REFUSED, Came(400, {"content-type": "application/json"})),
    case(judgements.true_status, REFUSED, Came(400, SSE), found=broken("400 text/event-stream;charset=UTF-8 where …")),
    case(judgements.true_status, REFUSED, Came(400), found=broken("400 None where the JSON call has 400")),
    case(
        judgements.true_status,
        REFUSED,
        Came(401, {"content-type": "application/json"}),
        found=broken("401 application/json where the JSON call has 400"),
    ),
    case(judgements.true_status, OK, REFUSED, found=unshown("not refused")),
    # Frames
    case(judgements.clean("OUT-2"), stream((choice(), USAGE))),
    case(judgements.clean("OUT-2"), stream((choice(finish="end"), USAGE)), found=broken("OUT-2 finish_reason is…")),
    case(
        judgements.clean("OUT-2"),
        *[stream((choice(finish="end"), USAGE))] * 2,
        found=broken("OUT-2 finish_reason is 'end' (and 1 more)"),
    ),
    case(judgements.clean("OUT-4"), stream((choice(finish="end"), USAGE))),
    case(
        judgements.clean("OUT-2"),
        *(BUSY, stream((choice(finish="end"), USAGE))),
        found=broken("OUT-2 finish_reason is 'end'"),
    ),
    case(judgements.clean("OUT-2"), BUSY, stream((choice(), USAGE))),
    case(judgements.clean("OUT-2"), BUSY, found=unshown("no stream came")),
    case(judgements.clean("OUT-2"), OK, found=broken("no stream but None: …")),
    case(
        judgements.clean("SSE-10", incremental=True),
        stream((choice("", "null"), USAGE), (choice("", "null"), USAGE)),
        found=broken("SSE-10 a packet that says nothing"),
    ),
    case(
        judgements.clean("SSE-10", incremental=False), stream((choice("", "null"), USAGE), (choice("", "null"), USAGE))
    ),
    case(judgements.whole_frames, stream(b"{}", b"{}"), stream(b"{}")),
    case(
        judgements.whole_frames,
        *(stream(b"{}"), stream(b"{}", piece=9)),
        found=broken("a chunk that ends inside a frame: …'id:1\\neven'"),
    ),
    case(judgements.whole_frames, OK, found=broken("no stream but None: …")),
    case(judgements.several, texts(("a" * 4, 1), ("", 1), ("a" * 4, 1))),
    case(judgements.several, texts(("a" * 8, 1), ("", 1)), found=broken("the whole text in one packet")),
    case(judgements.several, texts(("a" * 3, 1), ("a" * 4, 1)), found=unshown("the answer was too short")),
    case(
        judgements.several, stream((choice(None, "null"), USAGE), b"[DONE]", b'["output"]'), found=unshown("the answ…")
    ),
    case(judgements.several, stream(b'{"code":"X"}', b"[DONE]"), found=broken("no packets: id:1\nevent:result…")),
    case(judgements.grows, texts(("a", 1), ("ab", 2))),
    case(judgements.grows, texts(("ab", 1), ("b", 2)), found=broken("packet 2 does not begin with the text of the …")),
    case(judgements.grows, texts(("a", 1), ("a", 1)), found=unshown("one packet alone")),
    # Usage
    case(judgements.on_every, texts(("a", 1)), stream((choice(), USAGE), b'{"code":"X"}')),
    *(
        case(judgements.on_every, texts(("a", 1)), stream((choice(), USAGE), (choice(), said)), found=broken(told))
        for said, told in (
            (None, "packet 2 has the usage None"),
            ([], "packet 2 has the usage []"),
            (figures(1, "1"), "packet 2 has the usage {'input_tokens': 1, 'output_tokens': '1', 'total_tokens': None}"),
            (figures(1, 1, 2.0), "packet 2 has the usage {'input_tokens': 1, 'output_tokens': 1, 'total_tokens': 2.0}"),
            (without(USAGE, "input_tokens"), "packet 2 has the usage {'output_tokens': 2, 'total_tokens': 7}"),
        )
    ),
    *(
        case(
            judgements.from_the_first,
            stream(*((choice(), figures(given, 99)) for given in (first, 1, last))),
            target=target,
            found=KEPT if kept else broken(f"input_tokens {first} at first, {last} at last"),
        )
        for first, last, target, kept in (
            (1, 1, PLAIN, True),
            (0, 1, PLAIN, False),
            (26, 10, PLAIN, True),
            (27, 10, PLAIN, False),
            (80, 100, PLAIN, True),
            (79, 100, PLAIN, False),
            (26, 10, UNKNOWN, True),
            (27, 10, UNKNOWN, False),
            (20, 100, UNKNOWN, True),
            (19, 100, UNKNOWN, False),
            (181, 100, UNKNOWN, False),
        )
    ),
    case(
        judgements.from_the_first,
        stream((choice(), figures(5, 1.0, 6))),
        found=broken(f"{MISSHAPEN} (TypeError: usage {{'input_tokens': 5, 'output_tokens': 1.0, 'total_tokens': 6}})"),
    ),
    case(judgements.on_the_way, texts(("a", 1), ("b", 2)), found=unshown("fewer than three packets")),
    case(judgements.on_the_way, texts(("", 0), ("a", 1), ("b", 2))),
    case(
        judgements.on_the_way, texts(("a", 1), ("b", 0), ("", 2)), found=broken("packet 2 shows text and output_tok…")
    ),
    # Half of the text: half of half of the tokens, less two; where nothing is counted, half of an eighth.
    case(judgements.on_the_way, texts(("a" * 50, 23), ("a" * 50, 60), ("", 100))),
    case(
        judgements.on_the_way,
        texts(("a" * 50, 22), ("a" * 50, 60), ("", 100)),
        found=broken("packet 1 shows 50 of 100 characters and 22 of 100 tokens"),
    ),
    case(judgements.on_the_way, texts(("a" * 50, 43), ("a" * 50, 400), ("", 720)), target=UNKNOWN),
    case(
        judgements.on_the_way,
        texts(("a" * 50, 42), ("a" * 50, 400), ("", 720)),
        target=UNKNOWN,
        found=broken("packet 1 shows 50 of 100 characters and 42 of 720 tokens"),
    ),
    case(
        judgements.on_the_way,
        texts(("a", 47), ("", 60), ("", 100)),
        found=broken("packet 1 shows 1 of 1 characters and 47 of 100 tokens"),
    ),
    case(
        judgements.on_the_way,
        texts(("a" * 50, 50), ("a" * 50, 47), ("", 100)),
        found=broken("packet 2 shows 100 of 100 characters and 47 of 100 tokens"),
    ),
    *(
        case(
            judgements.counted,
            texts((text, 0), ("", said), thoughts=thoughts),
            found=KEPT if kept else broken(f"output_tokens {said}, by our count {ours}"),
        )
        for text, thoughts, said, ours, kept in (
            (TEN, (), 8, 10, True),
            (TEN, (), 12, 10, True),
            (TEN, (), 13, 10, False),
            (TEN, (), 7, 10, False),
            ("", (TEN,), 8, 10, True),
            ("", (TEN,), 7, 10, False),
            # The one that ends a chain.
            (TEN, (TEN,), 19, 21, True),
            (TEN, (TEN,), 18, 21, False),
            (TEN, ("a", "b" * 9), 23, 21, True),
            (TEN, ("a", "b" * 9), 24, 21, False),
            (HUNDRED * 2, (), 204, 200, True),
            (HUNDRED * 2, (), 205, 200, False),
        )
    ),
    case(judgements.counted, texts((TEN, 10)), target=UNKNOWN, found=unshown("there is no vocabulary to count by")),
    *(
        case(
            judgements.running,
            texts((text, said), (text, 2 * len(text))),
            found=KEPT if kept else broken(f"packet 1: output_tokens {said}, by our count {len(text)}"),
        )
        for text, said, kept in ((TEN, 14, True), (TEN, 15, False), (HUNDRED, 110, True), (HUNDRED, 111, False))
    ),
    case(
        judgements.running,
        texts((TEN, 10), (TEN, 25)),
        found=broken("packet 2: output_tokens 25, by our count 20"),
    ),
    case(judgements.running, texts((TEN, 10)), target=UNKNOWN, found=unshown("there is no vocabulary to count by")),
    *(
        case(
            judgements.prompt_counted,
            reply(usage=figures(said, 1)),
            target=Target("m", prompt=lambda call: 1_000 if call == asks.call(Target("m")) else 0),
            found=KEPT if kept else broken(f"input_tokens {said}, by our count 1000"),
        )
        for said, kept in ((872, True), (871, False), (1_128, True), (1_129, False))
    ),
    case(judgements.prompt_counted, OK, found=unshown("there is no template to render by")),
    *(
        case(judgements.sums, OK, reply(choice(content, **said), usage=usage), found=found)
        for content, said, usage, found in (
            ("hi", {}, figures(5, 1, 6), KEPT),
            ("", {}, figures(5, 1, 6), KEPT),
            ("", {}, figures(1, 1, 2), KEPT),
            ("", {}, figures(5, 0, 5), unshown("the model said nothing")),
            ("hi", {}, figures(5, 0, 5), broken("5 + 0 = 5")),
            ("", {"reasoning_content": "hm"}, figures(5, 0, 5), broken("5 + 0 = 5")),
            ("", {"tool_calls": [{}]}, figures(5, 0, 5), broken("5 + 0 = 5")),
            ("hi", {}, figures(0, 1, 1), broken("0 + 1 = 1")),
            ("hi", {}, figures(5, 1, 7), broken("5 + 1 = 7")),
            ("hi", {}, figures(5, 1, 4), broken("5 + 1 = 4")),
        )
    ),
    case(judgements.details, details(reasoning_tokens=1)),
    case(judgements.details, details(reasoning_tokens=0), found=broken("reasoning_tokens 0 where a chain came")),
    case(
        judgements.details, details(reasoning_tokens="1"), found=broken("no reasoning_tokens in {'input_tokens': 5, …")
    ),
    case(judgements.details, texts(("a", 1)), found=broken("no reasoning_tokens in {'input_tokens': 5, …")),
    case(judgements.details, details(reasoning_tokens=1, text_tokens=8)),
    case(judgements.details, details(reasoning_tokens=1, text_tokens=8), target=HYBRID),
    case(judgements.details, details(reasoning_tokens=1), target=HYBRID, found=broken("no text_tokens beside reason…")),
    case(judgements.details, details(reasoning_tokens=1), target=ALWAYS),
    case(
        judgements.details,
        details(reasoning_tokens=1, text_tokens=8),
        target=ALWAYS,
        found=broken("text_tokens on a model that always thinks"),
    ),
    # Thinking
    case(judgements.thought, texts(("a", 1), thoughts=["hm"])),
    case(judgements.thought, texts(("a", 1)), found=broken("no reasoning_content in any packet")),
    case(judgements.did_not_think, texts(("a", 1))),
    case(
        judgements.did_not_think, texts(("a", 1), thoughts=["hm"]), found=broken("reasoning_content though thinking…")
    ),
    # Tools
    case(judgements.called, calling(call())),
    case(judgements.called, calling(call(), call(1, "f"))),
    case(judgements.called, calling(call(name="f")), found=broken("a call of 'f', which was not offered")),
    case(judgements.called, calling(call(), finish="stop"), found=broken("finish_reason 'stop' beside calls")),
    case(judgements.called, calling(call(), finish="length"), found=broken("finish_reason 'length' beside calls")),
    case(judgements.called, OK, found=broken("no call: {'role': 'assistant', 'content': 'hi'}")),
    case(judgements.called, reply(choice(finish="length")), found=unshown("the answer was cut at its limit")),
    *(
        case(judgements.called, calling(call(), wrong), found=broken("a call without id, index or type: {…"))
        for wrong in (call(id=""), call(type="tool"), call(index=True))
    ),
    case(
        judgements.called,
        calling(call(function={"name": "f", "arguments": "[]"})),
        found=broken("arguments that are no JSON object: []"),
    ),
    case(judgements.maybe_called, calling(call())),
    case(judgements.maybe_called, calling(call(name="f")), found=broken("a call of 'f', which was not offered")),
    case(judgements.maybe_called, reply(choice(tool_calls=None)), found=unshown("the model chose to call nothing")),
    case(judgements.called_nothing, OK),
    case(judgements.called_nothing, calling(), found=broken("calls though none is asked for: []")),
    case(judgements.called_once, calling(call())),
    case(
        judgements.called_once, calling(call(), call(1)), found=broken("2 calls though parallel_tool_calls is not s…")
    ),
    case(judgements.called_once, reply(choice(tool_calls=None)), found=unshown("the model chose to call nothing")),
    case(judgements.called_both, calling(call(0), call(1))),
    case(judgements.called_both, calling(call(0), call(1), call(2))),
    case(judgements.called_both, calling(call(1), call(0)), found=broken("indices [1, 0]")),
    case(judgements.called_both, calling(call()), found=unshown("the model made 1 calls")),
    # Answers
    case(judgements.stopped, reply(choice("alpha beta "))),
    case(judgements.stopped, reply(choice("alpha beta ", "length")), found=broken("finish_reason 'length'")),
    case(
        judgements.stopped, reply(choice("alpha beta gamma")), found=broken("the stop is in the text: 'alpha beta g…")
    ),
    case(judgements.stopped, reply(choice("alpha")), found=unshown("the model did not come near the stop: 'alpha'")),
    *(
        case(judgements.cut_off, reply(choice(text, finish), usage=usage), target=target, found=found)
        for text, finish, usage, target, found in (
            ("abc", "length", figures(5, 3), PLAIN, KEPT),
            ("abcd", "length", figures(5, 2), PLAIN, KEPT),
            ("abcde", "length", figures(5, 3), PLAIN, broken("5 tokens of text at max_tokens 3")),
            ("abcde", "length", figures(5, 3), UNKNOWN, KEPT),
            ("ab", "stop", figures(5, 2), PLAIN, unshown("the model ended by itself, after 2 tokens")),
            ("abc", "stop", figures(5, 3), PLAIN, broken("finish_reason 'stop' after 3 of 3 tokens")),
            ("ab", "tool_calls", figures(5, 2), PLAIN, broken("finish_reason 'tool_calls' after 2 of 3 tokens")),
            # No limit holds for a chain (spec OUT-8).
            (
                "ab",
                "stop",
                figures(5, 9, output_tokens_details={"reasoning_tokens": 7}),
                PLAIN,
                unshown("the model ended by itself, after 2 tokens"),
            ),
            (
                "ab",
                "stop",
                figures(5, 3, output_tokens_details={"text_tokens": 2}),
                PLAIN,
                broken("finish_reason 'stop' after 3 of 3 tokens"),
            ),
            (
                "ab",
                "stop",
                figures(5, 3, output_tokens_details=None),
                PLAIN,
                broken("finish_reason 'stop' after 3 of 3 tokens"),
            ),
        )
    ),
    *(
        case(
            judgements.two,
            reply(choice(index=1), choice(index=0), usage=figures(given, 99)),
            reply(usage=figures(single, 1)),
            found=KEPT if kept else broken(f"input_tokens {given} for two, {single} for one"),
        )
        for given, single, kept in ((24, 20, True), (25, 20, False), (110, 100, True), (111, 100, False))
    ),
    case(judgements.two, OK, OK, found=broken("choices [0]")),
    case(judgements.two, reply(choice(), choice(index=2)), OK, found=broken("choices [0, 2]")),
    case(judgements.two_streamed, stream((choice(index=1), USAGE), (choice(), USAGE))),
    case(judgements.two_streamed, stream((choice(), USAGE)), found=broken("choices [0]")),
    case(judgements.two_streamed, stream((choice(), USAGE), (choice(index=2), USAGE)), found=broken("choices [0, 2]")),
    case(
        judgements.two_streamed,
        stream(orjson.dumps({"output": {"choices": [choice(), choice(index=1)]}, "usage": USAGE, "request_id": ID})),
        found=broken("OUT-7 more than one choice in a packet"),
    ),
    case(judgements.log_probabilities, logprobs(entry(), entry(0, -1), entry(more=1))),
    case(judgements.log_probabilities, OK, found=broken("no logprobs beside the message")),
    case(
        judgements.log_probabilities, logprobs(entry(), without(entry(), "bytes")), found=broken("an entry with ['log…")
    ),
    case(judgements.log_probabilities, logprobs(entry(3)), found=broken('an entry {"token":"a",…')),
    case(judgements.log_probabilities, logprobs(entry(logprob="0")), found=broken('an entry {"token":"a",…')),
    case(judgements.json_object, reply(choice('{"a":1}'))),
    case(judgements.json_object, reply(choice("[]")), found=broken("no JSON object: '[]'")),
    case(judgements.json_object, reply(choice("{")), found=broken("no JSON object: '{'")),
    case(judgements.json_object, reply(choice("{", "length")), found=unshown("the answer was cut at its limit")),
    case(judgements.new_text_only, reply(choice("llo!"))),
    case(judgements.new_text_only, reply(choice("Hello!")), found=broken("begins with what was given: 'Hello!'")),
    # Connections
    case(judgements.reused, OK, Came(200, reused=True)),
    case(
        judgements.reused, Came(200, reused=True), Came(200), found=broken("the second call needed a connection of …")
    ),
    case(judgements.reused, BROKE, Came(200, reused=True), found=broken("answered 500: oops")),
    case(judgements.reused, OK, Came(500, pieces=(b"oops",), reused=True), found=broken("answered 500: oops")),
    case(judgements.unharmed, OK, OK),
    case(judgements.unharmed, CUT, OK),
    case(judgements.unharmed, BROKE, OK, found=unshown("the stream to leave was answered 500")),
    case(judgements.unharmed, OK, BROKE, found=broken("answered 500: oops")),
    *(
        case(
            judgements.accepted_soon,
            *(Came(200, seconds=seconds) for seconds in (usual, 99.0, took)),
            found=KEPT
            if kept
            else broken(f"the call after it took {took:.1f} s, the same call {usual:.1f} s before it"),
        )
        for usual, took, kept in ((1.0, 8.0, True), (1.0, 8.1, False), (2.0, 11.0, True), (2.0, 11.1, False))
    ),
    case(judgements.accepted_soon, OK, OK, Came(200, seconds=5.1), found=broken("the call after it took 5.1 s, …")),
    case(judgements.accepted_soon, OK, OK, BROKE, found=broken("answered 500: oops")),
    case(judgements.accepted_soon, BROKE, OK, OK, found=broken("answered 500: oops")),
)


def test_where_a_mode_is_not_said_no_rule_of_one_mode_is_held() -> None:
    twice = stream(*[(choice("", "null"), USAGE)] * 2)
    case(judgements.clean("SSE-10"), twice).holds()


def test_what_is_quoted_is_whole_up_to_160_characters() -> None:
    assert judgements.cut(b"a" * 160) == "a" * 160
    assert judgements.cut(b"a" * 161) == f"{'a' * 160}…"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_judge_says_of_an_answer(case: Case) -> None:
    case.holds()


def test_every_judge_of_a_row_has_been_asked() -> None:
    public = {
        judge
        for name, judge in vars(judgements).items()
        if callable(judge) and getattr(judge, "__module__", "") == judgements.__name__ and not name.startswith("_")
    }
    made = {case.judge for case in CASES}
    judges = {judge for judge in public if str(getattr(judge, "__annotations__", {}).get("came")) == "Sequence[Came]"}
    assert judges
    assert judges <= made
