"""Claims about the assembly: which path leads where, and that whatever happens to a call is told once."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest
from multidict import CIMultiDict

from proxy.downstream import paths, request_ids
from proxy.simulation.wire import Script
from tests import caller
from tests.conftest import ROOT, StartSimulator
from tests.proxy.conftest import StartGateway
from translators import faults
from translators.dashscope import tongue


@pytest.mark.parametrize(
    ("path", "status", "model"),
    [
        ("/partner/models/deepseek-v3", 200, "deepseek-v3"),
        ("/any-thing/models/siliconflow/deepseek-r1", 200, "deepseek-r1"),
        ("/partner/models/a/b/c/deepseek-v3", 200, "deepseek-v3"),
        ("/partner/models/", 404, None),
        ("/partner/models/deepseek-v3/", 404, None),
        ("/partner/models//deepseek-v3", 404, None),
        ("//models/deepseek-v3", 404, None),
        ("/a/b/models/deepseek-v3", 404, None),
    ],
)
async def test_the_partner_route_takes_the_model_from_the_path(
    simulator: StartSimulator, gateway_before: StartGateway, path: str, status: int, model: str | None
) -> None:
    """Spec HTTP-2: it wins over the body's."""
    running = await gateway_before((await simulator()).url)
    answer = await caller.ask(running.url, caller.call(model="deepseek-v3.2"), path=path)
    assert answer.status == status
    if model is not None:
        record, _ = await running.end_of()
        assert record.model == model


async def test_the_partner_route_is_the_operators(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    url = (await simulator()).url
    other = await gateway_before(url, model_route="/v1/{model}/generate")
    assert (await caller.ask(other.url, caller.call(), path="/v1/x/deepseek-v3/generate")).status == 200
    assert (await caller.ask(other.url, caller.call(), path="/partner/models/deepseek-v3")).status == 404
    none = await gateway_before(url, model_route="off")
    assert (await caller.ask(none.url, caller.call(), path="/partner/models/deepseek-v3")).status == 404


KNOWN = "5354a793-a130-4b36-b1dc-2610c5f49071"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (KNOWN, KNOWN),
        (KNOWN.upper(), KNOWN),
        (KNOWN.replace("-", ""), None),
        (f"{{{KNOWN}}}", None),
        (f"urn:uuid:{KNOWN}", None),
        (f"{KNOWN}x", None),
        ("", None),
        ("1", None),
        ("ＡＢＣ", None),
        ("\udcff" * 36, None),
    ],
)
def test_a_well_formed_id_is_kept_and_anything_else_replaced(said: str, kept: str | None) -> None:
    """Spec HTTP-6."""
    request = _Asked(CIMultiDict({"X-Request-Id": said}))
    known_as = request_ids.request_id(request)  # type: ignore[arg-type]
    assert known_as == (kept or known_as)
    assert str(uuid.UUID(known_as)) == known_as
    assert request_ids.request_id(request) == known_as  # type: ignore[arg-type]


# Says ten new ids, in a child that was forked in the middle and in its parent.
FORKED = """
import os
from proxy.downstream.request_ids import new_request_id
first = new_request_id()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(first, *(new_request_id() for _ in range(10)))
"""


def test_new_ids_differ_also_in_what_is_forked() -> None:
    made = [request_ids.new_request_id() for _ in range(3 * request_ids.IDS_AT_ONCE)]
    assert {uuid.UUID(one).version for one in made} == {4}
    assert {str(uuid.UUID(one)) for one in made} == set(made)
    run = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(made) + 1 + 2 * 10 == len({*made, *run.stdout.split()})


class _Asked(dict[object, object]):
    """As much of a request as an id needs."""

    def __init__(self, headers: CIMultiDict[str]) -> None:
        super().__init__()
        self.headers = headers


class TestOneRecordForEveryCall:
    """Spec MET-1: whatever happened, the record is told once."""

    async def test_a_call_that_was_answered(self, simulator: StartSimulator, gateway_before: StartGateway) -> None:
        running = await gateway_before((await simulator()).url)
        await caller.ask(running.url, caller.call())
        await caller.stream(running.url, caller.call())
        await running.end_of(2)
        assert [outcome for _, outcome in running.ended] == ["ok", "ok"]

    @pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
    async def test_a_call_that_was_refused(self, gateway_before: StartGateway, headers: dict[str, str]) -> None:
        running = await gateway_before("http://127.0.0.1:1")
        await caller.ask(running.url, b"[]", headers)
        ((record, outcome),) = running.ended
        assert outcome == "rejected"
        assert record.fault == faults.BODY_INVALID

    async def test_a_call_that_broke_in_the_middle(
        self, simulator: StartSimulator, gateway_before: StartGateway
    ) -> None:
        running = await gateway_before((await simulator(Script(cut_after=3))).url)
        assert (await caller.stream(running.url, caller.call())).status == 200
        assert [outcome for _, outcome in running.ended] == ["upstream_cut"]

    @pytest.mark.parametrize("headers", [caller.SSE, {}], ids=["packets", "reply"])
    async def test_a_call_whose_caller_left(
        self, simulator: StartSimulator, gateway_before: StartGateway, headers: dict[str, str]
    ) -> None:
        upstream = await simulator(Script(first_byte_delay_s=30))
        running = await gateway_before(upstream.url)
        async with caller.dial(running.url) as line:
            line.send(caller.request(caller.call(), headers))
            await upstream.call()
            line.leave()
            _, outcome = await running.end_of()
        assert outcome == "client_gone_before_first_packet"

    async def test_a_bug_before_there_is_anything_to_pass_on(
        self, gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tongue, "check", lambda _: 1 / 0)
        running = await gateway_before("http://127.0.0.1:1")
        assert (await caller.ask(running.url, caller.call())).fault[:2] == (500, "InternalError")
        assert [outcome for _, outcome in running.ended] == ["internal_error"]

    async def test_what_is_no_call_has_none(self, gateway_before: StartGateway) -> None:
        running = await gateway_before("http://127.0.0.1:1")
        await caller.ask(running.url, caller.call(), path="/elsewhere")
        assert not running.ended

    async def test_a_model_on_the_other_path_has_a_refusals_line(self, gateway_before: StartGateway) -> None:
        """HTTP-3, HTTP-13: the line says our sentence, the model and where it is bound."""
        running = await gateway_before("http://127.0.0.1:1")
        answer = await caller.ask(running.url, caller.call(), path=paths.MULTIMODAL)
        assert answer.fault == (400, "InvalidParameter", "url error, please check url！")
        ((record, outcome),) = running.ended
        assert (outcome, record.asked_model) == ("rejected", "deepseek-v3")
        assert "deepseek-v3 is called on the text path" in record.cause
