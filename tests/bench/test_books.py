"""Claims about the journal that the bench of reports writes: it is one, and of as many kinds as it says."""

from __future__ import annotations

from pathlib import Path

from proxy.metering import ledger
from tests.bench import books


def test_it_breaks_no_rule_and_is_of_as_many_kinds_as_it_says(tmp_path: Path) -> None:
    few, more = (books.write(tmp_path / f"{keys}.jsonl", 2_000, keys) for keys in (1, 12))
    assert 20 < few < more
    read = ledger.read([tmp_path / "12.jsonl"], rules=ledger.RULES)
    assert (read.violations, read.unknown, read.torn) == ([], [], [])
    assert {group.outcome for group in read.totals} == {"ok", "client_gone_mid_stream"}
    assert sum(totals.calls for totals in read.totals.values()) == 2_000


def test_a_report_and_the_plain_program_agree(tmp_path: Path) -> None:
    books.write(path := tmp_path / "calls.jsonl", 500, 3)
    ours = books.taken(books.OURS, "usage", "sum", "--json", str(path))
    plain = books.taken(books.PLAIN, str(path))
    assert plain.total == {name: ours.total[name] for name in plain.total}
    assert plain.total["calls"] == 500
    assert min(ours.cpu_s, plain.cpu_s, ours.mib, plain.mib) > 0
