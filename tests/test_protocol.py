"""The protocol document says what the code does: its tables are fresh, its examples run, its two languages agree."""

from __future__ import annotations

import configparser
import inspect
import re
import runpy
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from click import testing

from config import settings
from proxy.call import timeouts
from proxy.downstream.paths import GENERATION, HEALTH, MULTIMODAL
from proxy.metering import journal
from proxy.protocol import compatible, documents, phrases, probes, tables
from proxy.upstream import response
from tests import caller, corpus, lint
from tests.conftest import StartServe, StartSimulator
from translators import dialogue, faults, pipe, tokens
from translators.dashscope import call as calls
from translators.dashscope import messages, packets, parameters, rules, tongue, tools
from translators.deepseek import prompt
from translators.openai import dialects, failures, request
from translators.terms import agreed

ROOT = Path(__file__).parents[1]
TEXTS = {language: (ROOT / "translators" / name).read_text("utf-8") for language, name in documents.FILES.items()}
ENGLISH, CHINESE = TEXTS[phrases.Language.EN], TEXTS[phrases.Language.ZH]
SHIPPED = tables.shipped()

BLOCK = re.compile(r"<!-- example: (\S+) (\w+) ?(\S*) -->\n```\w+\n(.*?)\n```", re.DOTALL)
FENCE = re.compile(r"^```\w+\n.*?^```$", re.DOTALL | re.MULTILINE)
# What the sections say, and behind them the list of all rules.
SERVED, _, LISTED = ENGLISH.partition("\n## 13. ")
RULES = re.findall(r"^\| ([A-Z]+-\d+) \|", LISTED, re.MULTILINE)
FAMILY = "|".join(sorted({rule.partition("-")[0] for rule in RULES}))
RULE = re.compile(rf"\b({FAMILY})-(\d+)\b")
RANGE = re.compile(rf"\b({FAMILY})-(\d+) ?(?:…|–|to) ?(?:\1-)?(\d+)\b")


@dataclass(slots=True)
class Example:
    """One example: its blocks by what they are, and the word that stands behind that in the mark."""

    blocks: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        return self.words["call"] == "SSE"

    @property
    def dialect(self) -> dialects.Dialect:
        return dialects.DIALECTS[self.words.get("body") or "deepseek"]


def examples(text: str) -> dict[str, Example]:
    found: dict[str, Example] = defaultdict(Example)
    for name, part, word, block in BLOCK.findall(text):
        found[name].blocks[part] = block
        found[name].words[part] = word
    return found


EXAMPLES = examples(ENGLISH)
CALLS = {name: example for name, example in EXAMPLES.items() if "call" in example.blocks}


def read(example: Example, vocabulary: tokens.Vocabulary) -> dialogue.Call:
    document = calls.read(example.blocks["call"].encode())
    return calls.translate(document, SHIPPED.catalogue, stream=example.streams, decode=vocabulary.decode_bytes)


def answered(example: Example, vocabulary: tokens.Vocabulary) -> tuple[int, str]:
    """Status and body of what the caller of an example gets."""
    try:
        return 200, _answered(example, vocabulary)
    except faults.Refusal as refusal:
        return refusal.fault.status, packets.error(refusal.fault, corpus.REQUEST_ID).decode()


def _answered(example: Example, vocabulary: tokens.Vocabulary) -> str:
    call, dialect = read(example, vocabulary), example.dialect
    order = request.order(call, dialect)
    terms = agreed(order, request_id=corpus.REQUEST_ID, own_key=False)
    through = pipe.Pipe(call, terms, vocabulary, tongue)
    through.count_prompt(prompt.length(order.prompt, vocabulary), 0)
    wire = example.blocks["upstream"].encode()
    if status := example.words["upstream"]:
        raise failures.of_response(int(status), wire, terms.failures)
    if example.streams:
        return corpus.drive(through, wire + b"\n\n").decode().removesuffix("\n\n")
    return through.feed_completion(wire).decode()


@pytest.mark.parametrize("language", phrases.Language)
def test_a_document_is_what_the_tables_say(language: phrases.Language) -> None:
    assert documents.fill(TEXTS[language], language, SHIPPED) == TEXTS[language], (
        "run: python -m proxy.protocol.documents"
    )


def test_every_table_stands_in_both_documents_once_and_in_the_same_order() -> None:
    """COM-33: both tongues are shown by the tables the code works by."""
    marks = [[found[2] for found in documents.BLOCK.finditer(text)] for text in TEXTS.values()]
    assert marks[0] == marks[1]
    assert sorted(marks[0]) == sorted({**tables.TABLES, **compatible.TABLES})


def test_every_fault_and_every_parameter_has_its_words_in_the_tables() -> None:
    """ERR-2: the catalogue is closed; one that has no row here fails."""
    constants = {name for name, value in vars(faults).items() if isinstance(value, faults.Fault)}
    makers = {
        name for name, value in inspect.getmembers(faults, inspect.isfunction) if value.__module__ == faults.__name__
    }
    assert makers == tables.MADE.keys()
    assert constants | makers == phrases.TRIGGERS.keys()
    assert {probe.rule for probe in probes.REFUSED} == {f"PAR-{number}" for number in range(1, 21)}


def test_every_phrase_is_said_once_in_each_language() -> None:
    single = (
        *(phrases.FACTS, phrases.TRIGGERS, phrases.BLAMED, phrases.RETRY, phrases.YES_NO, phrases.PATHS),
        *(phrases.THINKS, phrases.OUTCOMES, phrases.RECORDED),
    )
    double = (phrases.TAKES_HERE, phrases.TAKES, phrases.WAITS)
    said = [phrases.WAIT, phrases.ANY, *(words for table in single for words in table.values())]
    said += [words for table in double for both in table.values() for words in both]
    assert {len(words) for words in said} == {len(phrases.Language)}
    assert all(map(all, said))


def test_every_wait_and_every_line_of_the_journal_has_its_words() -> None:
    """ERR-5, MET-1."""
    waits = {
        name for name in settings.Settings.model_fields if re.search(r"timeout|^head_hold$|^heartbeat$|^drain", name)
    }
    assert waits - {"cancel_drain_tokens"} == phrases.WAITS.keys()
    timed = {
        wait.value: fault for wait, (fault, _) in timeouts.EXPIRIES.items() if fault and wait.value in phrases.WAITS
    }
    timed["connect_timeout"] = response.Slow.fault
    # Its caller has left, and reads nothing.
    del timed["cancel_drain_timeout"]
    assert timed.keys() >= {"body_timeout", "first_token_timeout", "idle_timeout", "total_timeout", "drain_timeout"}
    for name, fault in timed.items():
        assert all(said.startswith(f"{fault.status} `{fault.code}`") for said in phrases.WAITS[name][1]), name
    assert {outcome.value for outcome in journal.Outcome} == phrases.OUTCOMES.keys()
    assert journal.Closing.__annotations__.keys() | journal.Opening.__annotations__.keys() == phrases.RECORDED.keys()


def ranges(text: str) -> list[str]:
    """The ranges in a text, their numbers written one way."""
    plain = text.replace("−", "-").replace("2⁶³-1", str(2**63 - 1)).replace(".0", "")
    return re.findall(r"[\[(]-?\d+, -?\d+[\])]", plain)


@pytest.mark.parametrize("language", phrases.Language)
def test_a_range_is_the_one_its_refusal_names(language: phrases.Language) -> None:
    """PAR-1, PAR-2, PAR-4, PAR-7, PAR-8, PAR-10."""
    named = {}
    for probe in probes.REFUSED:
        if found := ranges(tables.refusal_of(probe, SHIPPED).message):
            named[next(iter(probe.given))] = found
    # The model's answer limit is a number only where the model is known.
    assert named.pop("max_tokens") == ["[1, 16384]"]
    said = {name: found for name, words in phrases.TAKES.items() if (found := ranges(words[0][language]))}
    assert said == named


def test_the_command_finds_nothing_to_do() -> None:
    ran = testing.CliRunner().invoke(documents.main, ["--check"])
    assert (ran.exit_code, ran.output) == (0, "")


def test_the_command_mends_a_stale_document_and_only_names_it_when_told_to_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tables, the checks beside the rules, the OpenAPI document, and the callers' page where there is one."""
    home = documents.HOME.name
    names = [*documents.FILES.values(), documents.OPENAPI, documents.CALLERS]
    paths = {name: Path(name) if name == documents.CALLERS else Path(home, name) for name in names}
    fresh = {name: (ROOT / path).read_text("utf-8") for name, path in paths.items()}
    stale = {name: documents.BLOCK.sub(r"\1old\n\3", text) for name, text in fresh.items()} | {documents.OPENAPI: "{}"}
    for name, text in stale.items():
        stale[name] = text.replace("`route-model`", "`old`")
        (tmp_path / paths[name]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / paths[name]).write_text(stale[name], "utf-8")
    monkeypatch.setattr(documents, "HOME", tmp_path / home)
    ran = testing.CliRunner().invoke(documents.main, ["--check"])
    assert (ran.exit_code, ran.output.split()) == (1, [word for name in names for word in (f"{name}:", "stale")])
    assert {name: (tmp_path / path).read_text("utf-8") for name, path in paths.items()} == stale
    ran = testing.CliRunner().invoke(documents.main)
    assert (ran.exit_code, ran.output.split()) == (0, [word for name in names for word in (f"{name}:", "written")])
    assert {name: (tmp_path / path).read_text("utf-8") for name, path in paths.items()} == fresh
    (tmp_path / documents.CALLERS).unlink()
    ran = testing.CliRunner().invoke(documents.main, ["--check"])
    assert (ran.exit_code, ran.output) == (0, "")


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["documents", "--no-such-option"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(documents.__file__, run_name="__main__")
    assert ended.value.code == 2


def test_the_callers_page_says_what_becomes_of_each_feature() -> None:
    """Its table is fresh, and the dialects it names by hand are the ones."""
    page = (ROOT / documents.CALLERS).read_text("utf-8")
    assert documents.fill(page, phrases.Language.EN, SHIPPED) == page, "run: python -m proxy.protocol.documents"
    assert [mark[2] for mark in documents.BLOCK.finditer(page)] == [*tables.CALLERS_TABLES]
    assert [name for name, row in dialects.DIALECTS.items() if not row.keeps_reasoning] == ["openai"]
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert {row.theirs for row in parameters.ROWS} | parameters.DROPPED.keys() <= rows.keys()
    assert "| deepseek, ark, openai |" in rows["top_k"]
    assert "| deepseek, siliconflow, ark |" in rows["response_format"]


def test_a_probe_that_is_not_refused_is_no_row() -> None:
    with pytest.raises(ValueError, match="was not refused"):
        tables.refusal_of(probes.Probe("PAR-1", {"temperature": 1}), SHIPPED)


def test_the_documents_ship() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    assert setup["options.package_data"]["translators"] == "*.md, openapi.json"


def headings(text: str) -> list[str]:
    """The level and number of every heading."""
    return re.findall(r"^(#+(?: [\d.]+)?)", FENCE.sub("", text), re.MULTILINE)


def test_both_languages_have_the_same_sections_rules_invariants_and_examples() -> None:
    assert headings(ENGLISH) == headings(CHINESE)
    for mark in (RULE, re.compile(r"\*\*(I-\d+)\*\*"), re.compile(r"\*\*(D-\d+)\*\*")):
        assert sorted(mark.findall(ENGLISH)) == sorted(mark.findall(CHINESE)), mark.pattern
    assert BLOCK.findall(ENGLISH) == BLOCK.findall(CHINESE)
    assert len(FENCE.findall(ENGLISH)) == len(FENCE.findall(CHINESE))


def cells(text: str) -> list[int]:
    """How many cells each line of a table has, line by line."""
    return [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]


def test_both_languages_have_the_same_tables() -> None:
    assert cells(ENGLISH) == cells(CHINESE)


def numbers(text: str) -> list[str]:
    """Every number of the prose, however its thousands are told apart."""
    prose = documents.BLOCK.sub("", FENCE.sub("", text))
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", prose))


def test_both_languages_name_the_same_numbers() -> None:
    assert numbers(ENGLISH) == numbers(CHINESE)


def test_there_is_no_block_that_nothing_runs() -> None:
    by_hand = documents.BLOCK.sub("", ENGLISH)
    assert len(FENCE.findall(by_hand)) == sum(len(example.blocks) for example in EXAMPLES.values())


@pytest.mark.parametrize("name", [name for name, example in CALLS.items() if "answer" in example.blocks])
def test_an_example_gets_the_answer_that_is_written_below_it(name: str, vocabulary: tokens.Vocabulary) -> None:
    """OUT-1, SSE-1…SSE-9, USE-1…USE-4, ERR-1: byte for byte, but for the blanks of what is laid out to be read."""
    example = CALLS[name]
    status, answer = answered(example, vocabulary)
    written = example.blocks["answer"]
    if not (example.streams and status == 200):
        written = orjson.dumps(orjson.loads(written)).decode()
    assert (status, answer) == (int(example.words["answer"] or 200), written)
    if example.streams and status == 200:
        incremental = orjson.loads(example.blocks["call"])["parameters"].get("incremental_output", False)
        assert lint.check(answer.encode() + b"\n\n", incremental=incremental) == []


@pytest.mark.parametrize("name", [name for name, example in CALLS.items() if "body" in example.blocks])
def test_an_example_sends_the_body_that_is_written_below_it(name: str, vocabulary: tokens.Vocabulary) -> None:
    """REQ-2, PAR-5, PAR-14, OUT-8."""
    example = CALLS[name]
    call, dialect = read(example, vocabulary), example.dialect
    assert request.order(call, dialect).body().json == orjson.loads(example.blocks["body"])


def test_every_path_and_every_bound_is_written_down() -> None:
    """HTTP-1…HTTP-4."""
    chosen = settings.Settings()
    paths = [GENERATION, MULTIMODAL, HEALTH, chosen.model_route]
    bounds = [messages.MOST_TURNS, messages.MOST_CALLS, tools.MOST_TOOLS, rules.MOST_STOPS]
    waits = [f"{wait:g} s" for wait in (chosen.head_hold, chosen.heartbeat, chosen.usage_timeout)]
    said = [*(f"/{path}`".replace("//", "/") for path in paths if path), *(f"{bound:,}" for bound in bounds), *waits]
    for text in TEXTS.values():
        assert [words for words in said if words not in text] == []


def test_the_worked_usage_is_that_of_its_example() -> None:
    """USE-1…USE-3: what section 5 says of E-4."""
    stream = EXAMPLES["E-4"].blocks["answer"].encode()
    usages = [packet["usage"] for packet in corpus.packets(stream + b"\n\n")]
    assert [usage["input_tokens"] for usage in usages] == [32, 32, 32, 33]
    assert [usage["output_tokens"] for usage in usages] == [2, 4, 5, 6]
    assert usages[-1]["output_tokens_details"] == {"reasoning_tokens": 2, "text_tokens": 4}
    assert all(f"32 + 4 = {usages[1]['total_tokens']}" in text for text in TEXTS.values())


@pytest.mark.parametrize("kind", ["packets", "reply"])
async def test_an_answer_has_the_head_that_is_written_down(
    kind: str, serve: StartServe, simulator: StartSimulator
) -> None:
    """HTTP-6, HTTP-7, against the real process."""
    served = await serve((await simulator()).url)
    ask = caller.stream if kind == "packets" else caller.ask
    answer = await ask(served.url, caller.call("Hello!"), headers={"X-Request-Id": corpus.REQUEST_ID})
    said = [line.split(": ", 1) for line in EXAMPLES["head"].blocks[kind].splitlines()]
    assert [[name, answer.headers[name]] for name, _ in said] == said


async def test_the_endpoint_of_another_modality_is_refused(serve: StartServe, simulator: StartSimulator) -> None:
    """HTTP-3, against the real process."""
    served = await serve((await simulator()).url)
    path = "/api/v1/services/aigc/multimodal-generation/generation"
    assert path in ENGLISH
    answer = await caller.ask(served.url, caller.call("Hello!", "deepseek-v4-pro"), path=path)
    assert answer.fault == (400, "InvalidParameter", "url error, please check url！")


def mentioned(text: str) -> Iterator[str]:
    """The rules a text names, one by one or as a range."""
    yield from ("-".join(found) for found in RULE.findall(text))
    for room, first, last in RANGE.findall(text):
        yield from (f"{room}-{number}" for number in range(int(first), int(last) + 1))


def covered() -> dict[str, set[str]]:
    """For every rule the tests that name it, hand-written cases included, whose folders are named by their rule."""
    tests = ROOT / "tests"
    found: dict[str, set[str]] = defaultdict(set)
    for path in tests.rglob("test_*.py"):
        for rule in mentioned(path.read_text("utf-8")):
            found[rule].add(str(path.relative_to(tests)))
    for folder in (tests / "golden").glob("*/*"):
        for rule in mentioned(folder.name):
            found[rule].add(str(folder.relative_to(tests)))
    return found


def test_every_rule_of_the_document_has_a_test_that_names_it_and_every_rule_of_a_test_stands_there() -> None:
    """With `-s` it shows them, rule by rule."""
    tests = covered()
    for rule in RULES:
        sys.stdout.write(f"{rule:<8} {' '.join(sorted(tests[rule])) or '-'}\n")
    assert {*mentioned(SERVED)} == {rule for rule, named in tests.items() if named}
