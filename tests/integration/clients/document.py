"""Calls on standard input into one document of what their user saw of them; the scripts of the clients share it.

    .clients/NAME/bin/python SCRIPT http://HOST:PORT/api/v1 < CALLS

CALLS:    {NAME: {"api": one of the script's, "arguments": as `Generation.call` takes them}}
document: {NAME: {"packets": […], "failure": null or {"kind", "text"}}}; packets in DashScope's form, a reply being one,
          or what the scripts of the compatible surface say (`answer`); a failure has a "code" and a "status" where the
          client tells them
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

Json = dict[str, Any]
Api = Callable[[Json], AsyncIterator[Json]]

BASE_URL = sys.argv[1]
# Of an exception, what the OpenAI SDK calls so.
TOLD: Mapping[str, str] = {"code": "code", "status": "status_code"}


class Failed(Exception):  # noqa: N818 - a state of the response
    """A client that does not raise has returned a response which says that the call failed."""

    def __init__(self, response: Json) -> None:
        super().__init__(*(response[name] for name in ("status_code", "code", "message", "request_id")))


def answer() -> Json:
    """What a user has seen of an answer on the compatible surface: filled as it comes.

    calls: name and arguments of each
    usage: prompt and completion
    """
    return {"text": "", "reasoning": "", "calls": [], "finish": None, "usage": None}


def write(apis: Mapping[str, Api]) -> None:
    """Make the calls one after the other, then print the document."""
    # Clients log every refusal as an error; here it is told in the document.
    logging.disable()
    print(json.dumps(asyncio.run(_see(apis, json.load(sys.stdin)))), flush=True)  # noqa: T201 - the document
    # What a client still does in threads of its own, such as telling its makers, is not waited for.
    os._exit(0)


async def _see(apis: Mapping[str, Api], calls: Mapping[str, Json]) -> Json:
    return {name: await _see_one(apis[call["api"]](call["arguments"])) for name, call in calls.items()}


async def _see_one(answer: AsyncIterator[Json]) -> Json:
    packets: list[Json] = []
    try:
        async for packet in answer:
            packets.append(packet)  # noqa: PERF401 - those before a failure are kept
    except Exception as error:  # noqa: BLE001 - whatever a client raises is what its user sees
        told = {name: getattr(error, of) for name, of in TOLD.items() if getattr(error, of, None) is not None}
        return {"packets": packets, "failure": {"kind": type(error).__name__, "text": str(error), **told}}
    return {"packets": packets, "failure": None}
