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
_STRICT: Final = "Both have as many, by how they were made; it is said for whoever changes that."
_SPEED: Final = "Where one way takes over from another of the same result: found by measuring, not to be kept."
_WAY: Final = "A longer way to the same, or a shorter one: more work, or less, and no other result."
_UNREAD: Final = "Set anew before it is read: what a slot begins with."
_TIE: Final = "Of two that are equal either will do."
_EITHER: Final = "Just there one way does as well as the other: it is the same text, read by the loop or beside it."
_INSTANT: Final = "At the very instant, or a moment later."
_NO_TOTAL: Final = "A step's total, where nothing is counted: a job ends above its most, which is higher than any."
_NO_TOKENS: Final = "Of these limits none is of tokens, and none is told how many there were."

HARMLESS: Final[dict[Change, str]] = {
    Change(
        "proxy/telemetry/series.py",
        "series[labels] = [*values] if known is None else [*map(sum, zip(known, values, strict=True))]",
        "True",
        "(False)",
    ): _STRICT,
    Change(
        "proxy/telemetry/series.py",
        "row.across(part) for part in zip(*(series[labels] for series in found if labels in series), strict=True)",
        "True",
        "(False)",
    ): _STRICT,
    Change(
        "proxy/telemetry/series.py",
        "histogram.add_metric(labels, [*zip(bounds, accumulate(counts), strict=True)], total)",
        "True",
        "(False)",
    ): _STRICT,
    Change(
        "proxy/telemetry/metrics.py",
        'for attempt, (pool, target, retry) in zip(closing["attempts"], record.tries, strict=True):',
        "True",
        "(False)",
    ): _STRICT,
    **{
        Change(
            "proxy/telemetry/metrics.py",
            "*(record.opening is None, record.read_s is None, record.translate_s is None, last_ms is None),",
            f"{what} is None",
            f"({what} is not None)",
        ): "Either tells one kind of call from the other."
        for what in ("record.opening", "record.read_s", "record.translate_s", "last_ms")
    },
    Change(
        "proxy/admin/docs.py",
        "compatible.API: (compatible, paths.COMPATIBLE[0] + paths.COMPLETIONS),",
        "0",
        "(1)",
    ): "Below either root the same is served.",
    Change(
        "proxy/admin/translation.py",
        """there = f"there are {', '.join(pools)}" if any(pools) else "the configuration has none\"""",
        "any(pools)",
        "(all(pools))",
    ): "Pools have names, all of them, or there is but the one without.",
    Change(
        "proxy/admin/calls.py", "for start in range(0, max(1, len(changed)), SUMMARIES_AT_ONCE):", "1", "(2)"
    ): "Of none or one there is one event, for an event holds more than one.",
    Change(
        "proxy/admin/docs.py", "ssl=True if shown is None else tls.trusting(shown),", "True", "(False)"
    ): "Where no certificate is shown nothing is secured, and so nothing is to be believed.",
    Change(
        "proxy/admin/docs.py",
        "with OpenBodies(2 * most_bytes, most_bytes).hold() as held:  # its own, as packed and as unpacked",
        "2",
        "(3)",
    ): "Neither of the two may be longer than one: there is room for both.",
    **{
        Change("proxy/inspector/redaction.py", line, "True", "(False)"): _STRICT
        for line in (
            "for (holder, key, _), pair in zip(self._slots[side], pairwise(ends), strict=True):",
            'for call, events in zip(made["upstream"], self._calls, strict=True):',
            'for read, wire in zip(call["reads"], _recut(events, sizes), strict=True):',
            "for packet, events in zip(handed(made), self._packets, strict=True):",
        )
    },
    Change(
        "proxy/inspector/recorded.py",
        "for read, masked in zip(reads[-spanned:], before, strict=True):",
        "True",
        "(False)",
    ): _STRICT,
    Change(
        "translators/tokens.py",
        "if len(text) > 2 * _LONG_TAIL_CHARS and (end := self._vocabulary.settled(text)):",
        "2",
        "(3)",
    ): _SPEED,
    Change(
        "translators/tokens.py",
        "if len(text) > 2 * _LONG_TAIL_CHARS and (end := self._vocabulary.settled(text)):",
        "2 * _LONG_TAIL_CHARS",
        "(2 // _LONG_TAIL_CHARS)",
    ): _SPEED,
    Change("translators/tokens.py", "if len(more) > 2 * _LONGEST_TOKEN_BYTES:", "2", "(3)"): _SPEED,
    Change(
        "translators/tokens.py",
        "if len(more) > 2 * _LONGEST_TOKEN_BYTES:",
        "2 * _LONGEST_TOKEN_BYTES",
        "(2 // _LONGEST_TOKEN_BYTES)",
    ): _SPEED,
    Change(
        "translators/tokens.py",
        "if len(more) > 2 * _LONGEST_TOKEN_BYTES:",
        "len(more) > 2 * _LONGEST_TOKEN_BYTES",
        "(len(more) >= 2 * _LONGEST_TOKEN_BYTES)",
    ): _SPEED,
    Change("translators/tokens.py", "window_tokens *= 2", "2", "(3)"): _SPEED,
    Change("translators/tokens.py", "window_tokens, joined = len(lent.encode()) + 1, False", "1", "(2)"): _SPEED,
    Change(
        "translators/tokens.py",
        "window_tokens += sum(end < _LONGEST_TOKEN_BYTES for end in ends)",
        "end < _LONGEST_TOKEN_BYTES",
        "(end <= _LONGEST_TOKEN_BYTES)",
    ): _SPEED,
    Change(
        "translators/tokens.py",
        "window_tokens += sum(end < _LONGEST_TOKEN_BYTES for end in ends)",
        "window_tokens += sum(end < _LONGEST_TOKEN_BYTES for end in ends)",
        "pass",
    ): _SPEED,
    **{
        Change(f"translators/{source}", line, "True", "(False)"): _STRICT
        for source, line in (
            ("answer.py", "chains = _shares(chain, [*zip(chains, outputs, strict=True)])"),
            ("answer.py", "for meter, output, tokens in zip(meters, outputs, chains, strict=True):"),
            ("usage.py", "return [*zip(*self.think_run(texts), strict=True)]"),
            ("usage.py", "return [*zip(*self.answer_run(texts), strict=True)]"),
            ("dashscope/messages.py", "for message, position in zip(said[head + 1 : end], answered, strict=True):"),
            ("dashscope/packets.py", "for (content, reasoning), (made, chain) in zip(texts, said, strict=True):"),
            ("dashscope/packets.py", "for string, one in zip(strings, zip(made, chain, strict=True), strict=True):"),
            (
                "dashscope/packets.py",
                "parts[11::step] = [_WRITTEN[output - seen] for output, seen in zip(made, chain, strict=True)]",
            ),
            ("dashscope/packets.py", "for text, one in zip(texts, said, strict=True):"),
            ("dashscope/packets.py", "for string, output, chain in zip(strings, *said, strict=True):"),
            ("compatible/chunks.py", "for text, (made, chain) in zip(texts, said, strict=True):"),
            ("openai/chunks.py", "for choice, item in zip(self._served, items, strict=True):"),
            ("openai/chunks.py", "for choice, item in zip(told_of, items, strict=True):"),
        )
    },
    Change(
        "translators/usage.py",
        "if made > self._output:  # noqa: PLR1730 - `max` is one call more for every delta",
        "made > self._output",
        "(made >= self._output)",
    ): "A figure takes the place of itself.",
    Change("translators/usage.py", "self._owes_chain = False", "False", "(True)"): _UNREAD,
    Change("translators/usage.py", "self._text = 0", "0", "(1)"): _UNREAD,
    **{
        Change(
            "translators/usage.py", line, "0", "(1)"
        ): "What is owed begins with a quote, not with what ends a piece."
        for line in (
            "last = owed.count(BETWEEN, 0, self._passed_bytes) - 1",
            "last = owed.count(BETWEEN, 0, place.end) - 1",
        )
    },
    Change(
        "translators/usage.py",
        "if made[0] < self._output or made != sorted(made):",
        "made[0] < self._output",
        "(made[0] <= self._output)",
    ): "A run that never falls is the same where the greatest so far is looked for in it.",
    Change(
        "translators/usage.py", "if not self._knows_images or (self._images or 0) > prompt:", "0", "(1)"
    ): "In a prompt of no tokens there is no image either way.",
    Change("translators/stops.py", "fallback = [0]", "0", "(1)"): _UNREAD,
    **{
        Change("translators/dashscope/packets.py", line, str(mark), f"({mark + 1})"): (
            "Any number below 0 marks the place of a figure; two may be the same."
        )
        for line, marks in (
            ('FIGURE_MARKS: Final = {"output": -1, "total": -2, "reasoning": -3, "text": -4}', (1, 2, 3, 4)),
            ("GIVEN_MARK: Final = -5", (5,)),
            ("CACHED_MARK: Final = -6", (6,)),
        )
        for mark in marks
    },
    Change(
        "translators/openai/failures.py", "_ANY: Final = range(1000)", "1000", "(1001)"
    ): "No status has four digits.",
    Change(
        "translators/breadth.py", "_CONTINUED = bytes(range(0x80, 0xC0))", "0xC0", "(193)"
    ): "A byte that no UTF-8 has.",
    **{
        Change("translators/breadth.py", "found = _NO_BACKSLASH.search(raw, start + _WINDOW_BYTES - 1)", old, new): _WAY
        for old, new in (("start + _WINDOW_BYTES - 1", "(start + _WINDOW_BYTES + 1)"), ("1", "(2)"))
    },
    Change(
        "translators/deepseek/image_tokens.py",
        "if width * height < LEAST_PIXELS:",
        "width * height < LEAST_PIXELS",
        "(width * height <= LEAST_PIXELS)",
    ): "Where it is just as large it is blown up to its own size.",
    **{
        Change(
            "translators/deepseek/image_tokens.py",
            line,
            "whole[0] * whole[1] < LEAST_PIXELS",
            "(whole[0] * whole[1] <= LEAST_PIXELS)",
        ): "No product of whole patches is that number."
        for line in (
            "while whole[0] * whole[1] < LEAST_PIXELS and whole != before:",
            "if whole[0] * whole[1] < LEAST_PIXELS:",
        )
    },
    **{
        Change(
            "translators/deepseek/image_tokens.py", "before, whole = (0, 0), (1, 1)", old, new
        ): "Any two that are not the same, and small."
        for old, new in (("0", "(1)"), ("1", "(2)"))
    },
    Change(
        "translators/deepseek/image_tokens.py",
        "if detail == LOW and max(width, height) > LOW_SIDE:",
        "max(width, height) > LOW_SIDE",
        "(max(width, height) >= LOW_SIDE)",
    ): "Where it fits to the pixel it is made to fit by a factor of 1.",
    **{
        Change(
            "translators/toolcalls.py", line, old, new
        ): "Shown with no piece at all it is only where nothing follows."
        for line in (
            "if self.shown < 0:",
            "if self.shown < 0 and self.is_placeholder() and (found := _PLACEHOLDERS.match(self._start + more)):",
            'if self.shown < 0 and self.text.strip() in ("", "null"):',
        )
        for old, new in (("0", "(1)"), ("self.shown < 0", "(self.shown <= 0)"))
    },
    **{
        Change("translators/choice.py", "first = draft.shown < 0", old, new): "The same of a call that has ended."
        for old, new in (("0", "(1)"), ("draft.shown < 0", "(draft.shown <= 0)"))
    },
    Change("translators/toolcalls.py", "self.shown = -1", "1", "(2)"): "Any number below 0.",
    Change(
        "translators/toolcalls.py", 'self._depth += 1 if mark in "{[" else -1', 'mark in "{["', "(mark not in '{[')"
    ): "Counted below 0 instead of above it, and back.",
    **{
        Change(
            "translators/dashscope/call.py",
            "if len(raw) > 2 * DEEPEST and breadth.levels_of(document, raw) > DEEPEST:",
            old,
            new,
        ): "Where a document is written back to see whether it can be: one that is not too deep can."
        for old, new in (
            ("len(raw) > 2 * DEEPEST", "(len(raw) >= 2 * DEEPEST)"),
            ("2 * DEEPEST", "(2 // DEEPEST)"),
            ("breadth.levels_of(document, raw) > DEEPEST", "(breadth.levels_of(document, raw) >= DEEPEST)"),
        )
    },
    Change(
        "translators/pipe.py",
        "if writer.kept_bytes <= self._weighed_at_bytes:",
        "writer.kept_bytes <= self._weighed_at_bytes",
        "(writer.kept_bytes < self._weighed_at_bytes)",
    ): _WAY,
    Change(
        "translators/images.py", "encoded = self._url[begin : begin + 4 * (count // 3 + 2)]", "2", "(3)"
    ): "Three bytes more are decoded than are asked for, or six.",
    Change(
        "translators/compatible/failures.py",
        "return len(retry_after) > LONGEST_DIGITS or int(retry_after) > LONGEST_WAIT_S",
        "len(retry_after) > LONGEST_DIGITS",
        "(len(retry_after) >= LONGEST_DIGITS)",
    ): "A number of so many digits is far beyond it as well, unless zeros lead it.",
    Change("translators/pretokens.py", "found = _LAST_CUT.match(text, max(seen - 1, 0))", "1", "(2)"): _WAY,
    Change("translators/openai/stencil.py", "self.two_bytes = 0", "0", "(1)"): _UNREAD,
    Change(
        "translators/surrogates.py", "raise", "raise", "pass"
    ): "What one reader refuses that has no half of a pair in it, the other refuses too; and a huge number likewise.",
    Change(
        "translators/choice.py",
        "or (BACKSLASH in string and OWN_SPELLING in string)",
        "BACKSLASH in string and OWN_SPELLING in string",
        "(BACKSLASH in string or OWN_SPELLING in string)",
    ): _WAY,
    Change(
        "translators/choice.py",
        "or (BACKSLASH in lines and OWN_SPELLING in lines)",
        "BACKSLASH in lines and OWN_SPELLING in lines",
        "(BACKSLASH in lines or OWN_SPELLING in lines)",
    ): _WAY,
    Change(
        "translators/pipe.py", "end = Late(leg, 0, partial(self._end, leg))", "0", "(1)"
    ): "The end is no bytes; that it may be one costs nobody anything.",
    **{
        Change(
            "translators/openai/figures.py",
            f"if type({name}) is not int or {name} < 0:",
            f"{name} < 0",
            f"({name} <= 0)",
        ): ("A zero is read once more, as a zero.")
        for name in ("prompt", "completion")
    },
    Change(
        "translators/dashscope/packets.py",
        "if several < _COLUMNS_FROM or given + made[-1] >= _WRITTEN_MOST or number + several >= _WRITTEN_MOST:",
        "several < _COLUMNS_FROM",
        "(several <= _COLUMNS_FROM)",
    ): _WAY,
    **{
        Change("translators/openai/" + source, line, "len(wire) < " + bound, f"(len(wire) <= {bound})"): (
            "Two chunks have a text each beside that: of so many bytes there is one."
        )
        for source, line, bound in (
            ("stencil.py", "if len(wire) < self.two_bytes:", "self.two_bytes"),
            ("chunks.py", "if len(wire) < known.two_bytes:", "known.two_bytes"),
        )
    },
    Change("translators/breadth.py", "yield 0", "0", "(1)"): "A turn for others; nobody looks at what it yields.",
    Change(
        "translators/breadth.py", "if number % _WINDOWS_A_TURN == 0:", "0", "(1)"
    ): "A turn for others, a window later.",
    Change("translators/tokens.py", "self._seen_chars = 0", "0", "(1)"): _SPEED,
    Change(
        "translators/openai/figures.py",
        "if reported.keys() <= SUMMED:",
        "reported.keys() <= SUMMED",
        "(reported.keys() < SUMMED)",
    ): _WAY,
    Change(
        "translators/pipe.py", "NOTHING_LATE: Final[deque[Late]] = deque(maxlen=0)", "0", "(1)"
    ): "Nothing is ever put there.",
    Change(
        "translators/pipe.py",
        "if abs(kept - self._held_bytes) > self._large_bytes:",
        "abs(kept - self._held_bytes) > self._large_bytes",
        "(abs(kept - self._held_bytes) >= self._large_bytes)",
    ): "A step that is told a byte earlier.",
    Change(
        "translators/pipe.py",
        "if number * kept > FRAMES_BYTES:",
        "number * kept > FRAMES_BYTES",
        "(number * kept >= FRAMES_BYTES)",
    ): _WAY,
    **{
        Change("translators/tokens.py", line, old, f"({old.replace(sign, changed)})"): _SPEED
        for line, old, sign, changed in (
            ("if len(text) <= _SLICE_CHARS:", "len(text) <= _SLICE_CHARS", "<=", "<"),
            (
                "return len(vocabulary.encode(text)) if len(text) <= _SLICE_CHARS else Counter(vocabulary).add(text)",
                *("len(text) <= _SLICE_CHARS", "<=", "<"),
            ),
            ("if len(delta) <= _SHORT_TAIL_CHARS:", "len(delta) <= _SHORT_TAIL_CHARS", "<=", "<"),
            ("if len(delta) <= self.sure_chars(limit):", "len(delta) <= self.sure_chars(limit)", "<=", "<"),
            ("if len(tail) > self._room_chars:", "len(tail) > self._room_chars", ">", ">="),
            ("if len(text) <= _LONG_TAIL_CHARS:", "len(text) <= _LONG_TAIL_CHARS", "<=", "<"),
            ("while len(text) > _LONG_TAIL_CHARS:", "len(text) > _LONG_TAIL_CHARS", ">", ">="),
            (
                "while fitting < len(delta) and (sure := here.sure_chars(limit)) >= _STRIDE_CHARS:",
                *("(sure := here.sure_chars(limit)) >= _STRIDE_CHARS", ">=", ">"),
            ),
        )
    },
    Change("translators/tokens.py", "self._left = 0", "0", "(1)"): _SPEED,
    Change(
        "translators/deepseek/prompt.py",
        'has_system = "system" in map(_ROLE_OF, call.messages)',
        '"system" in map(_ROLE_OF, call.messages)',
        "('system' not in map(_ROLE_OF, call.messages))",
    ): "A part of a key: said the other way round, it tells the same prompts apart.",
    Change(
        "translators/deepseek/prompt.py",
        "if unsaid_chars > TURN_CHARS:",
        "unsaid_chars > TURN_CHARS",
        "(unsaid_chars >= TURN_CHARS)",
    ): _WAY,
    Change(
        "translators/deepseek/prompt.py",
        'if not call.tools and call.response_format is None and call.messages[-1].role == "user":',
        'call.messages[-1].role == "user"',
        "(call.messages[-1].role != 'user')",
    ): "Then all go the long way, which counts the same: what else comes last is more than a text.",
    Change(
        "translators/deepseek/tool_call_tokens.py",
        "owed = (argument.kind[True], argument.valued, argument.named)",
        "True",
        "(False)",
    ): "Either is as many tokens.",
    Change(
        "translators/tokens.py",
        "if there.add(stride) <= limit:",
        "there.add(stride) <= limit",
        "(there.add(stride) < limit)",
    ): _SPEED,
    Change("translators/pipe.py", "for number, event in enumerate(events, 1):", "1", "(2)"): _WAY,
    Change(
        "translators/pipe.py",
        'if reader.reads_runs and not (decoder.is_large or (decoder.is_between and wire.endswith(b"\\n\\n"))):',
        'reader.reads_runs and not (decoder.is_large or (decoder.is_between and wire.endswith(b"\\n\\n")))',
        "(reader.reads_runs or not (decoder.is_large or (decoder.is_between and wire.endswith(b'\\n\\n'))))",
    ): _WAY,
    Change(
        "translators/dashscope/call.py",
        "if len(raw) > 2 * DEEPEST and breadth.levels_of(document, raw) > DEEPEST:",
        "len(raw) > 2 * DEEPEST and breadth.levels_of(document, raw) > DEEPEST",
        "(len(raw) > 2 * DEEPEST or breadth.levels_of(document, raw) > DEEPEST)",
    ): _WAY,
    Change("proxy/upstream/line.py", "self.status = 0", "0", "(1)"): _UNREAD,
    Change("proxy/call/timeouts.py", "self._cancelling = 0", "0", "(1)"): _UNREAD,
    Change(
        "proxy/upstream/response.py",
        "if len(raw) <= READ_BYTES and response.at_end():",
        "len(raw) <= READ_BYTES",
        "(len(raw) < READ_BYTES)",
    ): "A short way: of just one read the general one has the same body, and holds nothing more.",
    Change(
        "proxy/call/large_answers.py",
        "if pipe.late_bytes > LARGE_BYTES:",
        "pipe.late_bytes > LARGE_BYTES",
        "(pipe.late_bytes >= LARGE_BYTES)",
    ): _EITHER,
    Change("proxy/call/large_answers.py", "yield 0", "0", "(1)"): _NO_TOTAL,
    Change("proxy/call/large_answers.py", "job = Job(work(), pipe.late_bytes, -1, tell)", "1", "(2)"): _NO_TOTAL,
    Change(
        "proxy/call/large_answers.py",
        "while not done.done() and (left_s := end_s - loop.time()) > 0:",
        "(left_s := end_s - loop.time()) > 0",
        "((left_s := (end_s - loop.time())) >= 0)",
    ): _INSTANT,
    Change("proxy/upstream/line.py", "self.idle_s = 0.0", "0.0", "(1.0)"): _UNREAD,
    Change("proxy/upstream/line.py", "self._is_interim = False", "False", "(True)"): _UNREAD,
    Change(
        "proxy/upstream/line.py", "return not self._unread.poll(0)", "0", "(1)"
    ): "A thousandth of a second later it is as unfit, or as fit.",
    Change(
        "proxy/upstream/pools.py", "async with asyncio.timeout(2 * connect_s):", "2", "(3)"
    ): "A check that is not answered ends in a while, which is not said: found by its purpose.",
    Change(
        "proxy/upstream/pools.py", "await asyncio.sleep(0)", "0", "(1)"
    ): "By then the loop has had a turn all the more; a process ends a second later.",
    Change("proxy/upstream/health.py", "self.until_s = 0.0", "0.0", "(1.0)"): _UNREAD,
    Change("proxy/upstream/health.py", "self.out_s = 0.0", "0.0", "(1.0)"): _UNREAD,
    Change(
        "proxy/upstream/connections.py",
        "if until_s <= monotonic():",
        "until_s <= monotonic()",
        "(until_s < monotonic())",
    ): _INSTANT,
    Change(
        "proxy/call/budgets.py", "if day > self._day:", "day > self._day", "(day >= self._day)"
    ): "Then it forgets at every call what nobody asks for any more.",
    Change(
        "proxy/call/lookups.py",
        "if len(body) > LARGE_BODY_BYTES:",
        "len(body) > LARGE_BODY_BYTES",
        "(len(body) >= LARGE_BODY_BYTES)",
    ): _EITHER,
    Change(
        "proxy/call/lookups.py",
        "if len(text) > INLINE_CHARS:",
        "len(text) > INLINE_CHARS",
        "(len(text) >= INLINE_CHARS)",
    ): _EITHER,
    **{
        Change("proxy/downstream/listener.py", "taken.setblocking(False)", old, new): "The loops do so themselves."
        for old, new in (("taken.setblocking(False)", "pass"), ("False", "(True)"))
    },
    **{
        Change(
            "proxy/downstream/listener.py", f"bound.setsockopt(socket.{level}, socket.{option}, 1)", "1", "(2)"
        ): "Any number but 0."
        for level, option in (
            ("SOL_SOCKET", "SO_REUSEADDR"),
            ("SOL_SOCKET", "SO_REUSEPORT"),
            ("IPPROTO_IPV6", "IPV6_V6ONLY"),
        )
    },
    **{
        Change(
            "proxy/downstream/listener.py", "if one.fileno() >= 0:", old, new
        ): "Below is what is closed; none of these is the standard input."
        for old, new in (("one.fileno() >= 0", "(one.fileno() > 0)"), ("0", "(1)"))
    },
    Change(
        "proxy/downstream/tls.py", "if taken < len(wire):", "taken < len(wire)", "(taken <= len(wire))"
    ): "Then nothing more is handed to the transport, which writes nothing.",
    Change("proxy/call/lookups.py", "yield 0", "0", "(1)"): _NO_TOTAL,
    Change("proxy/call/prepare.py", "yield 0", "0", "(1)"): _NO_TOTAL,
    Change(
        "proxy/call/prepare.py",
        "if size_bytes > LARGE_BODY_BYTES:",
        "size_bytes > LARGE_BODY_BYTES",
        "(size_bytes >= LARGE_BODY_BYTES)",
    ): _EITHER,
    Change(
        "proxy/call/prepare.py",
        "if reading.parts > MANY_PARTS:",
        "reading.parts > MANY_PARTS",
        "(reading.parts >= MANY_PARTS)",
    ): "How many there are is known about: of just so many a megabyte more is held, or not.",
    Change(
        "proxy/call/prepare.py",
        "if call.images or size_bytes > gateway.settings.max_body_bytes:",
        "size_bytes > gateway.settings.max_body_bytes",
        "(size_bytes >= gateway.settings.max_body_bytes)",
    ): "What is looked at then refuses nothing of just that size.",
    Change(
        "proxy/call/prepare.py",
        'if (call.ignored or exchange.asked_model != call.model.id) and logs.says("debug"):',
        '(call.ignored or exchange.asked_model != call.model.id) and logs.says("debug")',
        "((call.ignored or exchange.asked_model != call.model.id) or logs.says('debug'))",
    ): "A short way: what is asked behind it says nothing else.",
    Change(
        "proxy/call/prepare.py", "timeouts.go_on()", "timeouts.go_on()", "pass"
    ): "Then one context ends and the next begins, ten calls dearer: nobody can come between.",
    Change("proxy/call/lookups.py", "got = await gateway.limiter.reserve(taken_from, 0)", "0", "(1)"): _NO_TOKENS,
    Change("proxy/call/lookups.py", "got.settle(0)", "0", "(1)"): _NO_TOKENS,
    Change("proxy/downstream/strays.py", "self._lines = 0", "0", "(1)"): _UNREAD,
    Change(
        "proxy/downstream/strays.py", "self._ends_s = 0.0", "0.0", "(1.0)"
    ): "By a clock that counts from when the machine began: either is over.",
    Change(
        "proxy/downstream/request_ids.py", "_made.extend(_ids(os.urandom(16 * IDS_AT_ONCE).hex()))", "16", "(17)"
    ): "A few more whole ids at a time.",
    Change("proxy/upstream/pools.py", "self._is_trial = False", "False", "(True)"): _UNREAD,
    **{
        Change("proxy/upstream/balancer.py", line, old, new): _TIE
        for line, old, new in (
            (
                "found = other if other.standing.in_flight < one.standing.in_flight else one",
                "other.standing.in_flight < one.standing.in_flight",
                "(other.standing.in_flight <= one.standing.in_flight)",
            ),
            (
                "return last if last.standing.in_flight < found.standing.in_flight else found",
                "last.standing.in_flight < found.standing.in_flight",
                "(last.standing.in_flight <= found.standing.in_flight)",
            ),
            (
                "if (other.standing.in_flight + random()) * one.weight < one.standing.in_flight * other.weight:",
                "(other.standing.in_flight + random()) * one.weight < one.standing.in_flight * other.weight",
                "((other.standing.in_flight + random()) * one.weight <= one.standing.in_flight * other.weight)",
            ),
            (
                "if load < most and (score := hash(target.seed * key)) > best:",
                "(score := hash(target.seed * key)) > best",
                "((score := hash(target.seed * key)) >= best)",
            ),
            (
                "if load < math.ceil(share * target.weight) and rank > best:",
                "rank > best",
                "(rank >= best)",
            ),
        )
    },
    **{
        Change("proxy/upstream/balancer.py", line, "True", "(False)"): _STRICT
        for line in ("for target, load in zip(fit, loads, strict=True):",)
    },
    Change(
        "proxy/upstream/balancer.py", "found, best = fit[0], -math.inf", "0", "(1)"
    ): "There is always one that has less than its share: what it begins with is never returned.",
    Change(
        "proxy/upstream/balancer.py",
        "rank = -target.weight / math.log((hash(target.seed * key) + 1) / _NUMBERS)",
        "1",
        "(2)",
    ): "One part of two to the sixty-first.",
    Change(
        "proxy/upstream/balancer.py", "break", "break", "continue"
    ): "Those that are left out then have all another priority: each is passed over by itself.",
    Change(
        "proxy/admission/memory_limiter.py", "return time.monotonic_ns() // 1_000_000", "1_000_000", "(1000001)"
    ): "A clock that loses a second in twelve days: limits drain by differences of minutes.",
    Change(
        "proxy/vocabulary.py",
        "_PRINTING = frozenset((*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)))",
        "0x100",
        "(257)",
    ): "No byte is 256: whether it is among those that print is asked of none.",
    **{
        Change(
            "proxy/protocol/tables.py",
            'verdict = verdict(Failure(400, "", "…"), Terms(98_304, own_key=False))',
            old,
            new,
        ): "No row that is made so depends on the status, nor on whose key it was: the documents are the same."
        for old, new in (("400", "(401)"), ("False", "(True)"))
    },
    Change(
        "proxy/protocol/compatible.py",
        'ASKED: Final = {**_says(), "model": "deepseek-v3.2", "enable_thinking": True}',
        "True",
        "(False)",
    ): "The examples show what upstream says, a chain too, whether one was asked for or not.",
    Change(
        "proxy/protocol/compatible.py",
        "terms = agreed(order, request_id=EXAMPLE_ID, own_key=True, at_s=AT_S)",
        "True",
        "(False)",
    ): "Whose key it was is asked of a failure; what is shown here is an answer.",
    Change(
        "proxy/metering/journal_files.py",
        "text = next(buffers) if len(begun) * 2 < BUFFER_BYTES else bytearray(len(begun) * 2)",
        "2",
        "(3)",
    ): "A line that is longer than a block has more room to go on in.",
    **{
        Change(
            "translators/openai/figures.py", f"if type({name}) is not int or {name} < 0:", "0", "(1)"
        ): "A zero takes the longer way, and comes out as one."
        for name in ("prompt", "completion")
    },
    Change(
        "proxy/downstream/connection.py",
        "if not self._received_bytes and data[:1].isalpha() and (end := data.find(HEAD_END)) >= 0:",
        "1",
        "(2)",
    ): "A method of one letter takes the longer way, and its head ends at the same place.",
    Change(
        "translators/deepseek/tool_call_tokens.py",
        "self._out += (NOT_AN_OBJECT, self._argument.named, self._argument.valued, self._argument.kind[True])",
        "True",
        "(False)",
    ): "The one and the other are as many tokens.",
    Change(
        "proxy/metering/ledger.py",
        "for number, piece in enumerate(journal_files.blocks(content, TOGETHER), 1):",
        "1",
        "(2)",
    ): "The first time one block fewer is summed together with others: sums are the same in any parts.",
    Change(
        "proxy/server/supervisor.py",
        "return [child for child in self._children if child.pid is None and child.due_s <= now_s]",
        "child.due_s <= now_s",
        "(child.due_s < now_s)",
    ): "At the very instant that it is due, or at the next look, a moment later.",
    Change(
        "proxy/telemetry/metrics.py",
        "if first_ms is not None and last_ms is not None:",
        "first_ms is not None and last_ms is not None",
        "(first_ms is not None or last_ms is not None)",
    ): "Both are there once a packet is, and before that neither.",
    Change(
        "proxy/metering/prices.py",
        "return next((number for number, window in enumerate(self.windows) if window.holds(local)), -1)",
        "1",
        "(2)",
    ): "Any number below 0 is none of the windows to whoever reads it.",
    Change(
        "translators/openai/plan.py", "if 1 <= wanted <= left and wanted <= most:", "wanted <= most", "(wanted < most)"
    ): "A short way to what the general one below it says too: the least of the three, where two are the same.",
    Change("proxy/commands/conform.py", "return Exit.OK", "return Exit.OK", "return None"): "The same exit code, 0.",
    Change(
        "proxy/server/supervisor.py", "theirs.close()", "theirs.close()", "pass"
    ): "CPython closes a socket with the last name for it, which ends with the function.",
    Change(
        "proxy/server/supervisor.py",
        "due_s += [at_s for at_s in (self._kill_at_s, self._kill_admin_at_s) if at_s > now_s]",
        "at_s > now_s",
        "(at_s >= now_s)",
    ): "At the very instant that it is due, or at the next look, a moment later.",
    **{
        Change("proxy/server/supervisor.py", line, "64", "(65)"): "What it does not take now it takes at its next turn."
        for line in ("for number in os.read(ready, 64):", "for number in heard.recv(64):")
    },
    Change(
        "proxy/server/supervisor.py", "return 0.0", "0.0", "(1.0)"
    ): "Less than any patience: it is compared, and said of nobody who is not killed.",
    **{
        Change(
            "proxy/server/supervisor.py", f"bound.setsockopt(socket.SOL_SOCKET, socket.{option}, 1)", "1", "(2)"
        ): "On is whatever is not 0."
        for option in ("SO_REUSEADDR", "SO_REUSEPORT")
    },
    Change(
        "proxy/simulation/deepseek.py",
        "if host.thinking[True].items() <= body.items():",
        "host.thinking[True].items() <= body.items()",
        "(host.thinking[True].items() < body.items())",
    ): "No body holds its switch alone: there is always a model.",
    Change(
        "proxy/simulation/wire.py", 'for event, generated in itertools.chain(events, ((b"", 0),)):', "0", "(1)"
    ): "The end is no event: what it has generated is not read.",
    Change(
        "proxy/server/lifecycle.py",
        "if settings.tls_cert is not None and settings.tls_key is not None:",
        "settings.tls_cert is not None and settings.tls_key is not None",
        "(settings.tls_cert is not None or settings.tls_key is not None)",
    ): "There are both or neither: one alone is refused before.",
    Change(
        "proxy/server/lifecycle.py",
        "await _until(lambda: not open_calls, LAST_FRAMES_S)",
        "await _until(lambda: not open_calls, LAST_FRAMES_S)",
        "pass",
    ): "To clean up waits as long for whom is being answered.",
    Change(
        "proxy/admission/redis_limiter.py",
        "self._untold = {name: end for name, end in self._untold.items() if end.until_s > now_s}",
        "end.until_s > now_s",
        "(end.until_s >= now_s)",
    ): "At the very instant that it is over.",
    **{
        Change("proxy/metering/ledger.py", line, line, new): _SPEED
        for line, new in (
            ('ends += len(text) - len(text.replace(b"\\n", b""))', "pass"),
            ("return [at for at, groups in enumerate(self.lines) if is_other(groups)]", "return None"),
        )
    },
    Change("proxy/server/reloading.py", "_NUMBERS: Final = itertools.count(1)", "1", "(2)"): "That they differ counts.",
    Change(
        "proxy/simulation/simulator.py", "await self._server.wait_closed()", "await self._server.wait_closed()", "pass"
    ): "Its connections are over by then, and up to Python 3.11 it waits for nothing.",
    Change("proxy/metering/append_file.py", "self._look_s = 0.0", "0.0", "(1.0)"): _UNREAD,
    Change("proxy/metering/append_file.py", "self._torn = False", "False", "(True)"): _UNREAD,
    Change(
        "proxy/metering/prices.py", "if begin < end:", "begin < end", "(begin <= end)"
    ): "No time lies between two that are the same: the file is refused.",
    Change(
        "proxy/metering/prices.py",
        "return zip(self.upstream, phases[len(self.callers) :], strict=True)",
        "True",
        "(False)",
    ): _STRICT,
    Change(
        "proxy/metering/provider_bill.py",
        "if layout.type is not None and layout.amount is not None:",
        "layout.type is not None and layout.amount is not None",
        "(layout.type is not None or layout.amount is not None)",
    ): "A layout has both or neither: a mapping with one of them is refused.",
    Change(
        "proxy/metering/provider_bill.py", "last = max(row.begin, end - timedelta(microseconds=1))", "1", "(2)"
    ): "Just before the end: nothing in a bill ends between two microseconds.",
    Change(
        "proxy/metering/reconciliation.py", 'weight = amounts.get("prompt", 0) + amounts.get("output", 0)', "0", "(1)"
    ): "Of calls of which the journal holds nothing, all weigh alike.",
    Change(
        "proxy/metering/reconciliation.py",
        "if difference.amount > 0:",
        "difference.amount > 0",
        "(difference.amount >= 0)",
    ): "There is a difference, or nobody explains it.",
    Change(
        "proxy/metering/reconciliation.py",
        "absence = Absence.MORE if difference.amount > 0 else Absence.LESS",
        "difference.amount > 0",
        "(difference.amount >= 0)",
    ): "There is a difference, or nobody explains it.",
    Change("proxy/metering/seals.py", "grown = content.read(1)", "1", "(2)"): "Whether there is anything more.",
    Change(
        "proxy/metering/seals.py",
        "while position < size and (piece := os.pread(descriptor, min(PIECE_BYTES, size - position), position)):",
        "position < size",
        "(position <= size)",
    ): "At the end there are 0 bytes to be read, which ends it too.",
    **{
        Change(source, line, "True", "(False)"): _STRICT
        for source, line in (
            ("proxy/commands/usage.py", "yield {**dict(zip(dimensions, group, strict=True)), **_shown(sums, asked)}"),
            ("proxy/commands/conform_reports.py", "named = zip(FACTS, given, strict=True)"),
            (
                "proxy/commands/reconcile.py",
                "return dict(zip(HEAD, (str(cell.day), cell.model, cell.key, difference.type, *figures), strict=True))",
            ),
            (
                "proxy/commands/tables.py",
                "widths = [max(map(width, column)) for column in zip(above, below, *rows, strict=True)]",
            ),
        )
    },
    **{
        Change(source, "if sys.version_info < OLDEST:", "sys.version_info < OLDEST", "(sys.version_info <= OLDEST)"): (
            "A version has five parts: it is never the same as one of two."
        )
        for source in ("proxy/__main__.py", "proxy/commands/doctor.py")
    },
    **{
        Change(
            f"proxy/commands/{command}.py", f"{name}.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)", "1", "(2)"
        ): "On is whatever is not 0."
        for command, name in (("demo", "probe"), ("doctor", "tried"))
    },
    Change("proxy/__main__.py", "gc.set_threshold(LOADING)", "gc.set_threshold(LOADING)", "pass"): _SPEED,
    **{
        Change("proxy/commands/cli.py", line, line, "pass"): "Read where it is needed at the latest; here for the room."
        for line in ("_load_vocabulary()", "vocabulary.load()")
    },
    Change(
        "proxy/commands/texts.py",
        "column = min(max((width(term) for term, _ in rows), default=0), col_max) + col_spacing",
        "0",
        "(1)",
    ): "Where there is no row nothing stands in a column.",
    Change(
        "proxy/commands/conform.py",
        "asked = calls.translate(document, catalogue, stream=False, decode=bytes)",
        "False",
        "(True)",
    ): "The prompt is the same, however its answer comes.",
    Change(
        "proxy/commands/cli.py",
        'conform.target_of(model, asked["route"], counted=False, api=asked["api"]), only',
        "False",
        "(True)",
    ): "The same checks are made where nothing is counted.",
    Change(
        "proxy/vocabulary.py",
        '_SPELLING = codecs.charmap_build("".join(chr(byte if byte in _PRINTING else next(_OTHERS))'
        " for byte in range(0x100)))",
        "0x100",
        "(257)",
    ): "One more than there are bytes: nothing is spelled by it.",
    Change(
        "proxy/vocabulary.py", "super().__init__()", "super().__init__()", "pass"
    ): "A dictionary is empty before that is said.",
    Change(
        "proxy/commands/calls.py",
        "found += islice(comparison.differences(before, after), MOST_DIFFERENCES + 1)",
        "1",
        "(2)",
    ): "Whether there are more than are shown.",
    Change(
        "proxy/commands/conform_reports.py",
        'return [f"> {question}\\n< {answer}" for question, answer in zip(asked, came, strict=False)]',
        "False",
        "(True)",
    ): _STRICT,
    Change(
        "proxy/commands/conform.py", "await asyncio.wait((work,))", "await asyncio.wait((work,))", "pass"
    ): "It is waited for at the latest where the loop ends, a moment later.",
}
