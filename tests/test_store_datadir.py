"""The data directory: made, locked, held by one process."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from handlehome.store.datadir import DataDir, DataDirError, DataDirLocked, StoreError, connect, open_database

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
