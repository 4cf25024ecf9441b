"""What `dashseek conform` found -> a table for people, JSON and JUnit for scripts, a page to hand over."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from xml.etree import ElementTree as Xml

import click
from yarl import URL

from proxy.commands import tables
from proxy.protocol import claims
from proxy.protocol.claims_zh import chinese
from proxy.protocol.conformance import Check, Finding, Verdict
from proxy.protocol.phrases import Language
from proxy.telemetry import installed
from translators.dialogue import Json

COLOURS: Final = {Verdict.FAILED: "red", Verdict.NOT_SHOWN: "yellow", Verdict.PASSED: "green"}
# What XML cannot say.
CONTROLS: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LINE: Final = 110


@dataclass(frozen=True, slots=True)
class Result:
    """One check, what it found, and what was asked and came, cut and without the key.

    unasked: whether nothing is shown because it was left off, the budget was spent, or the gateway was too busy
    """

    check: Check
    finding: Finding
    asked: tuple[str, ...] = ()
    came: tuple[str, ...] = ()
    unasked: bool = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found.

    calls, tokens: what it took
    left_off:      whether it was ended before all was asked
    hint:          what was probably meant, where even a plain call is refused; "" else
    """

    url: str
    route: str | None
    model: str
    began: datetime
    calls: int
    tokens: int
    results: tuple[Result, ...]
    hint: str
    left_off: bool

    @property
    def complete(self) -> bool:
        """Whether it came to its end, and every must was asked for."""
        return not self.left_off and not any(map(_is_owed, self.results))

    @property
    def broken(self) -> bool:
        """Whether a must is broken."""
        return any(map(_fails, self.results))

    @property
    def conforms(self) -> bool:
        """Whether every check was looked at, and no must is broken."""
        return self.complete and not self.broken

    @property
    def verdict(self) -> str:
        """In a word, of `OUTCOMES`."""
        return "does not conform" if self.broken else "conforms" if self.complete else "left off"

    @property
    def sorted(self) -> list[Result]:
        """Failures first, what weighs most among them; then what was not shown."""
        verdicts, weights = [*Verdict], [*WEIGHTS]
        return sorted(self.results, key=lambda it: (verdicts.index(it.finding.verdict), weights.index(it.check.weight)))

    @property
    def counts(self) -> dict[str, int]:
        """How many checks ended how."""
        found = Counter(result.finding.verdict for result in self.results)
        return {verdict.value.replace(" ", "_"): found[verdict] for verdict in Verdict}


def bare(url: str) -> str:
    """The URL without what may be secret in it."""
    return str(URL(url).with_user(None).with_query(None).with_fragment(None))


def show_list(rows: Iterable[Check]) -> None:
    """The checks in a table, then the rules without one and why."""
    tables.show(
        ("group", "rule", "weight", "check", "claim"),
        [(row.group, row.rule, row.weight, row.name, row.claim) for row in rows],
        5,
    )
    click.echo("\nnot checked:")
    for rule, why in claims.UNCHECKED.items():
        click.echo(f"{rule:8} {why[Language.EN]}")


def show(report: Report) -> None:
    """A line for each check that failed or showed nothing, and how many passed in each group."""
    for result in report.sorted:
        check, verdict = result.check, result.finding.verdict
        if verdict is not Verdict.PASSED:
            # What somebody else's gateway said is no message to the terminal.
            words = " ".join(result.finding.evidence.split())
            evidence = "".join(char if char.isprintable() else "�" for char in words)
            click.echo(
                click.style(f"{verdict.value:9}", fg=COLOURS[verdict])
                + f" {check.weight:6} {check.rule:7} {check.name}: {evidence[:LINE]}"
            )
    passed = Counter(result.check.group for result in report.results if result.finding.verdict is Verdict.PASSED)
    total = Counter(result.check.group for result in report.results)
    for group, number in total.items():
        click.echo(f"{click.style('passed', fg='green')}    {passed[group]} of {number} {group}")
    if report.hint:
        click.echo(report.hint)
    click.echo(summary(report))


def summary(report: Report) -> str:
    """One line: whom, when, by what, with which result."""
    counts = report.counts
    return (
        f"{report.url} ({report.model}) {report.verdict}: {counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['not_shown']} not shown; {report.calls} calls, {report.tokens:,} tokens, "
        f"{report.began:%Y-%m-%d %H:%M} UTC, {version()}"
    )


def version() -> str:
    """Ours, by which a report can be repeated."""
    return f"{installed.DISTRIBUTION} {installed.version_of(installed.DISTRIBUTION)}"


def as_json(report: Report) -> Json:
    """All of it, failures first."""
    return {
        "target": report.url,
        "route": report.route,
        "model": report.model,
        "checker": version(),
        "began": report.began.isoformat(timespec="seconds"),
        "calls": report.calls,
        "tokens": report.tokens,
        "complete": report.complete,
        "hint": report.hint,
        "conforms": report.conforms,
        **report.counts,
        "checks": [_row(result) for result in report.sorted],
    }


def _row(result: Result) -> Json:
    check = result.check
    english, chinese = claims.sentence(check.rule)
    return {
        "name": check.name,
        "group": check.group,
        "rule": check.rule,
        "weight": check.weight,
        "verdict": result.finding.verdict.value,
        "claim": check.claim,
        "evidence": result.finding.evidence,
        "why": check.why,
        "specification": {"en": english, "zh": chinese},
        "asked": list(result.asked),
        "came": list(result.came),
    }


def as_junit(report: Report) -> bytes:
    """A suite for each group; a must that was not asked for is an error, and the output of a case that passes tells of
    a broken should or note.
    """
    root = Xml.Element("testsuites", name=f"dashseek conform {report.model}", tests=str(len(report.results)))
    for group in _named(report):
        results = [result for result in report.results if result.check.group == group]
        broken = [result for result in results if _fails(result)]
        unasked = [result for result in results if _is_owed(result)]
        unshown = [result for result in results if result.finding.verdict is Verdict.NOT_SHOWN]
        suite = Xml.SubElement(
            root,
            "testsuite",
            name=group,
            tests=str(len(results)),
            failures=str(len(broken)),
            skipped=str(len(unshown) - len(unasked)),
            errors=str(len(unasked)),
            timestamp=report.began.isoformat(timespec="seconds"),
        )
        for result in results:
            _case(suite, result)
    document: bytes = Xml.tostring(root, "utf-8", xml_declaration=True)
    return document


def _fails(result: Result) -> bool:
    return result.finding.verdict is Verdict.FAILED and result.check.weight == "must"


def _is_owed(result: Result) -> bool:
    """Whether it is a must that was not asked for."""
    return result.unasked and result.check.weight == "must"


def _case(suite: Xml.Element, result: Result) -> None:
    check, evidence = result.check, CONTROLS.sub("�", result.finding.evidence)
    case = Xml.SubElement(
        suite, "testcase", classname=f"{check.group}.{check.rule}", name=f"{check.name}: {check.claim}"
    )
    details = CONTROLS.sub("�", "\n".join((check.why, *result.asked, *result.came)))
    if _fails(result):
        Xml.SubElement(case, "failure", message=evidence).text = details
    elif result.finding.verdict is Verdict.FAILED:
        Xml.SubElement(case, "system-out").text = f"{check.weight}: {evidence}\n{details}"
    elif result.finding.verdict is Verdict.NOT_SHOWN:
        Xml.SubElement(case, "error" if _is_owed(result) else "skipped", message=evidence)


PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
pre {{ background: #8881; overflow: auto; padding: .5rem; white-space: pre-wrap; overflow-wrap: anywhere }}
summary {{ cursor: pointer }} .failed {{ color: #b00 }} .not {{ color: #960 }} .passed {{ color: #070 }}
#zh:checked ~ main .en, #en:checked ~ main .zh {{ display: none }}
table {{ border-collapse: collapse; margin: 1rem 0 }} td, th {{ padding: .1rem 1rem .1rem 0; text-align: left }}
.summary {{ break-after: page }} .summary li {{ overflow-wrap: anywhere }}
@media print {{ input, label {{ display: none }} body {{ margin: 0; font-size: 11px }} }}
</style></head><body>
<input type="radio" name="language" id="en" checked><label for="en">English</label>
<input type="radio" name="language" id="zh"><label for="zh">中文</label>
<main><section class="summary"><h1>{title}</h1>{facts}</section>{results}</main></body></html>
"""
FACTS: Final = (("target", "目标"), ("model", "模型"), ("date", "日期"), ("checker", "检查工具"), ("result", "结果"))
OUTCOMES: Final = {"conforms": "符合", "does not conform": "不符合", "left off": "未查完"}
VERDICTS: Final = {Verdict.FAILED: "未通过", Verdict.NOT_SHOWN: "未体现", Verdict.PASSED: "通过"}
GROUPS: Final = {
    "surface": "接口",
    "keys": "密钥",
    "connections": "连接",
    "frames": "帧",
    "usage": "用量",
    "tools": "工具",
    "answers": "回答",
    "prompts": "提示",
    "errors": "错误",
    "models": "模型",
    "thinking": "思考",
    "parameters": "参数",
    "texts": "报错文本",
    "choices": "选项",
}
WEIGHTS: Final = {"must": "必须", "should": "应当", "note": "备注"}


def as_html(report: Report) -> str:
    """One page that loads nothing, to be printed or handed over: facts, then each check with its evidence folded."""
    counts = report.counts
    result = f"{counts['passed']} ✓ {counts['failed']} ✗ {counts['not_shown']} ?"
    given = (
        html.escape(report.url + (report.route or "")),
        html.escape(report.model),
        f"{report.began:%Y-%m-%d %H:%M} UTC",
        html.escape(version()),
        _both(
            f"{report.verdict}: {result}; {report.calls} calls, {report.tokens:,} tokens",
            f"{OUTCOMES[report.verdict]}：{result}；{report.calls} 次调用，{report.tokens:,} token",
        )
        + (f"<br>{html.escape(report.hint)}" if report.hint else ""),
    )
    named = zip(FACTS, given, strict=True)
    rows = "".join(f"<tr><th>{_both(*names)}</th><td>{value}</td></tr>" for names, value in named)
    return PAGE.format(
        title=html.escape(f"dashseek conform: {report.model}"),
        facts=f"<table>{rows}</table>{_groups(report)}{_unkept(report)}",
        results="".join(map(_folded, report.sorted)),
    )


def _groups(report: Report) -> str:
    """How many checks of each group ended how."""
    found = {
        group: Counter(result.finding.verdict for result in report.results if result.check.group == group)
        for group in _named(report)
    }
    head = "".join(f"<th>{_both(verdict.value, VERDICTS[verdict])}</th>" for verdict in Verdict)
    rows = "".join(
        f"<tr><th>{_both(group, GROUPS[group])}</th>"
        f"{''.join(f'<td>{counts[verdict]}</td>' for verdict in Verdict)}</tr>"
        for group, counts in found.items()
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _unkept(report: Report) -> str:
    """What did not pass, a line each: with the facts and the groups above it, the page to hand over."""
    lines = "".join(
        f'<li><b class="{result.finding.verdict.value.split()[0]}">{_verdict(result)}</b> '
        f"{html.escape(f'{result.check.rule} {result.check.name}')}: {_claimed(result)}</li>"
        for result in report.sorted
        if result.finding.verdict is not Verdict.PASSED
    )
    return f"<ul>{lines}</ul>" if lines else ""


def _claimed(result: Result) -> str:
    return _both(result.check.claim, chinese(result.check.claim))


def _verdict(result: Result) -> str:
    verdict, weight = result.finding.verdict, result.check.weight
    return f"{_both(verdict.value, VERDICTS[verdict])}</b> <b>{_both(weight, WEIGHTS[weight])}"


def _named(report: Report) -> list[str]:
    """The groups, in the order of their checks."""
    return list(dict.fromkeys(result.check.group for result in report.results))


def _both(english: str, chinese: str) -> str:
    return f'<span class="en">{html.escape(english)}</span><span class="zh">{html.escape(chinese)}</span>'


def _folded(result: Result) -> str:
    check, verdict = result.check, result.finding.verdict
    evidence = "\n\n".join(_paired(result.asked, result.came))
    return (
        f'<details><summary><b class="{verdict.value.split()[0]}">{_both(verdict.value, VERDICTS[verdict])}</b> '
        f"{_both(check.weight, WEIGHTS[check.weight])} {html.escape(f'{check.rule} {check.name}')}: {_claimed(result)}"
        f"</summary><p>{html.escape(result.finding.evidence)}</p><p>{_both(*claims.sentence(check.rule))}</p>"
        f"<p>{_both(check.why, chinese(check.why))}</p><pre>{html.escape(evidence)}</pre></details>"
    )


def _paired(asked: Sequence[str], came: Sequence[str]) -> list[str]:
    return [f"> {question}\n< {answer}" for question, answer in zip(asked, came, strict=False)]
