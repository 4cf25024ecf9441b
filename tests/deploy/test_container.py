"""The Containerfile's own lines, run: the build of its first stage, and its process as nobody on a read-only root.

No registry and no container engine is needed for that: bwrap gives each stage a root of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from config import sources
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.conftest import READY, StartSimulator
from tests.deploy.conftest import DEPLOY, ROOT, compose_engine, fails, passes, with_line
from tests.needs import lack, program

CONTAINERFILE = DEPLOY / "Containerfile"
COMPOSE = DEPLOY / "compose.yaml"
IGNORE = ROOT / ".dockerignore"
SHELLS = [path for name in ("sh", "bash", "dash") if Path(path := f"/usr/bin/{name}").exists()]
WORD = re.compile(r"(\w+)\s+(.*)", re.DOTALL)


@dataclass(slots=True)
class Stage:
    """One stage: its instructions in order, and its environment."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def said(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.lines if word == instruction]

    @property
    def env(self) -> dict[str, str]:
        lines = [*self.said("ARG"), *self.said("ENV")]
        return dict(pair.split("=", 1) for line in lines for pair in shlex.split(line) if "=" in pair)


def stages() -> list[Stage]:
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    found: list[Stage] = []
    for line in filter(None, text.splitlines()):
        word, rest = WORD.fullmatch(line).groups()  # type: ignore[union-attr]
        if word == "FROM":
            found.append(Stage())
        elif found:
            found[-1].lines.append((word, rest.strip()))
    return found


def sandbox(mounts: Mapping[str, tuple[str, Path]], *words: str) -> list[str]:
    """A command in a root of its own: the machine's programs, read-only, and these mounts; nothing else."""
    system = {path: ("--ro-bind", Path(path)) for path in ("/usr", "/etc", sys.base_prefix)}
    links = [("--symlink", f"usr/{name}", f"/{name}") for name in ("bin", "lib", "lib64", "sbin")]
    binds = {**system, **mounts}
    # Left to itself bwrap makes directories that only root may enter.
    above = sorted(
        {str(parent) for at in binds for parent in Path(at).parents if not Path("/usr").is_relative_to(parent)}
    )
    return [
        program("bwrap"),
        *(part for path in above for part in ("--perms", "0755", "--dir", path)),
        *(part for at, (how, path) in binds.items() for part in (how, str(path), at)),
        *(part for link in links for part in link),
        *("--dev", "/dev", "--proc", "/proc", "--die-with-parent"),
        *words,
    ]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the first stage leaves in /opt/dashseek."""
    program("bwrap")
    if os.getuid() != 0:
        lack("root")
    build, _ = stages()
    home = tmp_path_factory.mktemp("image")
    for line in build.said("COPY"):
        *sources, target = line.split()
        for source in sources:
            at = home / target.lstrip("/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, at, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                at.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, at)
    (home / "opt" / "dashseek").mkdir(parents=True)
    mounts = {
        "/src": ("--bind", home / "src"),
        "/opt/dashseek": ("--bind", home / "opt" / "dashseek"),
        "/tmp": ("--bind", tmp_path_factory.mktemp("tmp")),
    }
    mounts |= {"/opt/wheels": ("--ro-bind", Path("/opt/wheels"))} if Path("/opt/wheels").is_dir() else {}
    env = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "DASHSEEK_", "VIRTUAL"))}
    for line in build.said("RUN"):
        done = subprocess.run(
            sandbox(mounts, "/bin/sh", "-c", line),
            env={**env, **build.env, "HOME": "/tmp", "PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
    yield home / "opt" / "dashseek"
    shutil.rmtree(home)


def test_the_linter_has_nothing_to_say_but_of_what_is_broken() -> None:
    assert passes("hadolint", CONTAINERFILE) == ""
    broken = with_line(CONTAINERFILE.read_text(), "USER 65532:65532", "USER root")
    assert "DL3002" in fails("hadolint", "-", given=broken)


def test_the_image_is_made_of_what_is_not_ignored() -> None:
    kept = {line.removeprefix("!") for line in IGNORE.read_text().splitlines() if line.startswith("!")}
    build, _ = stages()
    assert {source for line in build.said("COPY") for source in line.split()[:-1]} == kept


def test_it_starts_without_a_shell_as_nobody_and_ends_by_the_signal_it_drains_on() -> None:
    _, last = stages()
    assert json.loads(last.said("ENTRYPOINT")[0]) == ["/opt/dashseek/bin/dashseek"]
    assert json.loads(last.said("CMD")[0]) == ["serve"]
    assert last.said("USER") == ["65532:65532"]
    assert last.said("STOPSIGNAL") == ["SIGTERM"]
    assert not last.said("RUN")


# The build downloads what the wheel depends on.
@pytest.mark.timeout(400)
@needs.programs("bwrap")
async def test_the_process_serves_on_a_read_only_root_without_home_or_shell(
    image: Path, simulator: StartSimulator
) -> None:
    """Nothing can be written anywhere, and there is no shell to start."""
    upstream = await simulator(Script(text="out of the box"))
    _, last = stages()
    entry, command = (json.loads(last.said(word)[0]) for word in ("ENTRYPOINT", "CMD"))
    uid, gid = last.said("USER")[0].split(":")
    shells = {path: ("--ro-bind", Path("/dev/null")) for path in SHELLS}
    words = sandbox(
        {"/opt/dashseek": ("--ro-bind", image), **shells},
        *("--remount-ro", "/", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"),
        *(*entry, *command, "--upstream", upstream.url, "--port", "0", "--host", "127.0.0.1"),
    )
    env = {**last.env, "PATH": "/opt/dashseek/bin:/usr/bin", "HOME": "/nowhere", "DASHSEEK_ADMIN_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *words, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            ready = READY.search((await process.stdout.readline()).decode())
            assert ready, (await process.stderr.read()).decode()
            answer = await caller.ask(ready[1], caller.call())
            assert answer.status == 200
            assert answer.json["output"]["choices"][0]["message"]["content"] == "out of the box"
            (status,) = statuses(process.pid).values()
            assert re.search(rf"^Uid:\t{uid}\t{uid}\t", status, re.MULTILINE)
            assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    finally:
        # bwrap takes no signal for what it holds; it dies with it.
        for child in statuses(process.pid):
            os.kill(child, signal.SIGTERM)
        async with asyncio.timeout(10):
            await process.communicate()


def statuses(parent: int) -> dict[int, str]:
    """What the kernel says of each process that this one has started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = path.read_text()
    return {pid: status for pid, status in found.items() if f"\nPPid:\t{parent}\n" in status}


@pytest.fixture(scope="module")
def compose() -> Path:
    """The engine of `docker compose`."""
    return compose_engine()


def test_compose_knows_every_word_of_its_file(compose: Path, tmp_path: Path) -> None:
    read = subprocess.run([compose, "-f", COMPOSE, "config"], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    broken = tmp_path / "compose.yaml"
    broken.write_text(with_line(COMPOSE.read_text(), "read_only:", "readonly:"))
    read = subprocess.run([compose, "-f", broken, "config"], capture_output=True, text=True, check=False)
    assert read.returncode != 0
    assert "readonly" in read.stderr


def test_compose_waits_for_the_drain_and_says_settings_that_are_settings(tmp_path: Path) -> None:
    service = yaml.safe_load(COMPOSE.read_text())["services"]["dashseek"]
    _, last = stages()
    said = {name: text for name, text in (last.env | service["environment"]).items() if name.startswith("DASHSEEK_")}
    said["DASHSEEK_UPSTREAM"] = said["DASHSEEK_UPSTREAM"].removeprefix("${DASHSEEK_UPSTREAM:-").removesuffix("}")
    (volume,) = service["volumes"]
    journal = said["DASHSEEK_JOURNAL_FILE"]
    assert Path(journal).parent == Path(volume.split(":")[1])
    chosen = sources.load({}, None, {**said, "DASHSEEK_JOURNAL_FILE": str(tmp_path / "calls.jsonl")})
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_s >= chosen.drain_delay + chosen.drain_timeout + 15
    assert [port.rpartition(":")[2] for port in service["ports"]] == [str(chosen.port), str(chosen.admin_port)]
    assert f":{chosen.admin_port}/readyz" in service["healthcheck"]["test"][-1]
