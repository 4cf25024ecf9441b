"""Changes that once went by unnoticed, which every run of `tests.mutants` makes again; and those that harm nobody."""

from __future__ import annotations

from typing import Final, NamedTuple

# The file, what stands in it once, and what it is changed to.
PICKED: Final[tuple[tuple[str, str, str], ...]] = (
    ("proxy/admission/redis_limiter.py", "        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)\n", ""),
    ("proxy/admission/redis_limiter.py", "RENEW_EVERY_S: Final = 20.0", "RENEW_EVERY_S: Final = 200.0"),
    (
        "proxy/admission/redis_limiter.py",
        "if string.sub(redis.call('GET', reservation) or '', 1, 6) == 'taken ' then",
        "if true then",
    ),
    ("proxy/call/prepare.py", "(call.max_tokens or call.model.answer_tokens)", "call.model.answer_tokens"),
    ("proxy/call/prepare.py", "call.thinking_budget or call.model.chain_tokens", "call.model.chain_tokens"),
    ("proxy/call/prepare.py", "(_chain(call) if call.thinking else 0)", "0"),
    (
        "proxy/call/prompt_count.py",
        "- model.chain_tokens - model.answer_tokens",
        "- model.chain_tokens + model.answer_tokens",
    ),
    ("proxy/call/prompt_count.py", "if self.tokens is None and self._future is None:", "if self.tokens is None:"),
    ("proxy/call/prompt_count.py", "await asyncio.shield(self._future)", "await self._future"),
    (
        "proxy/downstream/sinks.py",
        "            self._marks.append((self._written - len(wire), self._pipe.mark()))\n            self.settle()\n",
        "",
    ),
    (
        "proxy/downstream/sinks.py",
        "        if self._beat is not None:\n            self._beat.cancel()\n            self._beat = None\n",
        "",
    ),
    ("translators/terms.py", "dialect.repeats_prefix and last.partial", "(dialect.repeats_prefix or last.partial)"),
    ("translators/thinktags.py", r'text.lstrip("\n")', "text.lstrip()"),
    ("proxy/metering/totals.py", "or min(read) < 0:", "or max(read) < 0:"),
    ("proxy/call/forward.py", "pipe.refusal or pipe.was_cut(leg) or", "pipe.refusal or"),
    ("proxy/server/supervisor.py", "os.setpgid(0, 0)", "pass"),
    ("proxy/server/supervisor.py", "min(2 * child.wait_s, LONGEST_WAIT_S)", "min(child.wait_s, LONGEST_WAIT_S)"),
    ("proxy/server/board.py", "(OSError, TimeoutError, orjson.JSONDecodeError)", "(OSError, TimeoutError)"),
    ("proxy/server/supervisor.py", "        shutil.rmtree(self._directory, ignore_errors=True)\n", ""),
    ("proxy/downstream/connection.py", "UNSENT_BYTES: Final = 128 << 10", "UNSENT_BYTES: Final = 128 << 20"),
    ("proxy/upstream/pools.py", "        health.note(event, self.now_s())", "        pass"),
)


class Change(NamedTuple):
    """A change as a person names it: the file, the line it stands in, what stands there, and what would."""

    source: str
    line: str
    old: str
    new: str


# Changes that no test has to notice, each with its reason: after it the code does the same, or as well. They are
# sampled as all others are, and counted and printed apart.
HARMLESS: Final[dict[Change, str]] = {}
