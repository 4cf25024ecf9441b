"""All that `dashseek conform` asks of a gateway, as lines: tests/golden/conform/ holds them as they were last read.

It goes to somebody else's gateway and costs money there, so no line changes by accident. Where a change is meant,
`python -m tests.proxy.protocol.asked` writes the files anew, and their difference is read before it is committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_args

import orjson

from proxy.protocol import tables
from proxy.protocol.asks import Api, Ask, Target
from proxy.protocol.conformance import Check, checks
from tests.mirrors import ROOT

# One name for all, so that what is asked of several is one line.
NAME: Final = "our-model"
FOLDER: Final = ROOT / "tests" / "golden" / "conform"
APIS: Final[tuple[Api, ...]] = get_args(Api)


def path(api: Api) -> Path:
    """The file of one of the tongues."""
    return FOLDER / f"{api}.jsonl"


def targets(api: Api) -> dict[str, Target]:
    """One of each kind, by what distinguishes it: how it thinks, a route that names it, or that it is not known."""
    rows = {
        row.thinking: row for row in tables.shipped().rows if row.id in ("deepseek-v3", "deepseek-v3.2", "deepseek-r1")
    }
    kinds = {thinking: Target(NAME, row, api=api) for thinking, row in rows.items()}
    return {**kinds, "unknown": Target(NAME, api=api), "routed": Target(NAME, rows["never"], routed=True, api=api)}


def written(api: Api) -> str:
    """Every check and, before the first that needs it, every request, a line each with the targets it is for."""
    found: defaultdict[bytes, list[str]] = defaultdict(list)
    for name, target in targets(api).items():
        for line in _lines(checks(target)):
            found[line].append(name)
    return "".join(f"{','.join(names)} {line.decode()}\n" for line, names in found.items())


def _lines(listed: tuple[Check, ...]) -> Iterator[bytes]:
    asked = set[str]()
    for check in listed:
        for ask in check.asks:
            if ask.name not in asked:
                asked.add(ask.name)
                yield orjson.dumps(_request(ask))
        yield orjson.dumps(
            {
                "check": check.name,
                "group": check.group,
                "rule": check.rule,
                "weight": check.weight,
                "claim": check.claim,
                "asks": [ask.name for ask in check.asks],
                "chance": check.chance,
            }
        )


def _request(ask: Ask) -> dict[str, Any]:
    said = asdict(ask)
    return {"ask": said.pop("name"), **said, "call": ask.call.decode() if isinstance(ask.call, bytes) else ask.call}


def main() -> None:
    """Write both files anew."""
    for api in APIS:
        path(api).write_text(written(api), "utf-8")


if __name__ == "__main__":
    main()
