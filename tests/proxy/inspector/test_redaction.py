"""Filler that counts the same: at every border of a delta, in words, Chinese, digits and JSON, with nothing left."""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
import struct
import zlib
from typing import Any

import orjson
import pytest

from proxy.inspector import call_file, redaction
from proxy.inspector.redaction import Filler
from translators import images
from translators.tokens import Vocabulary

TEXTS = {
    "words": "The quick brown Fox jumps over the lazy dog, and then it doesn't come back.",
    "Chinese": "请用一句话介绍杭州西湖的景色。苏堤春晓、断桥残雪，都是很美的地方。",
    "code": "def weather(city: str) -> dict:\n    return {'city': city, 'days': 14}  # TODO\n",
    "both": "我住在Shanghai的Pudong区，电话是13812345678。",
    "others": "Добрый день, как дела? Ça va très bien, naïve café.",
    "marks": "🎉🎉 --- *** ¯\\_(ツ)_/¯ \t\n\n",
    "signs that are no letters": "नमस्ते दुनिया, आप कैसे हैं",
    "a long word": "Donaudampfschifffahrtsgesellschaftskapitän",
}


@pytest.fixture(scope="module")
def made_once(vocabulary: Vocabulary) -> Filler:
    return Filler(vocabulary)


@pytest.fixture
def filler(made_once: Filler) -> Filler:
    made_once.random.seed(7)
    made_once.known.clear()
    made_once.words.clear()
    return made_once


@pytest.mark.parametrize("name", TEXTS)
def test_the_whole_counts_the_same_and_no_word_of_it_is_left(filler: Filler, name: str) -> None:
    text = TEXTS[name]
    made = filler.whole(text)
    assert filler.vocabulary.length(made) == filler.vocabulary.length(text)
    words = {word for word in text.replace(",", " ").split() if word.isalpha() and len(word) > 4}
    assert not words & {*made.split()}
    assert [char for char in made if not char.isalnum()] == [
        char for char in text if not char.isalnum()
    ] or not made.isascii()


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("size", [None, 3, 11])
def test_each_delta_brings_the_count_to_where_it_was(filler: Filler, name: str, size: int | None) -> None:
    """By token, as most upstreams send, and in pieces that end anywhere."""
    text, vocabulary = TEXTS[name], filler.vocabulary
    cuts = list(range(size, len(text), size)) if size else token_ends(text, vocabulary)
    parts = filler.text(text, cuts)
    assert len(parts) == len(cuts) + 1
    for number, cut in enumerate((*cuts, len(text)), 1):
        assert vocabulary.length("".join(parts[:number])) == vocabulary.length(text[:cut]), (cut, parts)


def token_ends(text: str, vocabulary: Vocabulary) -> list[int]:
    ends, wire = [], b""
    for token in vocabulary.encode(text):
        wire += vocabulary.decode_bytes([token])
        try:
            ends.append(len(wire.decode()))
        except UnicodeDecodeError:
            continue
    return ends[:-1]


def test_json_keeps_its_form_and_its_keys(filler: Filler) -> None:
    given = {"city": "Hangzhou", "days": 14, "rain": True, "notes": ['see "West Lake"\n', "é"], "far": -2.5e3}
    text = orjson.dumps(given).decode()
    made = orjson.loads(filler.whole(text))
    assert list(made) == list(given)
    assert made["rain"] is True
    assert made["city"] != "Hangzhou"
    assert made["notes"][0].count('"') == 2
    assert made["days"] != 14
    assert filler.vocabulary.length(orjson.dumps(made).decode()) == filler.vocabulary.length(text)


def test_the_same_word_has_the_same_filler(filler: Filler) -> None:
    first, second, third = filler.whole(" Hangzhou Hangzhou Hangzhou").split()
    assert first == second == third != "Hangzhou"


KINDS = {
    "lower": "[a-z]+",
    "title": "[A-Z][a-z]*",
    "cjk": "[\u3040-\u30ff\u4e00-\u9fa5]+",
    "other": r"[^\W\d_\x00-\x7f\u3040-\u30ff\u4e00-\u9fa5]+",
}


def test_filler_is_made_of_all_tokens_of_one_kind_up_to_where_there_are_enough_of_each(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the vocabulary's order, which begins with the most frequent ones."""
    enough = Filler(vocabulary).tokens
    monkeypatch.setattr(redaction, "MOST_FILLERS", 1 << 30)
    every = Filler(vocabulary).tokens
    tokens = []
    for number in itertools.count():
        with contextlib.suppress(UnicodeDecodeError):
            try:
                tokens.append(vocabulary.decode_bytes([number]).decode())
            except KeyError:
                break
    for kind, form in KINDS.items():
        assert every[kind] == [token for token in tokens if token.isalpha() and re.fullmatch(form, token)]
        assert enough[kind] == every[kind][: len(enough[kind])]
    assert min(map(len, enough.values())) == 500


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (" wonderful", " [a-z]+"),
        (" Wonderful", " [A-Z][a-z]+"),
        ("杭州西湖", KINDS["cjk"]),
        ("чудесно", KINDS["other"]),
        ("杭州Shanghai", "\\W*\\w+"),
        ("4096", "[1-9]{4}"),
    ],
)
def test_what_takes_the_place_of_a_word_is_of_its_kind(filler: Filler, text: str, form: str) -> None:
    made = filler.whole(text)
    assert re.fullmatch(form, made)
    assert made != text


def test_a_word_that_no_border_cuts_has_the_same_filler_beside_one(filler: Filler) -> None:
    first, second = filler.text(" Hangzhou Hangzhou", [9])
    assert first == second == filler.whole(" Hangzhou") != " Hangzhou"


@pytest.mark.parametrize(("said", "made"), [(" theEND", " theEND"), (" END", " END")])
def test_a_word_that_a_stop_is_part_of_stays(filler: Filler, said: str, made: str) -> None:
    fixed = redaction.fixed_of(said, is_json=False, stops=["END", ""])
    assert filler.text(said, fixed=fixed) == [made]


def test_filler_is_cut_as_early_as_it_counts_what_the_text_does(filler: Filler) -> None:
    """At the blank where the text is; behind it one place later each time."""
    word = " Hangzhou"
    assert [filler.vocabulary.length(word[:end]) for end in range(1, 7)] == [1, 1, 1, 1, 1, 2]
    assert filler._places(word, 1, [1, 2, 3, 6], [1, 1, 1, 2, 2]) == [1, 2, 3, 6]
    assert filler._places(word, 1, [1, 2], [1, 9, 9]) is None


def test_numbers_of_json_keep_their_form(filler: Filler) -> None:
    made = filler.whole('{"far": -2.5e3, "near": [17, "17 e", "\\u00e9 \\n"]}')
    assert re.fullmatch(r'\{"far": -\d\.\de\d, "near": \[\d\d, "\d\d [a-z]+", "\\u00e9 \\n"\]\}', made)
    assert "2.5" not in made


def test_what_a_translator_looks_for_stays(filler: Filler) -> None:
    fixed = redaction.fixed_of("<think>Hm, END it</think>", is_json=False, stops=["END"])
    (made,) = filler.text("<think>Hm, END it</think>", fixed=fixed)
    assert made.startswith("<think>")
    assert made.endswith("</think>")
    assert " END " in made
    assert "Hm" not in made


def test_upstreams_own_words_stay_and_the_callers_in_them_do_not(filler: Filler) -> None:
    filler.hear("My name is Ada Lovelace and I live in London")
    said = "Invalid input: 'Ada Lovelace and I' is longer than 65536 tokens"
    made = filler.quoted(said)
    assert made.startswith("Invalid input: '")
    assert made.endswith("is longer than 65536 tokens")
    assert "Lovelace" not in made


@pytest.mark.parametrize(
    "error",
    [{"code": "InvalidParameter", "message": "too long", "request_id": "r"}, {"error": {"message": "too long"}}],
    ids=["native", "compatible"],
)
def test_of_an_error_our_own_words_stay_on_either_surface(filler: Filler, error: dict[str, object]) -> None:
    sides = redaction._Sides(filler, ())
    sides.hear_packets([{"text": f"data:{orjson.dumps(error).decode()}\n\n"}])
    ((event,),) = sides._packets
    # It is no part of an answer, whose words are replaced.
    assert (event.document, sides._ours) == (error, {})


def test_of_a_read_nothing_is_left_beside_what_is_put_back(filler: Filler) -> None:
    """Also where it ended behind a character and now ends inside one, or the other way round."""
    document = {"choices": [{"index": 0, "delta": {"content": TEXTS["Chinese"]}}]}
    wire = b"data: %b\n\n" % orjson.dumps(document)
    kinds = set()
    for at in range(60, len(wire) - 10, 2):
        reads = [call_file.coded(part) for part in (wire[:at], wire[at:])]
        came = [*reads[0]]
        sides = redaction._Sides(filler, ())
        sides.read({"status": 200, "reads": reads})
        sides.write({"upstream": [{"reads": reads}], "packets": []})
        kinds.add((*came, *reads[0]))
        assert all(len(read) == 1 for read in reads)
        assert "西湖" not in b"".join(map(call_file.decoded, reads)).decode()
    assert kinds >= {("text", "base64"), ("base64", "text")}


def test_a_read_ends_where_it_did_behind_an_event_or_inside_it(filler: Filler) -> None:
    first, second = (
        b"data: %b\n\n" % orjson.dumps({"choices": [{"index": 0, "delta": {"content": TEXTS[name]}}]})
        for name in ("words", "Chinese")
    )
    for inside in (0, 1, len(second) // 2, len(second) - 1):
        wire, at = first + second, len(first) + inside
        reads = [call_file.coded(part) for part in (wire[:at], wire[at:])]
        sides = redaction._Sides(filler, ())
        sides.read({"status": 200, "reads": reads})
        sides.write({"upstream": [{"reads": reads}], "packets": []})
        made = b"".join(map(call_file.decoded, reads))
        ends, behind_first = len(call_file.decoded(reads[0])), made.index(b"\n\n") + 2
        assert made != wire
        assert behind_first < ends < len(made) if inside else ends == behind_first


def test_a_picture_keeps_its_size_and_nothing_else(filler: Filler) -> None:
    jpeg = bytes.fromhex("ffd8ffc0001108012c019003012200021101031101") + b"the pixels"
    made = filler.whole("data:image/jpeg;base64," + base64.b64encode(jpeg).decode())
    assert images.header(made) == ("png", 400, 300)
    # PNG (Third Edition), 11.2.1: one bit of grey for each pixel, not interlaced; each chunk by its length and check.
    raw = base64.b64decode(made.partition(",")[2])
    chunks, at = [], 8
    while at < len(raw):
        (size,) = struct.unpack_from(">I", raw, at)
        chunks.append(raw[at + 4 : at + 8 + size])
        assert struct.unpack_from(">I", raw, at + 8 + size) == (zlib.crc32(chunks[-1]),)
        at += 12 + size
    header = b"IHDR" + struct.pack(">II", 400, 300) + bytes((1, 0, 0, 0, 0))
    assert (raw[:8], chunks) == (b"\x89PNG\r\n\x1a\n", [header, b"IDAT" + zlib.compress(b""), b"IEND"])
    assert images.header(filler.whole("data:image/png;base64,AAAA"))[1:] == (1, 1)
    assert filler.whole("https://shop.example/my-face.jpg?key=1") == redaction.ELSEWHERE


def test_of_a_body_that_is_cut_nothing_is_left_but_its_length(filler: Filler) -> None:
    said = {"text": '{"input":{"prompt":"' + "my words " * 20_000}
    assert redaction._alone(said, filler) == {"text": "x" * len(said["text"])}
    assert "words" not in redaction._alone({"text": '{"input":{"prompt":"my words '}, filler)["text"]


def test_what_no_filler_is_found_for_is_as_long_and_says_nothing(
    filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "TRIES", 0)
    assert filler.whole("Hangzhou") == "xxxxxxxx"
    assert filler.text("Hangzhou", [3]) == ["xxx", "xxxxx"]


def stream(*documents: object) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(document) for document in documents) + b"data: [DONE]\n\n"


def test_of_a_call_nothing_is_left_of_its_callers_or_its_upstreams(vocabulary: Vocabulary) -> None:
    """But what a protocol says, and of upstream's own sentence about a failure all that is not the caller's."""
    asked = {
        "model": "deepseek-v3",
        "input": {"messages": [{"role": "user", "content": "Where does Lovelace really live nowadays"}]},
        "parameters": {"stop": ["END"], "result_format": "message"},
    }
    answer = "Lovelace really lives in Marylebone END of it"
    deltas = (answer[:17], answer[17:])
    token = {"token": "Marylebone", "bytes": [*b"Marylebone"], "logprob": -0.5}
    wire = stream(
        *(
            {"choices": [{"index": 0, "delta": {"content": text}, "logprobs": {"content": [token]}}], "id": "c-1"}
            for text in deltas
        )
    )
    refusal = {"message": "too long: Where does Lovelace really live nowadays", "code": "bad_request"}
    packets = [b"data:%b\n\n" % orjson.dumps({"output": {"choices": [{"message": {"content": t}}]}}) for t in deltas]
    failed = b"data:%b\n\n" % orjson.dumps({"code": "X", "message": "too long: does Lovelace really live"})
    document = {
        "account": [{"field": "input", "value": "Lovelace"}],
        "not_offered": {"curl": "Lovelace"},
        "caller": {
            "headers": {"X-Note": "Lovelace", "Content-Type": "application/json", "X-DashScope-SSE": "enable"},
            "body": call_file.coded(orjson.dumps(asked)),
        },
        "upstream": [
            {"target": "https://lovelace.internal", "headers": {"x-note": "Lovelace"}, "status": status, "reads": reads}
            | {"body": call_file.coded(orjson.dumps(asked))}
            for status, reads in (
                (400, [call_file.coded(orjson.dumps(refusal))]),
                (200, [call_file.coded(wire[:40]), call_file.coded(wire[40:])]),
            )
        ],
        "packets": [call_file.coded(packet) for packet in (b":\n\n", *packets, failed)],
        "journal": [
            {"event": "open", "key_id": "9f86d081884c", "key_name": "Lovelace"},
            {"event": "close", "attempts": [{"target": "https://lovelace.internal", "result": "200"}]},
        ],
    }
    given = orjson.dumps(document)
    made = redaction.redacted(document, vocabulary)
    assert orjson.dumps(document) == given
    said = orjson.dumps(made).decode()
    assert not [word for word in ("ovelace", "arylebone", "9f86d081884c", "owadays") if word in said]
    assert (made["redacted"], "account" in made, "not_offered" in made) == (True, False, False)
    assert made["caller"]["headers"] == {
        "X-Note": redaction.REDACTED,
        "Content-Type": "application/json",
        "X-DashScope-SSE": "enable",
    }
    body = orjson.loads(call_file.decoded(made["caller"]["body"]))
    assert (body["model"], body["parameters"]) == (asked["model"], asked["parameters"])
    told, streamed = made["upstream"]
    (read,) = told["reads"]
    error = orjson.loads(call_file.decoded(read))
    assert (error["message"].startswith("too long: "), error["code"]) == (True, "bad_request")
    events = b"".join(map(call_file.decoded, streamed["reads"])).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    choices = [orjson.loads(event.removeprefix(b"data: "))["choices"][0] for event in events[:-2]]
    texts = [choice["delta"]["content"] for choice in choices]
    assert " END " in "".join(texts)
    for number in (1, 2):
        whole = "".join(deltas[:number])
        assert vocabulary.length("".join(texts[:number])) == vocabulary.length(whole)
    for choice in choices:
        (shown,) = choice["logprobs"]["content"]
        assert bytes(shown["bytes"]).decode() == shown["token"]
    first, *others, last = (call_file.decoded(packet) for packet in made["packets"])
    assert first == b":\n\n"
    assert all(len(packet) == 1 for packet in made["packets"])
    # What the caller was handed is what upstream said, cut as it was.
    assert [orjson.loads(one[5:])["output"]["choices"][0]["message"]["content"] for one in others] == texts
    assert orjson.loads(last[5:])["message"].startswith("too long: ")
    assert made["journal"][0] == {"event": "open", "key_id": None, "key_name": None}
    assert made["journal"][1]["attempts"] == [{"target": redaction.UPSTREAM, "result": "200"}]


def filled(filler: Filler, said: list[str], handed: list[str]) -> tuple[list[str], list[str]]:
    """What upstream's deltas say then, and what the caller was handed of them."""
    wire = stream(*({"choices": [{"index": 0, "delta": {"content": text}}]} for text in said))
    made = {
        "upstream": [{"status": 200, "reads": [call_file.coded(wire)]}],
        "packets": [call_file.coded(stream({"output": {"choices": [{"message": {"content": t}}]}})) for t in handed],
    }
    sides = redaction._Sides(filler, ())
    sides.read(made["upstream"][0])
    sides.hear_packets(made["packets"])
    sides.write(made)
    documents = [
        [event.document for event in redaction._events(call_file.decoded(one)) if event.document is not None]
        for one in (*made["upstream"][0]["reads"], *made["packets"])
    ]
    theirs = [event["choices"][0]["delta"]["content"] for event in documents[0]]
    return theirs, [event["output"]["choices"][0]["message"]["content"] for (event,) in documents[1:]]


def test_packets_that_say_all_so_far_say_all_so_far(filler: Filler) -> None:
    said = ["The qu", "ick brown Fox jum", "ps over the lazy dog"]
    whole = ["".join(said[:number]) for number in (1, 2, 3)]
    theirs, ours = filled(filler, said, whole)
    assert ours == ["".join(theirs[:number]) for number in (1, 2, 3)]
    assert "quick" not in ours[-1]


def test_packets_that_do_not_all_begin_as_the_last_are_none_of_its_beginnings(filler: Filler) -> None:
    handed = ["Entirely other sentences", "The quick brown Fox jumps over the lazy dog"]
    _, ours = filled(filler, handed[1:], handed)
    assert [*map(filler.vocabulary.length, ours)] == [*map(filler.vocabulary.length, handed)]
    assert ours[0].count(" ") == 2


def test_a_first_delta_of_one_character_is_one_that_counts_the_same(filler: Filler) -> None:
    said = ["H", "angzhou is wonderful"]
    theirs, ours = filled(filler, said, said)
    assert theirs == ours
    assert filler.vocabulary.length(theirs[0]) == 1
    assert filler.vocabulary.length("".join(theirs)) == filler.vocabulary.length("".join(said))
    assert all(theirs)


def test_arguments_are_json_however_they_begin(filler: Filler) -> None:
    function = {"index": 0, "function": {"arguments": '"city": "Hangzhou"'}}
    (said,) = played(filler, [stream({"choices": [{"index": 0, "delta": {"tool_calls": [function]}}]})], [])
    ((choice,),) = (document["choices"] for document in documents(said))
    arguments = choice["delta"]["tool_calls"][0]["function"]["arguments"]
    assert re.fullmatch('"city": "(?!Hangzhou)[A-Z][a-z]+"', arguments)


def test_packets_that_say_something_else_are_filled_by_themselves(filler: Filler) -> None:
    theirs, ours = filled(filler, ["The quick brown"], ["Entirely other", " sentences"])
    assert not {*["Entirely", "other", "sentences", "quick", "brown"]} & {*" ".join((*theirs, *ours)).split()}
    assert list(map(filler.vocabulary.length, ours)) == list(
        map(filler.vocabulary.length, ("Entirely other", " sentences"))
    )


def test_an_answer_in_json_keeps_its_keys_wherever_it_is_cut(filler: Filler) -> None:
    said = ['{"city": "Hang', 'zhou", "rain": tr', "ue}"]
    theirs, ours = filled(filler, said, said)
    assert theirs == ours
    read = orjson.loads("".join(theirs))
    assert ([*read], read["rain"], read["city"] != "Hangzhou") == (["city", "rain"], True, True)


@pytest.mark.parametrize(
    ("asked", "stops"),
    [
        ({"parameters": {"stop": "a"}}, ["a"]),
        ({"parameters": {"stop": ["a", "b"]}, "stop": "c"}, ["a", "b"]),
        ({"stop": "a"}, ["a"]),
        ({"parameters": {}, "stop": ["a"]}, ["a"]),
        ({"parameters": None, "stop": "a"}, ["a"]),
        ({"parameters": {"stop": None}}, []),
        ({}, []),
        (None, []),
        (["stop"], []),
    ],
)
def test_what_ends_an_answer_is_read_on_either_surface(asked: object, stops: list[str]) -> None:
    assert redaction._stops(asked) == stops


def test_of_a_cut_body_the_longest_that_is_filled_is_filled(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "LONGEST_BROKEN_CHARS", 10)
    filled, crossed_out = (redaction._alone({"text": text}, filler)["text"] for text in ('{"mine": [', '{"mine": ["'))
    assert (filled, crossed_out) == ('{"mine": [', "x" * 11)


def test_all_of_a_wire_that_is_no_document_stays() -> None:
    head = b'id:1\r\nevent:result\r\ndata: {"a":1}\r\nretry: 3\r\n\r\n'
    wire = head + b': beat\n\ndata: [DONE]\n\ndata:[1]\n\nid:2\ndata:{"b":2}'
    events = redaction._events(wire)
    assert [event.document for event in events] == [{"a": 1}, None, None, None, {"b": 2}]
    assert b"".join(event.dumped() for event in events) == wire
    (alone,) = redaction._events(b'{ "a": 1 }')
    assert (alone.document, alone.dumped()) == ({"a": 1}, b'{"a":1}')
    assert redaction._events(b"") == []


def played(filler: Filler, calls: list[bytes], packets: list[bytes], *, status: int = 200) -> tuple[bytes, ...]:
    """What upstream's calls say then, and after them the packets."""
    made = {
        "upstream": [{"status": status, "reads": [call_file.coded(wire)]} for wire in calls],
        "packets": [call_file.coded(packet) for packet in packets],
    }
    sides = redaction._Sides(filler, ())
    for call in made["upstream"]:
        sides.read(call)
    sides.hear_packets(made["packets"])
    sides.write(made)
    return tuple(call_file.decoded(one) for one in (*(call["reads"][0] for call in made["upstream"]), *made["packets"]))


def documents(wire: bytes) -> list[Any]:
    return [event.document for event in redaction._events(wire) if event.document is not None]


def choices(wire: bytes, name: str = "content") -> dict[int, str]:
    """What each choice says."""
    said: dict[int, str] = {}
    for document in documents(wire):
        for choice in document["choices"]:
            said[choice["index"]] = said.get(choice["index"], "") + choice["delta"].get(name, "")
    return said


def delta(index: int, **said: str) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": said}]}


def test_of_several_calls_and_choices_each_keeps_its_own(filler: Filler) -> None:
    """They say the same, cut elsewhere: the filler of each is its own, and a packet has that of what it was made of."""
    first, second = ("Hangzhou is wonderful", ""), ("Hangz", "hou is wonderful")
    wires = [stream(*(delta(0, content=text) for text in said)) for said in (first, second)]
    one, other, packet = played(filler, wires, [stream(delta(0, content="Hangzhou is wonderful"))])
    assert choices(one) != choices(other)
    assert choices(packet) == choices(one)
    wire = stream(delta(0, content=first[0]), *(delta(1, content=text) for text in second))
    both, *apart = played(filler, [wire], [stream(delta(at, content=first[0])) for at in (0, 1)])
    assert choices(both)[0] != choices(both)[1]
    assert {choices(packet)[at] for at, packet in enumerate(apart)} <= {*choices(both).values()}


def test_a_chain_of_thought_is_none_of_the_answer(filler: Filler) -> None:
    wire = stream(
        delta(0, reasoning_content="Hangz"),
        delta(0, reasoning_content="hou is wonderful"),
        delta(0, content="Hangzhou is wonderful"),
    )
    whole = stream(delta(0, content="Hangzhou is wonderful", reasoning_content="Hangzhou is wonderful"))
    said, packet = played(filler, [wire], [whole])
    assert choices(said)[0] != choices(said, "reasoning_content")[0]
    for name in ("content", "reasoning_content"):
        assert choices(packet, name) == choices(said, name)


@pytest.mark.parametrize("status", [200, 400])
def test_an_upstreams_failure_keeps_its_words_in_the_middle_of_a_stream_too(filler: Filler, status: int) -> None:
    failed = {"error": {"message": "The engine has run out of memory"}}
    if status == 400:
        failed = {"detail": "The engine has run out of memory"}  # type: ignore[dict-item]
    beside = [] if status == 400 else [delta(0, content="Hangzhou is wonderful")]
    (said,) = played(filler, [stream(*beside, failed)], [], status=status)
    assert documents(said)[-1] == failed
    assert b"Hangzhou" not in said


def test_of_a_packet_of_several_events_each_is_filled(filler: Filler) -> None:
    """Behind a beat, and behind a failure."""
    packet = b": beat\n\n" + stream({"code": "X", "message": "it is over"}, delta(0, content="Hangzhou is wonderful"))
    _, made = played(filler, [stream(delta(0, content="Hangzhou is wonderful"))], [packet])
    assert made.startswith(b': beat\n\ndata: {"code":"X","message":"it is over"}\n\n')
    assert b"Hangzhou" not in made


def test_bytes_are_mended_where_they_stand_beside_a_token(filler: Filler) -> None:
    token = {"token": " Hangzhou", "bytes": [*b" Hangzhou"], "top_logprobs": [{"token": "a", "bytes": None}]}
    beside = [{"bytes": [1, 2]}, {"token": 7, "bytes": [3]}]
    events = redaction._events(stream({"logprobs": {"content": [token, *beside]}}))
    wire = stream({"output": {"choices": [{"logprobs": {"content": [dict(token)]}}]}})
    _, packet = played(filler, [], [wire, wire])
    ((shown,),) = (choice["logprobs"]["content"] for choice in documents(packet)[0]["output"]["choices"])
    assert bytes(shown["bytes"]).decode() == shown["token"] != " Hangzhou"
    events[0].document["logprobs"]["content"][0]["token"] = "é"
    redaction._mend_logprobs(events)
    mended, *others = events[0].document["logprobs"]["content"]
    assert (mended["bytes"], mended["top_logprobs"]) == ([*"é".encode()], [{"token": "a", "bytes": None}])
    assert others == beside


@pytest.mark.parametrize(
    ("at", "moved"), [(0, 0), (1, 1), (5, 2), (9, 4), (10, 5), (11, 7), (15, 15), (19, 23), (20, 25), (25, 26)]
)
def test_a_place_inside_an_event_is_as_far_into_it_as_it_was(at: int, moved: int) -> None:
    """Never at either border; of an event of one byte behind it."""
    assert redaction._moved([0, 10, 20, 30], [0, 5, 25, 26], at) == moved
