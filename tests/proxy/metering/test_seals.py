"""Claims about sealed files: whatever is missing between two, altered, cut or grown shows in `verify`, and is named."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from proxy.commands import cli
from proxy.metering import append_file, ledger, seals
from proxy.metering.append_file import LineFile
from tests.proxy.metering.records import closed, named, opened, upstream_call, written


def lines(number: int) -> tuple[bytes, bytes]:
    said = {"at": f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z"}
    return (
        written(opened(named(number), **said)),
        written(closed(named(number), **said, calls=[upstream_call(3, 4)])),
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five files of a journal that was rotated while it was written, the earliest first."""
    now = 0.0
    path = tmp_path / "usage.jsonl"
    file = LineFile(path, max_bytes=3000, sync="never", clock=lambda: now)
    for number in range(15):
        opening, ending = lines(number)
        file.append(opening)
        now += append_file.LOOK_EVERY_S
        file.append(ending)
        now += append_file.SETTLED_S
        file.seal(lambda descriptor: seals.seal(descriptor, lambda _: None))
    file.close()
    return [*sorted(tmp_path.glob("usage.jsonl.*"), key=lambda path: int(path.suffix[1:])), path]


def verify(paths: Iterable[Path]) -> Result:
    return CliRunner().invoke(cli.dashseek, ["usage", "verify", *map(str, paths)])


def test_a_seal_says_what_is_in_the_file_before_it(files: list[Path]) -> None:
    """MET-6: its sums, and a digest of all of it, the seal in it included."""
    assert len(files) > 3
    sealed = [orjson.loads(line) for path in files for line in path.read_bytes().splitlines() if b'"seal"' in line]
    assert len(sealed) == len(files) - 1
    for before, seal in zip(files, sealed, strict=False):
        content = before.read_bytes()
        records = [orjson.loads(line) for line in content.splitlines()]
        ended = [record for record in records if record["ev"] == "close"]
        assert (seal["begins_at"], seal["at"][-1]) == (records[0]["at"], "Z")
        assert abs(datetime.fromisoformat(seal["at"]) - datetime.now(UTC)) < timedelta(hours=1)
        assert (seal["bytes"], seal["lines"], seal["ended"]) == (len(content), len(records), len(ended))
        assert seal["opened"] == sum(record["ev"] == "open" for record in records)
        assert (seal["input"], seal["generated_output"]) == (3 * len(ended), 4 * len(ended))


def test_what_is_whole_is_true_by_whatever_names_packed_or_in_part(files: list[Path], tmp_path: Path) -> None:
    assert verify(files).exit_code == 0, verify(files).output
    packed = tmp_path / "old.gz"
    packed.write_bytes(gzip.compress(files[0].read_bytes()))
    assert verify([*reversed(files[1:]), packed]).exit_code == 0
    for begin in range(len(files)):
        assert verify(files[begin:]).exit_code == 0
        assert verify(files[begin : begin + 1]).exit_code == 0


def test_a_file_that_is_missing_between_two_is_named_with_its_sums(files: list[Path]) -> None:
    for gone in range(1, len(files) - 1):
        ended = verify(files[:gone] + files[gone + 1 :])
        assert ended.exit_code == 1
        begins = orjson.loads(files[gone].read_bytes().splitlines()[0])["at"]
        assert f"seal: the file that begins at {begins} is not here, " in ended.stdout
        assert "tokens delivered" in ended.stdout


def test_the_oldest_ones_that_are_not_here_are_named_and_break_no_rule(files: list[Path]) -> None:
    """MET-6: they are taken away some day; whoever did not take them away sees it."""
    assert "earlier" not in verify(files).stdout
    for begin in range(1, len(files)):
        ended = verify(files[begin:])
        begins = orjson.loads(files[begin - 1].read_bytes().splitlines()[0])["at"]
        (told,) = (line for line in ended.stdout.splitlines() if "earlier" in line)
        assert f": earlier: the file that begins at {begins} is not here, " in told
        assert "tokens delivered" in told
        assert ended.exit_code == 0
        assert ended.stdout.endswith("no rule broken\n")
    files[2].write_bytes(files[2].read_bytes().replace(b'"begins_at"', b'"begann"'))
    assert "not a seal: begins_at is missing" in verify(files[2:]).stdout


def test_of_files_that_turn_faster_than_they_are_sealed_the_one_that_is_missing_is_named(files: list[Path]) -> None:
    """Its seal stands two files on, so it is not the one before it."""
    gone, after, sealing = files[1:4]
    seal = next(line for line in after.read_bytes().splitlines(keepends=True) if b'"seal"' in line)
    after.write_bytes(after.read_bytes().replace(seal, b""))
    sealing.write_bytes(sealing.read_bytes() + seal)
    begins = orjson.loads(gone.read_bytes().splitlines()[0])["at"]
    ended = verify([files[0], after, sealing])
    assert f"{sealing}:" in ended.stdout
    assert f"the file that begins at {begins} is not here, " in ended.stdout


def test_whatever_is_altered_shows(files: list[Path]) -> None:
    """A figure made less, a line taken out, a line put in, the end cut off."""
    path = files[1]
    content = path.read_bytes()
    whole = content.splitlines(keepends=True)
    for altered, sentence in (
        (content[:-800] + content[-800:].replace(b'tokens":4', b'tokens":1', 1), "output 12 -> 9"),
        (content[:-800] + content[-800:].replace(b'"team a"', b'"team b"'), "the same sums of other lines"),
        (content.replace(b'"team a"', b'"team b"'), "or its first line is another"),
        (b"".join(whole[:2] + whole[3:]), "bytes shorter than when it was sealed"),
        (content + whole[0].replace(b"-", b"-ff", 1), "has grown since it was sealed"),
        (content[:-20], "20 bytes shorter than when it was sealed"),
    ):
        assert altered != content
        path.write_bytes(altered)
        ended = verify(files)
        assert (ended.exit_code, "seal: " in ended.stdout, sentence in ended.stdout) == (1, True, True), ended.stdout
    path.write_bytes(content)
    (packed := path.with_name("old.gz")).write_bytes(gzip.compress(content)[:-30])
    path.unlink()
    assert f"seal: {packed} breaks off, and was whole" in verify([*files[:1], packed, *files[2:]]).stdout


def test_a_seal_that_was_altered_shows_in_the_next(files: list[Path]) -> None:
    """Whoever makes a file less and seals it anew has to seal all that follow."""
    content = files[2].read_bytes()
    files[2].write_bytes(content.replace(b'"ended":', b'"ended":1'))
    assert f"{files[2]} is not what was sealed" in verify(files).stdout or "bytes shorter" in verify(files).stdout
    files[2].write_bytes(content.replace(b'"begins"', b'"begann"'))
    assert "not a seal: begins is missing" in verify(files).stdout


def test_a_seal_adds_nothing_and_takes_nothing(files: list[Path]) -> None:
    read = ledger.read(files)
    assert sum(totals.calls for totals in read.totals.values()) == 15
    assert (read.violations, read.unknown, len(read.seals)) == ([], [], len(files) - 1)


def test_the_process_that_makes_the_new_file_seals_the_former_and_no_other(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "usage.jsonl"
    writers = [LineFile(path, max_bytes=None, sync="never", clock=lambda: now) for _ in range(3)]
    for writer in writers:
        writer.append(lines(0)[0])
    path.rename(tmp_path / "usage.jsonl.1")
    now += append_file.LOOK_EVERY_S
    for writer in writers:
        writer.append(lines(0)[0])
    sealed: list[int] = []
    for age in (append_file.SETTLED_S / 2, append_file.SETTLED_S):
        now = append_file.LOOK_EVERY_S + age
        for writer in writers:
            writer.seal(lambda descriptor: sealed.append(os.fstat(descriptor).st_ino) or b"{}\n")
        assert len(sealed) == (age == append_file.SETTLED_S)
    assert sealed == [(tmp_path / "usage.jsonl.1").stat().st_ino]
    for writer in writers:
        writer.close()


def test_a_file_is_sealed_in_pieces_with_a_pause_behind_each_up_to_where_it_ended(tmp_path: Path) -> None:
    """A few hundredths of a core, beside calls; a line that comes meanwhile is not of it."""
    path = tmp_path / "usage.jsonl"
    line = lines(0)[1]
    count = 2 * seals.PIECE_BYTES // len(line) + 1
    path.write_bytes(line * count)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        with path.open("ab") as file:
            file.write(line)

    with path.open("rb") as file:
        sealed = orjson.loads(seals.seal(file.fileno(), pause))
    assert (sealed["lines"], sealed["bytes"]) == (count, count * len(line))
    assert pauses == [seals.PAUSE_S] * 3


def test_what_begins_with_the_earliest_file_is_not_missing(tmp_path: Path) -> None:
    """Calls of one moment: the file before need not be here."""
    (path := tmp_path / "usage.jsonl").write_bytes(lines(0)[0])
    said = {"begins": "0" * seals.DIGITS, "ended": 1, "input": 3, "output": 4}
    said |= {"generated_input": 3, "generated_output": 4}
    moments = "2026-11-22T09:59:59.999Z", "2026-11-22T10:00:00.000Z", "2026-11-22T10:00:00.001Z"
    found = [seals.Found(path, 1, {**said, "begins_at": at}) for at in moments]
    (breach,) = seals.check(found, [path])
    assert breach.text.startswith("the file that begins at 2026-11-22T10:00:00.001Z is not here")
