"""Would the tests notice? The code changed in one place at a time, each change run against the tests nearest to it.

`python -m tests.mutants` takes what was picked by hand and a sample of all single changes, and shows those that no test
notices. Not part of a run of all tests: it takes hours, so `--results` keeps what was judged, and the same seed goes on
from there. A change that harms nobody is named in `HARMLESS` with its reason, and counted apart.

Noticed is what makes a test fail that fails again by itself, and passes without the change: a test that fails for the
load of the machine notices nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

import pytest

from tests.mirrors import ROOT, mirror, sources
from tests.mutants_picked import HARMLESS, PICKED, Change

SAMPLE: Final = 150
WANTED: Final = 0.95
# One test may take so long, and one run of tests so long; a change that hangs is noticed by that.
TEST_S: Final = 60
RUN_S: Final = 900
# So many tests that fail without being witnesses are left out of a run, and it begins again, before it is given up.
DOUBTFUL: Final = 5
# What has failed where no test can be named: they do not end, or do not begin.
WHOLE: Final = "the whole run"

# What a run of tests does not take over from its surroundings. What was compiled is kept: a change is dated, so that it
# is not taken for what stood there before. What pytest was asked for around it, coverage first, is of that run.
LEFT_OUT: Final = {"PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS"}

# Who else could notice a change in a wing, nearest first.
NEIGHBOURS: Final[Mapping[str, tuple[str, ...]]] = {
    "translators": (
        *("tests/test_golden.py", "tests/translators", "tests/test_golden_compatible.py", "tests/test_captured.py"),
        *("tests/proxy/commands/test_translate.py", "tests/test_protocol.py"),
    ),
    "proxy/admin": (
        *("tests/proxy/admin", "tests/integration/test_docs.py", "tests/integration/test_metrics.py"),
        *("tests/integration/test_inspector.py", "tests/integration/test_calls_page.py"),
    ),
    "proxy/admission": ("tests/proxy/admission", "tests/proxy/call/test_record.py"),
    "proxy/call": (
        *("tests/proxy/call", "tests/proxy/server/test_process.py", "tests/integration/test_departures.py"),
        *("tests/faults/test_leaving.py", "tests/faults/test_mid_stream.py", "tests/integration/test_stream.py"),
        "tests/integration/test_images.py",
    ),
    "proxy/commands": (
        *("tests/proxy/commands", "tests/integration/test_check.py", "tests/proxy/metering/test_seals.py"),
        *("tests/proxy/metering/test_export.py", "tests/proxy/admission/test_key_file.py"),
    ),
    "proxy/downstream": (
        *("tests/proxy/downstream", "tests/proxy/call", "tests/integration/test_surface.py"),
        *("tests/faults/test_bad_calls.py", "tests/faults/test_leaving.py", "tests/proxy/server/test_lifecycle.py"),
    ),
    "proxy/inspector": (
        *("tests/proxy/inspector", "tests/integration/test_inspector.py", "tests/integration/test_inspector_bounds.py"),
        "tests/integration/test_calls_page.py",
    ),
    "proxy/metering": (
        *("tests/proxy/metering", "tests/proxy/call/test_record.py", "tests/proxy/commands/test_usage.py"),
        *("tests/proxy/commands/test_reconcile.py", "tests/faults/test_disk.py"),
    ),
    "proxy/protocol": (
        *("tests/proxy/protocol", "tests/test_protocol.py", "tests/test_openapi.py", "tests/test_lint.py"),
        "tests/proxy/commands",
    ),
    "proxy/server": (
        *("tests/proxy/server", "tests/integration/test_serve.py", "tests/integration/test_workers.py"),
        "tests/faults/test_process.py",
    ),
    "proxy/simulation": (
        *("tests/proxy/simulation", "tests/integration/test_stream.py", "tests/integration/test_local.py"),
    ),
    "proxy/telemetry": (
        *("tests/proxy/telemetry", "tests/integration/test_metrics.py", "tests/integration/test_logs.py"),
        "tests/integration/test_tracing.py",
    ),
    "proxy/upstream": ("tests/proxy/upstream", "tests/faults/test_unreachable.py", "tests/faults/test_bad_answers.py"),
}


class Mutant(NamedTuple):
    """One change.

    source:   the file, from the root
    line:     where
    old, new: what stands there, and what would
    start:    where in the file's text
    text:     the line it begins in, without its indent
    """

    source: str
    line: int
    old: str
    new: str
    start: int
    text: str

    @property
    def reason(self) -> str | None:
        """Why nobody has to notice it; None where somebody has to."""
        return HARMLESS.get(Change(self.source, self.text, self.old, self.new))

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {_short(self.old)} -> {_short(self.new)}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) < 90 else f"{flat[:60]} … {flat[-20:]}"


# How an operator is changed.
SWAPS: Final[Mapping[type[ast.AST], type[ast.AST]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Every change of one node, as a node that could stand in its place."""
    yield from _of_value(node) if isinstance(node, ast.expr) else _of_step(node)


def _of_value(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[only], comparators=[_]) if type(only) in SWAPS:
            yield _with(node, ops=[SWAPS[type(only)]()])
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator) if type(operator) in SWAPS:
            yield _with(node, op=SWAPS[type(operator)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            yield _with(node, func=ast.Name(NAMES[name]))
        case ast.IfExp(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))


def _of_step(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def mutants_of(source: Path) -> Iterator[Mutant]:
    """Every change of one file. What only says things (annotations, log lines, sentences) is left alone."""
    text = (ROOT / source).read_text()
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line.encode()))
    raw = text.encode()
    for node in _walk(ast.parse(text)):
        for changed in changes(node):
            start = lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
            old = raw[start : lines[node.end_lineno - 1] + node.end_col_offset].decode()  # type: ignore[attr-defined]
            new = ast.unparse(ast.fix_missing_locations(changed))
            where = node.lineno  # type: ignore[attr-defined]
            put = f"({new})" if isinstance(node, ast.expr) else new
            yield Mutant(str(source), where, old, put, start, text.splitlines()[where - 1].strip())


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "pattern"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _only_says(child):
                yield child
                yield from _walk(child)


def _only_says(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))) | ast.JoinedStr():
            return True
        case ast.Assert() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        # What a constant of the module is set to is tuning; those that must not move are picked by hand.
        case ast.AnnAssign(annotation=ast.Name(id="Final"), value=ast.Constant() | ast.BinOp()):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant() | ast.BinOp()) if name.isupper():
            return True
    return False


def picked() -> Iterator[Mutant]:
    """What was picked by hand; one that the code does not hold any more has to be picked anew."""
    for source, old, new in PICKED:
        text = (ROOT / source).read_text() if (ROOT / source).is_file() else ""
        if text.count(old) != 1:
            raise SystemExit(f"tests/mutants_picked.py: {source} does not hold this once: {old}")
        # What cannot be read any more would be noticed by whoever reads it.
        ast.parse(text.replace(old, new))
        start = text.index(old)
        line = text.count("\n", 0, start) + 1
        yield Mutant(source, line, old, new, len(text[:start].encode()), text.splitlines()[line - 1].strip())


def sampled(number: int, seed: int) -> list[Mutant]:
    """So many of all changes."""
    every = [one for path in sources() if path.parts[0] != "config" for one in mutants_of(path)]
    return random.Random(seed).sample(every, min(number, len(every)))


def copy(directory: Path) -> Path:
    """This checkout once more, as it stands, with the clients of the first."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    for name in (".clients", ".venv"):
        if (ROOT / name).exists():
            (directory / name).symlink_to((ROOT / name).resolve())
    return directory


def run(home: Path, tests: Sequence[str], but: Sequence[str] = ()) -> str | None:
    """Run tests in a copy up to the first that fails: its node, or `WHOLE`; None where all pass.

    but: nodes that are left out
    """
    cache = home / ".ran"
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--timeout", str(TEST_S), "-o", f"cache_dir={cache}"]
    with subprocess.Popen(
        [*command, *(f"--deselect={node}" for node in but), *tests],
        cwd=home,
        env={name: value for name, value in os.environ.items() if name not in LEFT_OUT} | {"PYTHONPATH": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            code = process.wait(RUN_S)
        except subprocess.TimeoutExpired:
            code = None
        _end_session(process.pid)
    if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return None
    try:
        return str(next(iter(json.loads((cache / "v/cache/lastfailed").read_text()))))
    except (OSError, StopIteration):
        return WHOLE


def _end_session(leader: int) -> None:
    """Kill what tests have started and a change has kept from ending, in groups of its own too."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
            if os.getsid(int(name)) == leader:
                os.kill(int(name), signal.SIGKILL)


@functools.cache
def _imported(tests: Path) -> frozenset[str]:
    """The modules that a test file imports, and every name that may be one."""
    found = set[str]()
    for node in ast.walk(ast.parse(tests.read_text())):
        match node:
            case ast.Import(names=names):
                found.update(name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                found.update((module, *(f"{module}.{name.name}" for name in names)))
    return frozenset(found)


def nearest(mutant: Mutant) -> list[list[str]]:
    """The tests that could notice a change: its mirror first; then its neighbours, those that import the file first."""
    source = Path(mutant.source)
    wing = next((wing for wing in NEIGHBOURS if mutant.source.startswith(f"{wing}/")), "")
    module = ".".join(source.with_suffix("").parts)
    first, files = str(mirror(source)), list[str]()
    for place in NEIGHBOURS.get(wing, ("tests/proxy",)):
        under = sorted((ROOT / place).rglob("test_*.py")) if (ROOT / place).is_dir() else [ROOT / place]
        files += [str(path.relative_to(ROOT)) for path in under]
    others = [path for path in dict.fromkeys(files) if path != first]
    near = [[first]] if (ROOT / first).is_file() else []
    return [*near, sorted(others, key=lambda path: module not in _imported(ROOT / path))]


# A file is compiled anew where its second or its size is another: no two changes have the same second.
_SECONDS = itertools.count(1)


@contextlib.contextmanager
def changed(home: Path, mutant: Mutant) -> Iterator[None]:
    """A copy with one change, as long as the context lives."""
    path = home / mutant.source
    raw, stood = path.read_bytes(), path.stat()
    end = mutant.start + len(mutant.old.encode())
    path.write_bytes(raw[: mutant.start] + mutant.new.encode() + raw[end:])
    os.utime(path, (stood.st_atime, int(stood.st_mtime) + next(_SECONDS)))
    try:
        yield
    finally:
        path.write_bytes(raw)
        os.utime(path, ns=(stood.st_atime_ns, stood.st_mtime_ns))


class Witnesses:
    """Which tests pass by themselves where nothing is changed, as far as that is known."""

    def __init__(self) -> None:
        self._sound: dict[str, bool] = {}

    @property
    def unsound(self) -> list[str]:
        """Those that do not."""
        return [node for node, sound in self._sound.items() if not sound]

    def convinces(self, home: Path, mutant: Mutant, tests: Sequence[str]) -> bool:
        """Whether tests that have failed, the first named, fail again with a change, and pass without it."""
        if tests[0] not in self._sound:
            self._sound[tests[0]] = run(home, tests) is None
            if not self._sound[tests[0]]:
                say(f"not green without any change: {tests[0]}")
        if not self._sound[tests[0]]:
            return False
        with changed(home, mutant):
            return run(home, tests) is not None


def noticed_by(home: Path, mutant: Mutant, witnesses: Witnesses) -> str | None:
    """Which test notices a change; None where none does."""
    for tests in nearest(mutant):
        doubtful = list[str]()
        while len(doubtful) <= DOUBTFUL:
            with changed(home, mutant):
                node = run(home, tests, [*witnesses.unsound, *doubtful])
            if node is None:
                break
            # All of a test's cases: some are named after what is new in every run.
            alone = tests if node == WHOLE else [node.partition("[")[0]]
            if witnesses.convinces(home, mutant, alone):
                return f"{tests[0]} and others" if node == WHOLE else node
            say(f"no witness: {node}, {mutant}")
            if node == WHOLE:
                break
            doubtful.append(alone[0])
    return None


def say(line: str) -> None:
    """A line of the report, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Results:
    """What was judged so far, a line of JSON for each change in a file, so that a run can go on where one has ended.

    Of a change the line counts on which it stands, not its number: a file may have grown above it meanwhile.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[Change, str | None] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            # The last one may have been cut.
            with contextlib.suppress(ValueError, TypeError, KeyError):
                read = json.loads(line)
                self._found[Change(*read["change"])] = read["by"]

    def knows(self, mutant: Mutant) -> bool:
        """Whether it was judged."""
        return _change(mutant) in self._found

    def by(self, mutant: Mutant) -> str | None:
        """Which tests noticed it; None where none did."""
        return self._found[_change(mutant)]

    def keep(self, mutant: Mutant, by: str | None) -> None:
        """Remember it."""
        change = _change(mutant)
        self._found[change] = by
        if self._path is not None:
            with self._path.open("a") as file:
                # Behind whatever a run that was killed has left of a line.
                file.write("\n" + json.dumps({"change": change, "by": by}) + "\n")


def _change(mutant: Mutant) -> Change:
    return Change(mutant.source, mutant.text, mutant.old, mutant.new)


def judge_all(mutants: list[Mutant], results: Results, at_once: int) -> None:
    """Judge changes side by side, each in a copy, and say what became of each."""
    with tempfile.TemporaryDirectory(prefix="dashseek-mutants-") as directory:
        homes: SimpleQueue[Path] = SimpleQueue()
        witnesses = Witnesses()
        for number in range(at_once):
            homes.put(copy(Path(directory) / str(number)))

        def judge(mutant: Mutant) -> None:
            home = homes.get()
            try:
                found = noticed_by(home, mutant, witnesses)
            finally:
                homes.put(home)
            results.keep(mutant, found)
            say(f"{'noticed' if found else 'MISSED '} {mutant}  {found or ''}")

        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(judge, mutants))


def report(chosen: list[Mutant], results: Results) -> bool:
    """Say what of these was noticed, what was not, and what nobody has to; whether it was enough."""
    harmless = [mutant for mutant in chosen if mutant.reason is not None]
    judged = [mutant for mutant in chosen if mutant.reason is None and results.knows(mutant)]
    missed = [mutant for mutant in judged if results.by(mutant) is None]
    share = 1 - len(missed) / max(1, len(judged))
    left = len(chosen) - len(harmless) - len(judged)
    say(f"\n{len(judged) - len(missed)} of {len(judged)} noticed: {share:.1%}, {WANTED:.0%} wanted")
    for wing, number in Counter(str(Path(mutant.source).parent) for mutant in missed).most_common():
        say(f"  {number} missed in {wing}")
    for mutant in missed:
        say(f"  {mutant}")
    if harmless:
        say(f"{len(harmless)} more harm nobody, by tests/mutants_picked.py:")
        for mutant in harmless:
            say(f"  {mutant}: {mutant.reason}")
    if left:
        say(f"{left} more are not judged so far: the same command goes on with them")
    return share >= WANTED


def main() -> int:
    """Run them, say what was not noticed, and whether that is too much."""
    parser = argparse.ArgumentParser(prog=".ci/run mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=SAMPLE, help="so many changes beside those picked by hand")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="which ones")
    parser.add_argument("--only", default="", help="no others than those whose file has this in its name")
    parser.add_argument("--at-once", type=int, default=1, help="so many side by side; tests that bound time mind that")
    parser.add_argument("--results", type=Path, help="keep there what was judged, and do not judge it again")
    parser.add_argument("--limit", type=int, help="judge so many now, and leave the rest for another time")
    asked = parser.parse_args()
    chosen = [one for one in (*picked(), *sampled(asked.sample, asked.seed)) if asked.only in one.source]
    results = Results(asked.results)
    todo = [one for one in chosen if one.reason is None and not results.knows(one)]
    say(f"{len(chosen)} changes, {len(todo)} of them to be judged, --seed {asked.seed}")
    # Whoever ends a run, a `timeout` too, gets a report, and no copies are left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        judge_all(todo[: asked.limit], results, asked.at_once)
    except KeyboardInterrupt:
        say("stopped")
    return 0 if report(chosen, results) else 1


if __name__ == "__main__":
    sys.exit(main())
