"""A call's moment into the hour, day and month of somebody's zone: what a report is by, and from when to when.

Journals say UTC. A day of a ledger is a day of its zone, and eight hours of each month lie in another one in Beijing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Grain = Literal["hour", "day", "month"]

# How many signs of an hour's label name its month and its day. The label ends with the offset from UTC, for where the
# clocks are set back an hour comes twice.
LENGTHS: Final[Mapping[str, int | None]] = {"month": 7, "day": 10, "hour": None}
OFFSET: Final = re.compile(r"([+-])([01]\d|2[0-3]):([0-5]\d)")
MONTH: Final = re.compile(r"\d{4}-\d{2}")
# The machine's own zone: a link into the tables of all zones.
LOCALTIME: Final = Path("/etc/localtime")
TABLES: Final = "zoneinfo/"
# So many signs of `at` are the moment to the hour, and to the minute.
HOUR: Final = len("2026-11-28T12")
MINUTE: Final = len("2026-11-28T12:00")
# Before and behind every `at`.
FIRST: Final = ""
LAST: Final = "~"


class PeriodError(Exception):
    """A zone or a moment that means nothing; a sentence for whoever typed it."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when calls are read, and in which zone their days are.

    zone:  of the hours, days and months
    grain: the finest of them that is told apart
    since: the first moment that counts, as `at` says it
    until: the first that does not count any more
    """

    zone: tzinfo = UTC
    grain: Grain = "day"
    since: str = FIRST
    until: str = LAST

    def label(self, at: str) -> str:
        """The period a moment lies in: `2026-11`, `2026-11-28` or `2026-11-28T20+08:00`."""
        local = moment(at).astimezone(self.zone)
        if self.grain == "hour":
            said = local.isoformat()
            return f"{said[:13]}{said[19:]}"
        return local.date().isoformat()[: LENGTHS[self.grain]]


def moment(at: str) -> datetime:
    """What `at` says, to the minute."""
    return datetime.fromisoformat(f"{at[:MINUTE]}+00:00")


def zone_of(name: str) -> tzinfo:
    """`Asia/Shanghai`, `UTC` or `+08:00`; raises `PeriodError`."""
    if offset := OFFSET.fullmatch(name):
        distance = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-distance if offset[1] == "-" else distance)
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PeriodError(
            f"{name}: no such zone here; say it as Asia/Shanghai (the system's tzdata must be there) or as +08:00"
        ) from None


def name_of(zone: tzinfo) -> str:
    """A zone as `zone_of` reads it."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    return str(zone).removeprefix("UTC") or "UTC"


def machine_zone(environment: Mapping[str, str] = os.environ, localtime: Path = LOCALTIME) -> tzinfo:
    """The zone of this machine: `TZ`, else what /etc/localtime is a link to, else UTC. Raises `PeriodError`.

    `TZ` may be the path of a table instead of a name (POSIX).
    """
    if (said := environment.get("TZ", "").removeprefix(":")) and not said.startswith("/"):
        return zone_of(said)
    _, found, name = str(Path(said or localtime).resolve()).rpartition(TABLES)
    if said and not found:
        raise PeriodError(f"TZ={said}: no table of a zone ({TABLES}…)")
    return zone_of(name) if found and name not in {"UTC", "Etc/UTC"} else UTC


def span_of(zone: tzinfo, grain: Grain, since: str | None, until: str | None) -> Span:
    """The span between two moments as `at_of` reads them; raises `PeriodError`, also where the second is earlier."""
    first, last = at_of(since, zone) if since else FIRST, at_of(until, zone) if until else LAST
    if first > last:
        raise PeriodError(f"nothing lies from {since} until {until}, which is earlier")
    return Span(zone, grain, first, last)


def at_of(text: str, zone: tzinfo) -> str:
    """The moment at which a month, a day or a time begins, as `at` says it; raises `PeriodError`.

    text: `2026-11`, `2026-11-28` or `2026-11-28T20:00`, in `zone` where it has no offset of its own
    """
    try:
        begun = datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
        return _written(begun if begun.tzinfo else begun.replace(tzinfo=zone))
    except (ValueError, OverflowError):
        raise PeriodError(f"{text}: no time; say 2026-11, 2026-11-28 or 2026-11-28T20:00") from None


def _written(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
