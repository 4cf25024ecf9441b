"""The OpenAPI document is one, says what the tables say, and takes what the code takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import openapi_spec_validator
import orjson
import pytest

from proxy.protocol import compatible, documents, openapi, probes, tables
from tests.test_protocol import CALLS, EXAMPLES, SHIPPED
from translators import faults
from translators.dashscope import parameters

DOCUMENT: dict[str, Any] = orjson.loads((documents.HOME / documents.OPENAPI).read_bytes())
CROSS_FIELD = [
    said["message"]
    for said in DOCUMENT["paths"]["/api/v1/services/aigc/text-generation/generation"]["post"][
        "x-refused-although-valid"
    ]
]


def faults_of(name: str, instance: object) -> list[str]:
    """What a schema of the document has against an instance."""
    schema = {**DOCUMENT["components"]["schemas"][name], "components": DOCUMENT["components"]}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(instance)]


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    openapi_spec_validator.validate(DOCUMENT)


def test_every_parameter_of_the_table_is_in_it_and_no_other() -> None:
    assert list(DOCUMENT["components"]["schemas"]["Parameters"]["properties"]) == [
        row.theirs for row in parameters.ROWS
    ]


def test_every_fault_is_in_it() -> None:
    """ERR-2."""
    listed = {
        (int(status), code)
        for path in DOCUMENT["paths"].values()
        for verb in path.values()
        if isinstance(verb, dict)
        for status, answer in verb["responses"].items()
        for part in answer["content"].get("application/json", {"schema": {}})["schema"].get("allOf", ())
        for code in part.get("properties", {}).get("code", {}).get("enum", ())
    }
    known = {(fault.status, fault.code) for fault in vars(faults).values() if isinstance(fault, faults.Fault)}
    assert known - listed == {(faults.NOT_FOUND.status, faults.NOT_FOUND.code)}


@pytest.mark.parametrize(
    "probe", probes.REFUSED, ids=lambda probe: f"{probe.rule} {next(iter(probe.given.values()))!r:.40}"
)
def test_what_is_refused_breaks_the_schema_or_is_a_declared_matter_of_several_fields(probe: probes.Probe) -> None:
    text = tables.refusal_of(probe, SHIPPED).message.removeprefix(faults.PARAMETER_PREFIX)
    assert bool(faults_of("Parameters", probe.given)) or text in CROSS_FIELD


@pytest.mark.parametrize("probe", probes.CROSSED, ids=lambda probe: f"{probe.rule} {next(iter(probe.given))}")
def test_what_is_taken_keeps_the_schema(probe: probes.Probe) -> None:
    assert faults_of("Parameters", probe.given) == []


@pytest.mark.parametrize("probe", probes.STRUCTURE, ids=lambda probe: f"{probe.rule} {[*probe.given]}")
def test_a_document_that_is_refused_breaks_the_schema_or_is_declared(probe: probes.Probe) -> None:
    text = tables.refusal_of(probe, SHIPPED).message.removeprefix(faults.PARAMETER_PREFIX)
    assert bool(faults_of("Call", probe.given)) or text in CROSS_FIELD


@pytest.mark.parametrize("name", [name for name, example in CALLS.items() if name != "E-3"])
def test_the_calls_and_answers_of_the_protocol_keep_the_schema(name: str) -> None:
    example = EXAMPLES[name]
    assert faults_of("Call", orjson.loads(example.blocks["call"])) == []
    if "answer" not in example.blocks:
        return
    said = example.blocks["answer"]
    answers = [line.removeprefix("data:") for line in said.splitlines() if line.startswith("data:")] or [said]
    for answer in map(orjson.loads, answers):
        assert faults_of("Failure" if "code" in answer else "Answer", answer) == []


def test_its_examples_of_calls_keep_its_schema() -> None:
    content = DOCUMENT["paths"]["/api/v1/services/aigc/text-generation/generation"]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        assert faults_of("Call", example["value"]) == []


GOLDEN = sorted((Path(__file__).parent / "golden" / "compatible").iterdir())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_the_written_streams_of_the_compatible_surface_keep_the_schema(case: Path) -> None:
    """COM-13 to COM-26, COM-33."""
    asked = orjson.loads((case / "call.json").read_bytes())
    # That a name is read in any case is said in words.
    assert faults_of("CompatibleCall", {**asked, "model": asked["model"].lower()}) == []
    events = [line[6:] for line in (case / "chunks.sse").read_text().split("\n") if line.startswith("data: {")]
    for event in map(orjson.loads, events):
        assert faults_of("CompatibleFailure" if "error" in event else "CompatibleChunk", event) == []
    reply = orjson.loads((case / "reply.json").read_bytes())
    assert faults_of("CompatibleFailure" if "error" in reply else "CompatibleCompletion", reply) == []


@pytest.mark.parametrize(("rule", "given"), compatible.REFUSED)
def test_what_the_compatible_surface_refuses_breaks_its_schema_or_is_declared(rule: str, given: dict[str, Any]) -> None:
    fault = compatible._refusal(given, SHIPPED)
    text = fault.message.removeprefix(faults.PARAMETER_PREFIX)
    assert bool(faults_of("CompatibleCall", given)) or text in CROSS_FIELD, rule


def test_a_probe_that_is_not_refused_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="was not refused"):
        compatible._refusal({"model": "deepseek-v3", "messages": [{"role": "user", "content": "hi"}]}, SHIPPED)


def test_a_field_without_a_line_in_its_docstring_is_an_error() -> None:
    undocumented = type("Undocumented", (), {"__doc__": "A shape."})
    with pytest.raises(KeyError, match="field"):
        openapi._described({"properties": {"field": {}}, "required": []}, undocumented)
