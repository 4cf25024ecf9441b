"""What a command may find around it: a server with answers of its own, a port just left, another distribution."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web


@contextlib.asynccontextmanager
async def serving(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server on loopback that answers so; its URL."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        yield site.name
    finally:
        await runner.cleanup()


def left_port() -> int:
    """A free port of which a connection is remembered: whoever closes first keeps it for a minute (TIME_WAIT)."""
    with socket.create_server(("127.0.0.1", 0)) as left:
        port: int = left.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as calling:
            called, _ = left.accept()
            called.close()
            assert calling.recv(1) == b""
    return port


def distribution(place: Path, name: str, **files: str) -> None:
    """One that is installed there, as far as these files of its metadata say."""
    home = place / f"{name}-1.0.dist-info"
    home.mkdir()
    (home / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for file, text in files.items():
        (home / file.replace("_txt", ".txt")).write_text(text)
