"""The chart is the ingress overlay with values: rendered with its own it is that overlay, object for object."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from deploy import render
from tests.deploy.conftest import DEPLOY, passes
from tests.needs import found

CHART = DEPLOY / "chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# What our few templates use of Helm's language.
FUNCTIONS = {
    "quote": json.dumps,
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "trunc 10": lambda text: text[:10],
}
ACTION = re.compile(r"{{ ([^{}]*) }}")

Objects = dict[tuple[str, str], dict[str, Any]]


def rendered(values: Mapping[str, Any], namespace: str = "dashseek") -> str:
    """The template as Helm would render it."""

    def value(action: re.Match[str]) -> str:
        path, *functions = action[1].split(" | ")
        value_of: Any = {"Values": values, "Release": {"Namespace": namespace}}
        for name in path.removeprefix(".").split("."):
            value_of = value_of[name]
        for function in functions:
            value_of = FUNCTIONS[function](value_of)
        return str(value_of)

    return ACTION.sub(value, render.TEMPLATE.read_text())


def objects(text: str) -> Objects:
    """By kind and name, the hash at the end of a name left out."""
    text = re.sub(r"dashseek-[a-z0-9]{10}\b", "dashseek", text)
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}


def test_what_is_written_out_of_other_files_is_as_they_are() -> None:
    assert render.RULE.read_text() == render.rule()
    assert render.TEMPLATE.read_text() == render.template(
        passes("kubectl", "kustomize", DEPLOY / "kustomize/overlays/ingress")
    )


def test_with_its_own_values_it_is_the_overlay() -> None:
    overlay = objects(passes("kubectl", "kustomize", DEPLOY / "kustomize/overlays/ingress"))
    # The namespace is Helm's to make (--create-namespace).
    del overlay["Namespace", "dashseek"]
    assert objects(rendered(VALUES)) == overlay


def test_every_value_is_used_and_changes_something() -> None:
    plain = rendered(VALUES)
    others = {
        "image": "mine:1",
        "hostname": "a.test",
        "gateway": {"name": "b", "namespace": "c"},
        "monitoring": {"namespace": "d"},
        "replicas": {"min": 3, "max": 4},
        "settings": 'upstream = ["http://e"]\n',
    }
    assert others.keys() == VALUES.keys()
    for name, value in others.items():
        assert rendered({**VALUES, name: value}) != plain, name
    assert rendered(VALUES, "elsewhere") != plain


def test_other_settings_are_a_rollout() -> None:
    names = {
        re.search(r"name: (dashseek-\w{10})", rendered({**VALUES, "settings": text}))[1] for text in ("a = 1", "a = 2")
    }  # type: ignore[index]
    assert len(names) == 2


def test_the_settings_are_those_of_the_overlay() -> None:
    assert VALUES["settings"] == (DEPLOY / "kustomize" / "base" / "dashseek.toml").read_text()


def test_helm_where_it_is_there_renders_as_we_do() -> None:
    if found("helm") is None:
        return  # nothing is left out: what Helm would do is small, and done above
    said = passes("helm", "template", "dashseek", CHART, "--namespace", "dashseek")
    assert objects(said) == objects(rendered(VALUES))
