"""Base URLs whose host is a name of many addresses (`dns+http://…`) -> a place for each address that it has now.

A name that is not found keeps the addresses it had; that is said once, and once more when it is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import structlog

from config import values
from proxy.upstream.connections import Place, addresses_of, place_of
from proxy.upstream.reasons import reason_of

log = structlog.get_logger()

DNS_PREFIX: Final = f"{values.DNS}+"


def is_name(label: str) -> bool:
    """Whether a base URL, as configured, stands for all addresses of its host."""
    return label.startswith(DNS_PREFIX)


class Names:
    """The names among some base URLs.

    labels:    those URLs that are names, as configured
    addresses: of each, as far as they are known
    """

    def __init__(self, urls: Iterable[str], addresses: Mapping[str, Sequence[str]]) -> None:
        self.labels = tuple(dict.fromkeys(filter(is_name, urls)))
        self.addresses = dict(addresses)
        self._unfound: set[str] = set()

    async def look_up(self) -> bool:
        """Ask for the addresses of each name, in a thread; whether one has others than before."""
        loop = asyncio.get_running_loop()
        changed = False
        for label in self.labels:
            place = place_of(label.removeprefix(DNS_PREFIX))
            try:
                found: Sequence[str] = await loop.run_in_executor(None, addresses_of, place)
            except OSError as error:
                if label not in self._unfound:
                    self._unfound.add(label)
                    kept = self.addresses.get(label, ())
                    log.warning("name_not_found", target=label, reason=str(reason_of(error)), addresses=kept)
                continue
            if label in self._unfound:
                self._unfound.discard(label)
                log.info("name_found", target=label)
            if found != self.addresses.get(label):
                self.addresses[label] = found
                changed = True
                log.info("addresses", target=label, addresses=found)
        return changed

    def places(self, label: str, trust: str) -> list[tuple[str, Place]]:
        """Where a base URL leads, with the URL of each: one place, or of a name one for each address."""
        url = label.removeprefix(DNS_PREFIX)
        place = place_of(url)._replace(trust=trust)
        if url == label:
            return [(url, place)]
        scheme = "https" if place.secure else "http"
        return [
            (
                f"{scheme}://{f'[{address}]' if ':' in address else address}:{place.port}{place.prefix}",
                place._replace(address=address),
            )
            for address in self.addresses.get(label, ())
        ]
