"""The pools of one configuration: which target a call goes to, its tries one after the other, and what is kept fresh.

Another try is made only before upstream can have worked: no connection; one that had served before and died before any
byte; a status that the operator has named; our own key refused, where its file holds another by now.

Source: spec ERR-4, OPS-3.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from config import values
from config.file_version import version_if_there
from config.pools import Pool
from config.settings import Settings
from proxy.upstream import balancer, client
from proxy.upstream.client import Post
from proxy.upstream.connections import Connections
from proxy.upstream.health import WELL, Event, State
from proxy.upstream.names import DNS_PREFIX, Names, is_name
from proxy.upstream.reasons import reason_of
from proxy.upstream.response import OK, Response, Result, Slow, Unreachable, UpstreamFailure
from proxy.upstream.targets import Attempt, Standing, Target
from translators import faults

log = structlog.get_logger()

# A name is asked for its addresses so often.
ADDRESSES_EVERY_S: Final = 10.0
# Files of keys and certificates are looked at so often.
FILES_EVERY_S: Final = 1.0
# What an answer to a check says, by what the same would say to a call: never that calls are served.
CHECKED: Final[Mapping[Event, Event]] = {
    Event.ANSWERED: Event.PROBED,
    Event.FAILED: Event.AILING,
    Event.REFUSED: Event.LOST,
}
# Checks are spread by so much of their interval, or all replicas would come at once.
JITTER: Final = 0.2
# Who finds nothing free may come back after so long.
RETRY_S: Final = "1"

MODELS: Final = "/models"
# The last error of a target that did not take our key.
KEY_REFUSED: Final = str(HTTPStatus.UNAUTHORIZED.value)
# What is written for a pool: its own dialect, its own names, its own key.
Rewrite = Callable[[Pool], Awaitable[Post]]


class Lease:
    """A place among the calls on their way to one target, until it is released.

    target:    the one that is asked now
    attempt:   the newest try; None before the first
    is_judged: whether what came of it is known, and noted; a 200 is only the beginning of an answer
    """

    __slots__ = ("_is_retry", "_is_trial", "_key", "_model", "_only", "_upstreams", "attempt", "is_judged", "target")

    def __init__(self, upstreams: Upstreams, model: str, key: int | None, only: Pool | None) -> None:
        self._upstreams = upstreams
        self._model = model
        self._key = key
        self._only = only
        self._is_retry = False
        self._is_trial = False
        self.target: Target | None = None
        self.attempt: Attempt | None = None
        self.is_judged = False

    @property
    def pool(self) -> Pool:
        """The pool of the target."""
        assert self.target is not None  # noqa: S101 - for the type checker: it is not released
        return self.target.pool

    def stay(self) -> None:
        """From now on no other pool: what is on its way is written for this one."""
        self._only = self.pool

    def another(self) -> Lease:
        """A place for one more upstream call of the same call, in the same pool; raises `Refusal`."""
        return self._upstreams.lease(self._model, key=self._key, only=self.pool)

    def answered(self, first_token_s: float | None = None) -> None:
        """Something of an answer has come; what becomes of the rest of it says nothing of the target.

        first_token_s: how long that took, where it was a packet
        """
        if self.is_judged or self.target is None:
            return
        self.is_judged = True
        if first_token_s is not None:
            self.target.standing.took(first_token_s)
        if not self.target.standing.health.is_spotless():
            self._note(Event.ANSWERED)

    def failed(self, word: str) -> None:
        """Upstream has failed, or has been silent for too long, before anything of its answer had come.

        word: what records call it
        """
        if self.is_judged or self.target is None:
            return
        self.is_judged = True
        self.target.standing.last_error = word
        self._note(Event.FAILED)

    def release(self) -> None:
        """The call has ended; idempotent."""
        if self.target is not None:
            if self._is_trial and self.target.standing.health.state is State.TRIAL:
                self._note(Event.LEFT)
            self.target.standing.in_flight -= 1
            self._upstreams.in_flight -= 1
            self._upstreams.retries -= self._is_retry
            self.target = None

    def choose(self, tried: Sequence[Target] = (), only: Pool | None = None) -> Target | None:
        """The target that this call goes to, or would go to next; None where none is free."""
        upstreams = self._upstreams
        targets = upstreams.serving(self._model, only or self._only)
        return balancer.choose(targets, upstreams.now_s(), upstreams.random, key=self._key, tried=tried)

    def take(self, target: Target, *, retry: bool = False) -> None:
        """Go to this target, and leave the one before."""
        upstreams = self._upstreams
        if self.target is None:
            upstreams.in_flight += 1
        else:
            if self._is_trial and self.target.standing.health.state is State.TRIAL:
                self._note(Event.LEFT)
            self.target.standing.in_flight -= 1
        if retry and not self._is_retry:
            self._is_retry = True
            upstreams.retries += 1
        self.target = target
        standing = target.standing
        standing.in_flight += 1
        self._is_trial = standing.health.state is not WELL and standing.health.send(upstreams.now_s())

    def _note(self, event: Event) -> None:
        if self.target is not None:
            self._upstreams.note(self.target, event)


class Upstreams:
    """The pools of one configuration.

    settings:    as the operator said them
    connections: of the process
    standings:   of the process, by pool and URL: a target that is still there after a reload stands as it stood
    addresses:   of each name, as far as they are known
    now_s:       the clock that health goes by; random: what two targets are picked by
    in_flight:   upstream calls that are on their way; retries: those of them that are not the first try
    pools:       those in force
    unsaid:      keys of ours, and the hosts: what no caller is told in upstream's words (spec ERR-3)
    """

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        standings: dict[tuple[str, str], Standing],
        *,
        addresses: Mapping[str, Sequence[str]] = {},
        now_s: Callable[[], float] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.connections = connections
        self.standings = standings
        self.pools = settings.pools_in_force
        self.now_s = now_s or asyncio.get_running_loop().time
        self.random = chance
        self.in_flight = 0
        self.retries = 0
        self._max_attempts = settings.max_attempts
        self._failover_on = frozenset(settings.failover_on)
        # Whose key goes along, or lacks: a 401 is then for us to mend, and no caller's.
        self._is_ours = settings.auth != "passthrough"
        self._keys = {pool.name: pool.api_key.get_secret_value() if pool.api_key else None for pool in self.pools}
        self._connect_s = {pool.name: pool.connect_timeout or settings.connect_timeout for pool in self.pools}
        self._versions = {path: version_if_there(path) for path in self._files()}
        self._trusts: dict[str, ssl.SSLContext] = {}
        self._names = Names((url for pool in self.pools for url in pool.urls), addresses)
        self.addresses = self._names.addresses
        self._tasks: list[asyncio.Task[None]] = []
        self._serving: dict[tuple[str, str | None], Sequence[Target]] = {}
        self._targets: Sequence[Target] = ()
        self.unsaid: tuple[str, ...] = ()
        self._lay_out()

    # What a call does

    def lease(self, model: str, *, key: int | None = None, only: Pool | None = None) -> Lease:
        """A place for a call to this model; raises `Refusal` where nothing is free.

        key:  what binds it to a target, where that is asked for
        only: the pool it must stay in
        """
        lease = Lease(self, model, key, only)
        target = lease.choose()
        if target is None:
            if any(one.pool.serves(model) for one in self._targets):
                raise faults.Refusal(faults.OVERLOADED.after(RETRY_S), "every upstream has max_in_flight calls")
            raise faults.Refusal(faults.UNAVAILABLE, "no upstream serves this model, or its name has no address")
        lease.take(target)
        return lease

    async def post(self, lease: Lease, post: Post, rewrite: Rewrite, attempts: list[Attempt]) -> Response:
        """The response to one POST, its head read and its body not; see the module for when it is tried again.

        rewrite: the same for another pool
        Raises `UpstreamFailure` where no target answered. Whoever reads an answer says by the lease what came of it.
        """
        tried: list[Target] = []
        while True:
            target = lease.target
            assert target is not None  # noqa: S101 - for the type checker: whoever asks has a place
            pool = target.pool
            lease.attempt = attempt = Attempt(target.url, pool.name, target.label, bool(tried))
            lease.is_judged = False
            attempts.append(attempt)
            tried.append(target)
            standing = target.standing
            standing.calls += 1
            try:
                response = await client.ask(
                    self.connections, target, post, attempt, connect_s=self._connect_s[pool.name], anew=attempt.retry
                )
            except UpstreamFailure as failure:
                lease.is_judged = True
                is_stale = attempt.reused and attempt.unserved
                if not is_stale:
                    standing.last_error = failure.result.value
                    unreached = isinstance(failure, Unreachable | Slow)
                    self.note(target, Event.LOST if unreached else Event.FAILED)
                following = None if len(tried) >= self._max_attempts else self._after(failure, lease, tried, is_stale)
                if following is None:
                    raise
            else:
                status = response.status
                if status == OK:
                    return response
                lease.is_judged = True
                following = self._after_status(status, post.key, lease, tried)
                if following is None:
                    return response
                response.close()
            if following.pool is not pool or attempt.status == HTTPStatus.UNAUTHORIZED:
                post = await rewrite(following.pool)
            lease.take(following, retry=True)

    def key_of(self, pool: Pool) -> str | None:
        """Our own key there; None where we have none."""
        return self._keys[pool.name]

    def _after(self, failure: UpstreamFailure, lease: Lease, tried: list[Target], is_stale: bool) -> Target | None:
        """Where to try again after no answer came; None where upstream may have worked, or nothing can get better."""
        here = tried[-1]
        if is_stale:
            # It takes calls: what has died is a connection. No budget: nothing was asked of it twice.
            return lease.choose(tried, here.pool) or here
        if isinstance(failure, Slow):
            if not balancer.may_retry(self.retries, self.in_flight):
                return None
        elif not isinstance(failure, Unreachable):
            return None
        # A second wait of the same length for the same target helps nobody.
        return lease.choose(tried) or (None if isinstance(failure, Slow) else here)

    def _after_status(self, status: int, key: str | None, lease: Lease, tried: list[Target]) -> Target | None:
        """Note what a status says of its target, and where to try again; None where it is the caller's to see.

        key: what it was asked with
        """
        here = tried[-1]
        can_retry = len(tried) < self._max_attempts
        event = self._event_of(status)
        if event is Event.REFUSED:
            self._look_at_key(here.pool)
            if key != self._keys[here.pool.name]:
                # Another one by now: what was refused says nothing of it. No budget: nothing was done with the old.
                return here if can_retry else None
        if event is not Event.ANSWERED:
            here.standing.last_error = str(status)
        self.note(here, event)
        can_retry = can_retry and balancer.may_retry(self.retries, self.in_flight)
        return lease.choose(tried) if can_retry and status in self._failover_on else None

    def _event_of(self, status: int) -> Event:
        """What the status of an answer says of its target."""
        if status == HTTPStatus.UNAUTHORIZED and self._is_ours:
            return Event.REFUSED
        return Event.FAILED if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Event.ANSWERED

    def note(self, target: Target, event: Event) -> None:
        """Take what was found out about a target."""
        health = target.standing.health
        before = health.state
        health.note(event, self.now_s())
        if health.state is not before and len(self._targets) > 1:
            pool, url = target.pool.name, target.url
            if health.state is State.OUT:
                log.warning("target_out", pool=pool, target=url, reason=target.standing.last_error, for_s=health.out_s)
            elif health.state is State.WELL:
                log.info("target_well", pool=pool, target=url)

    # What is there

    def serving(self, model: str, only: Pool | None = None) -> Sequence[Target]:
        """The targets that serve a model, by priority; those of one pool where that is said."""
        place = (model, None if only is None else only.name)
        found = self._serving.get(place)
        if found is None:
            found = self._serving[place] = [
                one for one in self._targets if one.pool.serves(model) and (only is None or one.pool is only)
            ]
        return found

    @property
    def targets(self) -> Sequence[Target]:
        """All of them, by priority."""
        return self._targets

    def nowhere(self) -> Iterator[tuple[Pool, str]]:
        """The names that have no address, each with its pool."""
        for pool in self.pools:
            for label in pool.urls:
                if is_name(label) and not self.addresses.get(label):
                    yield pool, label

    def _lay_out(self) -> None:
        """Make the targets of what is configured and of the addresses that are known."""
        made = [
            Target(pool, url, label, place, self.standings.setdefault((pool.name, url), Standing()))
            for pool in self.pools
            for label in pool.urls
            for url, place in self._names.places(label, _trust_name(pool))
        ]
        self._targets = sorted(made, key=lambda target: target.pool.priority)
        self._serving.clear()
        places = (urlsplit(url) for target in made for url in (target.url, target.label.removeprefix(DNS_PREFIX)))
        hosts = (host for place in places for host in (place.netloc, place.hostname))
        self.unsaid = tuple(dict.fromkeys(filter(None, (*self._keys.values(), *hosts))))

    # What is kept fresh

    async def prepare(self) -> None:
        """Read certificates and look names up; raises `OSError` where a file of certificates cannot be read."""
        loop = asyncio.get_running_loop()
        for pool in self.pools:
            name = _trust_name(pool)
            # Made where it is needed: reading the system's certificates takes a moment of every start.
            if name not in self._trusts and any("https:" in url.lower() for url in pool.urls):
                self._trusts[name] = await loop.run_in_executor(None, client.trust_of, pool.ca_file)
        if await self._names.look_up():
            self._lay_out()

    def begin(self) -> None:
        """Believe those certificates from now on, and keep fresh what can change."""
        self.connections.keepalive_s = self.settings.upstream_keepalive_timeout
        for name, trust in self._trusts.items():
            self.connections.believe(name, trust)
        self._forget()
        self._let_try(self._targets)
        if self._names.labels:
            self._tasks.append(asyncio.create_task(self._follow_names()))
        if self._versions:
            self._tasks.append(asyncio.create_task(self._follow_files()))
        if self.settings.health_interval is not None:
            self._tasks.append(asyncio.create_task(self._check_in_turn(self.settings.health_interval)))

    def _forget(self) -> None:
        """Let go of targets that are gone, but for those that still have calls on their way."""
        self.connections.keep({target.place for target in self._targets})
        here = {(target.pool.name, target.url) for target in self._targets}
        for place in [one for one, standing in self.standings.items() if one not in here and not standing.in_flight]:
            del self.standings[place]

    def end(self) -> None:
        """Keep nothing fresh any more; calls that are on their way go on."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def _follow_names(self) -> None:
        while True:
            await asyncio.sleep(ADDRESSES_EVERY_S)
            if await self._names.look_up():
                self._lay_out()
            # Of pods that come and go each has another address.
            self._forget()

    async def _follow_files(self) -> None:
        """Take a key, or certificates, from a file that has changed; what cannot be used leaves the old in force."""
        while True:
            await asyncio.sleep(FILES_EVERY_S)
            for path, version in self._versions.items():
                now = version_if_there(path)
                if now is not None and now != version:
                    self._versions[path] = now
                    await self._read_again(path)

    async def _read_again(self, path: Path) -> None:
        for pool in self.pools:
            if pool.api_key_file == path:
                self._look_at_key(pool)
            if pool.ca_file == path and _trust_name(pool) in self._trusts:
                try:
                    trust = await asyncio.get_running_loop().run_in_executor(None, client.trust_of, path)
                except OSError as error:
                    log.error("certificates_kept", pool=pool.name, reason=str(reason_of(error)))
                else:
                    self._trusts[_trust_name(pool)] = trust
                    self.connections.believe(_trust_name(pool), trust)
                    log.info("certificates_read", pool=pool.name)

    def _let_try(self, targets: Iterable[Target]) -> None:
        """Let those that are out for a key be tried at once: by now it is another one, or may be."""
        for target in targets:
            if target.standing.last_error == KEY_REFUSED:
                target.standing.health.let_try(self.now_s())

    def _look_at_key(self, pool: Pool) -> None:
        """Read the key of a pool anew, where a file holds it."""
        if pool.api_key_file is None:
            return
        try:
            key = values.key_of(pool.api_key_file).get_secret_value()
        except (OSError, ValueError):
            log.error("upstream_key_kept", pool=pool.name, reason="its file cannot be read, or holds no key")
            return
        if key == self._keys[pool.name]:
            return
        self._keys[pool.name] = key
        self.unsaid = (*self.unsaid, key)
        log.info("upstream_key_read", pool=pool.name)
        self._let_try(target for target in self._targets if target.pool is pool)

    async def _check_in_turn(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(spread(interval_s, self.random()))
            await asyncio.gather(*map(self._check, self._targets))

    async def _check(self, target: Target) -> None:
        """Ask a target whether it is well; any answer that is no failure says that it can be reached."""
        place, path = target.place, self.settings.health_path
        if path is not None:
            place = place._replace(prefix="")
        key, connect_s = self._keys[target.pool.name], self._connect_s[target.pool.name]
        try:
            async with asyncio.timeout(2 * connect_s):
                status = await client.status_of(
                    self.connections, place, path or MODELS, key, connect_s=connect_s, headers=target.pool.headers
                )
        except (UpstreamFailure, TimeoutError) as error:
            target.standing.last_error = error.result.value if isinstance(error, UpstreamFailure) else Result.SLOW.value
            self.note(target, Event.LOST)
            return
        event = CHECKED[self._event_of(status)]
        if event is not Event.PROBED:
            target.standing.last_error = str(status)
        self.note(target, event)

    def _files(self) -> list[Path]:
        return [path for pool in self.pools for path in (pool.api_key_file, pool.ca_file) if path is not None]


async def started(settings: Settings) -> Upstreams:
    """The upstreams of a process as it starts, with its connections; to be ended, and their connections closed."""
    upstreams = Upstreams(settings, Connections(settings.upstream_keepalive_timeout), {})
    await upstreams.prepare()
    upstreams.begin()
    return upstreams


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Upstreams]:
    """The same, as long as the context lives."""
    upstreams = await started(settings)
    try:
        yield upstreams
    finally:
        upstreams.end()
        await closed(upstreams.connections)


async def closed(connections: Connections) -> None:
    """End every connection."""
    connections.close()
    # The sockets are closed in the loop's next turn.
    await asyncio.sleep(0)


def spread(interval_s: float, chance: float) -> float:
    """Seconds until the next check: the interval, a fifth less or more by a chance from 0 to 1."""
    return interval_s * (1 + JITTER * (2 * chance - 1))


def _trust_name(pool: Pool) -> str:
    return "" if pool.ca_file is None else str(pool.ca_file)
