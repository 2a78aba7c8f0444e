"""One record's way from the journal to the store, while others write, save and erase."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handlehome.relay.carrying import carry
from handlehome.store.journal import Journal
from handlehome.store.journalfile import DamagedEvent, JournalFile
from handlehome.store.records import CallRecord, fold
from handlehome.store.sqlite import SqliteCallStore
from tests.test_relay_saving import CALL, play


class Store(SqliteCallStore):
    """Something happens just before a record is saved, once."""

    meanwhile: Callable[[], object] | None = None

    def save(self, record: CallRecord) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        super().save(record)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "journal.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "calls.sqlite3")
    yield opened
    opened.close()


def unchanged(record: CallRecord) -> CallRecord:
    return record


def extracted(journal: Journal, name: str) -> None:
    data = {"customer": {"last_name": name}}
    JournalFile(journal.path).write(CALL, "extracted", {"data": data, "extraction": {"status": "complete"}})


def test_the_record_is_made_of_all_events(journal: Journal, store: Store) -> None:
    play(journal)
    assert journal.flush_sync(5)
    carried = carry(journal, store, CALL, lambda record: replace(record, usage={"cost": 1.0}))
    assert carried is not None
    assert carried.seq == journal.events(CALL)[-1].seq
    assert store.get(CALL) == carried.record == replace(fold(journal.events(CALL)), usage={"cost": 1.0})


def test_another_process_that_saves_a_newer_record_meanwhile_is_not_undone(
    journal: Journal, store: Store
) -> None:
    play(journal)
    assert journal.flush_sync(5)

    def other() -> None:
        extracted(journal, "Martin")
        carry(journal, store, CALL, unchanged)

    store.meanwhile = other
    carried = carry(journal, store, CALL, unchanged)
    assert carried is not None
    assert carried.seq == journal.events(CALL)[-1].seq
    record = store.get(CALL)
    assert record is not None
    assert record.data == {"customer": {"last_name": "Martin"}}


def test_a_call_that_is_erased_meanwhile_does_not_come_back(journal: Journal, store: Store) -> None:
    play(journal)
    assert journal.flush_sync(5)
    store.meanwhile = lambda: journal.erase([CALL])
    assert carry(journal, store, CALL, unchanged) is None
    assert store.get(CALL) is None


def test_an_erased_call_is_removed_by_the_next_attempt(journal: Journal, store: Store) -> None:
    """Should the first one not have got so far."""
    play(journal)
    assert journal.flush_sync(5)
    store.save(fold(journal.events(CALL)))
    journal.erase([CALL])
    assert carry(journal, store, CALL, unchanged) is None
    assert store.get(CALL) is None


def test_a_call_whose_events_are_pruned_keeps_its_record(journal: Journal, store: Store) -> None:
    play(journal)
    assert journal.flush_sync(5)
    carried = carry(journal, store, CALL, unchanged)
    assert carried is not None
    journal.append(CALL, "call_saved", {"seq": carried.seq})
    assert journal.flush_sync(5)
    assert journal.prune(4e9, 4e9) == 1
    assert carry(journal, store, CALL, unchanged) is None
    assert store.get(CALL) == carried.record


def test_a_call_that_changes_at_each_save_is_left_to_who_changes_it(journal: Journal, store: Store) -> None:
    play(journal)
    assert journal.flush_sync(5)

    def again() -> None:
        extracted(journal, "Durand")
        store.meanwhile = again

    store.meanwhile = again
    carried = carry(journal, store, CALL, unchanged)
    assert carried is not None
    assert carried.seq < journal.newest(CALL)


def test_a_damaged_event_is_told_as_this_calls_own(journal: Journal, store: Store) -> None:
    play(journal)
    assert journal.flush_sync(5)
    import sqlite3

    writer = sqlite3.connect(journal.path)
    with writer:
        writer.execute("UPDATE events SET data = '{' WHERE kind = 'turn'")
    writer.close()
    with pytest.raises(DamagedEvent, match=CALL):
        carry(journal, store, CALL, unchanged)
