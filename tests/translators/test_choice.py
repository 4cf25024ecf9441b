"""One choice puts upstream's pieces in order and ends where it must (spec OUT-2, OUT-8, SSE-4, SSE-6, SSE-7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from translators import choice as answer
from translators import dialogue, tokens, toolcalls, usage
from translators.dialogue import Finish

Make = Callable[..., answer.Choice]


class Heard:
    """A writer that remembers what it was told, in order."""

    copier: answer.Copier | None = None
    splice: answer.Splice | None = None
    splice_one: answer.SpliceOne | None = None

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def reasoning(self, choice: answer.Choice, texts: Sequence[str], _: Sequence[usage.Said]) -> None:
        self.events += [("reasoning", text) for text in texts]

    def content(self, choice: answer.Choice, texts: Sequence[str], _: Sequence[usage.Said]) -> None:
        self.events += [("content", text) for text in texts]

    def fragment(self, choice: answer.Choice, position: int, call: dialogue.ToolCall, *, first: bool) -> None:
        self.events.append(("first" if first else "later", position, call.id, call.name, call.arguments))

    def progress(self, choice: answer.Choice) -> None:
        raise AssertionError("the pipe asks for it, not the choice")

    def finish(self, choice: answer.Choice) -> None:
        raise AssertionError("the pipe finishes, not the choice")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def make(vocabulary: tokens.Vocabulary, heard: Heard) -> Make:
    def made(**rules: object) -> answer.Choice:
        given = answer.Rules(**{"parallel_calls": True, **rules})  # type: ignore[arg-type]
        calls = toolcalls.Drafts(vocabulary, "call_x")
        return answer.Choice(0, usage.Meter(vocabulary, 1), heard, given, lambda _: calls, tally=usage.Tally())

    return made


def test_rules_that_say_nothing_do_nothing() -> None:
    assert not any(answer.Rules())


class TestRuns:
    """COM-34: pieces as upstream wrote them, where nothing of ours needs a count on the way."""

    PIECES = (["The", " sea"], [b'"The"', b'" sea"'], b'"The",\n" sea"')

    @pytest.fixture
    def copied(self, heard: Heard) -> list[tuple[Sequence[bytes], bytes, bool]]:
        found: list[tuple[Sequence[bytes], bytes, bool]] = []
        heard.copier = lambda _, is_chain: lambda strings, lines: found.append((strings, lines, is_chain))
        return found

    def test_they_are_copied_once_their_side_has_begun(
        self, make: Make, heard: Heard, copied: list[tuple[Sequence[bytes], bytes, bool]]
    ) -> None:
        choice = make()
        _, strings, lines = self.PIECES
        assert not choice.copies(is_chain=True)
        assert not choice.copies(is_chain=False)
        choice.think("We")
        assert not choice.copies(is_chain=False)
        for is_chain in (True, False):
            assert choice.copies(is_chain=is_chain)
            copy = choice.copy(is_chain=is_chain)
            copy(strings, lines)
            copy(strings, lines)
            choice.say("Well")
        assert not choice.copies(is_chain=True)
        assert copied == [
            (strings, lines, True),
            (strings, lines, True),
            (strings, lines, False),
            (strings, lines, False),
        ]
        assert heard.events == [("reasoning", "We"), ("content", "Well"), ("content", "Well")]

    @pytest.mark.parametrize(
        ("rules", "is_chain"), [({"stops": ("x",)}, False), ({"stops": ("x",)}, True), ({"chain_limit": 9}, True)]
    )
    def test_they_are_not_where_something_may_hold_or_end_them(
        self, make: Make, rules: dict[str, object], *, is_chain: bool
    ) -> None:
        choice = make(**rules)
        choice.think("We")
        if not is_chain:
            choice.say("Well")
        assert not choice.copies(is_chain=is_chain)

    @pytest.mark.parametrize(
        ("rules", "is_chain"), [({"stops": ("x",)}, False), ({"stops": ("x",)}, True), ({"chain_limit": 9}, True)]
    )
    def test_they_go_the_way_of_texts_where_something_may_hold_or_end_them(
        self, make: Make, heard: Heard, rules: dict[str, object], *, is_chain: bool
    ) -> None:
        heard.splice = lambda *_: heard.events.append(("spliced",))
        make(**rules).take_run(*self.PIECES, is_chain=is_chain)
        assert "".join(str(text) for _, text in heard.events) == "The sea"

    def test_a_chain_behind_its_answer_is_not_spliced(self, make: Make, heard: Heard) -> None:
        """SSE-6."""
        found: list[bool] = []
        heard.splice = lambda *said: found.append(said[-1])
        choice = make()
        choice.take_run(*self.PIECES, is_chain=False)
        choice.take_run(*self.PIECES, is_chain=True)
        assert found == [False]

    def test_they_are_counted_and_spliced_where_each_says_its_usage(self, make: Make, heard: Heard) -> None:
        """SSE-1: but for a solidus with a backslash, which we write without."""
        found: list[tuple[Sequence[bytes], usage.Run, bool]] = []
        heard.splice = lambda _, strings, said, is_chain: found.append((strings, said, is_chain))
        choice = make()
        choice.take_run(*self.PIECES, is_chain=True)
        choice.take_run(*self.PIECES, is_chain=False)
        choice.take_run(["a/b"], [rb'"a\/b"'], rb'"a\/b"', is_chain=False)
        strings = self.PIECES[1]
        assert found == [(strings, ([1, 2], [1, 2]), True), (strings, ([4, 5], [2, 2]), False)]
        assert heard.events == [("content", "a/b")]

    def one_by_one(self, choice: answer.Choice, *, is_chain: bool) -> None:
        for text, string in zip(*self.PIECES[:2], strict=True):
            choice.take_one(text, string, is_chain=is_chain)

    def test_one_by_one_each_says_the_same_usage(self, make: Make, heard: Heard) -> None:
        """SSE-1: the first of a phase has gone the way of runs."""
        runs: list[tuple[Sequence[bytes], usage.Run, bool]] = []
        found: list[tuple[bytes, usage.Said, bool]] = []
        heard.splice = lambda _, strings, said, is_chain: runs.append((strings, said, is_chain))
        heard.splice_one = lambda _, string, said, is_chain: found.append((string, said, is_chain))
        choice = make()
        for is_chain in (True, False):
            self.one_by_one(choice, is_chain=is_chain)
        choice.take_one("a/b", rb'"a\/b"', is_chain=False)
        assert runs == [((b'"The"',), ([1], [1]), True), ((b'"The"',), ([4], [2]), False)]
        assert found == [(b'" sea"', (2, 2), True), (b'" sea"', (5, 2), False)]
        assert heard.events == [("content", "a/b")]

    def test_one_by_one_they_are_texts_where_the_writer_takes_no_other(self, make: Make, heard: Heard) -> None:
        choice = make()
        for is_chain in (True, False):
            self.one_by_one(choice, is_chain=is_chain)
        choice = make(stops=("x",))
        self.one_by_one(choice, is_chain=False)
        content = [("content", "The"), ("content", " sea")]
        assert heard.events == [("reasoning", "The"), ("reasoning", " sea"), *content, *content]


def test_a_chain_behind_its_answer_is_not_shown(make: Make, heard: Heard) -> None:
    """SSE-6."""
    choice = make()
    choice.think("We")
    choice.say("The")
    choice.think("!")
    assert heard.events == [("reasoning", "We"), ("content", "The")]
    assert choice.phase is answer.Phase.ANSWERING


def end(choice: answer.Choice, reason: Finish) -> None:
    """As the pipe does it: upstream's word, and nothing that takes it back."""
    choice.finish(reason)
    choice.close()


def test_nothing_is_shown_after_the_end(make: Make, heard: Heard) -> None:
    """SSE-4: finish twice, text after finish."""
    choice = make()
    choice.say("The")
    end(choice, Finish.STOP)
    choice.finish(Finish.LENGTH, "late", "late")
    choice.think("late")
    choice.say("late")
    choice.fragment(0, "a", "f", "{}")
    choice.close()
    assert heard.events == [("content", "The")]
    assert choice.finish_reason is Finish.STOP
    assert choice.tool_calls() == ()


def test_an_end_that_more_of_the_answer_follows_is_taken_back(make: Make, heard: Heard) -> None:
    """OUT-3: hosts say `stop` on an empty first chunk."""
    choice = make()
    choice.finish(Finish.STOP)
    choice.think("We")
    choice.finish(Finish.STOP)
    choice.say("The")
    choice.finish(Finish.STOP, "", " answer")
    choice.say(" is")
    choice.finish(Finish.STOP)
    choice.fragment(0, "a", "f", "{}")
    assert choice.finish_reason is None
    end(choice, Finish.LENGTH)
    assert heard.events == [
        ("reasoning", "We"),
        ("content", "The"),
        ("content", " answer"),
        ("content", " is"),
        ("first", 0, "a", "f", "{}"),
    ]
    assert choice.finish_reason is Finish.TOOL_CALLS


@pytest.mark.parametrize("text", ["", "The"])
def test_a_chain_behind_the_answer_takes_no_end_back(text: str, make: Make, heard: Heard) -> None:
    """OUT-3, SSE-6: it would not be shown; the answer beside it would."""
    choice = make()
    choice.say("Yes")
    choice.finish(Finish.LENGTH)
    choice.think("!")
    assert choice.finish_reason is Finish.LENGTH
    choice.finish(Finish.STOP, "!", text)
    choice.close()
    assert (choice.finish_reason, choice.tail) == (Finish.STOP if text else Finish.LENGTH, text)
    assert heard.events == [("content", "Yes")]


def test_what_was_taken_back_is_counted_once(make: Make) -> None:
    """USE-2: the end of the chain and of the answer."""
    whole, twice = make(), make()
    for choice in (whole, twice):
        choice.think("We")
    twice.finish(Finish.STOP)
    for choice in (whole, twice):
        choice.think(" think")
        choice.say("The")
    twice.finish(Finish.STOP)
    for choice in (whole, twice):
        choice.say(" answer")
        end(choice, Finish.STOP)
        choice.close()
    assert whole.meter.said == twice.meter.said == (5, 2)


def test_text_that_comes_with_the_finish_leaves_with_it_and_its_chain_before(make: Make, heard: Heard) -> None:
    """SSE-5, SSE-6."""
    choice = make()
    choice.finish(Finish.LENGTH, "We", "The")
    assert heard.events == [("reasoning", "We")]
    assert (choice.tail, choice.finish_reason) == ("The", Finish.LENGTH)


@pytest.mark.parametrize(("reason", "tokens_said"), [(Finish.LENGTH, 2), (Finish.STOP, 3)])
def test_a_chain_cut_by_the_limit_has_no_closing_tag(make: Make, reason: Finish, tokens_said: int) -> None:
    """USE-2; SOURCES#recorded-completions."""
    choice = make()
    choice.think("We think")
    end(choice, reason)
    assert choice.meter.output == tokens_said


def test_a_chain_ends_at_its_budget(make: Make, heard: Heard) -> None:
    """OUT-9: exactly full is not over; the text behind it is not shown."""
    choice = make(chain_limit=2)
    seen = []
    for text in ("We think", " about", ""):
        choice.think(text)
        seen.append(choice.over_budget)
    assert seen == [False, True, True]
    assert heard.events == [("reasoning", "We think")]


def test_an_answer_ends_at_its_limit_and_not_before(make: Make, heard: Heard) -> None:
    """OUT-8: exactly full is not cut, one more token is."""
    choice = make(answer_limit=2)
    seen = []
    for text in ("The answer", " is", " 42"):
        choice.say(text)
        seen.append((choice.finish_reason, choice.cut, choice.tail))
    assert seen == [(None, False, ""), (Finish.LENGTH, True, ""), (Finish.LENGTH, True, "")]
    assert heard.events == [("content", "The answer")]


def test_a_limit_takes_what_fits_of_a_delta(make: Make) -> None:
    """OUT-8."""
    choice = make(answer_limit=2)
    choice.say("The answer is")
    assert (choice.tail, choice.finish_reason) == ("The answer", Finish.LENGTH)


def test_a_stop_cuts_and_what_was_held_for_another_goes_with_the_limit(make: Make, heard: Heard) -> None:
    """PAR-9."""
    choice = make(stops=("answers",), answer_limit=2)
    choice.say("The answer")
    choice.say(" is")
    assert heard.events == [("content", "The ")]
    assert (choice.tail, choice.finish_reason) == ("answer", Finish.LENGTH)


def test_a_stop_in_the_text_with_the_finish_is_found(make: Make) -> None:
    """PAR-9."""
    choice = make(stops=("!",))
    choice.finish(Finish.LENGTH, "", "Yes! No")
    assert (choice.tail, choice.finish_reason, choice.cut) == ("Yes", Finish.STOP, True)


def test_a_later_call_waits_until_the_one_before_it_is_whole(make: Make, heard: Heard) -> None:
    """SSE-7: in index order, never interleaved."""
    choice = make(calls_in_pieces=True)
    choice.fragment(0, "a", "f", "")
    choice.fragment(1, "b", "g", "{")
    choice.fragment(0, "", "", '{"x":')
    choice.fragment(1, "", "", "}")
    choice.fragment(0, "", "", "1}")
    choice.fragment(2, "c", "h", "")
    end(choice, Finish.STOP)
    assert heard.events == [
        ("first", 0, "a", "f", '{"x":'),
        ("later", 0, "a", "f", "1}"),
        ("first", 1, "b", "g", "{}"),
        ("first", 2, "c", "h", "{}"),
    ]
    assert choice.finish_reason is Finish.TOOL_CALLS


def test_a_call_leaves_in_one_piece_once_it_is_whole(make: Make, heard: Heard) -> None:
    """SSE-7: clients put fine pieces together wrongly."""
    choice = make()
    for name, arguments in (("f", ""), ("", '{"x":'), ("", '"}"'), ("", "}")):
        assert heard.events == []
        choice.fragment(0, "a" if name else "", name, arguments)
    assert heard.events == [("first", 0, "a", "f", '{"x":"}"}')]
    choice.fragment(0, "", "", "\n")
    end(choice, Finish.TOOL_CALLS)
    assert len(heard.events) == 1


@pytest.mark.parametrize("pieces", [["{}", '{"x":1}'], ["{", "}", "{", '"x":1}'], ["null"], [" ", "\n"], [""], ["{}"]])
@pytest.mark.parametrize("in_pieces", [True, False])
def test_no_arguments_are_an_empty_object_and_others_take_its_place(
    pieces: list[str], make: Make, heard: Heard, *, in_pieces: bool
) -> None:
    """OUT-5: shown when nothing else can come."""
    choice = make(calls_in_pieces=in_pieces)
    choice.fragment(0, "a", "f", "")
    for piece in pieces:
        choice.fragment(0, "", "", piece)
    end(choice, Finish.TOOL_CALLS)
    said = '{"x":1}' if "x" in pieces[-1] else "{}"
    assert "".join(str(event[-1]) for event in heard.events) == said


def test_a_call_cut_off_by_the_limit_is_shown_as_far_as_it_went(make: Make, heard: Heard) -> None:
    """OUT-5: an empty object would make it a call to make."""
    choice = make()
    choice.fragment(0, "a", "f", "")
    end(choice, Finish.LENGTH)
    assert heard.events == [("first", 0, "a", "f", "")]
    assert choice.finish_reason is Finish.LENGTH


def test_a_chain_that_comes_on_its_own_leaves_the_content_alone(make: Make, heard: Heard) -> None:
    """OUT-10: the host splits it off already."""
    choice = make(think_tags=True, inside_chain=True)
    choice.say(" ")
    choice.think("We")
    choice.say("<think>The")
    assert heard.events == [("reasoning", "We"), ("content", "<think>The")]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_blank_line_behind_a_chain_in_the_content_is_counted(
    make: Make, vocabulary: tokens.Vocabulary, size: int
) -> None:
    """USE-2: it was generated, tag and line, although it is shown to nobody."""
    choice, text = make(think_tags=True), "<think>We think.</think>\n\nThe answer"
    for at in range(0, len(text), size):
        choice.say(text[at : at + size])
    end(choice, Finish.STOP)
    shown = sum(tokens.count(part, vocabulary) for part in ("We think.", "The answer"))
    assert choice.meter.exact == shown + 2


@pytest.mark.parametrize("begins", ["The answer", "\n\nThe answer"])
def test_a_blank_line_that_was_lost_behind_a_chain_is_counted_once(
    make: Make, vocabulary: tokens.Vocabulary, begins: str
) -> None:
    """USE-2, SOURCES#recorded-completions: R1 writes it, and its service cut it off and billed it."""
    choice = make(blank_behind_chain=True)
    choice.think("We")
    choice.say(begins)
    choice.say(" is here")
    end(choice, Finish.STOP)
    shown = sum(tokens.count(part, vocabulary) for part in ("We", "The answer is here"))
    assert choice.meter.exact == shown + 2


def test_text_held_for_a_tag_is_cut_at_the_limit_like_any_other(make: Make) -> None:
    """OUT-8, OUT-10."""
    choice = make(think_tags=True, answer_limit=1)
    choice.say("<thi")
    end(choice, Finish.STOP)
    assert (choice.tail, choice.finish_reason, choice.cut) == ("<th", Finish.LENGTH, True)


def test_the_rest_of_a_chain_over_its_budget_asks_for_no_other_call(make: Make, heard: Heard) -> None:
    """OUT-9, OUT-10: what was held for a tag ends with the answer."""
    choice = make(think_tags=True, chain_limit=1)
    choice.say("<think>We</thi")
    end(choice, Finish.STOP)
    assert heard.events == [("reasoning", "We")]
    assert (choice.over_budget, choice.finish_reason) == (False, Finish.STOP)


def test_a_call_is_not_begun_before_its_name_is_known(make: Make, heard: Heard) -> None:
    """SSE-7: the first fragment has id and name."""
    choice = make()
    choice.fragment(0, "a", "", "{}")
    choice.fragment(1, "b", "g", "{}")
    assert heard.events == []
    choice.fragment(0, "", "f", "")
    end(choice, Finish.TOOL_CALLS)
    assert heard.events == [("first", 0, "a", "f", "{}"), ("first", 1, "b", "g", "{}")]


FINISHES = {
    "a named choice ends with stop": (Finish.STOP, [("a", "f", "{}")], Finish.TOOL_CALLS),
    "whole calls at the limit are calls": (Finish.LENGTH, [("a", "f", "{}")], Finish.TOOL_CALLS),
    "a truncated call is none to make": (Finish.LENGTH, [("a", "f", '{"x')], Finish.LENGTH),
    "calls that were promised and never came": (Finish.TOOL_CALLS, [], Finish.STOP),
}


@pytest.mark.parametrize("name", FINISHES)
def test_the_finish_says_whether_there_are_calls(name: str, make: Make) -> None:
    """OUT-2."""
    reason, calls, expected = FINISHES[name]
    choice = make()
    for call_id, function, arguments in calls:
        choice.fragment(0, call_id, function, arguments)
    end(choice, reason)
    assert choice.finish_reason is expected


def test_without_parallel_calls_only_the_first_is_shown(make: Make, heard: Heard) -> None:
    """PAR-18: the others are counted all the same."""
    choice = make(parallel_calls=False)
    choice.fragment(0, "a", "f", "{}")
    before = choice.meter.output
    choice.fragment(1, "b", "g", "{}")
    end(choice, Finish.TOOL_CALLS)
    assert heard.events == [("first", 0, "a", "f", "{}")]
    assert [call.id for call in choice.tool_calls()] == ["a"]
    assert choice.meter.output > before


def entry(token: str) -> dialogue.Json:
    return {"token": token, "bytes": list(token.encode())}


def taken(choice: answer.Choice, text: str) -> list[str]:
    return [found["token"] for found in choice.entries_of(text)]


def test_log_probabilities_leave_with_their_text(make: Make) -> None:
    """OUT-6: those of text held back stay; a token that spans the border goes with its beginning."""
    choice = make(stops=("!",))
    choice.logprobs = [entry("The"), entry(" answer"), entry("")]
    assert taken(choice, "The an") == ["The", " answer"]
    assert taken(choice, "swer") == []
    end(choice, Finish.STOP)
    assert taken(choice, "") == [""]


def test_log_probabilities_of_text_that_was_cut_never_leave(make: Make) -> None:
    """OUT-6, PAR-9."""
    choice = make(stops=("!",))
    choice.logprobs = [entry("Yes"), entry("!"), entry(" No")]
    choice.say("Yes! No")
    assert taken(choice, choice.tail) == ["Yes"]


def test_log_probabilities_of_a_chain_in_the_content_are_dropped(make: Make) -> None:
    """PAR-10."""
    choice = make(think_tags=True)
    for tokens_said in (["<think>", "We"], ["</think>", "\n\n", "The"], [" answer"]):
        choice.logprobs += [entry(token) for token in tokens_said]
        choice.say("".join(tokens_said))
    assert taken(choice, "The answer") == ["The", " answer"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", [""]),
        ("d", ["d", ""]),
        ("ccd", ["d", ""]),
        ("ccccd", ["cccc", "d", ""]),
        ("bccccd", ["b", "cccc", "d", ""]),
        ("aabccccd", ["aa", "b", "cccc", "d", ""]),
        ("more than all of them", ["aa", "b", "cccc", "d", ""]),
    ],
)
def test_of_log_probabilities_those_are_kept_that_spell_the_end(text: str, kept: list[str]) -> None:
    """PAR-10: each by its own length, in bytes."""
    entries = [entry(token) for token in ("aa", "b", "cccc", "d", "")]
    assert [one["token"] for one in answer.spelling(entries, text)] == kept
    assert answer.spelling([entry("é")], "e") == []


def test_a_chain_that_was_never_closed_is_let_out_at_the_end(make: Make, heard: Heard) -> None:
    """SSE-6."""
    choice = make(think_tags=True)
    choice.say("<think>We</thi")
    end(choice, Finish.LENGTH)
    assert heard.events == [("reasoning", "We"), ("reasoning", "</thi")]
