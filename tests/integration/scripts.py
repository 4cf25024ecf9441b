"""A published client's script, run on calls: it reads them as JSON and prints a document of what it was told."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import orjson

from tests import needs
from translators.dialogue import Json

SCRIPTS = Path(__file__).parent / "clients"
# Of all calls of one script: where ten clients start at once on two cores, some take a minute to be imported.
CALLS_TIMEOUT_S = 300.0


async def run(url: str, client: str, script: str, calls: Json) -> Json:
    """The document that a client's script prints of calls made to this base address."""
    home = needs.CLIENTS / client
    process = await asyncio.create_subprocess_exec(
        "node" if script.endswith(".mjs") else home / "bin" / "python",
        SCRIPTS / script,
        url,
        cwd=home,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    talk = asyncio.create_task(process.communicate(orjson.dumps(calls)))
    try:
        await asyncio.wait([talk], timeout=CALLS_TIMEOUT_S)
    finally:
        is_over = talk.done()
        if process.returncode is None:
            # A Python says where it stands.
            process.send_signal(signal.SIGABRT)
            await process.wait()
    document, _ = await talk
    assert is_over, f"{script} in .clients/{client} did not end in {CALLS_TIMEOUT_S:g} s; where it stood, see above"
    assert process.returncode == 0, f"{script} in .clients/{client} failed: see above"
    seen: Json = orjson.loads(document)
    return seen
