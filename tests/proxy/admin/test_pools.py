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


def test_what_processes_see_apart_is_put_together() -> None:
    """The longest wait, the first error; a mean by calls, where one who has not answered any yet counts as one."""
    (row,) = pools.rows([ONE._replace(calls=0, out_for_s=2.0), ONE._replace(calls=3, first_token_s=0.3, out_for_s=1.0)])
    assert (row.report.out_for_s, row.report.first_token_s) == (2.0, 0.25)


def test_figures_are_rounded_to_four_places() -> None:
    rows = pools.rows([ONE._replace(calls=1, first_token_s=1.0), ONE._replace(calls=2, first_token_s=0.0), THIRD])
    assert [row.report.first_token_s for row in rows] == [0.3333, None]
    assert [row.share for row in rows] == [0.2308, 0.7692]


def test_the_page_says_what_the_document_says_and_nothing_that_could_run() -> None:
    quiet = THIRD._replace(pool="", calls=0)
    page = pools.page(pools.rows([ONE._replace(target="http://<b>"), OTHER, THIRD]))
    alone = pools.page(pools.rows([quiet]))
    assert page.removeprefix(pools.HEAD).splitlines() == [
        '<tr><td>p<td>http://&lt;b&gt;<td class="well">well<td>2<td>4<td>–<td>–<td>100 ms<td>10<td>25.0%',
        '<tr><td>p<td>http://a<td class="out">out<td>1<td>4<td>7.5 s<td>unreachable<td>400 ms<td>20<td>50.0%',
        '<tr><td>q<td>http://b<td class="well">well<td>0<td>–<td>–<td>–<td>–<td>10<td>25.0%',
        "</table></html>",
    ]
    assert alone.splitlines()[-2] == '<tr><td>–<td>http://b<td class="well">well<td>0<td>–<td>–<td>–<td>–<td>0<td>–'
    assert "<script" not in pools.HEAD


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
