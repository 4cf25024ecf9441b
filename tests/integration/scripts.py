"""A published client's script, run on calls: it reads them as JSON and prints a document of what it was told."""

from __future__ import annotations

import asyncio
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
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        document, _ = await asyncio.wait_for(process.communicate(orjson.dumps(calls)), CALLS_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{script} in .clients/{client} failed: see above"
    seen: Json = orjson.loads(document)
    return seen
