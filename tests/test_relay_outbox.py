"""From the journal to the store: in order, each state once, whatever goes wrong meanwhile."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from handlehome.relay import outbox as outbox_module
from handlehome.relay.outbox import Outbox
from handlehome.store.calls import CallStoreUnavailable, RecordRefused
from handlehome.store.journal import Journal
from handlehome.store.records import CallRecord
from handlehome.store.sqlite import SqliteCallStore
from tests.test_relay_saving import CALL, OTHER, play

PATIENCE = 10.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts are as short as they can be; how often there are attempts is not checked."""
    monkeypatch.setattr(outbox_module, "RETRY_SECONDS", (0.005, 0.02))


class Store(SqliteCallStore):
    """The embedded store, with a door that tests can shut."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.saves: list[tuple[str, str, int]] = []
        self.attempts = 0
        self.failing: Callable[[CallRecord], Exception | None] = lambda record: None
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)

    def save(self, record: CallRecord) -> None:
        self.attempts += 1
        self.entered.release()
        assert self.open.wait(PATIENCE)
        error = self.failing(record)
        if error is not None:
            raise error
        super().save(record)
        self.saves.append((record.call_sid, record.status, len(record.turns)))


@dataclass
class Post:
    """A journal, a store, and the outbox between them."""

    journal: Journal
    store: Store
    outbox: Outbox

    async def carried(self, but: int = 0) -> None:
        """Waits until nothing waits, but for so many calls."""
        async with asyncio.timeout(PATIENCE):
            while self.outbox.health.waiting > but:  # noqa: ASYNC110 - nothing tells that a save is over
                await asyncio.sleep(0.001)
        await self.journal.flush()

    async def attempted(self, times: int) -> None:
        """Waits for attempts to save."""
        for _ in range(times):
            assert await asyncio.to_thread(self.store.entered.acquire, timeout=PATIENCE)

    def saved(self, call_sid: str) -> list[int]:
        return [event.data["seq"] for event in self.journal.events(call_sid) if event.kind == "call_saved"]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    journal = Journal.open(tmp_path / "journal.sqlite3")
    store = Store(tmp_path / "calls.sqlite3")
    outbox = Outbox(journal, store)
    yield Post(journal, store, outbox)
    store.open.set()
    outbox.close(1)
    journal.close()
    store.close()


async def test_what_was_appended_just_before_is_in_the_record(post: Post) -> None:
    """Though the journal's writer may be behind."""
    play(post.journal)
    for number in range(500):
        turn = {"id": f"a{number}", "after": None, "role": "assistant", "text": "Oui."}
        post.journal.append(CALL, "turn", turn)
    post.outbox.touch(CALL)
    await post.carried()
    assert post.store.saves == [(CALL, "ended", 501)]
    assert post.saved(CALL) == [post.journal.events(CALL)[-2].seq]
    assert post.journal.unsaved() == []


async def test_changes_while_it_waits_are_carried_once(post: Post) -> None:
    post.store.open.clear()
    play(post.journal)
    post.outbox.touch(CALL)
    await post.attempted(1)
    for number in range(20):
        post.journal.append(CALL, "turn", {"id": f"a{number}", "after": None, "role": "assistant"})
        post.outbox.touch(CALL)
    assert post.outbox.health.waiting == 1
    post.store.open.set()
    await post.carried()
    assert post.store.saves == [(CALL, "ended", 1), (CALL, "ended", 21)]
    assert len(post.saved(CALL)) == 2
    assert post.journal.unsaved() == []


async def test_calls_are_carried_in_the_order_of_their_times(post: Post) -> None:
    post.store.open.clear()
    sids = [f"CA{number:032d}" for number in range(5)]
    for sid in sids:
        play(post.journal, sid)
    post.outbox.touch(sids[0])
    await post.attempted(1)
    post.outbox.touch(sids[1], 0.02)
    post.outbox.touch(sids[2])
    post.outbox.touch(sids[3], 3600)
    post.outbox.touch(sids[4], 3600)
    post.outbox.touch(sids[4], 0.01)
    post.store.open.set()
    await post.carried(but=1)
    assert [sid for sid, *_ in post.store.saves] == [sids[0], sids[2], sids[4], sids[1]]


async def test_a_store_that_fails_is_tried_again_until_it_works(post: Post) -> None:
    post.store.failing = lambda record: CallStoreUnavailable("no primary")
    for sid in (CALL, OTHER):
        play(post.journal, sid)
        post.outbox.touch(sid)
    await post.attempted(4)
    health = post.outbox.health
    assert (health.waiting, health.error, health.refused) == (2, "no primary", 0)
    assert health.oldest_seconds > 0
    assert not post.saved(CALL)
    post.store.failing = lambda record: None
    await post.carried()
    assert [sid for sid, *_ in post.store.saves] == [CALL, OTHER]
    assert post.outbox.health.error is None


async def test_one_calls_trouble_that_looks_like_the_stores_does_not_hold_up_the_others(post: Post) -> None:
    def failing(record: CallRecord) -> Exception | None:
        return CallStoreUnavailable("a unique index") if record.call_sid == OTHER else None

    post.store.failing = failing
    for sid in (OTHER, CALL):
        play(post.journal, sid)
        post.outbox.touch(sid)
    await post.carried(but=1)
    assert [sid for sid, *_ in post.store.saves] == [CALL]
    assert post.journal.unsaved() == [OTHER]


async def test_ended_calls_come_before_live_ones(post: Post) -> None:
    post.store.open.clear()
    live = [f"CA{number:032d}" for number in range(5)]
    for sid in live:
        play(post.journal, sid, ended=False)
        post.outbox.touch(sid, live=True)
    await post.attempted(1)
    play(post.journal)
    post.outbox.touch(CALL)
    post.outbox.touch(CALL, live=True)  # it is on its way already
    post.store.open.set()
    await post.carried()
    assert [sid for sid, *_ in post.store.saves] == [live[0], CALL, *live[1:]]


async def test_a_refused_call_is_set_aside_once_while_it_lives(post: Post) -> None:
    post.store.failing = lambda record: RecordRefused("too large")
    play(post.journal, ended=False)
    for _ in range(3):
        post.outbox.touch(CALL, live=True)
        await post.carried()
    assert post.outbox.health.refused == 1
    assert sum(event.kind == "save_refused" for event in post.journal.events(CALL)) == 1
    post.store.failing = lambda record: None
    post.outbox.touch(CALL)
    await post.carried()
    assert post.outbox.health.refused == 0


async def test_a_damaged_event_concerns_its_call_only(tmp_path: Path, post: Post) -> None:
    for sid in (OTHER, CALL):
        play(post.journal, sid)
    await post.journal.flush()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as writer, writer:
        writer.execute("UPDATE events SET data = '{' WHERE kind = 'turn' AND call_sid = ?", (OTHER,))
    for sid in (OTHER, CALL):
        post.outbox.touch(sid)
    await post.carried()
    assert [sid for sid, *_ in post.store.saves] == [CALL]
    assert post.outbox.health.refused == 1


async def test_what_can_not_be_removed_afterwards_does_not_make_a_record_unsaved(
    tmp_path: Path, post: Post
) -> None:
    def saved(_record: CallRecord) -> None:
        raise PermissionError(13, "Permission denied")

    outbox = Outbox(post.journal, post.store, saved=saved)
    play(post.journal)
    outbox.touch(CALL)
    assert await asyncio.to_thread(outbox.close, PATIENCE) == 0
    await post.journal.flush()
    assert post.journal.unsaved() == []
    assert outbox.health.refused == 0


async def test_a_refused_record_is_set_aside_and_the_others_go_on(post: Post) -> None:
    refused = lambda record: RecordRefused("too large") if record.call_sid == OTHER else None  # noqa: E731
    post.store.failing = refused
    for sid in (OTHER, CALL):
        play(post.journal, sid)
        post.outbox.touch(sid)
    await post.carried()
    assert [sid for sid, *_ in post.store.saves] == [CALL]
    assert post.outbox.health.refused == 1
    (event,) = [event for event in post.journal.events(OTHER) if event.kind == "save_refused"]
    assert event.data == {"reason": "too large"}
    assert post.journal.unsaved() == [OTHER]
    # It may pass once it has changed, or the store has.
    post.store.failing = lambda record: None
    post.outbox.touch(OTHER)
    await post.carried()
    assert post.journal.unsaved() == []


async def test_a_record_that_cannot_be_made_does_not_hold_up_another(post: Post) -> None:
    post.journal.append(OTHER, "call_started", {})
    post.journal.append(OTHER, "turn", {"id": "u1"})
    post.journal.append(OTHER, "call_ended", {"reason": "caller_hung_up"})
    play(post.journal)
    post.outbox.touch(OTHER)
    post.outbox.touch(CALL)
    await post.carried()
    assert [sid for sid, *_ in post.store.saves] == [CALL]
    assert post.journal.unsaved() == [OTHER]


async def test_a_live_call_is_saved_without_being_noted_as_saved(post: Post) -> None:
    play(post.journal, ended=False)
    post.outbox.touch(CALL)
    await post.carried()
    assert post.store.saves == [(CALL, "live", 1)]
    assert not post.saved(CALL)


async def test_a_call_of_which_nothing_is_known_is_left_alone(post: Post) -> None:
    post.outbox.touch(CALL)
    await post.carried()
    assert post.store.attempts == 0


async def test_a_call_that_is_erased_while_it_is_saved_stays_erased(post: Post) -> None:
    play(post.journal)
    post.store.open.clear()
    post.outbox.touch(CALL)
    await post.attempted(1)
    post.journal.erase([CALL])
    post.store.open.set()
    await post.carried()
    assert post.store.get(CALL) is None
    assert post.journal.events(CALL) == []


async def test_what_completes_a_record_is_saved_with_it(tmp_path: Path, post: Post) -> None:
    outbox = Outbox(post.journal, post.store, complete=lambda record: replace(record, usage={"cost": 1.5}))
    play(post.journal)
    outbox.touch(CALL)
    assert await asyncio.to_thread(outbox.close, PATIENCE) == 0
    record = post.store.get(CALL)
    assert record is not None
    assert record.usage == {"cost": 1.5}


async def test_each_saved_record_of_an_ended_call_is_told(post: Post) -> None:
    told: list[tuple[str, bool]] = []
    outbox = Outbox(
        post.journal,
        post.store,
        saved=lambda record: told.append((record.call_sid, post.store.get(record.call_sid) == record)),
    )
    play(post.journal, OTHER, ended=False)
    play(post.journal)
    for call_sid in (OTHER, CALL):
        outbox.touch(call_sid)
    assert await asyncio.to_thread(outbox.close, PATIENCE) == 0
    assert told == [(CALL, True)]


async def test_closing_carries_what_waits_and_says_what_is_left(post: Post) -> None:
    play(post.journal)
    post.outbox.touch(CALL, 3600)
    assert await asyncio.to_thread(post.outbox.close, PATIENCE) == 0
    assert post.store.saves == [(CALL, "ended", 1)]
    assert await asyncio.to_thread(post.outbox.close, PATIENCE) == 0


async def test_closing_does_not_wait_for_a_store_that_is_gone(post: Post) -> None:
    post.store.failing = lambda record: CallStoreUnavailable("no primary")
    play(post.journal)
    post.outbox.touch(CALL)
    await post.attempted(1)
    async with asyncio.timeout(PATIENCE / 2):
        assert await asyncio.to_thread(post.outbox.close, 0.05) == 1


async def test_a_database_that_breaks_and_is_repaired(tmp_path: Path, post: Post) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.sqlite3")) as other:
        other.execute("ALTER TABLE calls RENAME TO broken")
        play(post.journal)
        post.outbox.touch(CALL)
        await post.attempted(3)
        assert post.outbox.health.error is not None
        other.execute("ALTER TABLE broken RENAME TO calls")
    await post.carried()
    assert [sid for sid, *_ in post.store.saves] == [CALL]
