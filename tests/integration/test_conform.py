"""A checker that cries wolf is worth nothing: `conform` before what is right, host by host, run by run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from proxy.commands import conform
from proxy.commands.conform_reports import Report
from proxy.protocol.asks import Api
from proxy.protocol.conformance import Verdict
from proxy.simulation import llamacpp
from proxy.simulation.wire import Script
from tests import needs
from tests.conftest import StartServe, StartSimulator, campaign
from translators.openai import dialects

KEY = "sk-the-examiners-own"
RUNS = max(2, campaign(20))
# A small model needs 2 s of a core for 128 tokens, and may have a tenth of one.
ANSWERED_S = 120
TONGUES: tuple[tuple[Api, str], ...] = (("dashscope", "/api/v1"), ("openai", "/compatible-mode/v1"))
MODELS = ("deepseek-v3.2", "deepseek-r1", "deepseek-v3", "deepseek-v4-flash")
# Whose thinking can be off: once it thinks, the small model seldom comes to an end.
SOBER = ("deepseek-v3.2", "deepseek-v3", "deepseek-v4-flash", "deepseek-v3.1")
# How upstreams differ from run to run: sizes of deltas and writes, where usage stands, comments between.
MANNERS = tuple(
    {"delta_chars": chars, "deltas_per_write": together, "usage": usage, "split": split, "crlf": crlf}
    for (chars, together), usage, (split, crlf) in itertools.product(
        ((None, 1), (3, 2), (None, 50)), ("finish", "own", "every"), ((None, False), (7, True))
    )
)


async def examined(url: str, api: Api, model: str, *, counted: bool = True) -> Report:
    asked = conform.Examined(url, model, KEY, timeout_s=ANSWERED_S, counted=counted, api=api)
    target = conform.target_of(model, None, counted=counted, api=api)
    report = await conform.examine(asked, target, conform.rows_of(target, ()), lambda _, __: None)
    assert not isinstance(report, str)
    return report


def alarms(report: Report) -> dict[str, str]:
    return {it.check.name: it.finding.evidence for it in report.results if it.finding.verdict is Verdict.FAILED}


@pytest.mark.campaign
@pytest.mark.parametrize("dialect", dialects.DIALECTS)
async def test_no_alarm_is_false_before_any_kind_of_host(
    dialect: str, simulator: StartSimulator, serve: StartServe
) -> None:
    upstream = await simulator(Script(key=KEY, dialect=dialect))  # type: ignore[arg-type]
    served = await serve(upstream.url, "--dialect", dialect)
    for run in range(RUNS):
        # Every host meets every manner and every model, each run others.
        manner = MANNERS[(run * 7 + len(dialect)) % len(MANNERS)]
        upstream.script = Script(key=KEY, dialect=dialect, **manner)  # type: ignore[arg-type]
        model = MODELS[run % len(MODELS)]
        for api, base in TONGUES:
            report = await examined(served.url + base, api, model)
            assert alarms(report) == {}, (manner, model, api)
            assert report.conforms


@pytest.fixture(scope="module")
def llama() -> Iterator[llamacpp.Local]:
    with llamacpp.start() as running:
        yield running


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", range(RUNS))
@needs.unless(llamacpp.available(), "the local model")
async def test_no_alarm_is_false_before_a_real_model(run: int, llama: llamacpp.Local, serve: StartServe) -> None:
    """Its words differ from DeepSeek's in every run, and its vocabulary always."""
    served = await serve(llama.url, "--dialect", "llamacpp")
    api, base = TONGUES[run % 2]
    report = await examined(served.url + base, api, SOBER[run // 2 % len(SOBER)], counted=False)
    assert alarms(report) == {}
    assert report.conforms
