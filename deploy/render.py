"""What is written out of other files here: rules into an object, the ingress overlay into the chart's template.

python deploy/render.py        writes both; needs kubectl
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DEPLOY: Final = Path(__file__).parent
RULE: Final = DEPLOY / "kustomize" / "components" / "prometheus-operator" / "prometheusrule.yaml"
TEMPLATE: Final = DEPLOY / "chart" / "templates" / "dashseek.yaml"
WRITTEN: Final = "# Written by `python deploy/render.py`: do not edit.\n"
OBJECT: Final = """apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dashseek
spec:
"""
# In the built overlay, and in the template: each must be there.
PLACES: Final[Mapping[str, str]] = {
    r"dashseek-[a-z0-9]{10}\b": "dashseek-{{ .Values.settings | sha256sum | trunc 10 }}",
    r"\napiVersion: v1\nkind: Namespace\n.*?\n---": "",
    r"\n  namespace: dashseek\b": "\n  namespace: {{ .Release.Namespace }}",
    r"image: registry\.example/dashseek:[\w.]+": "image: {{ .Values.image }}",
    r"- dashseek\.example\b": "- {{ .Values.hostname }}",
    r"- name: gateway\n    namespace: gateway": (
        "- name: {{ .Values.gateway.name }}\n    namespace: {{ .Values.gateway.namespace }}"
    ),
    r"kubernetes\.io/metadata\.name: gateway": "kubernetes.io/metadata.name: {{ .Values.gateway.namespace }}",
    r"kubernetes\.io/metadata\.name: monitoring": "kubernetes.io/metadata.name: {{ .Values.monitoring.namespace }}",
    r"minReplicas: 2\b": "minReplicas: {{ .Values.replicas.min }}",
    r"maxReplicas: 20\b": "maxReplicas: {{ .Values.replicas.max }}",
    r"(dashseek\.toml: )\|\n(?:    [^\n]*\n|\n)+": r"\1{{ .Values.settings | quote }}" + "\n",
}


def rule() -> str:
    """The rules as an object of the Prometheus operator."""
    text = (DEPLOY / "prometheus" / "rules.yaml").read_text("utf-8")
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    return WRITTEN + OBJECT + re.sub(r"^(?=.)", "  ", body, flags=re.MULTILINE)


def template(built: str) -> str:
    """The chart's one template, of the overlay as `kubectl kustomize` builds it."""
    text = f"\n{built}"
    for place, instead in PLACES.items():
        text, found = re.subn(place, instead, text, flags=re.DOTALL)
        if not found:
            raise ValueError(f"{place} is not in the overlay")
    return WRITTEN + text.lstrip("\n")


def overlay() -> str:
    """What the chart is written from."""
    words = ["kubectl", "kustomize", str(DEPLOY / "kustomize" / "overlays" / "ingress")]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own words


if __name__ == "__main__":
    RULE.write_text(rule(), "utf-8")
    TEMPLATE.write_text(template(overlay()), "utf-8")
