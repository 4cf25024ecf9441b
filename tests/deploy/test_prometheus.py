"""Rules and board: Prometheus parses every expression, the rules do what they say, and every name is one we serve."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from proxy.telemetry import metrics
from tests import caller
from tests.conftest import StartServe
from tests.deploy.conftest import DEPLOY, fails, passes, with_line

RULES = DEPLOY / "prometheus" / "rules.yaml"
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashseek.json").read_text())
# What Grafana puts in before Prometheus sees it.
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$model": ".*"}
METRIC = re.compile(r"\b((?:dashseek|gen_ai_server)_\w+)")
LABELS = re.compile(r"{([^{}]*)}|\bby \(([^()]*)\)")
# Prometheus' own: of a target, of a bucket, of an alert.
GIVEN = {"job", "instance", "le", "up"}


def targets() -> Iterator[dict[str, Any]]:
    for panel in BOARD["panels"]:
        yield from panel.get("targets", ())


def expressions() -> list[str]:
    """Every one of the board, as Prometheus would get it."""
    found = [target["expr"] for target in targets()]
    for name, text in VARIABLES.items():
        found = [expression.replace(name, text) for expression in found]
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return [*group["rules"]]


def test_prometheus_accepts_the_rules() -> None:
    assert f"{len(rules())} rules found" in passes("promtool", "check", "rules", RULES)


def test_the_rules_record_and_alert_as_their_tests_say() -> None:
    passes("promtool", "test", "rules", RULES.with_name("rules.test.yaml"))


def test_a_rule_that_says_something_else_fails_its_test(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(with_line(RULES.read_text(), "p99_5m > 0.25", "p99_5m > 25"))
    (tmp_path / "rules.test.yaml").write_text(RULES.with_name("rules.test.yaml").read_text())
    assert "DashseekEventLoopLags" in fails("promtool", "test", "rules", tmp_path / "rules.test.yaml")


def test_every_alert_is_proved_to_fire() -> None:
    proved = RULES.with_name("rules.test.yaml").read_text()
    assert [rule["alert"] for rule in rules() if "alert" in rule and rule["alert"] not in proved] == []


def test_prometheus_parses_every_expression_of_the_board(tmp_path: Path) -> None:
    recorded = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "board.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in passes("promtool", "check", "rules", file)


async def test_every_name_in_rules_and_board_is_one_the_admin_port_serves(serve: StartServe) -> None:
    served = await serve("http://127.0.0.1:1")
    admin = await asyncio.to_thread(lambda: served.admin_url)
    scraped = (await caller.ask(admin, b"", path="/metrics", method="GET")).body.decode()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", scraped, re.MULTILINE))
    names = {
        name + end
        for name, kind in kinds.items()
        for end in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    said = [*expressions(), *(rule["expr"] for rule in rules())]
    asked = {name for text in said for name in METRIC.findall(text)}
    assert len(asked) > 15
    assert asked - names == set()


def test_every_label_in_rules_and_board_is_one_its_metric_has() -> None:
    labels = {row.name: {*row.labels} for row in metrics.ROWS}
    for text in (*expressions(), *(rule["expr"] for rule in rules())):
        known = GIVEN.union(*(labels[re.sub("_(bucket|sum|count)$", "", name)] for name in METRIC.findall(text)))
        used = {
            label
            for matchers, grouped in LABELS.findall(text)
            for label in (*re.findall(r"(\w+)\s*[=!]", matchers), *re.findall(r"\w+", grouped))
        }
        assert used <= known, text


def test_a_legend_names_labels_its_expression_keeps() -> None:
    for target in targets():
        kept = {label for by in re.findall(r"by \(([^()]*)\)", target["expr"]) for label in re.findall(r"\w+", by)}
        assert {*re.findall(r"{{(\w+)}}", target["legendFormat"])} <= kept - {"le"}


def test_the_panels_have_names_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    titles = [panel["title"] for panel in BOARD["panels"]]
    assert len({*ids}) == len({*titles}) == len(ids)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len({*cells}) == len(cells)
    assert max(x for x, _ in cells) < 24
