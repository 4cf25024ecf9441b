"""The state of the process in datagrams to the service manager: ready, stopping, watchdog.

systemd names a socket to the services of `Type=notify`; where none is named, nothing is said. Source: sd_notify(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket


def say(state: str) -> None:
    """Send one state, such as `READY=1`; a manager who does not listen changes nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        # Nor does a process that has no file left for the socket: it is busy, and not to be killed for that.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            # An abstract socket is written with an at sign for the zero byte its name begins with.
            connection.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


def watchdog_s() -> float | None:
    """Seconds between two keep-alives, half of `WatchdogSec=`; None where no watchdog was asked for."""
    every_us = int(os.environ.get("WATCHDOG_USEC") or 0)
    return every_us / 2e6 if every_us else None


def turn() -> None:
    """Send the watchdog's keep-alive (`WATCHDOG=1`)."""
    say("WATCHDOG=1")


async def turning() -> None:
    """Send it from the event loop, until cancelled."""
    every_s = watchdog_s()
    while every_s is not None:
        turn()
        await asyncio.sleep(every_s)
