"""What a website may make a reader's browser do at our ports: nothing, unless the operator says so (spec HTTP-15).

A browser sends what any page tells it to, from inside: to loopback, and past whatever guards the network. It says whose
page that is by `Origin` and `Sec-Fetch-Site`, which no script can leave out or change. A page whose name was moved to
our address after it was loaded (DNS rebinding) is of our own origin by both, but its name is in `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from config.settings import Settings, is_loopback
from proxy.downstream.strays import Stray
from translators import faults

SEC_FETCH_SITE: Final = "Sec-Fetch-Site"
# Of our own page, or typed into the address line.
OWN_SITES: Final = frozenset({"same-origin", "none"})
OPEN_DOORS: Final = frozenset({"any", "none"})

PAGE_HINT: Final = "a web page's call: where no key is asked for, its origin is let in by --cors-origin alone"
NAME_HINT: Final = "this port is asked by a name that may be anybody's: --trusted-host lets it in"

# What a page of a named origin may send and read; a browser asks first, and asks again after so long.
# Names, which are tokens (RFC 9110, section 5.6.2), and what stands between them; as many as a head can hold.
ASKED_HEADERS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]+")
PREFLIGHT_S: Final = 600
SHOWN_HEADERS: Final = "X-Request-Id, Retry-After, X-Should-Retry, Server-Timing"
EVERY: Final = "*"
UNSHARED: Final[Mapping[str, str]] = {}

# Headers of a request, names that are ours beside addresses -> what the operator should know; None: let in.
Rule = Callable[[Mapping[str, str], Collection[str]], str | None]


@dataclass(frozen=True, slots=True)
class Browsers:
    """What browsers may do at one port.

    rule:    which requests are refused
    origins: whose pages may make calls and read the answers; in lower case, as `Origin` says them; `*`: everybody's
    hosts:   names that are ours, beside addresses and `localhost`
    """

    rule: Rule
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()

    @property
    def refuses(self) -> bool:
        """Whether there is anything to refuse, and so to check."""
        return self.rule is not nothing

    def check(self, request: web.BaseRequest) -> None:
        """Raises `Stray` for what a website may not make a browser send."""
        if self._is_named(request):
            return
        hint = self.rule(request.headers, self.hosts)
        if hint is not None:
            raise Stray(faults.ACCESS_DENIED, hint)

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a browser that asks whether a page of a named origin may call; None where none asks."""
        asks = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if not (asks and self._is_named(request)):
            return None
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST",
            hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_S),
        }
        asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
        if ASKED_HEADERS.fullmatch(asked):
            headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = asked
        return web.Response(status=204, headers=headers)

    def shared(self, request: web.BaseRequest) -> Mapping[str, str]:
        """What the head of an answer says, to let the page that asked read it."""
        if not self.origins:
            return UNSHARED
        if not self._is_named(request):
            return {hdrs.VARY: hdrs.ORIGIN}
        return {
            hdrs.VARY: hdrs.ORIGIN,
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: request.headers[hdrs.ORIGIN],
            hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: SHOWN_HEADERS,
        }

    def _is_named(self, request: web.BaseRequest) -> bool:
        if not self.origins or (origin := request.headers.get(hdrs.ORIGIN)) is None:
            return False
        return EVERY in self.origins or origin.lower() in self.origins


def at_calls(settings: Settings) -> Browsers:
    """At the data port: where no key of the caller's is judged, a website's call would be paid by us."""
    rule = foreign_page if settings.auth in OPEN_DOORS else nothing
    return Browsers(rule, frozenset(settings.cors_origin), frozenset(settings.trusted_host))


def at_admin(settings: Settings) -> Browsers:
    """At the admin port: on loopback no other name leads to it but by rebinding; elsewhere a platform names it."""
    rule = foreign_name if is_loopback(settings.admin_host) else nothing
    return Browsers(rule, hosts=frozenset(settings.trusted_host))


def nothing(_: Mapping[str, str], __: Collection[str]) -> str | None:
    """Refuse nothing."""
    return None


def foreign_page(headers: Mapping[str, str], hosts: Collection[str]) -> str | None:
    """Refuse what another's page sent. What names no page (every client but a browser) passes, whatever its `Host`."""
    origin, site = headers.get(hdrs.ORIGIN), headers.get(SEC_FETCH_SITE)
    if origin is None and site is None:
        return None
    host = headers.get(hdrs.HOST, "")
    if site is not None and site.strip().lower() not in OWN_SITES:
        return PAGE_HINT
    if origin is not None and not is_origin_of(origin, host):
        return PAGE_HINT
    return None if is_own_name(host, hosts) else NAME_HINT


def foreign_name(headers: Mapping[str, str], hosts: Collection[str]) -> str | None:
    """Refuse who asks by a name that may be anybody's: a GET from a page of a moved name carries no `Origin`."""
    host = headers.get(hdrs.HOST)
    # HTTP/1.0 may leave it out; no browser does.
    return None if host is None or is_own_name(host, hosts) else NAME_HINT


def is_origin_of(origin: str, host: str) -> bool:
    """Whether a page's origin is what `Host` names; its scheme is an ingress's matter."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # half an address of version 6
        return False


def is_own_name(host: str, hosts: Collection[str] = ()) -> bool:
    """Whether a `Host` is no name that an attacker can own: an address, `localhost`, or one of these."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an address of version 6
        return False
    return name == "localhost" or name in hosts or _is_address(name)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
