"""What upstream answers, chunk by chunk or whole, into what it adds to the choices: the upstream half of an answer.

Every event is read or ends the stream: a chunk we cannot read is an error, never skipped (spec ERR-3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from translators import faults, sse, surrogates
from translators.choice import START, Choice, Copy
from translators.dialogue import STOP
from translators.openai import choices, failures, figures, stencil
from translators.openai.failures import Terms
from translators.openai.stencil import Stencil
from translators.usage import BETWEEN, Figures, Tally

DONE: Final = b"[DONE]"
# Members of one chunk for each choice: upstreams send one. Each may become a packet that says the whole text again.
MOST_ITEMS: Final = 4


class Reader:
    """Reads one upstream call's stream into the choices it serves.

    served:   those choices, in the order of upstream's `index`
    leg:      which upstream call of the caller's call this is
    logprobs: whether the caller asked for them
    before:   tokens an earlier upstream call has generated of the same choice, which this one goes on with (spec OUT-9)
    chain:    tokens of the chain that it goes on behind; None where there is no earlier one
    done:     whether upstream said `[DONE]`
    over:     whether nothing it may still say is wanted
    passed_by: whether it said more of the answer all the same
    """

    __slots__ = (
        "_asked",
        "_copy",
        "_halved",
        "_halves",
        "_has_text",
        "_in_runs",
        "_logprobs",
        "_served",
        "_stencil",
        "_tally",
        "_terms",
        "_upstream",
        "_zero",
        "done",
        "over",
        "passed_by",
    )

    def __init__(
        self,
        served: Sequence[Choice],
        tally: Tally,
        leg: int,
        terms: Terms,
        *,
        logprobs: bool,
        before: int = 0,
        chain: int | None = None,
    ) -> None:
        self._served = served
        self._asked = len(served)
        self._tally = tally
        self._upstream = tally.begin(leg, self._asked, before=before, chain=chain)
        self._terms = terms
        self._logprobs = logprobs
        self._in_runs = self._asked == 1 and not logprobs
        # Made with the second text: an answer of one, or in one piece, needs none.
        self._stencil: Stencil | None = None
        self._has_text = False
        # What takes reads of plain text as upstream wrote them; None where none does, or something else has come since.
        self._copy: Copy | None = None
        # Once upstream was seen to cut characters in two: the halves that wait, of chain and answer, by choice.
        self._halved = False
        self._halves: dict[int, tuple[str, str]] = {}
        # The 0 tokens that were told beside the newest choice, while it may be the last word.
        self._zero: Figures | None = None
        self.done = False
        self.over = False
        self.passed_by = False

    def feed(self, events: Iterable[bytes]) -> None:
        """Take the data of events until nothing more is wanted; raises `Refusal` for an error and anything unreadable.

        Deltas of plain text, which are nearly all there is, go on as one run: what they meet below is called once for
        a read and not once for each, a fifth less of what a burst costs.
        """
        coming = iter(events)
        self._copy = None
        try:
            self._take_events(coming)
        except faults.Refusal:
            self.settle()
            self.take_last_usage(coming)
            raise

    @property
    def reads_runs(self) -> bool:
        """Whether reads may be taken at one go: upstream's plain chunks are known, and more of them is wanted."""
        return self._stencil is not None and not self.over

    def take_run(self, wire: bytes) -> bool:
        """Take a read at one go where it is events of plain text like the newest and nothing else; whether it was.

        To be asked where no event has begun before this read. Nearly every read of a stream is such: it costs a third
        of what its events cost one by one.
        """
        known = self._stencil
        if known is None or self.over or self._halves:
            return False
        choice = self._served[0]
        copy = self._copy
        if copy is not None or (choice.copier is not None and choice.copies(is_chain=known.is_chain)):
            strings = known.strings_in(wire)
            if strings is None:
                return False
            if copy is None:
                copy = self._copy = choice.copy(is_chain=known.is_chain)
            copy(*strings)
            self._zero = None
            return True
        # A read that is shorter than two chunks holds one: nearly each of a stream that comes as it is generated.
        if len(wire) < known.two_bytes:
            one = known.one_in(wire)
            if one is None:
                return False
            choice.take_one(*one, is_chain=known.is_chain)
        else:
            found = known.run_in(wire)
            if found is None:
                return False
            choice.take_run(*found, is_chain=known.is_chain)
        self._zero = None
        if choice.cut or choice.over_budget:
            self.over = choice.over_budget or self.has_ended()
        return True

    def _take_events(self, events: Iterator[bytes]) -> None:
        run: list[str] = []
        run_name = ""
        for data in events:
            if self.over:
                self.pass_by([data, *events])
                return
            known = self._stencil
            text, name = stencil.NOT_PLAIN if known is None else (known.text_in(data), known.name)
            if not text:
                chunk = self._read(data)
                text, name = self._plain(data, chunk)
                if name and not text:
                    self._zero = None
                    continue
            if run and (not text or name != run_name):
                if self._take_run(run, run_name):
                    return
                run = []
            if text:
                run.append(text)
                run_name = name
            else:
                self._take_event(chunk)
        if run:
            self._take_run(run, run_name)

    def _plain(self, data: bytes, chunk: Any) -> tuple[str, str]:
        """A chunk as `stencil.plain` reads it; those like one that has a text will be read by what differs in them."""
        if not self._in_runs or self._halved or type(chunk) is not dict or chunk.get("usage") is not None:
            return stencil.NOT_PLAIN
        text, name = stencil.plain(chunk)
        if text:
            if self._stencil is None and self._has_text:
                self._stencil = Stencil()
            self._has_text = True
            if self._stencil is not None:
                self._stencil.cut(data, name)
        return text, name

    def pass_by(self, events: Iterable[bytes]) -> None:
        """Note whether what came behind the end is more of the answer, which nobody sees: an end told with its usage is
        the end, unless we ended the answer ourselves.
        """
        for choice in self._served:
            if choice.cut or choice.over_budget:
                return
        for data in events:
            # Nearly every stream's last event, and no answer.
            if data != DONE and data.strip() != DONE and not self.passed_by:
                self.passed_by = self._is_answer(data)

    def _is_answer(self, data: bytes) -> bool:
        chunk = self._read(data)
        items = chunk.get("choices") if type(chunk) is dict else None
        deltas = [item.get("delta") for item in items if type(item) is dict] if type(items) is list else ()
        return any(delta.get(name) for delta in deltas if type(delta) is dict for name in choices.SAYING)

    def take_last_usage(self, events: Iterator[bytes]) -> None:
        """What upstream tells of an answer that has failed, where it has come in the same read."""
        for data in events:
            chunk = self._read(data)
            if type(chunk) is dict and not chunk.get("choices"):
                told = figures.read(chunk.get("usage"))
                if told is not None:
                    self._tally.report(self._upstream, told, final=True)

    def _read(self, data: bytes) -> Any:
        """An event's JSON; its data itself where that is none."""
        if data.endswith(DONE):
            # No JSON ends so: to fail at it twice costs more than all else of a stream's end.
            return data
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
        try:
            chunk = surrogates.lenient(data)
        except orjson.JSONDecodeError:
            return data
        self._halved = True
        return chunk

    def _take_run(self, run: list[str], name: str) -> bool:
        """Take texts of one side; whether nothing more is wanted."""
        choice = self._served[0]
        self._zero = None
        if self._halves:
            # Only a delta like earlier ones of its side comes here, so nothing is owed to the other.
            is_answer = name == stencil.CONTENT
            reasoning, text = ("", run[0]) if is_answer else (run[0], "")
            run[0] = self._mended(choice, reasoning, text, last=False)[is_answer]
        is_chain = name != stencil.CONTENT
        if choice.copier is not None and choice.copies(is_chain=is_chain):
            # Not counted either: the last words of an answer come with its end, and often with upstream's own count.
            strings = [*map(orjson.dumps, run)]
            choice.copy(is_chain=is_chain)(strings, BETWEEN.join(strings))
            return False
        (choice.think if is_chain else choice.say)(*run)
        if choice.cut or choice.over_budget:
            self.over = choice.over_budget or self.has_ended()
        return self.over

    def _take_event(self, chunk: Any) -> None:
        if type(chunk) is bytes:
            self._take_word(chunk.strip())
            return
        if chunk is None:
            return
        if type(chunk) is not dict:
            raise _broken("a chunk that is no object")
        # An object with none of the three says nothing: relays keep a stream alive so while the model is slow.
        reported = chunk.get("usage")
        if reported is not None and self._take_told(chunk, reported):
            return
        if failures.is_failure(chunk):
            raise self._failure(chunk)
        items = self._items_of(chunk)
        if reported is None:
            for item in items:
                self._zero = None
                self._take(self._choice(item), item)
        else:
            self._take_with_usage(items, reported)

    def _items_of(self, chunk: dict[str, Any]) -> list[Any]:
        items = chunk.get("choices")
        if items is None:
            return []
        if type(items) is not list:
            raise _broken("choices that are no list")
        if len(items) > MOST_ITEMS * self._asked:
            raise _broken("more pieces in one chunk than it has choices for")
        return items

    def _take_word(self, word: bytes) -> None:
        """An event that is no JSON: the end, nothing at all, or an error by its name."""
        if word.startswith(sse.ERROR.strip()):
            raise self._failure(failures.document(word[len(sse.ERROR) :]))
        if word == DONE:
            self.done = self.over = True
        elif word:
            raise _broken("an event that is not JSON")

    def feed_completion(self, raw: bytes, prefix: str = "") -> None:
        """Take a whole completion; `prefix` is what a server repeats of the text it was to go on with (llama.cpp).

        Raises `Refusal` for an error object, for fewer choices than were asked for (Ark ignores `n`) and for anything
        unreadable. Blank lines before the object are DeepSeek's keep-alive.
        """
        try:
            completion = orjson.loads(raw)
        except orjson.JSONDecodeError:
            completion = _repaired(raw)
        if type(completion) is not dict:
            raise _broken("a completion that is no object")
        if failures.is_failure(completion):
            raise self._failure(completion)
        items = completion.get("choices")
        if type(items) is not list or len(items) != len(self._served):
            raise _broken("another number of choices than was asked for")
        told = figures.read(completion.get("usage"))
        found = None if told is None else self._tally.report(self._upstream, told, final=True)
        # One figure for several choices does not say how long each is.
        made = found if self._asked == 1 else None
        if made is not None:
            self._served[0].meter.expect(made)
        for choice, item in zip(self._served, items, strict=True):
            self._take_whole(choice, item, prefix, told=made is not None)
        self.done = self.over = True

    def conclude(self) -> None:
        """Upstream said `[DONE]` without a finish reason: a regular end, if anything came before it."""
        for choice in self._served:
            if choice.phase is START:
                raise _broken("[DONE] and no answer")
            choice.finish(STOP, *self._mended(choice, "", "", last=True))

    def end(self) -> None:
        """Nothing more comes of the answer: what has no finish reason behind `[DONE]` has ended all the same."""
        if self.done:
            for choice in self._served:
                if choice.finish_reason is None:
                    self.conclude()
                    break
        if self._zero is not None:
            self.settle()

    def settle(self) -> None:
        """Nothing more comes: a 0 that was told last is upstream's last word."""
        if self._zero is not None:
            self._tally.report(self._upstream, self._zero, final=True)

    def _failure(self, chunk: dict[str, Any]) -> faults.Refusal:
        refusal = failures.of_event(chunk, self._terms)
        # One wording for both (DeepSeek): what is said before any text is about the input.
        begun = any(choice.phase is not START for choice in self._served)
        if begun and refusal.fault == faults.INPUT_MODERATED:
            return faults.Refusal(faults.OUTPUT_MODERATED, refusal.cause, refusal.said)
        return refusal

    def _take_told(self, chunk: dict[str, Any], reported: object) -> bool:
        """Take a chunk that has a plain text and the usage up to it; whether it was one.

        What `_take_with_usage` does for it, without what it never needs: engines that tell usage tell it on every
        chunk, and a delta of theirs costs a fifth less so.
        """
        choice = self._served[0]
        if not self._in_runs or self._halved or choice.finish_reason is not None:
            return False
        text, name = stencil.plain(chunk, told=True)
        told = figures.read(reported) if text else None
        if told is None:
            return False
        self._zero = None
        made = self._tally.report(self._upstream, told, final=False)
        if made:
            choice.meter.expect(made)
        (choice.say if name == stencil.CONTENT else choice.think)(text)
        if made:
            choice.meter.resume_from(made)
        if choice.cut or choice.over_budget:
            self.over = True
        return True

    def _take_with_usage(self, items: list[Any], reported: object) -> None:
        """A chunk that reports usage: the packets of its own text say what it reports."""
        told = figures.read(reported)
        # vLLM's continuous usage is per choice; only the chunk without choices sums them up.
        partial = bool(items) and self._asked > 1
        told_of = [self._choice(item) for item in items]
        # Of several choices only a chunk without any speaks of all.
        final = not partial and (self.has_ended() or any(map(choices.has_ended, items)))
        # Hosts that fill usage in on every chunk begin at 0, also with a first `stop` that is taken back: beside a
        # choice a 0 is the last word only if nothing follows.
        waits = final and bool(items) and told is not None and told.output == 0
        self._zero = told if waits else None
        last = final and not waits
        made = None if told is None else self._tally.report(self._upstream, told, final=last, of_one=partial)
        if made:
            for choice in told_of:
                choice.meter.expect(made)
        for choice, item in zip(told_of, items, strict=True):
            self._take(choice, item)
        if made:
            for choice in told_of:
                # With its figures here, the end of a choice is the end.
                choice.close()
            for choice in told_of:
                choice.meter.resume_from(made)
        if not self.has_ended():
            # More of the answer has taken the end back; an answer left at its budget has had no other.
            self._upstream.is_final &= self.over
        elif not (waits or partial or told is None):
            self.over = True

    def _take(self, choice: Choice, item: Any) -> None:
        delta = item.get("delta")
        if type(delta) is not dict:
            if delta is not None:
                raise _broken("a delta that is no object")
            delta = {}
        if self._logprobs:
            choices.take_logprobs(choice, delta, item.get("logprobs"))
        self._take_all(choice, delta, item)
        if choice.cut or choice.over_budget:
            self.over = choice.over_budget or self.has_ended()

    def _take_all(self, choice: Choice, delta: dict[str, Any], item: dict[str, Any]) -> None:
        """A delta of any form: chain before answer, answer before calls, and the end with the text it brought."""
        reasoning = choices.reasoning_of(delta)
        text = choices.text_of(delta.get("content"))
        calls = choices.calls_of(delta) if "tool_calls" in delta or "function_call" in delta else None
        word = item.get("finish_reason")
        ended = word not in choices.NOT_ENDED
        if self._halved:
            reasoning, text = self._mended(choice, reasoning, text, last=bool(calls) or ended)
        if not ended or calls:
            if reasoning:
                choice.think(reasoning)
            if choice.over_budget:
                # What stands beside the end of a chain is asked for again, behind it.
                return
            if text:
                choice.say(text)
            reasoning = text = ""
        if calls:
            choices.take_calls(choice, calls)
        if ended:
            choice.finish(choices.finish_of(word) or STOP, reasoning, text)

    def _take_whole(self, choice: Choice, item: object, prefix: str, *, told: bool) -> None:
        message = item.get("message") if type(item) is dict else None
        if type(item) is not dict or type(message) is not dict:
            raise _broken("a choice without a message")
        if self._logprobs:
            choices.take_logprobs(choice, message, item.get("logprobs"))
        if not choices.NAMES.isdisjoint(message) and (reasoning := choices.reasoning_of(message)):
            choice.think(surrogates.whole(reasoning))
        if choice.over_budget:
            return
        text = message.get("content")
        if type(text) is not str:
            text = choices.word_of(text)
        elif not text.isascii():
            text = surrogates.whole(text)
        if text := text.removeprefix(prefix):
            (choice.quote if told else choice.say)(text)
        if ("tool_calls" in message or "function_call" in message) and (calls := choices.calls_of(message)):
            choices.take_calls(choice, calls, whole=True)
        # Behind the text: an answer that ended as none should was generated all the same.
        # Its framing says that it is complete, as `[DONE]` says it of a stream.
        word = item.get("finish_reason")
        choice.finish(STOP if word == "stop" else choices.finish_of(word) or STOP)

    def _mended(self, choice: Choice, reasoning: str, text: str, *, last: bool) -> tuple[str, str]:
        """Both sides of a delta with the halves of surrogate pairs joined to those that came before.

        A half waits for the next delta of its side, and is U+FFFD once that side is over (spec SSE-10).
        last: whether both are
        """
        chain_half, half = self._halves.pop(choice.index, ("", ""))
        reasoning, chain_half = surrogates.parted(chain_half + reasoning)
        text, half = surrogates.parted(half + text)
        if chain_half and (last or text or half):
            reasoning, chain_half = reasoning + "\ufffd", ""
        if half and last:
            text, half = text + "\ufffd", ""
        if chain_half or half:
            self._halves[choice.index] = chain_half, half
        return reasoning, text

    def _choice(self, item: object) -> Choice:
        if type(item) is not dict:
            raise _broken("a choice that is no object")
        index = item.get("index", 0)
        if type(index) is int and 0 <= index < self._asked:
            return self._served[index]
        raise _broken("a choice that was not asked for")

    def has_ended(self) -> bool:
        """Whether every choice it serves has had its end, as far as upstream has said."""
        for choice in self._served:  # noqa: SIM110 - a generator would be made for every delta
            if choice.finish_reason is None:
                return False
        return True


def _repaired(raw: bytes) -> Any:
    """A completion that is not JSON as it stands; raises `Refusal` where it cannot be read for one."""
    try:
        return surrogates.lenient(raw.strip() or b"null")
    except orjson.JSONDecodeError:
        raise _broken("a completion that is not JSON") from None


def _broken(what: str) -> faults.Refusal:
    return faults.Refusal(faults.UPSTREAM_BROKEN, f"upstream sent {what}")
