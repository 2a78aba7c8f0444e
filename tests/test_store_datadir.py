"""The data directory: made, locked, held by one process."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from handlehome.store.datadir import (
    DataDir,
    DataDirError,
    DataDirLocked,
    StoreError,
    connect,
    open_database,
    run_script,
)

HOLDER = """
import sys
from handlehome.store.datadir import DataDir
held = DataDir.open(sys.argv[1], instance="left")
print("held", flush=True)
sys.stdin.read()
"""


def test_made_with_its_parents_for_its_user_alone(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "a" / "b") as data_dir:
        assert stat.S_IMODE(data_dir.path.stat().st_mode) == 0o700
        assert data_dir.journal.parent == data_dir.calls.parent == tmp_path / "a" / "b"
        assert data_dir.journal != data_dir.calls


def test_lock_file_names_process_and_instance(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("a much longer text that an older holder left behind\n" * 3)
    with DataDir.open(tmp_path, instance="blue"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\nblue\n"


def test_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with DataDir.open("data") as data_dir:
        assert data_dir.journal.is_absolute()
        assert data_dir.path == tmp_path / "data"


def test_second_holder_in_one_process_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = DataDir.open(tmp_path, instance="one")
    with pytest.raises(DataDirLocked, match=f"process {os.getpid()} \\(instance one\\)"):
        DataDir.open(tmp_path)
    first.close()
    first.close()
    DataDir.open(tmp_path).close()


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """The holder's pid and the directory are in the error, and SIGKILL releases the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(DataDirLocked) as caught:
            DataDir.open(tmp_path)
        assert (caught.value.path, caught.value.pid, caught.value.instance) == (tmp_path, child.pid, "left")
        assert str(tmp_path) in str(caught.value)
        assert str(child.pid) in str(caught.value)
        child.send_signal(signal.SIGKILL)
        child.wait()
        DataDir.open(tmp_path).close()


def test_holder_that_has_not_signed_yet_is_another_process(tmp_path: Path) -> None:
    held = DataDir.open(tmp_path)
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(DataDirLocked, match="another process") as caught:
        DataDir.open(tmp_path)
    assert caught.value.pid is None
    held.close()


def test_path_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataDirError, match=str(path)):
            DataDir.open(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable for root")
def test_unwritable_directory_is_refused_by_name(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for path in (tmp_path, tmp_path / "below"):
            with pytest.raises(DataDirError, match="Permission denied"):
                DataDir.open(path)
    finally:
        tmp_path.chmod(0o700)


def test_directory_that_the_kernel_refuses_is_named() -> None:
    with pytest.raises(DataDirError, match="/proc/data"):
        DataDir.open("/proc/data")


def test_no_descriptor_is_left_by_a_refused_open(tmp_path: Path) -> None:
    with DataDir.open(tmp_path):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            with pytest.raises(DataDirLocked):
                DataDir.open(tmp_path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


SCHEMA = "CREATE TABLE things (name TEXT)"


def _open(path: Path) -> sqlite3.Connection:
    return open_database(path, schema=SCHEMA, version=1, error=StoreError)


def test_database_is_private_and_synced(tmp_path: Path) -> None:
    path = tmp_path / "it is 100% ours?.sqlite3"
    connection = _open(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.execute("INSERT INTO things VALUES ('a')")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    connection.close()
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3  # the database, its log and the log's index
    again = _open(path)
    assert again.execute("SELECT * FROM things").fetchall() == [("a",)]
    again.close()


def test_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = _open(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreError, match=r"version 7, newer than this program's \(1\)"):
        _open(path)


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE holiday (photo BLOB)")
    connection.close()
    with pytest.raises(StoreError, match="none of handlehome's"):
        _open(path)


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"To whom it may concern. " * 200)
    with pytest.raises(StoreError, match=r"is damaged.*move it away"):
        _open(path)


@pytest.mark.parametrize("how", ["torn", "overwritten"])
def test_damaged_database_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "db"
    connection = _open(path)
    connection.executemany("INSERT INTO things VALUES (?)", [("x" * 500,)] * 500)
    connection.close()
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(
        content[:half] if how == "torn" else content[:half] + b"\xff" * 8192 + content[half + 8192 :]
    )
    with pytest.raises(StoreError, match="is damaged"):
        _open(path)


def test_database_in_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be opened"):
        _open(tmp_path / "nowhere" / "db")


def test_further_connection_does_not_make_a_database(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "db")
    assert list(tmp_path.iterdir()) == []


# Migrations

SCHEMA_3 = "CREATE TABLE items (name TEXT, size INTEGER, colour TEXT)"


def _to_2(connection: sqlite3.Connection) -> None:
    run_script(connection, "ALTER TABLE things RENAME TO items; ALTER TABLE items ADD COLUMN size INTEGER")


def _to_3(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE items ADD COLUMN colour TEXT")


def _open_3(path: Path) -> sqlite3.Connection:
    return open_database(path, schema=SCHEMA_3, version=3, error=DataDirError, migrations=(_to_2, _to_3))


def _version(path: Path) -> tuple[int]:
    connection = sqlite3.connect(path)
    found: tuple[int] = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_database_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "db"
    connection = _open(path)
    connection.execute("INSERT INTO things VALUES ('a')")
    if version == 2:
        _to_2(connection)
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    for _ in range(2):
        connection = _open_3(path)
        assert connection.execute("SELECT name, size, colour FROM items").fetchall() == [("a", None, None)]
        assert not connection.in_transaction
        connection.close()
    assert _version(path) == (3,)


def test_new_database_is_not_migrated(tmp_path: Path) -> None:
    def never(_: sqlite3.Connection) -> None:
        raise AssertionError("migrated")

    path = tmp_path / "db"
    for _ in range(2):
        open_database(path, schema=SCHEMA, version=2, error=StoreError, migrations=(never,)).close()
    assert _version(path) == (2,)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (sqlite3.OperationalError("disk I/O error"), "can't be opened or written"),
        (StoreError("a record is damaged"), "db: a record is damaged"),
    ],
)
def test_migration_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, problem: Exception, message: str
) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM items")
        raise problem

    path = tmp_path / "db"
    connection = _open(path)
    connection.execute("INSERT INTO things VALUES ('a')")
    connection.close()
    with pytest.raises(DataDirError, match=message):
        open_database(path, schema=SCHEMA_3, version=3, error=DataDirError, migrations=(_to_2, fail))
    assert _version(path) == (1,)
    connection = _open(path)
    assert connection.execute("SELECT * FROM things").fetchall() == [("a",)]
    connection.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from handlehome.store.datadir import StoreError, open_database

def die(connection):
    connection.execute("DELETE FROM things")
    os.kill(os.getpid(), signal.SIGKILL)

open_database(Path(sys.argv[1]), schema="", version=2, error=StoreError, migrations=(die,))
"""


def test_migration_that_is_killed_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = _open(path)
    connection.execute("INSERT INTO things VALUES ('a')")
    connection.close()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    connection = _open(path)
    assert connection.execute("SELECT * FROM things").fetchall() == [("a",)]
    connection.close()


def test_migrations_that_do_not_lead_to_the_version_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 migrations don't lead from version 1 to 3"):
        open_database(tmp_path / "db", schema=SCHEMA, version=3, error=StoreError, migrations=(_to_2,))


def test_several_processes_may_migrate_at_once(tmp_path: Path) -> None:
    path = tmp_path / "db"
    _open(path).close()
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(10)
        try:
            _open_3(path).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert _version(path) == (3,)


def test_script_is_run_within_the_transaction_statement_by_statement(tmp_path: Path) -> None:
    """A semicolon in a text or a trigger does not end a statement, and the last one needs none."""
    connection = _open(tmp_path / "db")
    connection.execute("BEGIN")
    run_script(
        connection,
        "INSERT INTO things VALUES ('a; b'); -- a comment; with a semicolon\n"
        "CREATE TRIGGER twice AFTER INSERT ON things WHEN new.name = 'c' BEGIN "
        "INSERT INTO things VALUES ('d'); INSERT INTO things VALUES ('e'); END;"
        "INSERT INTO things VALUES ('c')",
    )
    assert connection.in_transaction
    assert connection.execute("SELECT name FROM things").fetchall() == [("a; b",), ("c",), ("d",), ("e",)]
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM things").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (0,)
    connection.close()
