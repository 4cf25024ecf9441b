"""`serve --inspect` as a process: what is kept of a call, what is taken away, and that it plays the same again."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.inspector import call_file, comparison
from proxy.simulation.wire import Script
from tests import caller, forks
from tests.caller import SSE
from tests.conftest import ROOT
from tests.integration.conftest import Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAGS = ("--inspect",)
Json = dict[str, Any]
GOLDEN = ROOT / "tests" / "golden"
COMPATIBLE = "/compatible-mode/v1/chat/completions"
# Hosts that were recorded with another call than the plain one are no matter here: any call of streams reads them.
PLAIN = {"model": "deepseek-v3.2", "input": {"messages": [{"role": "user", "content": "你是谁？ Who are you?"}]}}


async def got(pair: Pair, path: str, **headers: str) -> caller.Answer:
    headers = {
        "Content-Length": "",
        "Authorization": "",
        **{name.replace("_", "-"): it for name, it in headers.items()},
    }
    return await caller.ask(pair.served.admin_url, b"", headers, path=path, method="GET")


async def newest(pair: Pair, *, redact: bool = False) -> Json:
    """The call that came last, once it has ended."""
    async with asyncio.timeout(10):
        while (calls := (await got(pair, "/calls/list")).json["calls"])[-1]["ended_ms"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return (await got(pair, f"/calls/{calls[-1]['number']}{'?redact' if redact else ''}")).json


async def asked(pair: Pair, call: Json, path: str = caller.GENERATION, **headers: str) -> caller.Answer:
    return await caller.ask(pair.url, call, headers or SSE, path=path)


async def test_both_sides_of_a_call_are_kept_with_what_became_of_its_fields(pair: Pair) -> None:
    answer = await asked(pair, caller.call("Hello!", incremental_output=True, enable_search=False, plugins={}))
    kept = await newest(pair)
    (call,) = kept["upstream"]
    assert call_file.answer_of(kept) == answer.body
    assert orjson.loads(call_file.decoded(kept["caller"]["body"]))["parameters"]["incremental_output"] is True
    assert orjson.loads(call_file.decoded(call["body"]))["stream"] is True
    assert (call["target"], call["path"], call["status"]) == (pair.upstream.url, "/chat/completions", 200)
    wire = b"".join(call_file.decoded(read) for read in call["reads"])
    assert wire.startswith(b"data: ")
    assert wire.count(b"data: ") == wire.count(b"\n\n")
    assert [line["event"] for line in kept["journal"]] == ["open", "close"]
    assert kept["journal"][1]["usage"] == caller.packets(answer.body)[-1]["usage"] | {
        "prompt_tokens_details": {"cached_tokens": 0}
    }
    actions = {line["field"]: line["action"] for line in kept["account"]}
    assert (actions["model"], actions["parameters.plugins"]) == ("renamed", "dropped")


async def test_each_packet_names_the_read_that_it_was_made_of(pair: Pair) -> None:
    pair.next(Script(text="one two three four", gap_s=0.01))
    await asked(pair, caller.call(incremental_output=True))
    kept = await newest(pair)
    for packet in kept["packets"]:
        number, read = packet["of"]
        theirs = kept["upstream"][number]["reads"][read]
        assert 0 <= packet["at_ms"] - theirs["at_ms"] < 1_000
        # One read may bring several deltas, and is then answered at once.
        for said in re.findall("^data:(.*)", packet["text"], re.MULTILINE):
            text = orjson.loads(said)["output"]["choices"][0]["message"]["content"]
            assert orjson.dumps(text)[1:-1] in theirs["text"].encode()


async def test_no_key_is_kept_wherever_it_is_said(pair: Pair) -> None:
    """Not even one that upstream says back, cut in two by a read."""
    key = "sk-that-nobody-may-see"
    frame = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    pair.next(Script(replay=frame % key.encode(), split=9, gap_s=0.005), Script(key="sk-another"))
    call = caller.call(f"Is {key} good?", incremental_output=True)
    for _ in range(2):
        await caller.ask(pair.url, call, {**SSE, "Authorization": f"Bearer {key}", "Cookie": f"k={key}"})
        kept = await newest(pair)
        told = orjson.dumps(kept)
        assert key.encode() not in told
        assert kept["caller"]["headers"]["Authorization"] == kept["caller"]["headers"]["Cookie"] == "(masked)"
        wire = b"".join(call_file.decoded(read) for one in kept["upstream"] for read in one["reads"])
        assert key.encode() not in wire + call_file.answer_of(kept)
    assert key not in pair.served.output


async def test_a_refused_call_and_a_request_that_is_none_are_there_with_their_reason(pair: Pair) -> None:
    await asked(pair, caller.call(temperature=9))
    kept = await newest(pair)
    assert (kept["status"], kept["upstream"]) == (400, [])
    assert b"Temperature should be in" in call_file.answer_of(kept)
    await asked(pair, {}, "/v1/services/aigc/text-generation/generation")
    (*_, line) = (await got(pair, "/calls/list")).json["calls"]
    assert (line["outcome"], line["status"], line["cause"]) == ("stray", 404, "/api is missing before it")


async def test_the_list_says_of_a_refusal_what_the_books_say(pair: Pair) -> None:
    """Its answer is no packet: not in the journal, not here."""
    for headers in (SSE, {"Accept": "application/json"}):
        await asked(pair, caller.call(temperature=9), **headers)
        kept = await newest(pair)
        closing = kept["journal"][-1]
        (*_, line) = (await got(pair, "/calls/list")).json["calls"]
        assert (line["packets"], line["first_ms"]) == (closing["packets"], closing["t"]["first_packet"]) == (0, None)
        assert kept["packets"] == []
        assert b"Temperature" in call_file.decoded(kept["refusal"])
    await asked(pair, caller.call("Hello!"), Accept="application/json")
    closing = (await newest(pair))["journal"][-1]
    (*_, line) = (await got(pair, "/calls/list")).json["calls"]
    assert (line["packets"], line["first_ms"]) == (closing["packets"], closing["t"]["first_packet"])


@pytest.mark.parametrize(
    "refused",
    [
        ("/v1/services/aigc/text-generation/generation", "POST", SSE, 404),
        (caller.GENERATION, "POST", {**SSE, "Authorization": ""}, 401),
        ("/v1/models", "GET", {"Authorization": "", "Content-Length": ""}, 401),
        (caller.GENERATION, "GET", {"Content-Length": ""}, 400),
    ],
    ids=["no route", "no key", "a lookup without a key", "a wrong method"],
)
async def test_what_was_refused_before_its_body_has_its_headers_and_its_answer(
    pair: Pair, tmp_path: Path, refused: tuple[str, str, dict[str, str], int]
) -> None:
    """And is made again only where nothing of it is missing."""
    path, method, headers, status = refused
    body = orjson.dumps(caller.call("What did I send?")) if method == "POST" else b""
    answer = await caller.ask(pair.url, body, {**headers, "X-Note": "here"}, path=path, method=method)
    kept = await newest(pair)
    assert (answer.status, kept["status"], kept["caller"]["method"], kept["caller"]["path"]) == (
        *(status, status),
        *(method, path),
    )
    assert call_file.answer_of(kept) == answer.body
    assert kept["caller"]["headers"]["X-Note"] == "here"
    file = tmp_path / "call.json"
    file.write_bytes(orjson.dumps(await newest(pair, redact=True)))
    again = await asyncio.to_thread(forks.dashseek, "calls", "replay", str(file), "--to", pair.url)
    if method == "POST":
        why = "this call cannot be made again: its body was never read, for it was refused for what stands before it"
        assert (again.returncode, again.stderr) == (1, f"Error: {why}\n")
    elif path == caller.GENERATION:
        assert (again.returncode, again.stdout.partition(";")[0]) == (0, "the same answer"), again.stdout + again.stderr


async def test_a_correction_learned_since_is_said_and_no_difference(pair: Pair, tmp_path: Path) -> None:
    """Upstream counts nine tokens more than we do: a server knows it from the second call of the kind on."""

    def wire(prompt: int) -> bytes:
        usage = {"prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2}
        said = (("one", None, {}), (" two", None, {}), ("", "stop", {"usage": usage}))
        frames = (
            orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}], **more})
            for text, end, more in said
        )
        return b"".join(b"data: %b\n\n" % frame for frame in (*frames, b"[DONE]"))

    # Of a kind that no other test here asks for.
    tool = {"type": "function", "function": {"name": "tell", "parameters": {"type": "object"}}}
    call = caller.call("Learn of me, as JSON.", incremental_output=True, tools=[tool], result_format="message")
    call["input"]["messages"].insert(0, {"role": "system", "content": "Say little."})
    call["parameters"]["response_format"] = {"type": "json_object"}
    counted = caller.packets((await asked_with(pair, wire(0), call, caller.GENERATION, SSE)).body)[0]
    given = counted["usage"]["input_tokens"]
    await asked_with(pair, wire(given + 9), call, caller.GENERATION, SSE)
    file = tmp_path / "call.json"
    file.write_bytes(orjson.dumps(await newest(pair)))
    pair.next(Script(replay=file, fast=True))
    same = await asyncio.to_thread(forks.dashseek, "calls", "replay", str(file), "--to", pair.url)
    assert same.returncode == 0, same.stdout
    assert same.stdout.startswith("input tokens are 9 more now until upstream tells its own: ")
    assert "\nthe same answer; " in same.stdout


async def test_a_website_may_not_read_them(pair: Pair) -> None:
    for path in ("/calls/list", "/calls/events", "/calls/1", "/calls/1.har"):
        assert (await got(pair, path, Sec_Fetch_Site="cross-site")).status == 403
        assert (await got(pair, path, Host="evil.example")).status == 403
    page = await got(pair, "/calls")
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert pair.url in page.body.decode()


async def test_an_archive_holds_both_sides_as_requests(pair: Pair) -> None:
    answer = await asked(pair, caller.call("Hello!"))
    number = (await newest(pair))["number"]
    log = (await got(pair, f"/calls/{number}.har")).json["log"]
    assert (log["version"], [entry["request"]["method"] for entry in log["entries"]]) == ("1.2", ["POST", "POST"])
    ours, theirs = log["entries"]
    assert ours["response"]["content"]["text"] == answer.body.decode()
    assert theirs["request"]["url"] == f"{pair.upstream.url}/chat/completions"
    for entry in log["entries"]:
        assert entry["time"] == pytest.approx(entry["timings"]["wait"] + entry["timings"]["receive"])


def cases() -> list[tuple[str, Json, str, bytes]]:
    """Name, call, path and upstream's bytes of every golden and captured stream."""
    found = [
        (folder.name, orjson.loads((folder / "call.json").read_bytes()), path, (folder / "upstream.sse").read_bytes())
        for room, path in (("stream", caller.GENERATION), ("compatible", COMPATIBLE))
        for folder in sorted((GOLDEN / room).iterdir())
        if (folder / "upstream.sse").exists()
    ]
    for captured in sorted((GOLDEN / "captured").glob("*.sse")):
        for incremental in (True, False):
            call = {**PLAIN, "parameters": {"incremental_output": incremental}}
            found.append((f"{captured.stem} {incremental}", call, caller.GENERATION, captured.read_bytes()))
    return found


CASES = cases()


async def test_there_are_thirty_of_them() -> None:
    assert len(CASES) >= 30


@pytest.mark.parametrize(("call", "path", "wire"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_redacted_call_plays_the_same_shape_and_usage(pair: Pair, call: Json, path: str, wire: bytes) -> None:
    call = {**call, "stream": True} if path == COMPATIBLE else call
    headers = {} if path == COMPATIBLE else SSE
    before, was = await asked_with(pair, wire, call, path, headers), None
    while shape(before.body) != was:
        # What our count of the prompt lacks is learned from some calls (spec USE-5).
        was = shape(before.body)
        before = await asked_with(pair, wire, call, path, headers)
    shared = await newest(pair, redact=True)
    raw = orjson.dumps(shared)
    again = await asked_with(pair, raw, orjson.loads(call_file.decoded(shared["caller"]["body"])), path, headers)
    after = await asked_with(pair, wire, call, path, headers)
    assert shape(again.body) in (was, shape(after.body))
    assert [*comparison.differences(call_file.answer_of(shared), again.body)] == []
    for text in texts(call):
        assert text not in raw.decode(), text


async def asked_with(pair: Pair, replay: bytes, call: Json, path: str, headers: dict[str, str]) -> caller.Answer:
    """The answer to a call whose upstream says these bytes, however often it is asked."""
    pair.next(*[Script(replay=replay, fast=True)] * 4)
    answer = await asked(pair, call, path, **headers)
    pair.upstream.scripts.clear()
    return answer


def shape(body: bytes) -> list[Any]:
    """Of each event its form, its ends and its figures, without its texts."""

    def bare(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {name: bare(it, name) for name, it in value.items() if name not in comparison.FRESH}
        if isinstance(value, list):
            return [bare(it, name) for it in value] if name != "bytes" else ["bytes"]
        return (
            bool(value)
            if isinstance(value, str) and name in ("content", "reasoning_content", "arguments", "token")
            else value
        )

    return [bare(event) for event in comparison.events(body)]


def texts(document: Any) -> list[str]:
    """What its caller has said, in words that are no accident."""
    if isinstance(document, dict):
        return [
            text for name, value in document.items() for text in texts(value) if name not in ("stop", "model", "name")
        ]
    if isinstance(document, list):
        return [text for value in document for text in texts(value)]
    return [document] if isinstance(document, str) and len(document) > 12 else []


async def test_a_call_is_listed_exported_simulated_and_replayed(pair: Pair, tmp_path: Path) -> None:
    await asked(pair, caller.call("Tell me of the sea.", incremental_output=True))
    number = str((await newest(pair))["number"])
    admin = ("--admin", pair.served.admin_url)
    listed = await asyncio.to_thread(forks.dashseek, "calls", "list", *admin)
    assert listed.stdout.splitlines()[2 if listed.stdout.splitlines()[1].startswith("-") else 1].split()[0] == number
    exported = await asyncio.to_thread(forks.dashseek, "calls", "export", number, "--redact", *admin)
    assert "the sea" not in exported.stdout
    file = tmp_path / "call.json"
    file.write_text(exported.stdout)
    pair.next(Script(replay=file, fast=True))
    same = await asyncio.to_thread(forks.dashseek, "calls", "replay", str(file), "--to", pair.url)
    assert (same.returncode, same.stdout.partition(";")[0]) == (0, "the same answer"), same.stdout
    pair.next(Script(text="Something else."))
    other = await asyncio.to_thread(forks.dashseek, "calls", "replay", str(file), "--to", pair.url)
    assert other.returncode == 1
    assert "event 1.output.choices[0].message.content: " in other.stdout


async def test_an_upstream_that_broke_off_breaks_off_again(pair: Pair, tmp_path: Path) -> None:
    pair.next(Script(text="one two three", cut_after=3))
    before = await asked(pair, caller.call(incremental_output=True))
    kept = await newest(pair)
    assert (before.status, kept["status"], call_file.answered_of(kept)[0]) == (200, 500, 200)
    assert kept["upstream"][0]["failure"] == "upstream broke off (connection closed)"
    file = tmp_path / "call.json"
    file.write_bytes(orjson.dumps(kept))
    pair.next(Script(replay=file))
    same = await asyncio.to_thread(forks.dashseek, "calls", "replay", str(file), "--to", pair.url)
    assert (same.returncode, same.stdout.partition(";")[0]) == (0, "the same answer"), same.stdout


async def test_an_upstream_that_broke_off_in_a_reply_has_ended_so(pair: Pair) -> None:
    pair.next(Script(text="one two three", cut_after=1))
    reply = await caller.ask(pair.url, caller.call())
    assert reply.fault[:2] == (500, "InternalError")
    (asked_upstream,) = (await newest(pair))["upstream"]
    assert asked_upstream["failure"] == "upstream broke off (connection closed)"
    assert asked_upstream["answered_ms"] <= asked_upstream["ended_ms"]


async def test_what_is_wrong_is_a_sentence(pair: Pair, tmp_path: Path) -> None:
    missing = await asyncio.to_thread(forks.dashseek, "calls", "export", "999999", "--admin", pair.served.admin_url)
    assert (missing.returncode, missing.stderr) == (1, "Error: no such call is kept\n")
    nobody = await asyncio.to_thread(forks.dashseek, "calls", "list", "--admin", "http://127.0.0.1:1")
    assert nobody.returncode == 1
    assert "nobody answers at http://127.0.0.1:1: say --admin URL" in nobody.stderr
    file = tmp_path / "call.json"
    file.write_text('{"dashseek_call":2}')
    replays = (("calls", "replay", str(file), "--to", pair.url), ("simulate", "--replay", str(file)))
    for arguments in replays:
        wrong = await asyncio.to_thread(forks.dashseek, *arguments)
        assert "a call of form 2; this version reads form 1" in wrong.stderr
    await asked(pair, caller.call("Hello!"))
    kept = await newest(pair)
    archive = (await got(pair, f"/calls/{kept['number']}.har")).body
    for content, why in (
        (archive, "an HTTP archive (HAR), which other tools read; `dashseek calls export` without --har writes a call"),
        (orjson.dumps({**kept, "lost_bytes": 5_000_000}), "5,000,000 bytes of it are not kept"),
        (orjson.dumps({**kept, "upstream": [{}]}), "not a call as `calls export` writes it"),
    ):
        file.write_bytes(content)
        for arguments in replays:
            wrong = await asyncio.to_thread(forks.dashseek, *arguments)
            assert why in wrong.stderr, wrong.stderr
            assert wrong.returncode in (1, 2)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--host", "0.0.0.0", "--auth", "passthrough"), "host must be an address of loopback"),
        (("--admin-host", "0.0.0.0"), "admin_host must be an address of loopback"),
        (("--workers", "2"), "say --workers 1"),
    ],
)
async def test_it_does_not_start_where_others_could_look(flags: tuple[str, ...], why: str) -> None:
    refused = await asyncio.to_thread(
        forks.dashseek, "serve", "--inspect", "--upstream", "http://127.0.0.1:9", "--port", "0", *flags
    )
    assert refused.returncode == 2
    assert why in refused.stderr
