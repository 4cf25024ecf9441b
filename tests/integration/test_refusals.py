"""Every refusal the protocol document lists, earned from the real `serve`, by JSON calls and by SSE calls alike.

An SSE call that is refused gets the same status and the same JSON body: nothing has left that would be a stream
(spec SSE-2, ERR-1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from proxy.protocol import probes, tables
from proxy.simulation.simulator import Simulator
from tests import caller
from tests.conftest import StartServe
from translators import faults

SOURCES = tables.shipped()
PROBES = [*probes.STRUCTURE, *probes.REFUSED]


def document(probe: probes.Probe) -> dict[str, Any]:
    """The call as a caller sends it."""
    whole = {"model", "input"} & probe.given.keys()
    return probe.given if whole else {"model": probe.model, "input": {"prompt": "hi"}, "parameters": probe.given}


def expected(probe: probes.Probe, *, stream: bool) -> faults.Fault | None:
    """What it is told; None where it is refused only the other way."""
    try:
        return tables.refusal_of(replace(probe, stream=stream), SOURCES)
    except ValueError:
        return None


@pytest.fixture
async def url(serve: StartServe, simulator: Any) -> tuple[str, Simulator]:
    upstream = await simulator()
    served = await serve(upstream.url)
    return served.url, upstream


@pytest.mark.parametrize("headers", [{}, caller.SSE], ids=["JSON", "SSE"])
async def test_every_refusal_is_the_same_true_status_and_json_body(
    url: tuple[str, Simulator], headers: dict[str, str]
) -> None:
    """REQ-1 to REQ-8, PAR-1 to PAR-19, MOD-2, HTTP-8."""
    front, upstream = url
    told = {}
    for probe in PROBES:
        fault = expected(probe, stream=bool(headers))
        if fault is None:
            continue
        answer = await caller.ask(front, document(probe), headers)
        seen = orjson.loads(answer.body)
        assert answer.headers["content-type"].startswith("application/json"), probe
        assert list(seen) == ["code", "message", "request_id"]
        assert (answer.status, seen["code"], seen["message"]) == (fault.status, fault.code, fault.message), probe
        assert seen["request_id"] == answer.headers["x-request-id"]
        told[probe.rule] = fault
    assert len(told) > 20
    assert upstream.calls == []
