"""G · The disk of the journal is full, and then it is not (MET-1, OPS-1): a real one, of a few pages."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from proxy.metering import ledger
from proxy.simulation.wire import Script
from tests import caller, needs
from tests.faults.conftest import CALL, Stage, Stand
from tests.faults.matrix import row

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE_BYTES = 256 << 10
UNAVAILABLE = (503, "ModelUnavailable")
NOT_READY = {"ready": False, "reasons": ["journal not writable"]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is soon full."""
    home = tmp_path / "disk"
    home.mkdir()
    mounted = subprocess.run(
        [needs.program("mount"), "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(home)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        needs.lack("root to mount")
    try:
        yield home
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; the file to remove for room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert ballast.stat().st_size > SIZE_BYTES // 2
    return ballast


async def started(stage: Stage, *flags: str) -> Stand:
    """A process whose admin port is known: its log is read by a thread of its own."""
    stand = await stage(*flags)
    async with asyncio.timeout(5):
        while '"admin"' not in stand.served.output:  # noqa: ASYNC110 - nothing tells that a process has logged
            await asyncio.sleep(0.01)
    return stand


async def ready(stand: Stand) -> tuple[int, object]:
    async with aiohttp.ClientSession() as session, session.get(f"{stand.served.admin_url}/readyz") as answer:
        return answer.status, await answer.json()


async def dropped(stand: Stand) -> int:
    """Lines that are missing, as the metrics say."""
    async with aiohttp.ClientSession() as session, session.get(f"{stand.served.admin_url}/metrics") as answer:
        found = re.search(r"^dashseek_usage_records_dropped_total (\d+)", await answer.text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@row("503 `ModelUnavailable` (`refuse`), or all of it (`continue`)", figure="every missing line counted; well in 2 s")
async def test_f67_a_full_disk_is_refused_or_counted_and_forgotten(stage: Stage, disk: Path) -> None:
    await _refuses(stage, disk / "refuse.jsonl")
    await _continues(stage, disk / "continue.jsonl")


async def _refuses(stage: Stage, path: Path) -> None:
    stand = await started(stage, "--journal-file", str(path))
    assert await ready(stand) == (200, {"ready": True, "reasons": []})
    stand.next(Script(text="one two three", gap_s=0.3))
    async with caller.dial(stand.url) as line:
        line.send(caller.request(CALL, caller.SSE))
        await line.head()
        ballast = fill(path.parent)
        # The journal's last page has room for a few lines more.
        answers = [await stand.ask() for _ in range(8)]
        assert answers[-1].fault[:2] == UNAVAILABLE
        assert await ready(stand) == (503, NOT_READY)
        # Who was let in before is served to the end.
        assert caller.text(await line.rest()) == "one two three"
    await stand.settled()
    served = 1 + sum(answer.status == 200 for answer in answers)
    assert served == len(stand.upstream.calls) < 9
    assert stand.served.output.count('"journal_unwritable"') == 1

    ballast.unlink()
    await _well(stand)
    assert (await stand.ask()).status == 200
    await stand.settled()
    assert stand.served.output.count('"journal_writable_again"') == 1
    # Each call has two lines, the refused ones too.
    assert whole_lines(path) + await dropped(stand) == 2 * 10
    read = ledger.read([path], rules=ledger.RULES)
    assert read.violations == []
    # That of the call that was open, and of one at most whose end was the first that found no room.
    assert 1 <= len(read.unknown) <= 2


async def _continues(stage: Stage, path: Path) -> None:
    """Ready all the while: a platform that took the process out of service would undo what the operator asked for."""
    stand = await started(stage, "--journal-file", str(path), "--journal-policy", "continue")
    ballast = fill(path.parent)
    for _ in range(8):
        assert (await stand.ask()).status == 200
    await stand.settled()
    missing = await dropped(stand)
    assert missing > 0
    assert await ready(stand) == (200, {"ready": True, "reasons": []})
    ballast.unlink()
    assert (await stand.ask()).status == 200
    await stand.settled()
    assert await dropped(stand) == missing
    assert whole_lines(path) + missing == 2 * 9
    assert ledger.read([path], rules=ledger.RULES).violations == []


def whole_lines(path: Path) -> int:
    """Lines that are there, each on its own or behind a torn one."""
    return path.read_bytes().count(b"}\n")


async def _well(stand: Stand) -> None:
    async with asyncio.timeout(2):
        while (await ready(stand))[0] != 200:  # noqa: ASYNC110 - only the process knows
            await asyncio.sleep(0.05)
