"""The journal's sums into one page and one JSON document: today, this month, by key and model, why calls failed.

The sums are worked out by a process of its own at a low priority, one at a time, at most once a minute: whoever looks
takes nothing from calls. Names of keys stand here, and no key. Source: spec MET-6.
"""

from __future__ import annotations

import asyncio
import html
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

import orjson
from aiohttp import hdrs, web

from config.settings import Settings
from proxy.admin import docs
from proxy.metering import journal_files, periods
from proxy.metering.append_file import DASH

Json = dict[str, Any]

KEPT_S: Final = 60.0
# A month of many millions of calls; who has more asks `usage sum`.
PATIENCE_S: Final = 300.0
MOST_ZONES: Final = 4
# The program, with the lowest priority, for a report may wait and a call may not.
PROGRAM: Final = "import os; os.nice(19); from proxy.__main__ import main; main()"
DIMENSIONS: Final = ("day", "model", "key", "outcome", "basis")
FIGURES: Final = ("calls", "input", "cached", "output", "reasoning", "total", "generated_input", "generated_output")
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
COUNTED: Final = "counted"
NO_FAILURES: Final = frozenset({"ok"})


MOST_ROWS: Final = 50
BAR: Final = 26
HEIGHT: Final = 160
STYLE: Final = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ccc;font-weight:400}
th{color:#555}td:first-child,th:first-child{text-align:left;white-space:nowrap}
h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
.in{fill:#3b6ea5;background:#3b6ea5}.out{fill:#e08e45;background:#e08e45}text{font-size:11px;text-anchor:middle;fill:#555}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}th,text{color:#aaa;fill:#aaa}a{color:#8ab4f8}}"""
WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "name": "English",
        "usage": "Usage",
        "zone": "Days of",
        "as of": "as of",
        "json": "for programs",
        "when": "when",
        "key": "key",
        "model": "model",
        "outcome": "how it ended",
        "nothing": "None.",
        "by day": "By day",
        "by key": "By key",
        "by model": "By model",
        "failures": "What did not end well",
        "trust": "How far it can be trusted",
        "counted": "share of the output that is our count, not upstream's",
        "unknown": "calls without an end",
        "broken": "lines that break a rule",
        "drift": "upstream's prompts against our count",
        "most": "the highest bar {:,} tokens",
        "apart": "{} tokens apart on average, {:.1%} of calls exact",
        "calls": "calls",
        "input": "input",
        "cached": "cached",
        "output": "output",
        "reasoning": "reasoning",
        "total": "total",
        "generated_input": "generated input",
        "generated_output": "generated output",
    },
    "zh": {
        "name": "中文",
        "usage": "用量",
        "zone": "时区",
        "as of": "截至",
        "json": "供程序读取",
        "when": "时间",
        "key": "密钥",
        "model": "模型",
        "outcome": "结束方式",
        "nothing": "无。",
        "by day": "按日",
        "by key": "按密钥",
        "by model": "按模型",
        "failures": "未正常结束的调用",
        "trust": "可信程度",
        "counted": "由本机计数、而非上游给出的输出占比",
        "unknown": "没有结束行的调用",
        "broken": "违反规则的行",
        "drift": "上游提示词与本机计数之差",
        "most": "最高一柱 {:,} tokens",
        "apart": "平均相差 {} tokens，{:.1%} 的调用完全一致",
        "calls": "调用",
        "input": "输入",
        "cached": "缓存",
        "output": "输出",
        "reasoning": "思考",
        "total": "合计",
        "generated_input": "生成侧输入",
        "generated_output": "生成侧输出",
    },
}


class ReportError(Exception):
    """A report that could not be made; a sentence for whoever asked.

    status: of the answer
    """

    status = 503


class AskError(ReportError):
    """A report of what there is not."""

    status = 400


class Reports:
    """The sums of this month, by zone.

    path: the journal; None, or `-`, where none is kept in a file
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._one_at_a_time = asyncio.Lock()
        self._kept: dict[str, tuple[float, Json]] = {}

    async def report(self, tz: str | None) -> Json:
        """This month in a zone, this machine's where none is said; raises `ReportError`."""
        try:
            zone = periods.zone_of(tz) if tz else periods.machine_zone()
        except periods.PeriodError as error:
            raise AskError(str(error)) from None
        async with self._one_at_a_time:
            kept = self._kept.get(name := periods.name_of(zone))
            if kept is not None and monotonic() <= kept[0] + KEPT_S:
                return kept[1]
            report = await self._made(zone)
            if len(self._kept) >= MOST_ZONES:
                self._kept.clear()
            self._kept[name] = monotonic(), report
            return report

    async def _made(self, zone: tzinfo) -> Json:
        if self._path is None or self._path == DASH:
            raise ReportError("no journal is kept in a file: say --journal-file")
        now = datetime.now(zone)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        paths = await asyncio.to_thread(journal_files.of_journal, self._path, month.timestamp())
        by = [word for name in DIMENSIONS for word in ("--by", name)]
        said = ["usage", "sum", "--json", "--tz", periods.name_of(zone), "--since", month.isoformat(), *by]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", PROGRAM, *said, *map(str, paths)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            out, _ = await asyncio.wait_for(child.communicate(), PATIENCE_S)
        except TimeoutError:
            raise ReportError(f"took longer than {PATIENCE_S:g} s: ask dashseek usage sum") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        try:
            summed = orjson.loads(out)
        except orjson.JSONDecodeError:
            raise ReportError("the journal could not be read: ask dashseek usage sum") from None
        return overview(summed, now)


def add_to(app: web.Application, settings: Settings) -> None:
    """Put the page and the document on the admin port."""
    reports = Reports(settings.journal_file)

    async def shown(request: web.Request) -> web.StreamResponse:
        language = language_of(request.query.get("lang"), request.headers.get(hdrs.ACCEPT_LANGUAGE, ""))
        headers = {**docs.HEADERS, "Content-Security-Policy": POLICY, hdrs.CACHE_CONTROL: "no-store"}
        try:
            body, status = page(await reports.report(request.query.get("tz")), language), 200
        except ReportError as error:
            body, status = complaint(str(error), language), error.status
        return web.Response(text=body, status=status, content_type="text/html", headers=headers)

    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(await reports.report(request.query.get("tz")))
        except ReportError as error:
            return web.json_response({"error": str(error)}, status=error.status)

    app.router.add_get("/usage", shown)
    app.router.add_get("/usage.json", told)


def overview(summed: Json, now: datetime) -> Json:
    """The document, from what `usage sum --json` says of a month.

    now: in the zone of its days
    """
    groups, today = summed["groups"], f"{now:%Y-%m-%d}"
    generated = sum(row["generated_output"] for row in groups)
    counted = sum(row["generated_output"] for row in groups if row["basis"] == COUNTED)
    failed = [row for row in groups if row["outcome"] not in NO_FAILURES]
    return {
        "as_of": now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "tz": summed["tz"],
        "today": {"day": today, **_total(row for row in groups if row["day"] == today)},
        "month": {"month": today[:7], **_total(groups)},
        "by_day": _by(groups, "day"),
        "by_key": _largest(_by(groups, "key")),
        "by_model": _largest(_by(groups, "model")),
        "failures": sorted(_by(failed, "outcome"), key=lambda row: -row["calls"]),
        "unknown": sum(row["calls"] for row in groups if row["outcome"] == "unknown"),
        "counted_share": round(counted / generated, 4) if generated else None,
        "violations": summed["violations_total"],
        "torn": summed["torn_total"],
        "drift": drift(summed["drift"]),
    }


def drift(summed: Json) -> Json:
    """How far upstream's prompts are from our count of them: the share of calls without a difference, and the mean.

    calls: of which upstream told; exact: that share; tokens: the mean difference, without sign
    """
    calls = summed["calls"]
    if not calls:
        return {"calls": 0, "exact": None, "tokens": None}
    return {"calls": calls, "exact": round(summed["exact"] / calls, 4), "tokens": round(summed["tokens"] / calls, 2)}


def page(report: Json, language: str) -> str:
    """The page for people, in one of `WORDS`."""
    word = WORDS[language]
    other = next(name for name in WORDS if name != language)
    today, month, tz = report["today"], report["month"], quote(report["tz"])
    counted, apart = report["counted_share"], report["drift"]
    facts = (
        (word["counted"], "–" if counted is None else f"{counted:.1%}"),
        (word["unknown"], f"{report['unknown']:,}"),
        (word["broken"], f"{report['violations']:,}"),
        (word["drift"], "–" if apart["tokens"] is None else word["apart"].format(apart["tokens"], apart["exact"])),
    )
    return "\n".join(
        (
            f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>dashseek: {word["usage"]}</title>',
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style><h1>{word["usage"]}</h1>',
            f"<p>{word['zone']} {html.escape(report['tz'])}, {word['as of']} {report['as_of']};",
            f'<a href="usage.json?tz={tz}">{word["json"]}</a>;',
            f'<a href="usage?lang={other}&amp;tz={tz}">{WORDS[other]["name"]}</a></p>',
            _table(word, [word["when"]], [(today["day"], today), (month["month"], month)]),
            f"<h2>{word['by day']}</h2>",
            _chart(word, report["by_day"]),
            f"<h2>{word['by key']}</h2>",
            _table(word, [word["key"]], [(row["key"], row) for row in report["by_key"][:MOST_ROWS]]),
            f"<h2>{word['by model']}</h2>",
            _table(word, [word["model"]], [(row["model"], row) for row in report["by_model"][:MOST_ROWS]]),
            f"<h2>{word['failures']}</h2>",
            _table(word, [word["outcome"]], [(row["outcome"], row) for row in report["failures"]]),
            f"<h2>{word['trust']}</h2><table>",
            *(f"<tr><th>{html.escape(name)}<td>{html.escape(value)}" for name, value in facts),
            "</table></html>\n",
        )
    )


def complaint(sentence: str, language: str) -> str:
    """The page where there is no report."""
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>dashseek</title>'
        f"<h1>{WORDS[language]['usage']}</h1><p>{html.escape(sentence)}</html>\n"
    )


def language_of(asked: str | None, accepted: str) -> str:
    """The language of the page: the one that is asked for, else the browser's first, if it is one of ours."""
    if asked is not None and asked in WORDS:
        return asked
    return "zh" if accepted.strip().lower().startswith("zh") else "en"


def _table(word: Mapping[str, str], names: Sequence[str], rows: Sequence[tuple[str, Json]]) -> str:
    if not rows:
        return f"<p>{word['nothing']}</p>"
    head = "".join(f"<th>{html.escape(name)}" for name in (*names, *(word[figure] for figure in FIGURES)))
    body = (
        f"<tr><td>{html.escape(name)}" + "".join(f"<td>{row[figure]:,}" for figure in FIGURES) for name, row in rows
    )
    return f"<table><tr>{head}\n" + "\n".join(body) + "</table>"


def _chart(word: Mapping[str, str], days: Sequence[Json]) -> str:
    """A bar for each day, input below and output above; each says its figures to who points at it."""
    if not days:
        return f"<p>{word['nothing']}</p>"
    most = max(1, *(day["total"] for day in days))
    width = BAR * len(days)
    bars = []
    for number, day in enumerate(days):
        x, given, answer = number * BAR, day["input"] * HEIGHT / most, day["output"] * HEIGHT / most
        told = f"{day['day']}: {word['input']} {day['input']:,}, {word['output']} {day['output']:,}"
        bars.append(
            f"<g><title>{told}</title>"
            f'<rect class="in" x="{x}" y="{HEIGHT - given:.1f}" width="{BAR - 4}" height="{given:.1f}"/>'
            f'<rect class="out" x="{x}" y="{HEIGHT - given - answer:.1f}" width="{BAR - 4}" height="{answer:.1f}"/>'
            f'<text x="{x + BAR / 2 - 2}" y="{HEIGHT + 14}">{day["day"][8:]}</text></g>'
        )
    return (
        f'<svg viewBox="0 -4 {width} {HEIGHT + 22}" width="{width}" height="{HEIGHT + 26}" role="img" '
        f'aria-label="{word["by day"]}">' + "".join(bars) + "</svg>"
        f'<p><span class="key in"></span>{word["input"]} <span class="key out"></span>{word["output"]}, '
        f"{word['most'].format(most)}</p>"
    )


def _total(rows: Iterable[Json]) -> Json:
    sums = dict.fromkeys(FIGURES, 0)
    for row in rows:
        for name in FIGURES:
            sums[name] += row[name]
    return sums


def _by(rows: Sequence[Json], dimension: str) -> list[Json]:
    found: dict[str, list[Json]] = {}
    for row in rows:
        found.setdefault(row[dimension], []).append(row)
    return [{dimension: name, **_total(same)} for name, same in sorted(found.items())]


def _largest(rows: list[Json]) -> list[Json]:
    return sorted(rows, key=lambda row: -row["total"])
