"""The journal: what it promises about kills, full disks and bounds, on real files and real processes."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from handlehome.store import journal as journal_module
from handlehome.store.journal import Journal, JournalError, JournalHealth
from handlehome.store.records import Event

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


class Blocker:
    """Another program that holds the database's write lock, so that nobody can write."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("BEGIN IMMEDIATE")

    def leave(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that do not wait for locks, so that a blocked database fails at once."""
    connect = journal_module.connect

    def impatient_connect(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def impatient_open(path: Path) -> sqlite3.Connection:
        connection = open_journal(path)
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    open_journal = journal_module.open_journal
    monkeypatch.setattr(journal_module, "connect", impatient_connect)
    monkeypatch.setattr(journal_module, "open_journal", impatient_open)


class Reports:
    """Keeps what `on_health` is told, and waits for one of a kind."""

    def __init__(self) -> None:
        self.seen: list[JournalHealth] = []
        self._changed = threading.Condition()

    def __call__(self, health: JournalHealth) -> None:
        with self._changed:
            self.seen.append(health)
            self._changed.notify_all()

    def wait(self, wanted: Callable[[JournalHealth], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(wanted, self.seen)), 10), self.seen


# Appending and reading


async def test_flushed_events_are_there_in_order(opened: Opener) -> None:
    journal = opened()
    data = {"text": "Où ça ? 🚰", "list": [1, 2.5, None, True], "deep": {"a": {}}}
    assert journal.append("CA1", "call_started", {"from": "+33612345678"}, at=12.125)
    assert journal.append("CA2", "call_started", {}, at=13.1)
    assert journal.append("CA1", "turn", data, at=12.0)
    await journal.flush()
    assert journal.events("CA1") == [
        Event("CA1", 12.125, "call_started", {"from": "+33612345678"}),
        Event("CA1", 12.0, "turn", data),
    ]
    assert journal.events("CA3") == []


async def test_event_without_a_time_happened_now(opened: Opener) -> None:
    journal = opened()
    before = time.time()
    journal.append("CA1", "call_started", {})
    await journal.flush()
    assert before <= journal.events("CA1")[0].at <= time.time()


async def test_data_may_change_after_append(opened: Opener) -> None:
    journal = opened()
    data: dict[str, Any] = {"text": "then"}
    journal.append("CA1", "turn", data)
    data["text"] = "now"
    await journal.flush()
    assert journal.events("CA1")[0].data == {"text": "then"}


def test_events_reach_the_disk_without_a_flush(opened: Opener) -> None:
    journal = opened()
    journal.append("CA1", "call_started", {})
    deadline = time.monotonic() + 5
    while journal.health.waiting and time.monotonic() < deadline:
        time.sleep(0.005)
    assert journal.unfinished() == ["CA1"]


async def test_events_close_together_share_a_transaction(opened: Opener, path: Path) -> None:
    """Each commit of another connection moves data_version by one."""
    journal = opened()
    reader = sqlite3.connect(path)
    before = reader.execute("PRAGMA data_version").fetchone()[0]
    for number in range(100):
        journal.append("CA1", "turn", {"id": number})
    await journal.flush()
    assert reader.execute("PRAGMA data_version").fetchone()[0] == before + 1
    reader.close()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("CA1", "turn", {"text": object()}), TypeError),
        (("CA1", "turn", {"text": "\ud800"}), TypeError),
        (("CA1", "turn", {}, float("nan")), ValueError),
        (("CA1", "turn", {}, float("inf")), ValueError),
        (("CA\ud800", "turn", {}), ValueError),
    ],
)
async def test_event_that_can_never_be_written_is_refused_at_once(
    opened: Opener, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    """It must not come to the writer, which would try for ever."""
    journal = opened()
    with pytest.raises(error):
        journal.append(*arguments)
    assert journal.append("CA1", "call_started", {})
    await journal.flush()
    assert journal.health == JournalHealth(True, None, 0, 0, 1, 0)


async def test_flush_with_nothing_to_write_returns(opened: Opener) -> None:
    journal = opened()
    await journal.flush()
    assert journal.flush_sync(0)


async def test_many_flushes_at_once(opened: Opener) -> None:
    journal = opened()

    async def one(number: int) -> int:
        journal.append(f"CA{number}", "call_started", {})
        await journal.flush()
        return len(journal.events(f"CA{number}"))

    assert await asyncio.gather(*map(one, range(50))) == [1] * 50


def test_flush_of_another_thread(opened: Opener) -> None:
    journal = opened()
    journal.append("CA1", "call_started", {})
    assert journal.flush_sync(5)
    assert journal.unfinished() == ["CA1"]


# Closing


async def test_close_writes_what_waits(opened: Opener) -> None:
    journal = opened()
    for number in range(5000):
        journal.append("CA1", "turn", {"id": number})
    assert journal.close() == 0
    assert journal.close() == 0
    journal = opened()
    assert [event.data["id"] for event in journal.events("CA1")] == list(range(5000))


async def test_closed_journal_counts_what_it_refuses(opened: Opener) -> None:
    reports = Reports()
    journal = opened(on_health=reports)
    journal.append("CA1", "call_started", {})
    journal.close()
    assert not journal.append("CA1", "call_ended", {})
    assert not journal.append("CA1", "call_ended", {})
    assert [health.refused for health in reports.seen] == [1]
    assert journal.health.refused == 2
    await journal.flush()


async def test_nothing_is_left_open(path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        journal = Journal.open(path)
        journal.append("CA1", "call_started", {})
        await journal.flush()
        journal.events("CA1")
        journal.close()
    assert (descriptors(), threading.active_count()) == (before, threads)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# A disk that fails


@pytest.mark.usefixtures("impatient")
async def test_blocked_database_delays_events_and_loses_none(opened: Opener, path: Path) -> None:
    reports = Reports()
    journal = opened(on_health=reports)
    blocker = Blocker(path)
    journal.append("CA1", "call_started", {})
    flushing = asyncio.ensure_future(journal.flush())
    await asyncio.to_thread(reports.wait, lambda health: health.error is not None)
    assert "locked" in str(journal.health.error)
    assert (journal.health.ok, journal.health.waiting, journal.flush_sync(0)) == (False, 1, False)
    journal.append("CA1", "call_ended", {})
    assert not flushing.done()
    blocker.leave()
    await flushing
    await journal.flush()
    assert [event.kind for event in journal.events("CA1")] == ["call_started", "call_ended"]
    assert [health.ok for health in reports.seen] == [False, True]


@pytest.mark.usefixtures("impatient")
async def test_cancelled_flush_leaves_the_journal_well(opened: Opener, path: Path) -> None:
    journal = opened()
    blocker = Blocker(path)
    journal.append("CA1", "call_started", {})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(journal.flush(), 0.01)
    blocker.leave()
    await journal.flush()
    assert journal.health.ok


@pytest.mark.usefixtures("impatient")
async def test_close_gives_up_in_time_and_says_how_much_is_lost(opened: Opener, path: Path) -> None:
    journal = opened()
    blocker = Blocker(path)
    for number in range(7):
        journal.append("CA1", "turn", {"id": number})
    flushing = asyncio.ensure_future(journal.flush())
    await asyncio.sleep(0)
    began = time.monotonic()
    assert await asyncio.to_thread(journal.close, 0.2) == 7
    assert 0.2 <= time.monotonic() - began < 2
    with pytest.raises(JournalError, match=r"7 events not written.*locked"):
        await flushing
    with pytest.raises(JournalError, match="7 events not written"):
        await journal.flush()
    assert not journal.flush_sync(5)
    blocker.leave()


@pytest.mark.usefixtures("impatient")
async def test_flush_whose_loop_is_gone_does_not_stop_the_writer(opened: Opener, path: Path) -> None:
    journal = opened()
    blocker = Blocker(path)
    journal.append("CA1", "call_started", {})

    def short_life() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(journal.flush())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        task._log_destroy_pending = False  # the loop is closed under it on purpose
        kept.append(task)

    kept: list[Any] = []
    await asyncio.to_thread(short_life)
    blocker.leave()
    await journal.flush()
    journal.append("CA1", "call_ended", {})
    await journal.flush()
    kept[0].get_coro().close()


@pytest.mark.usefixtures("impatient")
async def test_bound_keeps_room_for_the_events_of_a_calls_life(opened: Opener, path: Path) -> None:
    """Turns are refused at three quarters, everything at the bound; all are counted, one is reported."""
    reports = Reports()
    journal = opened(on_health=reports, max_events=100)
    blocker = Blocker(path)
    assert [journal.append("CA1", "turn", {"id": n}) for n in range(80)] == [True] * 75 + [False] * 5
    assert [journal.append("CA1", "call_ended", {"n": n}) for n in range(30)] == [True] * 25 + [False] * 5
    health = journal.health
    assert (health.ok, health.waiting, health.refused) == (False, 100, 10)
    assert [health.refused for health in reports.seen if health.error is None] == [1]
    blocker.leave()
    await journal.flush()
    assert journal.health == JournalHealth(True, None, 0, 0, 100, 10)
    assert reports.seen[-1].ok
    assert journal.append("CA1", "turn", {})
    assert len(journal.events("CA1")) == 100


@pytest.mark.usefixtures("impatient")
async def test_bound_in_bytes(opened: Opener, path: Path) -> None:
    journal = opened(max_bytes=10_000)
    blocker = Blocker(path)
    turns = [journal.append("CA1", "turn", {"text": "x" * 2500}) for _ in range(4)]
    assert turns == [True, True, False, False]
    endings = [journal.append("CA1", "call_ended", {"text": "x" * 2400}) for _ in range(3)]
    assert endings == [True, True, False]
    assert 7000 < journal.health.waiting_bytes <= 10_000
    blocker.leave()
    await journal.flush()
    assert journal.health.waiting_bytes == 0
    assert not journal.append("CA1", "call_ended", {"text": "x" * 10_001})


async def test_report_that_fails_does_not_stop_the_journal(opened: Opener, path: Path) -> None:
    def broken(_: JournalHealth) -> None:
        raise RuntimeError("the log is full, too")

    journal = opened(on_health=broken, max_events=4)
    assert not all(journal.append("CA1", "turn", {}) for _ in range(5))
    await journal.flush()
    journal.append("CA1", "call_ended", {})
    await journal.flush()
    assert len(journal.events("CA1")) == 4


async def test_commit_that_reports_an_error_but_happened_is_not_written_twice(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed sync leaves the transaction in the log, where the next connection finds it."""
    faults: list[str] = []

    class Faulty(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            fault = faults.pop() if statement == "COMMIT" and faults else None
            if fault == "before":
                raise sqlite3.OperationalError("disk I/O error")
            cursor = super().execute(statement, *parameters)
            if fault == "after":
                raise sqlite3.OperationalError("disk I/O error")
            return cursor

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Faulty))
    journal = opened()
    faults += ["after", "before", "after"]
    for number in range(4):
        journal.append("CA1", "turn", {"id": "the same"}, at=1.1)
        journal.append("CA1", "turn", {"id": "the same"}, at=1.1)
        await journal.flush()
        assert len(journal.events("CA1")) == 2 * number + 2
    assert not faults


DISK_FULL = """
import resource, sys, threading
from pathlib import Path
from handlehome.store.journal import Journal

troubles, trouble, recovered = [], threading.Event(), threading.Event()
def report(health):
    troubles.append(health.error)
    (recovered if health.ok else trouble).set()

journal = Journal.open(Path(sys.argv[1]), on_health=report)
journal.append("CA1", "call_started", {}, at=0)
assert journal.flush_sync(10)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))  # from here on files can't grow beyond this
for number in range(2000):
    journal.append("CA1", "turn", {"id": number, "text": "x" * 400})
    if number % 100 == 0:
        journal.flush_sync(0.1)
assert trouble.wait(10)
health = journal.health
assert not health.ok and health.error and health.waiting and not health.refused, health
assert not journal.flush_sync(0.2)
assert len(journal.events("CA1")) == health.committed, (len(journal.events("CA1")), health)
journal.append("CA1", "call_ended", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # space again
assert journal.flush_sync(30)
assert recovered.wait(10)
assert journal.health.ok and not journal.health.waiting
assert journal.close() == 0
print(troubles)
"""


async def test_full_disk_loses_nothing(path: Path, opened: Opener) -> None:
    """The kernel refuses to let the files grow (a real write error), and later allows it again."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DISK_FULL, str(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    assert "OperationalError" in out.decode()
    events = opened().events("CA1")
    assert [event.data["id"] for event in events[1:-1]] == list(range(2000))
    assert (events[0].kind, events[-1].kind) == ("call_started", "call_ended")


# A process that dies

VICTIM = """
import asyncio, sys, uvloop
from pathlib import Path
from handlehome.store.journal import Journal

async def main():
    journal = Journal.open(Path(sys.argv[1]))
    number = 0
    while True:
        for _ in range(number % 37 + 1):
            for call in range(3):
                journal.append(f"CA{call}", "turn", {"id": number, "text": "x" * (number % 900)})
            number += 1
        if number % 3 == 0:
            await journal.flush()
            print(number, flush=True)
        else:
            await asyncio.sleep(0)

uvloop.run(main())
"""


@pytest.mark.parametrize("kill_after", [0.003, 0.02, 0.05, 0.11, 0.2])
def test_killed_process_keeps_what_was_flushed_and_a_prefix_of_the_rest(
    path: Path, opened: Opener, kill_after: float
) -> None:
    with subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        acknowledged = child.stdout.readline()
        time.sleep(kill_after)  # no synchronisation: the moment of the kill is meant to be arbitrary
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.read()
    lines = acknowledged.split(b"\n")
    flushed = int(lines[-2])  # the last one is empty or torn
    journal = opened()
    for call in range(3):
        numbers = [event.data["id"] for event in journal.events(f"CA{call}")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= flushed
    print(f"killed after {kill_after} s: {flushed} acknowledged, {len(numbers)} on disk")


# How fast


async def test_append_does_not_hold_up_the_loop(opened: Opener) -> None:
    """Printed: the rate of appending and committing, and the longest append while the writer works."""
    journal = opened()
    data = {"id": "item_1", "after": "item_0", "role": "caller", "text": "Bonjour, j'ai une fuite. " * 5}
    longest, count = 0.0, 20_000
    began = time.perf_counter()
    for number in range(count):
        before = time.perf_counter()
        journal.append("CA1", "turn", data)
        longest = max(longest, time.perf_counter() - before)
        if number % 20 == 0:
            await asyncio.sleep(0)
    appended = time.perf_counter() - began
    await journal.flush()
    committed = time.perf_counter() - began
    print(
        f"\n{count / appended:,.0f} appends/s, {count / committed:,.0f} events/s on disk, "
        f"longest append {1000 * longest:.2f} ms"
    )
    assert len(journal.events("CA1")) == count
    assert longest < 0.5  # far above what is measured; a disk access under load would exceed it


async def test_loop_stays_free_while_the_database_is_blocked(opened: Opener, path: Path) -> None:
    """The writer waits for the lock for up to two seconds; append does not."""
    journal = opened()
    blocker = Blocker(path)
    longest, count = 0.0, 0
    began = now = time.perf_counter()
    while now - began < 0.2:
        journal.append("CA1", "turn", {})
        longest = max(longest, time.perf_counter() - now)
        count += 1
        await asyncio.sleep(0.001)
        now = time.perf_counter()
    assert journal.health.committed == 0
    assert longest < 0.15
    blocker.leave()
    await journal.flush()
    assert len(journal.events("CA1")) == count


def test_events_are_stored_as_text_that_people_can_read(opened: Opener, path: Path) -> None:
    journal = opened()
    journal.append("CA1", "turn", {"text": "Où ?"})
    assert journal.flush_sync(5)
    reader = sqlite3.connect(path)
    ((kind, text),) = reader.execute("SELECT typeof(data), data FROM events").fetchall()
    reader.close()
    assert kind == "text"
    assert orjson.loads(text) == {"text": "Où ?"}
