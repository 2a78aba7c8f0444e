"""What a daemon of some settings keeps, and where; for the daemon itself and for programs beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.config import Settings
from handlehome.relay.erasure import Keepers
from handlehome.store.calls import CallStore
from handlehome.store.datadir import StoreError
from handlehome.store.journalfile import JournalFile, open_journal
from handlehome.store.mongo import MongoCallStore
from handlehome.store.sqlite import SqliteCallStore

__all__ = ["open_keepers", "open_store"]


def open_store(settings: Settings, calls: Path) -> CallStore:
    """The store that the settings name: MongoDB, which need not be up, or the embedded one.

    Args:
        settings: checked.
        calls: where the embedded store's database belongs.

    Raises:
        CallStoreError: the embedded store can't be opened.
    """
    days = settings.retention_days or None
    if settings.mongo_uri is not None:
        return MongoCallStore(settings.mongo_uri.get_secret_value(), retention_days=days)
    return SqliteCallStore(calls, retention_days=days)


@contextlib.contextmanager
def open_keepers(settings: Settings) -> Iterator[Keepers]:
    """Opens what the daemon of these settings keeps, while it runs or not.

    Raises:
        StoreError: it can't be opened, or there is nothing.
    """
    folder = settings.data_dir.absolute()
    path = folder / "journal.sqlite3"
    if not path.exists():
        raise StoreError(f"there is no journal in DATA_DIR {folder}: no daemon has run with these settings")
    open_journal(path).close()  # an earlier version's file is brought up to date
    store = open_store(settings, folder / "calls.sqlite3")
    try:
        yield Keepers(JournalFile(path), store, AudioFiles(folder), settings.log_dir.absolute())
    finally:
        store.close()
