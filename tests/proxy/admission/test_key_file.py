"""Claims about edits of a keys file: one key more or less, all else as it was, no half or lost version."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from config.values import Limit
from proxy.admission import key_file, keyring
from proxy.commands import cli
from tests import needs
from tests.proxy.metering.records import closed, named, opened, write

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of: test
OTHER = hashlib.sha256(b"other").hexdigest()
FILE = f"""# Callers of the gateway

[[key]]
name = "team a"  # Ada's
sha256 = "{DIGEST}"
[key.limits]
rpm = 60

# Bob asked for this one.
[[key]]
name = "team b"
sha256 = "{OTHER}"
models = [
  "deepseek-v3",
]
"""


INLINE = f'key = [\n  {{name = "a", sha256 = "{OTHER}"}},\n]\n'
# As many headers as keys, and one of them inside a text.
HALVED = f"""\
[["k\\u0065y"]]
name = "a"
sha256 = "{DIGEST}"
[[key]]
name = '''
[[key]]'''
sha256 = "{OTHER}"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (file := tmp_path / "keys.toml").write_text(FILE)
    file.chmod(0o600)
    return file


def run(command: str, *words: str | Path, given: str | None = None) -> Result:
    ended = CliRunner().invoke(cli.dashseek, ["keys", command, *map(str, words)], input=given)
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended


def names(path: Path) -> list[str]:
    return [row.name for row in keyring.rows(path)]


def test_a_key_that_is_made_is_shown_once_and_its_digest_alone_is_kept(path: Path) -> None:
    """KEY-1: with what it may ask for and how much."""
    ended = run("add", path, "--name", "新团队 c", "--model", "deepseek-v3", "--limits", "rpm=10 tpm=1000")
    assert ended.exit_code == 0, ended.output
    secret = ended.stdout.strip()
    assert len(secret) > 40
    row = keyring.rows(path)[-1]
    assert (row.name, row.sha256) == ("新团队 c", hashlib.sha256(secret.encode()).hexdigest())
    assert (row.models, row.limits) == (("deepseek-v3",), Limit(rpm=10, tpm=1000))
    assert ended.stderr.splitlines() == [
        "This is the key; it is shown this once, and the file has its digest alone.",
        f"{path}: 新团队 c ({row.sha256[:12]}) may call within a second",
    ]
    assert secret not in path.read_text() + ended.stderr
    assert path.read_text().startswith(FILE)
    assert (path.with_name("keys.toml~").read_text(), path.stat().st_mode & 0o777) == (FILE, 0o600)


@pytest.mark.parametrize(
    ("redirection", "why"),
    [
        (">/dev/full", "No space left on device"),
        (">&-", "standard output is closed"),
        ("| true", "Broken pipe"),
    ],
)
def test_a_key_that_cannot_be_shown_is_not_added(path: Path, redirection: str, why: str) -> None:
    """Nobody would have it."""
    path.with_name("keys.toml~").write_text("the version before")
    # Whoever reads the pipe has left before anything is written into it.
    words = f"set -o pipefail; {{ sleep 0.2; {sys.executable} -m proxy keys add {path} --name c; }} {redirection}"
    ended = subprocess.run(["bash", "-c", words], check=False, text=True, capture_output=True, cwd=needs.ROOT)
    sentence = f"Error: {path}: no key was added, for it cannot be shown: {why}\n"
    assert (ended.returncode, ended.stderr) == (1, sentence)
    assert path.read_text() == FILE
    assert {file.name: file.read_text() for file in path.parent.iterdir()} == {
        "keys.toml": FILE,
        "keys.toml~": "the version before",
        "keys.toml.lock": "",
    }


def test_a_model_of_ones_own_is_known_by_the_settings_of_the_environment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KEY-1: as by the gateway that reads the file; settings that cannot be read are no reason to refuse."""
    words = ("--name", "c", "--model", "Ours")
    refused = run("add", path, *words)
    assert (refused.exit_code, "DASHSEEK_CONFIG" in refused.stderr) == (2, True), refused.output
    (settings := path.with_name("dashseek.toml")).write_text('aliases = { ours = "deepseek-v3" }\n')
    monkeypatch.setenv("DASHSEEK_CONFIG", str(settings))
    assert run("add", path, *words).exit_code == 0
    settings.write_text('keys_file = "not-yet.toml"\n')
    ended = run("add", path, *words)
    told = f"the models are not judged, for the settings are wrong: keys_file ({settings}:1): is not a file\n"
    assert (ended.exit_code, ended.stderr.startswith(told)) == (0, True), ended.output


def test_a_model_that_no_line_shows_is_not_added(path: Path) -> None:
    with pytest.raises(key_file.KeyFileError, match="a model is one line of text"):
        key_file.add(path, "c", "secret", models=("deepseek-v3", "x\x00"))
    assert path.read_text() == FILE


def test_a_key_that_is_refused_is_not_shown(path: Path) -> None:
    """Who reads standard output has no key that is none."""
    for words in (("--name", "x" * 65), ("--name", "c", "--limits", "rps=3")):
        ended = run("add", path, *words)
        assert (ended.exit_code, ended.stdout, path.read_text()) == (2, "", FILE)


def test_a_key_is_shown_before_the_file_is_changed(path: Path) -> None:
    seen = list[str]()
    key_file.add(path, "c", "secret", show=lambda: seen.append(path.read_text()))
    assert seen == [FILE]
    assert names(path)[-1] == "c"


def test_a_file_is_made_where_there_is_none_and_a_key_may_be_brought(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    assert run("add", path, "--name", "ci", "--stdin", given="test\n").stdout == ""
    assert [(row.name, row.sha256) for row in keyring.rows(path)] == [("ci", hashlib.sha256(b"test").hexdigest())]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("which", ["team a", DIGEST[:12]])
def test_a_key_is_revoked_with_all_that_is_its_own_and_nothing_else(path: Path, which: str) -> None:
    ended = run("revoke", path, which)
    assert (ended.exit_code, "team a (9f86d081884c) may not call any more" in ended.stdout) == (0, True)
    first, _, rest = FILE.partition("[[key]]")
    assert path.read_text() == first + rest[rest.index("\n# Bob") :]
    assert path.with_name("keys.toml~").read_text() == FILE
    assert ended.stderr == f"the file as it was: {path}~\n"


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        (FILE.replace("\n", "\r\n"), "\r\n"),
        (FILE.replace("\n", "\r\n").removesuffix("\r\n"), "\r\n"),
        (FILE.replace("\n", "\r\n", 2), "\n"),
        (FILE.replace("\n", "\r\n").replace("\r\n", "\n", 2), "\r\n"),
        (FILE.removesuffix("\n"), "\n"),
    ],
    ids=["CRLF", "CRLF without its last", "LF with some CRLF", "CRLF with some LF", "LF without its last"],
)
def test_line_endings_stay_and_what_is_new_has_those_of_the_file(path: Path, text: str, ending: str) -> None:
    """A file that an editor under Windows has written, to the byte."""
    path.write_bytes(text.encode())
    added = run("add", path, "--name", "c", "--model", "deepseek-v3", "--limits", "rpm=1")
    assert added.exit_code == 0, added.output
    digest = hashlib.sha256(added.stdout.strip().encode()).hexdigest()
    entry = ["[[key]]", 'name = "c"', f'sha256 = "{digest}"', 'models = ["deepseek-v3"]', 'limits = "rpm=1"', ""]
    gap = ending if text.endswith("\n") else ending * 2
    assert path.read_bytes() == (text + gap + ending.join(entry)).encode()
    assert run("revoke", path, "c").exit_code == 0
    assert path.read_bytes() == (text + gap).encode()
    first, _, rest = text.partition("[[key]]")
    assert run("revoke", path, "team a").exit_code == 0
    assert path.read_bytes() == (first + rest[rest.index(f"{ending}# Bob") :] + gap).encode()


@pytest.mark.parametrize("odd", ["\u2028", "\x85"])
def test_a_comment_stays_whatever_characters_are_in_it(path: Path, odd: str) -> None:
    """A line of TOML ends with a line feed alone."""
    path.write_text(FILE.replace("# Bob asked", f"# Bob{odd}asked"), encoding="utf-8")
    assert run("revoke", path, "team a").exit_code == 0
    assert f"# Bob{odd}asked for this one.\n" in path.read_text("utf-8")


def test_all_keys_of_a_name_are_revoked_together(path: Path) -> None:
    run("add", path, "--name", "team a")
    assert run("revoke", path, "team a").stdout.count("may not call") == 2
    assert names(path) == ["team b"]


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        (FILE, ("revoke", "team c"), "no key has the name or the fingerprint team c"),
        (FILE, ("add", "--name", "x", "--limits", "rps=3"), "there is no limit rps"),
        (FILE, ("add", "--name", "x" * 65), "name"),
        *(
            (FILE, ("add", "--name", f"x{odd}y"), "a name is one line of text")
            for odd in "\n\r\x1b\x7f\x85\u2028\udcff"
        ),
        (FILE, ("add", "--name", "x", "--limits", "rpm=1\udcff"), "a limit is one line of text in UTF-8"),
        (FILE, ("add", "--name", "x", "--model", "deepsek-v3"), "'deepsek-v3': there is no such model; did you mean"),
        (FILE, ("add", "--name", "x", "--model", ""), "--model '': there is no such model"),
        (FILE, ("add", "--name", "x", "--model", "x\n"), "--model 'x\\n': there is no such model"),
        (INLINE, ("revoke", "a"), "its keys stand in an inline array, key = [...], and only [[key]] tables are"),
        (INLINE, ("add", "--name", "b"), "its keys stand in an inline array, key = [...], and only [[key]] tables are"),
        ("'key' = []", ("add", "--name", "b"), "its keys stand in an inline array"),
        ("[[key]", ("add", "--name", "b"), "is not TOML"),
        (HALVED, ("revoke", OTHER[:12]), "would not read back as meant, and is as it was: edit it by hand"),
        (FILE, ("add", "--name", "b", "--stdin"), "one sha256 is there twice"),
        (f'[[key]]\nname = """\n[[key]]"""\nsha256 = "{OTHER}"\n', ("revoke", "[[key]]"), "edit it by hand"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_the_file_is_as_it_was(
    path: Path, text: str, words: tuple[str, ...], sentence: str
) -> None:
    path.write_text(text)
    command, *rest = words
    ended = run(command, path, *rest, given="other")
    assert (ended.exit_code, sentence in ended.stderr) == (2, True), ended.output
    assert path.read_text() == text
    assert not path.with_name("keys.toml.new").exists()


WRITTEN_ODDLY = f'[["k\\u0065y"]]\nname = """\n[[key]]\nx = 1\n[y]\n"""\nsha256 = "{OTHER}"\n'


@pytest.mark.parametrize(
    "text",
    [WRITTEN_ODDLY + FILE.partition("# Bob")[0], FILE.partition("# Bob")[0] + WRITTEN_ODDLY],
    ids=["first", "last"],
)
def test_a_table_inside_a_text_is_not_taken_out_for_a_key(path: Path, text: str) -> None:
    """As many seem to be there as are; who is told that a key is revoked may rely on it."""
    path.write_text(text)
    assert len(names(path)) == 2
    with pytest.raises(key_file.KeyFileError, match="edit it by hand"):
        key_file.revoke(path, OTHER[:12])
    assert path.read_text() == text


def test_a_key_that_no_header_carries_is_not_added(path: Path) -> None:
    with pytest.raises(key_file.KeyFileError, match="printable ASCII"):
        key_file.add(path, "c", "two words")
    assert path.read_text() == FILE


@pytest.mark.parametrize("user", [0, 1000])
def test_what_is_put_in_its_place_is_on_the_disk_and_has_its_owner(
    path: Path, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that stops leaves the old file or the new one, whole; none but root may give a file away."""
    synced, owners = list[int](), list[tuple[int, int]]()
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "chown", lambda _, *owner: owners.append(owner))
    assert key_file.add(path, "c", "secret").name == "c"
    assert synced == [path.stat().st_size]
    assert owners == ([] if user else [(path.stat().st_uid, path.stat().st_gid)])
    assert path.with_name("keys.toml.lock").stat().st_mode & 0o777 == 0o600


def test_a_link_stays_one_and_what_it_names_is_edited(path: Path, tmp_path: Path) -> None:
    (link := tmp_path / "elsewhere.toml").symlink_to(path)
    assert run("add", link, "--name", "c").exit_code == 0
    assert link.is_symlink()
    assert names(path) == ["team a", "team b", "c"]


def test_a_directory_that_may_not_be_written_is_a_sentence() -> None:
    ended = run("add", "/proc/keys.toml", "--name", "a")
    assert (ended.exit_code, ended.stderr.startswith("Error: /proc/keys.toml")) == (1, True), ended.output


def test_edits_at_the_same_time_are_all_there(path: Path) -> None:
    """The lock holds between processes, too."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom proxy.admission import key_file\n"
        "for n in range(5): key_file.add(Path(sys.argv[1]), f'p{n}', key_file.made())"
    )
    with subprocess.Popen([sys.executable, "-c", script, path]) as other, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: key_file.add(path, f"t{number}", key_file.made()), range(20)))
        assert other.wait() == 0
    assert sorted(names(path)) == sorted(
        ["team a", "team b", *(f"t{n}" for n in range(20)), *(f"p{n}" for n in range(5))]
    )


def test_keys_are_listed_with_what_they_have_used(path: Path, tmp_path: Path) -> None:
    """KEY-1: by fingerprint, for two keys may have one name."""
    journal = write(
        tmp_path / "calls.jsonl",
        *(record for number in range(3) for record in (opened(named(number)), closed(named(number)))),
    )
    assert run("list", path).stdout.splitlines()[1:] == [
        "team a  9f86d081884c  -            rpm=60",
        f"team b  {OTHER[:12]}  deepseek-v3  -",
    ]
    listed = orjson.loads(run("list", path, "--json", "--journal", journal).stdout)
    assert [(row["name"], row["calls"], row["input"], row["output"], row["last"]) for row in listed] == [
        ("team a", 3, 9, 12, "2026-11-22T10:00:00.000Z"),
        ("team b", 0, 0, 0, None),
    ]
    table = run("list", path, "--journal", journal).stdout
    assert "rpm=60  2026-11-22T10:00:00.000Z      3      9      12" in table
    assert DIGEST not in table
