"""Claims about the reports of `dashseek conform`: for people, for scripts, for CI, and to hand over."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest

from proxy.commands import conform, conform_reports
from proxy.commands.conform_reports import Report, Result
from proxy.protocol import claims, conformance
from proxy.protocol.claims_zh import chinese
from proxy.protocol.conformance import Check, Finding, Verdict

CHECKS = {row.name: row for row in conformance.checks(conform.target_of("deepseek-v3", None, counted=False))}
MUST, SHOULD, NOTE = (
    next(row for row in CHECKS.values() if row.weight == weight) for weight in ("must", "should", "note")
)
BEGAN = datetime(2026, 11, 29, 8, 5, 7, tzinfo=UTC)
ASKED, CAME = ("POST /a {}", "POST /b {}"), ("200 <a>", "")


def result(check: Check, verdict: Verdict, evidence: str = "", *, unasked: bool = False) -> Result:
    return Result(check, Finding(verdict, evidence), ASKED, CAME, unasked=unasked)


def report(*results: Result, **how: Any) -> Report:
    said = {"url": "https://h/api/v1", "route": None, "model": "m", "began": BEGAN, "calls": 3, "tokens": 1_234}
    return Report(**{**said, "hint": "", "left_off": False, **how}, results=results)


EVERY = (
    result(MUST, Verdict.PASSED),
    result(NOTE, Verdict.FAILED, "n"),
    result(MUST, Verdict.NOT_SHOWN, "no time", unasked=True),
    result(SHOULD, Verdict.FAILED, "s"),
    result(MUST, Verdict.NOT_SHOWN, "said nothing"),
    result(SHOULD, Verdict.NOT_SHOWN, "not asked", unasked=True),
    result(MUST, Verdict.FAILED, "a\nb \x1b[2J" + "c" * 200),
)


@pytest.mark.parametrize(
    ("results", "how", "told"),
    [
        ((), {}, (True, False, True, "conforms")),
        (EVERY[:2], {}, (True, False, True, "conforms")),
        (EVERY[:2], {"left_off": True}, (False, False, False, "left off")),
        (EVERY[2:3], {}, (False, False, False, "left off")),
        (EVERY[3:6], {}, (True, False, True, "conforms")),
        (EVERY[6:], {}, (True, True, False, "does not conform")),
        (EVERY, {"left_off": True}, (False, True, False, "does not conform")),
    ],
)
def test_a_gateway_conforms_where_each_must_was_asked_for_and_none_is_broken(
    results: tuple[Result, ...], how: dict[str, bool], told: tuple[bool, bool, bool, str]
) -> None:
    """A should that is broken, a must that a model's answer did not show: neither is against it."""
    found = report(*results, **how)
    assert (found.complete, found.broken, found.conforms, found.verdict) == told


def test_failures_come_first_and_what_weighs_most_among_them() -> None:
    assert report(*EVERY).sorted == [EVERY[at] for at in (6, 3, 1, 2, 4, 5, 0)]
    assert report(*EVERY).counts == {"passed": 1, "failed": 3, "not_shown": 3}


@pytest.mark.parametrize("part", ["user:key@", "?key=k", "#k"])
def test_a_url_is_shown_without_what_may_be_secret(part: str) -> None:
    url = f"https://{part}h/v1" if part.endswith("@") else f"https://h/v1{part}"
    assert conform_reports.bare(url) == "https://h/v1"


def test_people_see_a_line_for_each_that_did_not_pass_then_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    conform_reports.show(report(*EVERY, hint="say another URL"))
    summary = (
        "https://h/api/v1 (m) does not conform: 1 passed, 3 failed, 3 not shown; 3 calls, 1,234 tokens, "
        f"2026-11-29 08:05 UTC, {conform_reports.version()}"
    )
    groups: dict[str, list[int]] = {}
    for one in EVERY:
        passed, total = groups.get(one.check.group, [0, 0])
        groups[one.check.group] = [passed + (one.finding.verdict is Verdict.PASSED), total + 1]
    assert capsys.readouterr().out.splitlines() == [
        f"failed    must   {MUST.rule:7} {MUST.name}: a b �[2J{'c' * 102}",
        f"failed    should {SHOULD.rule:7} {SHOULD.name}: s",
        f"failed    note   {NOTE.rule:7} {NOTE.name}: n",
        f"not shown must   {MUST.rule:7} {MUST.name}: no time",
        f"not shown must   {MUST.rule:7} {MUST.name}: said nothing",
        f"not shown should {SHOULD.rule:7} {SHOULD.name}: not asked",
        *(f"passed    {passed} of {total} {group}" for group, (passed, total) in groups.items()),
        "say another URL",
        summary,
    ]
    conform_reports.show(report())
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_scripts_get_all_of_it() -> None:
    told = conform_reports.as_json(report(*EVERY[:2], route="/r", hint="h"))
    assert told.pop("checks") == [
        {
            "name": check.name,
            "group": check.group,
            "rule": check.rule,
            "weight": check.weight,
            "verdict": verdict,
            "claim": check.claim,
            "evidence": evidence,
            "why": check.why,
            "specification": dict(zip(("en", "zh"), claims.sentence(check.rule), strict=True)),
            "asked": [*ASKED],
            "came": [*CAME],
        }
        for check, verdict, evidence in ((NOTE, "failed", "n"), (MUST, "passed", ""))
    ]
    assert told == {
        "target": "https://h/api/v1",
        "route": "/r",
        "model": "m",
        "checker": conform_reports.version(),
        "began": "2026-11-29T08:05:07+00:00",
        "calls": 3,
        "tokens": 1_234,
        "complete": True,
        "hint": "h",
        "conforms": True,
        "passed": 1,
        "failed": 1,
        "not_shown": 0,
    }


def test_ci_gets_a_suite_for_each_group_and_its_failures_are_broken_musts() -> None:
    """JUnit has no weights: what is no must fails nothing, and is told in the output of a case that passes."""
    document = conform_reports.as_junit(report(*EVERY))
    assert document.startswith(b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites")
    root = ElementTree.fromstring(document)
    assert root.attrib == {"name": "dashseek conform m", "tests": "7"}
    assert [suite.attrib["name"] for suite in root] == [*dict.fromkeys(one.check.group for one in EVERY)]
    first = root[0]
    of_first = [one for one in EVERY if one.check.group == MUST.group]
    assert first.attrib == {
        "name": MUST.group,
        "tests": str(len(of_first)),
        "failures": "1",
        "skipped": str(1 + (SHOULD.group == MUST.group)),
        "errors": "1",
        "timestamp": "2026-11-29T08:05:07+00:00",
    }
    cases = {
        (case.attrib["name"], *((it.tag, it.attrib.get("message", "")) for it in case)): case
        for case in root.iter("testcase")
    }
    named = {check.name: f"{check.name}: {check.claim}" for check in (MUST, SHOULD, NOTE)}
    assert set(cases) == {
        (named[MUST.name],),
        (named[NOTE.name], ("system-out", "")),
        (named[MUST.name], ("error", "no time")),
        (named[SHOULD.name], ("system-out", "")),
        (named[MUST.name], ("skipped", "said nothing")),
        (named[SHOULD.name], ("skipped", "not asked")),
        (named[MUST.name], ("failure", f"a\nb �[2J{'c' * 200}")),
    }
    failed = next(case for said, case in cases.items() if said[-1][0] == "failure")
    assert failed.attrib["classname"] == f"{MUST.group}.{MUST.rule}"
    details = "\n".join((MUST.why, *ASKED, *CAME))
    assert failed.findtext("failure") == details
    told = next(case for said, case in cases.items() if said[0] == named[NOTE.name])
    assert told.findtext("system-out") == "\n".join(("note: n", NOTE.why, *ASKED, *CAME))


def both(english: str, theirs: str) -> str:
    return f'<span class="en">{html.escape(english)}</span><span class="zh">{html.escape(theirs)}</span>'


WORDS = {
    "passed": both("passed", "通过"),
    "failed": both("failed", "未通过"),
    "not shown": both("not shown", "未体现"),
    "must": both("must", "必须"),
    "should": both("should", "应当"),
    "note": both("note", "备注"),
}


def folded(one: Result) -> str:
    check, verdict = one.check, one.finding.verdict.value
    return (
        f'<details><summary><b class="{verdict.split()[0]}">{WORDS[verdict]}</b> {WORDS[check.weight]} '
        f"{check.rule} {check.name}: {both(check.claim, chinese(check.claim))}</summary>"
        f"<p>{html.escape(one.finding.evidence)}</p><p>{both(*claims.sentence(check.rule))}</p>"
        f"<p>{both(check.why, chinese(check.why))}</p>"
        "<pre>&gt; POST /a {}\n&lt; 200 &lt;a&gt;\n\n&gt; POST /b {}\n&lt; </pre></details>"
    )


def test_the_page_has_the_facts_the_groups_what_was_not_kept_and_then_each_check() -> None:
    every = (EVERY[0], result(MUST, Verdict.FAILED, "<b>"), result(SHOULD, Verdict.NOT_SHOWN))
    page = conform_reports.as_html(report(*every, model="<m>", route="/r?a=1&b", hint="say <another>"))
    title, summary, rest = re.split(r"<h1>|</section>", page)
    assert "<title>dashseek conform: &lt;m&gt;</title>" in title
    facts = {
        both("target", "目标"): "https://h/api/v1/r?a=1&amp;b",
        both("model", "模型"): "&lt;m&gt;",
        both("date", "日期"): "2026-11-29 08:05 UTC",
        both("checker", "检查工具"): conform_reports.version(),
        both("result", "结果"): both(
            "does not conform: 1 ✓ 1 ✗ 1 ?; 3 calls, 1,234 tokens", "不符合：1 ✓ 1 ✗ 1 ?；3 次调用，1,234 token"
        )
        + "<br>say &lt;another&gt;",
    }
    counted: dict[str, list[int]] = {}
    for one in every:
        counts = counted.setdefault(one.check.group, [0, 0, 0])
        counts[["failed", "not shown", "passed"].index(one.finding.verdict.value)] += 1
    heads = "".join(f"<th>{WORDS[verdict]}</th>" for verdict in ("failed", "not shown", "passed"))
    rows = "".join(
        f"<tr><th>{both(group, conform_reports.GROUPS[group])}</th>"
        + "".join(f"<td>{number}</td>" for number in counts)
        + "</tr>"
        for group, counts in counted.items()
    )
    lines = "".join(
        f'<li><b class="{verdict.split()[0]}">{WORDS[verdict]}</b> <b>{WORDS[check.weight]}</b> '
        f"{check.rule} {check.name}: {both(check.claim, chinese(check.claim))}</li>"
        for verdict, check in (("failed", MUST), ("not shown", SHOULD))
    )
    assert summary == (
        "dashseek conform: &lt;m&gt;</h1>"
        f"<table>{''.join(f'<tr><th>{name}</th><td>{value}</td></tr>' for name, value in facts.items())}</table>"
        f"<table><tr><th></th>{heads}</tr>{rows}</table><ul>{lines}</ul>"
    )
    assert rest.partition("</main>")[0] == "".join(map(folded, (every[1], every[2], every[0])))
    well = conform_reports.as_html(report(EVERY[0]))
    assert "<ul>" not in well
    assert "<br>" not in well


def test_the_list_is_a_table_and_the_rules_that_have_no_check(capsys: pytest.CaptureFixture[str]) -> None:
    conform_reports.show_list([MUST])
    head, row, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["group", "rule", "weight", "check", "claim"]
    assert row.split("  ")[0] == MUST.group
    assert row.endswith(f"{MUST.name}  {MUST.claim}")
    assert rest == ["", "not checked:", *(f"{rule:8} {why[0]}" for rule, why in claims.UNCHECKED.items())]
