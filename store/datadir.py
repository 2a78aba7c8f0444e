"""The data directory: one daemon per directory, and the databases in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = [
    "DataDir",
    "DataDirError",
    "DataDirLocked",
    "Migration",
    "StoreError",
    "connect",
    "open_database",
    "run_script",
]

Migration = Callable[[sqlite3.Connection], None]
"""Brings a database from one version of its schema to the next.

It runs within a transaction, which it must not end: `executescript` would, `run_script` doesn't.
"""


class StoreError(Exception):
    """Something under the data directory can't be used; the message says what, and what to do."""


class DataDirError(StoreError):
    """The data directory can't be made, written or locked."""


class DataDirLocked(DataDirError):
    """Another process holds the directory.

    Attributes:
        path: the directory.
        pid: the holder's process id, None when it has not written it yet.
        instance: the holder's instance name, "" when not known.
    """

    def __init__(self, path: Path, pid: int | None, instance: str) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        name = f" (instance {instance})" if instance else ""
        super().__init__(
            f"DATA_DIR {path} is in use by {holder}{name}: stop it, or give this daemon a DATA_DIR of its own"
        )
        self.path = path
        self.pid = pid
        self.instance = instance


class DataDir:
    """A directory that this process, and no other, writes to.

    The lock is `flock` on the file `lock`: the kernel releases it when the process dies, however it dies, so
    that there are no stale locks. The file holds the holder's process id and instance name, a line each; it
    stays there when the lock is released (removing it would let two processes lock two files).

    Attributes:
        path: the directory, absolute.
        journal: where the journal's database belongs.
        calls: where the embedded call store's database belongs.
    """

    def __init__(self, path: Path, lock: int) -> None:
        """Takes over a locked descriptor; use `open`."""
        self.path = path
        self.journal = path / "journal.sqlite3"
        self.calls = path / "calls.sqlite3"
        self._lock: int | None = lock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, instance: str = "") -> DataDir:
        """Makes the directory (mode 0700) and its parents where they are missing, and locks it.

        Args:
            path: the directory; a relative one is taken from the working directory of this moment.
            instance: this daemon's name, for whoever finds the directory locked; one line.

        Raises:
            DataDirLocked: another process (or another `DataDir` of this one) holds it.
            DataDirError: it can't be made, written or locked.
        """
        folder = Path(path).absolute()
        try:
            _make(folder)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(
                f"DATA_DIR {folder} can't be used ({error.strerror}): it must be a directory "
                "that this user may create and write to"
            ) from error
        try:
            _take(folder, lock)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n{instance}\n".encode(), 0)
        except OSError as error:
            os.close(lock)
            raise DataDirError(f"DATA_DIR {folder} can't be locked ({error.strerror})") from error
        except DataDirLocked:
            os.close(lock)
            raise
        return cls(folder, lock)

    def close(self) -> None:
        """Releases the lock; the second time nothing happens."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make(folder: Path) -> None:
    if folder.is_dir():
        return
    _make(folder.parent)
    with contextlib.suppress(
        FileExistsError
    ):  # another process was quicker; opening `lock` tells if it's a file
        folder.mkdir(mode=0o700)
    # A new directory survives a power cut only when its parent's entry for it is on disk.
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _take(folder: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lines = os.pread(lock, 1024, 0).decode(errors="replace").split("\n")
        pid = int(lines[0]) if lines[0].isdecimal() else None
        raise DataDirLocked(folder, pid, lines[1] if len(lines) > 1 else "") from None


def open_database(
    path: Path,
    *,
    schema: str,
    version: int,
    error: type[StoreError],
    migrations: Sequence[Migration] = (),
) -> sqlite3.Connection:
    """Opens an SQLite database of ours, in WAL mode with synchronous=FULL, and makes it where it is missing.

    The file gets mode 0600: phone numbers and transcripts are in it. The whole file is checked, at about
    1 GB/s when it is in the page cache. A database of an earlier version is brought up to date in one
    transaction: whatever happens meanwhile, it is the old one or the new one.

    Args:
        path: the database's file; its directory must exist.
        schema: the statements that make the tables, run once, in one transaction.
        version: the schema's version, from 1, kept in `user_version`.
        error: what to raise.
        migrations: the ways from each version to the next; the first one leads from 1 to 2, the last one to
            `version`.

    Returns:
        A connection in autocommit mode that any one thread at a time may use.

    Raises:
        StoreError: as `error`: the file is damaged, is no database of ours, has a newer schema, or can't be
            opened or written; or a migration raised a `StoreError`, whose text is in the message.
        ValueError: the migrations don't lead from version 1 to `version`.
    """
    if len(migrations) != version - 1:
        raise ValueError(f"{len(migrations)} migrations don't lead from version 1 to {version}")
    try:
        with contextlib.suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
        connection = connect(path)
    except (OSError, sqlite3.Error) as problem:
        raise _named(path, problem, error) from problem
    try:
        found = _prepare(connection, schema, version, migrations)
    except sqlite3.Error as problem:
        connection.close()
        raise _named(path, problem, error) from problem
    except StoreError as problem:
        connection.close()
        raise error(f"{path}: {problem}") from problem
    if found is not None:
        connection.close()
        raise error(f"{path}: {found}")
    return connection


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Runs the statements of a script one by one, within the transaction that is under way, if there is one.

    Raises:
        sqlite3.Error: one of them failed; those after it are not run.
    """
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        # A semicolon within a text, a comment or a trigger does not end the statement.
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def connect(path: Path) -> sqlite3.Connection:
    """A further connection to a database that exists, with the settings of `open_database`.

    Raises:
        sqlite3.Error: it can't be had.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=2.0,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten, not just unlinked
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(
    connection: sqlite3.Connection, schema: str, version: int, migrations: Sequence[Migration]
) -> str | None:
    """Checks what is there and makes what is missing; returns what is wrong, None when nothing is."""
    found, tables = _state(connection)
    if found > version:
        return (
            f"its schema is version {found}, newer than this program's ({version}): "
            "run the newer handlehome again, or move the file away"
        )
    if found == 0 and tables:
        return "it is an SQLite database, but none of handlehome's: move it away, or use another DATA_DIR"
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        return _damaged(verdict)
    connection.execute("PRAGMA journal_mode = WAL")
    if found == version and tables:
        return None
    # One transaction: a process that dies here leaves what was there before, or all of what shall be.
    connection.execute("BEGIN IMMEDIATE")
    found, tables = _state(connection)  # another process may have been quicker
    if not tables:
        run_script(connection, schema)
    else:
        for migrate in migrations[found - 1 :]:
            migrate(connection)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    return None


def _state(connection: sqlite3.Connection) -> tuple[int, int]:
    """The schema's version and the number of tables."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return found, tables


def _named(path: Path, problem: OSError | sqlite3.Error, error: type[StoreError]) -> StoreError:
    code = getattr(problem, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return error(f"{path}: {_damaged(str(problem))}")
    return error(
        f"{path}: can't be opened or written ({problem}): check its owner, its mode and the disk's space"
    )


def _damaged(how: str) -> str:
    return (
        f"the database is damaged ({how}): move it away together with its -wal and -shm files and start "
        "again; `sqlite3 FILE .recover` may get back what is in it"
    )
