"""How a command ended, as a number for scripts and service managers; the same for every command."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """The number a process ends with; see `MEANINGS`."""

    OK = 0
    NO = 1
    CONFIGURATION = 2  # as click says of a flag that does not exist
    PORT_IN_USE = 3
    UPSTREAM_REFUSED = 4
    INTERRUPTED = 130  # as shells say of SIGINT


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.OK: "done; of serve: ended by a signal",
    Exit.NO: "done, and the answer is no: a wrong journal, a call that is refused",
    Exit.CONFIGURATION: "wrong flags or settings, or an installation that cannot run",
    Exit.PORT_IN_USE: "the port is in use",
    Exit.UPSTREAM_REFUSED: "the upstream cannot be reached, or refuses",
    Exit.INTERRUPTED: "interrupted (Ctrl-C), and not done",
}
