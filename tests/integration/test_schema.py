"""The OpenAPI document, held against the real process by schemathesis: calls that keep it, and calls that break it."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.admission import keyring
from proxy.protocol import documents
from tests import caller, needs
from tests.conftest import StartServe, StartSimulator

HOME = Path(__file__).parent
TOOL = needs.CLIENTS / "schemathesis" / "bin" / "st"
# It would fill each list up to its bound, again and again; `test_bad_calls` does so once.
MOST_ITEMS = 64
# The number of examples bounds it, not the time, which is that of a core: half a minute if it is our own.
MOST_S = 300.0
# The protocol answers another method with 400, and refuses some valid calls: `declared.py` knows which.
REPLACED = "positive_data_acceptance,unsupported_method,allow_header_conformance"

pytestmark = pytest.mark.timeout(MOST_S + 30)
needs_tool = needs.clients("schemathesis")


def bounded(schema: Any) -> Any:
    """The schema without bounds that only cost time."""
    if isinstance(schema, list):
        return [bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: bounded(value) for name, value in schema.items() if not (name == "maxItems" and value > MOST_ITEMS)}


async def check(directory: Path, url: str, paths: str, *options: str) -> str:
    """What schemathesis has to say; an assertion that it has found nothing."""
    document = bounded(orjson.loads((documents.HOME / documents.OPENAPI).read_bytes()))
    (directory / "openapi.json").write_bytes(orjson.dumps(document))
    # Left to itself it hangs up after twenty frames.
    (directory / "schemathesis.toml").write_text("max-stream-events = 65536\n")
    words = [str(TOOL), "run", "openapi.json", "--url", url, "--include-path-regex", paths]
    limits = ["--phases", "examples,coverage,fuzzing", "--seed", "1", "--generation-database", "none", "--no-color"]
    run = await asyncio.create_subprocess_exec(
        *words,
        *limits,
        *options,
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOME / "clients" / "declared.py"), "COLUMNS": "120"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(run.communicate(), MOST_S)
    finally:
        if run.returncode is None:
            run.kill()
    said = out.decode()
    assert run.returncode == 0, said
    return said


@needs_tool
async def test_the_data_port_does_what_its_document_says(
    serve: StartServe, simulator: StartSimulator, tmp_path: Path
) -> None:
    """HTTP-4, HTTP-6, HTTP-10, REQ-1…REQ-8, PAR-1…PAR-19, OUT-1, ERR-1, ERR-2, HTTP-12, COM-1…COM-30."""
    (tmp_path / "keys.toml").write_text(keyring.entry("schemathesis", caller.KEY))
    upstream = await simulator()
    served = await serve(upstream.url, "--keys-file", "keys.toml", env={"DASHSEEK_UPSTREAM_API_KEY": "sk-operator"})
    said = await check(
        tmp_path,
        served.url,
        # The multimodal path takes the same calls for other models: it is met in test_images.py.
        r"^/(api/v1/(services/aigc/text|models|tokenizer)|\{partner|healthz|compatible-mode/|v1/)",
        *("--header", f"Authorization: Bearer {caller.KEY}", "--exclude-checks", REPLACED, "--max-examples", "80"),
    )
    assert re.search(r"Tested: 11\b", said), said
    # Enough of what was made up to keep the schema was let through for its answers to mean something.
    assert len(upstream.calls) > 100


@needs_tool
async def test_so_does_the_admin_port(serve: StartServe, simulator: StartSimulator, tmp_path: Path) -> None:
    """OPS-1."""
    served = await serve((await simulator()).url)
    options = ("--exclude-checks", "unsupported_method,allow_header_conformance", "--max-examples", "10")
    said = await check(tmp_path, served.admin_url, r"^/(readyz|metrics|docs|openapi)", *options)
    assert re.search(r"Tested: 5\b", said), said
