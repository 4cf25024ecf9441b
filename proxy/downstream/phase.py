"""Where the process stands between its first call and its last, as both doors and the platform read it (spec OPS-2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from aiohttp import web


class Phase(IntEnum):
    """The phases of a process, in the order it passes them; none is entered twice.

    SERVING:  connections are accepted and calls are served
    DRAINING: the same, but `/readyz` says no: whoever asks sends callers elsewhere
    LEAVING:  no connection is accepted; one that is there ends with its present answer, and one that has brought no
              call yet may bring its first
    CUTTING:  what is open is ended, and nothing is begun
    """

    SERVING = 0
    DRAINING = 1
    LEAVING = 2
    CUTTING = 3


SERVING, DRAINING, LEAVING, CUTTING = Phase  # as names of the module, as in `upstream.line`


@dataclass(slots=True)
class Lifecycle:
    """The phase of this process; `server.lifecycle` alone sets it."""

    phase: Phase = SERVING


LIFECYCLE: Final = web.AppKey("lifecycle", Lifecycle)
