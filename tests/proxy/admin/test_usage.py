"""Claims about the page of usage: the journal's sums, in two languages, worked out beside the calls."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import aiohttp
import orjson
import pytest
from click.testing import CliRunner

from proxy.admin import usage
from proxy.commands import cli
from proxy.metering import journal_files
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from tests.proxy.metering.records import closed, named, opened, upstream_call, used, write

NOW = datetime(2026, 11, 22, 20, tzinfo=ZoneInfo("Asia/Shanghai"))


def summed(tmp_path: Path) -> dict[str, Any]:
    """What `usage sum` says of two days and two keys, one call cut and counted, one without an end."""
    said: list[tuple[str, dict[str, Any]]] = [
        ("2026-11-22T10:00:00.000Z", {"drift_tokens": -3}),
        ("2026-11-20T10:00:00.000Z", {"key_name": "<b>", "usage": used(90, 10), "generated": used(90, 10)}),
        (
            "2026-11-20T11:00:00.000Z",
            {"outcome": "upstream_cut", "basis": "counted", "key_name": "<b>", "drift_tokens": None},
        ),
    ]
    lines = []
    for number, (at, more) in enumerate(said):
        names = {"at": at, **({"key_name": more["key_name"]} if "key_name" in more else {})}
        lines += [
            opened(named(number), **names),
            closed(named(number), **{**more, **names}, calls=[upstream_call(3, 4)]),
        ]
    path = write(tmp_path / "calls.jsonl", *lines, opened(named(9)))
    by = [word for name in usage.DIMENSIONS for word in ("--by", name)]
    ended = CliRunner().invoke(cli.dashseek, ["usage", "sum", "--json", "--tz", "Asia/Shanghai", *by, str(path)])
    return dict(orjson.loads(ended.stdout))


def test_the_document_has_today_the_month_and_what_to_doubt(tmp_path: Path) -> None:
    report = usage.overview(summed(tmp_path), NOW)
    assert (report["today"]["day"], report["today"]["calls"], report["today"]["total"]) == ("2026-11-22", 2, 7)
    assert (report["month"]["month"], report["month"]["calls"], report["month"]["total"]) == ("2026-11", 4, 114)
    assert [(row["day"], row["calls"]) for row in report["by_day"]] == [("2026-11-20", 2), ("2026-11-22", 2)]
    assert [(row["key"], row["total"]) for row in report["by_key"]] == [("<b>", 107), ("team a", 7)]
    assert {row["outcome"] for row in report["failures"]} == {"upstream_cut", "unknown"}
    assert (report["unknown"], report["counted_share"], report["violations"]) == (1, round(4 / 18, 4), 0)
    # Of the two calls whose prompt upstream has told.
    assert report["drift"] == {"calls": 2, "exact": 0.5, "tokens": 1.5}


def test_where_upstream_tells_nothing_there_is_no_drift(tmp_path: Path) -> None:
    silent = {**summed(tmp_path), "drift": {"calls": 0, "exact": 0, "tokens": 0}}
    report = usage.overview(silent, NOW)
    assert report["drift"] == {"calls": 0, "exact": None, "tokens": None}
    assert "–" in usage.page(report, "en")


def test_shares_and_means_are_rounded(tmp_path: Path) -> None:
    report = usage.overview({**summed(tmp_path), "drift": {"calls": 3, "exact": 1, "tokens": 10}}, NOW)
    assert report["drift"] == {"calls": 3, "exact": 0.3333, "tokens": 3.33}


EMPTY: dict[str, Any] = {"groups": [], "tz": "UTC", "violations_total": 0, "torn_total": 0, "drift": {"calls": 0}}


@pytest.mark.parametrize(
    ("language", "other"), [("en", 'usage?lang=zh&amp;tz=UTC">中文'), ("zh", 'lang=en&amp;tz=UTC">English')]
)
def test_of_a_month_without_calls_each_part_says_that_there_is_none(language: str, other: str) -> None:
    page = usage.page(usage.overview(EMPTY, NOW), language)
    word = usage.WORDS[language]
    for part in ("by day", "by key", "by model", "failures"):
        assert f"<h2>{word[part]}</h2>\n<p>{word['nothing']}</p>" in page
    assert other in page


@pytest.mark.parametrize(
    ("language", "words"), [("en", ("By key", "calls without an end")), ("zh", ("按密钥", "没有结束行的调用"))]
)
def test_the_page_says_it_in_both_languages_and_holds_nothing_that_could_run(
    tmp_path: Path, language: str, words: tuple[str, ...]
) -> None:
    page = usage.page(usage.overview(summed(tmp_path), NOW), language)
    for said in (*words, "&lt;b&gt;", "2026-11", "22.2%", "<svg"):
        assert said in page
    assert not re.search("<script|<b>|onload", page)
    assert usage.WORDS["en"].keys() == usage.WORDS["zh"].keys()


def test_a_bar_is_as_high_as_its_day_beside_the_most() -> None:
    days = [
        {"day": "2026-11-20", "input": 30, "output": 10, "total": 40},
        {"day": "2026-11-21", "input": 3, "output": 1, "total": 4},
    ]
    bars = re.findall(
        r'class="(in|out)" x="(\d+)" y="([\d.]+)" width="22" height="([\d.]+)"', usage._chart(usage.WORDS["en"], days)
    )
    assert bars == [
        ("in", "0", "40.0", "120.0"),
        ("out", "0", "0.0", "40.0"),
        ("in", "26", "148.0", "12.0"),
        ("out", "26", "144.0", "4.0"),
    ]


@pytest.mark.parametrize("number", [1, 30])
def test_the_picture_of_the_days_has_room_for_each_of_them(number: int) -> None:
    days = [{"day": f"2026-11-{day:02}", "input": 3, "output": 1, "total": 4} for day in range(1, number + 1)]
    drawn = ElementTree.fromstring(usage._chart(usage.WORDS["en"], days).partition("<p>")[0])
    left, top, width, height = map(float, drawn.attrib["viewBox"].split())
    bars, names = [*drawn.iter("rect")], [*drawn.iter("text")]
    assert (len(bars), len(names)) == (2 * number, number)
    for shape in (*bars, *names):
        x, y, wide, high = (float(shape.attrib.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert left <= x <= x + wide <= left + width
        assert top <= y <= y + high <= top + height
    assert float(drawn.attrib["width"]) == width == number * usage.BAR


@pytest.mark.parametrize(("tokens", "high"), [(0, 0), (1, usage.HEIGHT)])
def test_a_day_of_one_token_is_as_high_as_any_and_one_of_none_has_no_height(tokens: int, high: float) -> None:
    day = {"day": "2026-11-20", "input": tokens, "output": 0, "total": tokens}
    assert f'class="in" x="0" y="{usage.HEIGHT - high:.1f}"' in usage._chart(usage.WORDS["en"], [day])


def test_the_language_is_the_one_asked_for_or_the_browsers() -> None:
    assert [
        usage.language_of(*said) for said in (("zh", "en"), (None, "zh-CN,zh;q=0.9"), ("fr", "fr"), (None, ""))
    ] == [
        "zh",
        "zh",
        "en",
        "en",
    ]


def test_the_files_are_the_journal_and_what_was_rotated_from_it(tmp_path: Path) -> None:
    names = ("calls.jsonl", "calls.jsonl.1", "calls.jsonl.2.gz", "calls.jsonl-20261101", "calls.jsonl-20261101-1.gz")
    others = ("calls.jsonl.csv", "calls.jsonl.1.state", "other.jsonl", "calls.jsonl.old")
    for name in (*names, *others):
        (tmp_path / name).touch()
    assert {path.name for path in journal_files.of_journal(tmp_path / "calls.jsonl", 0)} == {*names}
    os.utime(tmp_path / "calls.jsonl.1", (5, 5))
    assert {path.name for path in journal_files.of_journal(tmp_path / "calls.jsonl", 9)} == {*names} - {"calls.jsonl.1"}


# Stands for the program that sums, and says what it was asked.
ECHO = f"import sys, json; print(json.dumps({EMPTY} | {{'tz': sys.argv[1:]}}))"


async def test_a_month_begins_with_its_first_day_in_the_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "PROGRAM", ECHO)
    journal = tmp_path / "calls.jsonl"
    journal.touch()
    report = await usage.Reports(journal).report("Asia/Shanghai")
    since = f"{report['month']['month']}-01T00:00:00+08:00"
    by = [word for name in usage.DIMENSIONS for word in ("--by", name)]
    asked = ["usage", "sum", "--json", "--tz", "Asia/Shanghai", "--since", since]
    assert report["tz"] == [*asked, *by, str(journal)]


async def test_sums_are_made_anew_once_a_minute_and_kept_of_so_many_zones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(usage, "PROGRAM", ECHO)
    monkeypatch.setattr(usage, "monotonic", lambda: now_s)
    monkeypatch.setattr(usage, "MOST_ZONES", 2)
    reports = usage.Reports(tmp_path / "calls.jsonl")
    first = await reports.report("UTC")
    now_s += usage.KEPT_S
    assert await reports.report("UTC") is first
    now_s += 1
    second = await reports.report("UTC")
    assert second is not first
    await reports.report("Asia/Shanghai")
    assert await reports.report("UTC") is second
    await reports.report("Europe/Paris")
    assert await reports.report("UTC") is not second


def children() -> set[str]:
    """Processes that this one has started, and not yet heard the end of."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("import time; time.sleep(60)", "took longer than 0.25 s: ask dashseek usage sum"),
        ("print('Error: no')", "the journal could not be read: ask dashseek usage sum"),
    ],
    ids=["too long", "no sum"],
)
async def test_why_there_is_no_sum_is_a_sentence_and_nothing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, sentence: str
) -> None:
    monkeypatch.setattr(usage, "PROGRAM", program)
    monkeypatch.setattr(usage, "PATIENCE_S", 0.25 if "sleep" in program else 60.0)
    before = children()
    with pytest.raises(usage.ReportError, match=f"^{sentence}$"):
        await usage.Reports(tmp_path / "calls.jsonl").report("UTC")
    assert children() <= before


@needs.programs("chromium")
async def test_both_are_on_the_admin_port(
    simulator: StartSimulator, gateway_before: StartGateway, tmp_path: Path
) -> None:
    """MET-6: and a real browser shows the page, with its bar."""
    upstream = await simulator(Script(text="hi"))
    front = await gateway_before(upstream.url, journal_file=tmp_path / "calls.jsonl")
    await caller.stream(front.url, caller.call(incremental_output=True))
    await front.end_of()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{front.admin_url}/usage.json?tz=UTC") as told:
            report = await told.json()
        async with session.get(f"{front.admin_url}/usage?lang=zh&tz=UTC") as page:
            assert (page.status, page.content_type) == (200, "text/html")
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
            assert "按模型" in await page.text()
        async with session.get(f"{front.admin_url}/usage.json?tz=Mars/Phobos") as told:
            assert (told.status, "no such zone" in (await told.json())["error"]) == (400, True)
    assert (report["month"]["calls"], report["tz"], report["drift"]["calls"]) == (1, "UTC", 1)
    assert [row["model"] for row in report["by_model"]] == [caller.call()["model"]]
    browser = needs.program("chromium")
    shown = await asyncio.to_thread(
        subprocess.run,
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"{front.admin_url}/usage?tz=UTC"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 'class="out"' in shown.stdout


async def test_without_a_file_there_is_a_sentence(simulator: StartSimulator, gateway_before: StartGateway) -> None:
    front = await gateway_before((await simulator(Script(text="hi"))).url)
    async with aiohttp.ClientSession() as session, session.get(f"{front.admin_url}/usage") as page:
        assert (page.status, "no journal is kept in a file" in await page.text()) == (503, True)
