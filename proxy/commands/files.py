"""What `serve` needs of the file system, judged before it is needed: the journal's place, and a directory for sockets.

`check` and `doctor` say it, and `serve` before it begins; of the prices file `check` and `serve` say what stands in it
too. Nothing is made here that was not there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from config.settings import Settings, SettingsError
from proxy.call import budgets
from proxy.metering.append_file import DASH, ROOM_BYTES


def complaints(settings: Settings) -> list[str]:
    """What is wrong, a line each: the setting, where it was said, what mends it."""
    found = {"journal_file": journal(settings.journal_file), "workers": sockets(settings.workers)}
    wrongs = [f"{name} ({settings.origins.get(name, 'default')}): {wrong}" for name, wrong in found.items() if wrong]
    try:
        budgets.prices_of(settings)
    except SettingsError as error:
        wrongs += error.lines
    return wrongs


def journal(path: Path | None) -> str | None:
    """Why the books cannot be kept there; None if they can."""
    if path is None or path == DASH:
        return None
    if path.exists() and not path.is_file():
        return "is no file but a pipe, a terminal or a device: name a file, or say - for standard output"
    # A file that is not there yet is not to be made by somebody who only looks.
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return "cannot be written by this user: let it, or name a file in a directory of its own"
    if shutil.disk_usage(path.parent).free < ROOM_BYTES:
        return "is on a disk that is full: make room"
    return None


def sockets(workers: int) -> str | None:
    """Why several processes could not speak to each other; None if they could."""
    if workers == 1:
        return None
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return "need a directory for their sockets, and none can be written: mount one at /tmp, or name one in TMPDIR"
    return None
