"""Claims about the page of pools: what several processes see is one row for each target (POOL-7)."""

from __future__ import annotations

import aiohttp

from proxy.admin import pools
from proxy.simulation.wire import Script
from proxy.upstream.report import TargetReport
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway

ONE = TargetReport("p", "http://a", "well", 2, 4, None, None, 0.1, 10)
OTHER = TargetReport("p", "http://a", "out", 1, 4, 7.5, "unreachable", 0.4, 20)
THIRD = TargetReport("q", "http://b", "well", 0, None, None, None, None, 10)


def test_one_row_for_each_target_with_the_gravest_word() -> None:
    first, second = pools.rows([ONE, THIRD, OTHER])
    assert first.document() == {
        "pool": "p",
        "target": "http://a",
        "state": "out",
        "in_flight": 3,
        "max_in_flight": 8,
        "out_for_s": 7.5,
        "last_error": "unreachable",
        "first_token_s": 0.3,
        "calls": 30,
        "share": 0.75,
    }
    assert (second.share, second.report.max_in_flight, second.report.first_token_s) == (0.25, None, None)


def test_before_the_first_call_there_is_no_share() -> None:
    assert pools.rows([THIRD._replace(calls=0)])[0].share is None


def test_the_page_says_what_the_document_says_and_nothing_that_could_run() -> None:
    page = pools.page(pools.rows([ONE._replace(target="http://<b>"), OTHER]))
    assert "http://&lt;b&gt;" in page
    assert "<script" not in page
    for said in ("out", "unreachable", "7.5 s", "400 ms", "100 ms"):
        assert said in page


async def test_both_are_on_the_admin_port(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    upstream = await simulator(Script(text="hi"))
    front = await gateway_before(upstream.url)
    await caller.stream(front.url, caller.call(incremental_output=True))
    await front.end_of()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{front.admin_url}/pools") as page:
            assert (page.status, page.content_type) == (200, "text/html")
            assert upstream.url in await page.text()
        async with session.get(f"{front.admin_url}/pools.json") as told:
            (row,) = (await told.json())["targets"]
        async with session.get(f"{front.admin_url}/metrics") as scraped:
            lines = (await scraped.text()).splitlines()
    assert (row["target"], row["state"], row["calls"], row["share"]) == (upstream.url, "well", 1, 1.0)
    assert row["first_token_s"] > 0
    assert f'dashseek_targets{{pool="",state="well",target="{upstream.url}"}} 1.0' in lines
    assert f'dashseek_target_calls_in_flight{{pool="",target="{upstream.url}"}} 0.0' in lines
