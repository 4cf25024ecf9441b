"""The files of deploy/ingresses, run by the programs they are for, with other ports and nothing else changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import caller, needs
from tests.conftest import ROOT, Served

FILES = ROOT / "deploy" / "ingresses"
PORTS = re.compile(r"\b(80|808[0-3])\b")
STARTED_S = 15.0
# What nginx wants around a file of conf.d.
AROUND = """
{user} daemon off; pid {directory}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    include {file};
}}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One program.

    command: runs it with a file, in the foreground
    check:   has it judge a file
    around:  a main file, where ours is only a part of one
    """

    program: str
    file: str
    command: Callable[[str], list[str]]
    check: Callable[[str], list[str]]
    around: str = ""

    def found(self) -> str:
        """Where the program is; the test is skipped where it is not."""
        return needs.program(self.program)

    def written(self, directory: Path, ports: Mapping[str, int]) -> Path:
        """Our file with these ports for its own, each of which must be in it."""
        text = (FILES / self.file).read_text()
        assert {*PORTS.findall(re.sub("#.*", "", text))} >= {"80", "8080", "8082"}
        file = directory / self.file
        file.write_text(PORTS.sub(lambda port: str(ports[port[0]]), text))
        if not self.around:
            return file
        main = directory / f"main-{self.file}"
        # Its workers spool long calls to a directory of the test's.
        user = "user root;" if os.getuid() == 0 else ""
        main.write_text(self.around.format(user=user, directory=directory, file=file))
        return main


KINDS = {
    kind.program: kind
    for kind in (
        Kind("nginx", "nginx.conf", lambda file: ["-c", file], lambda file: ["-t", "-c", file], AROUND),
        Kind("haproxy", "haproxy.cfg", lambda file: ["-db", "-f", file], lambda file: ["-c", "-f", file]),
        Kind(
            "envoy",
            "envoy.yaml",
            lambda file: ["-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"],
            lambda file: ["-c", file, "--mode", "validate"],
        ),
    )
}


# To be tested with, each where its program is.
PROGRAMS = [pytest.param(name, marks=needs.programs(name)) for name in KINDS]


def free_ports() -> dict[str, int]:
    """A port nobody listens on for each of those in the files."""
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.socket()) for name in ("80", "8080", "8081", "8082", "8083")}
        for one in sockets.values():
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in sockets.items()}


def served(upstream: str, port: int, admin_port: int, directory: Path, *flags: str) -> Served:
    """One of the two processes the files speak of; blocks until it is ready."""
    said = ("--upstream", upstream, "--port", str(port), "--admin-port", str(admin_port), *flags)
    process = Served(said, {}, directory)
    process.wait_until_ready()
    return process


@contextlib.asynccontextmanager
async def running(kind: Kind, ports: Mapping[str, int], directory: Path) -> AsyncIterator[str]:
    """The program with our file, as long as the context lives, once it lets calls through; its base URL."""
    url = f"http://127.0.0.1:{ports['80']}"
    log = directory / f"{kind.program}.log"
    process = _started([kind.found(), *kind.command(str(kind.written(directory, ports)))], log)
    try:
        async with asyncio.timeout(STARTED_S):
            while not await _lets_through(url):
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _started(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(words, stdout=out, stderr=out, cwd=log.parent)


async def _lets_through(url: str) -> bool:
    try:
        return (await caller.ask(url, b"", path="/healthz", method="GET")).status == 200
    except (OSError, EOFError):
        return False
