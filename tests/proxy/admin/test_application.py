"""Claims about the admin port: its probes, its index, and what its answers let a browser do (spec OPS-1)."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import structlog.testing
from prometheus_client.openmetrics import parser as openmetrics

from proxy.admin import application as admin
from proxy.admin import docs, pools, usage
from proxy.downstream.phase import Phase
from proxy.inspector.recent_calls import RecentCalls
from proxy.telemetry import metrics
from tests import caller
from tests.proxy.conftest import Running, StartGateway

ALWAYS = ["docs", "openapi.json", "pools", "pools.json", "metrics", "readyz", "healthz"]


async def got(front: Running, path: str, **headers: str) -> caller.Answer:
    said = {"Content-Length": "", "Authorization": "", **headers}
    return await caller.ask(front.admin_url, b"", said, path=path, method="GET")


@pytest.mark.parametrize(
    ("chosen", "links"),
    [
        ({}, ALWAYS),
        ({"inspect": True}, [*ALWAYS, "calls"]),
        ({"journal_file": "calls.jsonl"}, [*ALWAYS, "usage", "usage.json"]),
        # To standard output: there is nothing to be summed.
        ({"journal_file": "-"}, ALWAYS),
    ],
    ids=["plain", "inspected", "with books", "with lines alone"],
)
async def test_the_index_leads_to_all_that_is_there(
    gateway_before: StartGateway, tmp_path: Path, chosen: dict[str, object], links: list[str]
) -> None:
    if chosen.get("journal_file") == "calls.jsonl":
        chosen = {"journal_file": str(tmp_path / "calls.jsonl")}
    front = await gateway_before("http://127.0.0.1:1", **chosen)
    index = await got(front, "/")
    assert (index.status, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert index.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert docs.HEADERS.items() <= {**index.headers}.items()
    found = re.findall('href="([^"]*)"', index.body.decode())
    assert sorted(found) == sorted(links)
    for link in found:
        if not link.startswith(("usage", "docs")):
            assert (await got(front, f"/{link}")).status == 200, link
    assert ((await got(front, "/calls")).status == 200) is ("calls" in links)


@pytest.mark.parametrize(
    ("page", "policy"), [("/pools", pools.POLICY), ("/usage", usage.POLICY), ("/usage?lang=zh", usage.POLICY)]
)
async def test_pages_run_nothing_and_are_kept_nowhere(gateway_before: StartGateway, page: str, policy: str) -> None:
    answer = await got(await gateway_before("http://127.0.0.1:1"), page)
    assert answer.headers["content-security-policy"] == policy
    assert (answer.headers["cache-control"], answer.headers["content-type"]) == ("no-store", "text/html; charset=utf-8")
    assert docs.HEADERS.items() <= {**answer.headers}.items()


async def test_a_scraper_gets_the_form_it_asks_for(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    plain = await got(front, "/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    other = await got(front, "/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = [family.name for family in openmetrics.text_string_to_metric_families(other.body.decode())]
    assert families == [row.name.removesuffix("_total") for row in metrics.ROWS]


async def test_what_belongs_on_the_data_port_is_a_stray_with_a_hint(gateway_before: StartGateway) -> None:
    front = await gateway_before("http://127.0.0.1:1")
    with structlog.testing.capture_logs() as lines:
        for path in (caller.GENERATION, "/v1/models", "/partner/models/deepseek-v3", "/nowhere"):
            assert (await got(front, path)).fault[:2] == (404, "NotFound")
    told = [(line["port"], line["path"], line["hint"]) for line in lines if line["event"] == "stray"]
    hint = "a call: the data port takes it"
    assert told == [
        ("admin", caller.GENERATION, hint),
        ("admin", "/v1/models", hint),
        ("admin", "/partner/models/deepseek-v3", hint),
        ("admin", "/nowhere", None),
    ]


@pytest.mark.parametrize(
    ("phase", "writable", "reasons"),
    [
        (Phase.SERVING, True, []),
        (Phase.DRAINING, True, ["draining"]),
        (Phase.CUTTING, True, ["draining"]),
        (Phase.SERVING, False, ["journal not writable"]),
        (Phase.DRAINING, False, ["draining", "journal not writable"]),
    ],
)
async def test_a_process_is_ready_where_a_call_would_be_served(
    phase: Phase, writable: bool, reasons: list[str]
) -> None:
    journal: Any = SimpleNamespace(journal=SimpleNamespace(writable=lambda: writable))
    lifecycle: Any = SimpleNamespace(phase=phase)
    process = admin.Process(journal, lifecycle, metrics.Metrics({}))
    assert process.said() == await process.reasons() == reasons


async def test_a_process_that_keeps_calls_tells_them_with_its_gateway(gateway_before: StartGateway) -> None:
    house = (await gateway_before("http://127.0.0.1:1")).house
    lifecycle: Any = None
    measured, recent = metrics.Metrics({}), RecentCalls()
    assert admin.Process(house, lifecycle, measured).inspected is None
    inspected = admin.Process(house, lifecycle, measured, recent).inspected
    assert inspected is not None
    assert (inspected.recent, inspected.gateway) == (recent, house)
    ((target,), (reading,)) = await _told(admin.Process(house, lifecycle, measured))
    assert (target.target, target.state) == ("http://127.0.0.1:1", "well")
    assert reading.keys() >= {row.name for row in metrics.COUNTED}


async def _told(process: admin.Process) -> tuple[list[Any], list[Any]]:
    return await process.targets(), await process.readings()


@pytest.mark.parametrize(
    ("reasons", "status", "ready"), [([], 200, True), (["draining"], 503, False), (["a", "b"], 503, False)]
)
async def test_the_probe_of_readiness_says_why_not(
    gateway_before: StartGateway, monkeypatch: pytest.MonkeyPatch, reasons: list[str], status: int, ready: bool
) -> None:
    """And that the process is alive, whatever else there is."""
    monkeypatch.setattr(admin.Process, "said", lambda _: reasons)
    front = await gateway_before("http://127.0.0.1:1")
    answer = await got(front, "/readyz")
    assert (answer.status, orjson.loads(answer.body)) == (status, {"ready": ready, "reasons": reasons})
    assert (await got(front, "/healthz")).json == {"status": "ok"}
