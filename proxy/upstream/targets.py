"""The configured upstreams in the order they are tried, and the record of each try."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp

# What a pooled connection says that the server closed while we wrote. A POST sent into that has not been served.
STALE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)
UNREACHABLE = (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError)
# A target that could not be reached is tried after the others for so long: each call to it would lose its first try.
EJECTED_S = 10.0


@dataclass(slots=True)
class Attempt:
    """One try at one target, for the record of the call.

    reused: whether it went over a connection that had served before
    """

    target: str
    retry: bool = False
    reused: bool = False
    result: str = "open"
