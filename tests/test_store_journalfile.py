"""The journal's file: which calls are in what state, what is erased, and files that can't be used."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from handlehome.store.journal import Journal
from handlehome.store.journalfile import JournalError, JournalFile

Opener = Callable[..., Journal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def opened(path: Path) -> Iterator[Opener]:
    """Opens journals, and closes them when the test is over."""
    journals: list[Journal] = []

    def opener(**options: Any) -> Journal:
        journals.append(Journal.open(path, **options))
        return journals[-1]

    yield opener
    for each in journals:
        each.close(timeout=1)


# Calls and their lives


async def test_unfinished_and_unsaved_calls(opened: Opener) -> None:
    journal = opened()
    for sid, kinds in {
        "live": ["call_started", "turn"],
        "over": ["call_started", "call_ended"],
        "saved": ["call_started", "call_ended", "call_saved"],
        "late": ["call_started", "call_ended", "call_saved", "turn"],
        "refused": ["call_started", "call_ended", "save_refused"],
        "late and saved": ["call_started", "call_ended", "call_saved", "turn", "call_saved"],
        "interrupted": ["call_started", "call_interrupted"],
    }.items():
        for kind in kinds:
            journal.append(sid, kind, {})
    await journal.flush()
    assert journal.unfinished() == ["live", "interrupted"]
    assert journal.unsaved() == ["over", "late", "refused"]


async def test_life_is_read_from_an_index(opened: Opener, path: Path) -> None:
    opened()
    reader = sqlite3.connect(path)
    plan = str(reader.execute("EXPLAIN QUERY PLAN SELECT * FROM lives").fetchall())
    reader.close()
    assert "events_of_life" in plan
    assert "events_by_call" in plan
    assert "SCAN e " not in plan


async def test_prune_drops_saved_calls_that_are_old_enough(opened: Opener) -> None:
    journal = opened()
    settled, stopped = ({"extraction": {"status": status}} for status in ("complete", "stopped"))
    saved = ("call_started", "call_ended", "extracted", "call_saved")
    for number in range(120):
        for kind in saved:
            journal.append(f"old{number}", kind, settled if kind == "extracted" else {}, at=102)
    for kind in saved:
        journal.append("young", kind, settled if kind == "extracted" else {}, at=200)
        journal.append("stopped", kind, stopped if kind == "extracted" else {}, at=100)
    for at, kind in ((100, "call_started"), (101, "call_ended")):
        journal.append("unsaved", kind, {}, at=at)
    journal.append("live", "call_started", {}, at=100)
    await journal.flush()
    assert journal.prune(102) == 0
    assert journal.prune(103) == 120
    assert journal.events("old0") == journal.events("old119") == []
    assert [len(journal.events(sid)) for sid in ("young", "stopped", "unsaved", "live")] == [4, 4, 2, 1]
    assert journal.prune(103) == 0
    assert journal.prune(103, 101) == 1
    assert journal.events("stopped") == []


async def test_sequence_numbers_are_never_used_again(opened: Opener, path: Path) -> None:
    """Pruning the newest events, and a restart, do not give their numbers to others."""
    journal = opened()
    for kind in ("call_started", "call_ended", "call_saved"):
        journal.append("CA1", kind, {}, at=1)
    await journal.flush()
    assert journal.prune(2, 2) == 1
    journal.close()
    journal = opened()
    journal.append("CA2", "call_started", {})
    await journal.flush()
    reader = sqlite3.connect(path)
    assert reader.execute("SELECT seq FROM events").fetchall() == [(4,)]
    reader.close()


async def test_an_event_between_reading_and_saving_is_not_taken_for_saved(opened: Opener) -> None:
    """What `call_saved` names is saved, though more was written before it got there itself."""
    journal = opened()
    for kind in ("call_started", "call_ended"):
        journal.append("CA1", kind, {})
    await journal.flush()
    seq = journal.events("CA1")[-1].seq
    journal.append("CA1", "extracted", {"extraction": {"status": "complete"}})
    journal.append("CA1", "call_saved", {"seq": seq})
    await journal.flush()
    assert journal.unsaved() == ["CA1"]
    journal.append("CA1", "call_saved", {"seq": seq + 1})
    await journal.flush()
    assert journal.unsaved() == []


@pytest.mark.parametrize(
    ("statuses", "pending"),
    [
        ([], True),
        (["waiting"], True),
        (["retrying"], True),
        (["stopped"], True),
        (["retrying", "complete"], False),
        (["given_up"], False),
        (["nothing_said"], False),
        (["complete", "retrying"], True),
    ],
)
async def test_a_call_is_processed_when_its_last_extraction_is_settled(
    opened: Opener, statuses: list[str], pending: bool
) -> None:
    journal = opened()
    for kind in ("call_started", "call_ended"):
        journal.append("CA1", kind, {})
    for status in statuses:
        journal.append("CA1", "extracted", {"data": None, "extraction": {"status": status}})
    journal.append("live", "call_started", {})
    await journal.flush()
    assert journal.unprocessed() == (["CA1"] if pending else [])


async def test_calls_of_a_customers_number(opened: Opener) -> None:
    journal = opened()
    number, company, other = "+33612345678", "+33123456789", "+33611111111"
    for sid, from_, to, direction in (
        ("caller", number, company, "inbound"),
        ("called", company, number, "outbound-api"),
        ("another", other, company, "inbound"),
        ("said", other, company, "inbound"),
        ("ours", other, number, "inbound"),
    ):
        journal.append(sid, "call_started", {"from": from_, "to": to, "direction": direction})
    for phone in (other, number):
        journal.append("said", "extracted", {"data": {"customer": {"phone": phone}}, "extraction": {}})
    await journal.flush()
    assert sorted(journal.calls_of(number)) == ["called", "caller", "said"]


# Erasing


async def test_what_is_erased_is_gone_and_stays_gone(opened: Opener, path: Path) -> None:
    journal = opened()
    for sid in ("CA1", "CA2"):
        journal.append(sid, "call_started", {"from": f"+336{sid}"})
        journal.append(sid, "turn", {"id": "u1", "text": f"geheim {sid}"})
    await journal.flush()
    assert JournalFile(path).erase(["CA1"]) == 2
    journal.append("CA1", "extracted", {"data": {"customer": {"last_name": "geheim CA1"}}})
    journal.append("CA2", "call_ended", {})
    await journal.flush()
    assert journal.events("CA1") == []
    assert [event.kind for event in journal.events("CA2")] == ["call_started", "turn", "call_ended"]
    assert journal.erase(["CA1"]) == 0
    content = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert b"geheim CA1" not in content
    assert b"geheim CA2" in content


async def test_an_erased_call_is_forgotten_when_no_more_can_come_of_it(opened: Opener, path: Path) -> None:
    journal = opened()
    journal.erase(["CA1"])
    journal.prune(0)
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT count(*) FROM erased").fetchone() == (1,)
    journal.prune(4e9)
    assert reader.execute("SELECT count(*) FROM erased").fetchone() == (0,)
    reader.close()


# Files of earlier versions, and files that can't be used


VERSION_1 = """
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, call_sid TEXT NOT NULL, at REAL NOT NULL,
    kind TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX events_by_call ON events (call_sid, seq);
CREATE INDEX events_of_life ON events (call_sid, kind, seq)
    WHERE kind IN ('call_started', 'call_ended', 'call_saved');
CREATE VIEW lives AS SELECT call_sid FROM events;
INSERT INTO events (call_sid, at, kind, data) VALUES
    ('saved', 1, 'call_started', '{}'), ('saved', 2, 'call_ended', '{}'), ('saved', 3, 'call_saved', '{}'),
    ('over', 4, 'call_started', '{}'), ('over', 5, 'call_ended', '{}');
PRAGMA user_version = 1;
"""


def test_a_journal_of_version_1_is_brought_up_to_date(path: Path, opened: Opener) -> None:
    with sqlite3.connect(path) as old:
        old.executescript(VERSION_1)
    old.close()
    journal = opened()
    assert journal.unsaved() == ["over"]
    assert journal.unprocessed() == ["saved", "over"]
    assert [event.seq for event in journal.events("over")] == [4, 5]


@pytest.mark.parametrize("content", [b"not a database at all, and long enough to show it " * 100])
def test_foreign_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalError, match="move it away"):
        Journal.open(path)


def test_torn_journal_is_refused(path: Path) -> None:
    journal = Journal.open(path)
    for number in range(3000):
        journal.append("CA1", "turn", {"id": number, "text": "x" * 100})
    journal.close()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(JournalError, match="damaged"):
        Journal.open(path)


def test_newer_journal_is_refused(path: Path) -> None:
    Journal.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="version 99, newer"):
        Journal.open(path)


def test_journal_that_was_removed_is_an_error_of_its_readers(opened: Opener, path: Path) -> None:
    journal = opened()
    path.unlink()
    with pytest.raises(JournalError, match="can't be read"):
        journal.unfinished()


async def test_damaged_event_is_a_named_error(opened: Opener, path: Path) -> None:
    journal = opened()
    journal.append("CA1", "call_started", {})
    await journal.flush()
    writer = sqlite3.connect(path)
    with writer:
        writer.execute("UPDATE events SET data = '{'")
    writer.close()
    with pytest.raises(JournalError, match="an event of CA1 is damaged"):
        journal.events("CA1")
