"""The id of every request: its caller's where that is a well-formed UUID, else a new one (spec HTTP-6)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from aiohttp import web

UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
REQUEST_ID: Final = web.RequestKey("request_id", str)
# Made so many at once: the kernel is asked without the interpreter's lock, and a thread that counts a long prompt would
# have it for most of a millisecond, while a call has just begun.
IDS_AT_ONCE: Final = 64
_made: Final[list[str]] = []
# What is forked must not say the same ids.
os.register_at_fork(after_in_child=_made.clear)


def request_id(request: web.BaseRequest) -> str:
    """The caller's id where it is a well-formed UUID, else a new one, the same whenever asked (spec HTTP-6)."""
    try:
        return request[REQUEST_ID]
    except KeyError:
        return named(request)


def named(request: web.BaseRequest) -> str:
    """Give a request that has none yet its id."""
    given = request.headers.get("X-Request-Id")
    request[REQUEST_ID] = known_as = new_request_id(given.lower()) if given else new_request_id()
    return known_as


def new_request_id(given: str = "") -> str:
    """A caller's id where it is a well-formed UUID in lower case, else a new one: random, version 4 (RFC 9562)."""
    if given and UUID.fullmatch(given):
        return given
    if not _made:
        _made.extend(_ids(os.urandom(16 * IDS_AT_ONCE).hex()))
    return _made.pop()


def _ids(digits: str) -> Iterator[str]:
    """Random digits into ids. `uuid.uuid4` takes five times as long, 1 % of a small call."""
    for start in range(0, len(digits), 32):
        made = digits[start : start + 32]
        yield f"{made[:8]}-{made[8:12]}-4{made[13:16]}-{'89ab'[int(made[16], 16) & 3]}{made[17:20]}-{made[20:]}"
