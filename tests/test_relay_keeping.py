"""Where a daemon keeps things, by its settings."""

from pathlib import Path

import pytest

from handlehome.relay.config import Settings
from handlehome.relay.keeping import open_keepers, open_store
from handlehome.store.datadir import StoreError
from handlehome.store.journal import Journal
from handlehome.store.mongo import MongoCallStore
from handlehome.store.sqlite import SqliteCallStore


def test_the_store_is_the_one_that_the_settings_name(tmp_path: Path) -> None:
    """A MongoDB need not be up."""
    embedded = open_store(Settings(), tmp_path / "calls.sqlite3")
    assert isinstance(embedded, SqliteCallStore)
    embedded.close()
    uri = "mongodb://127.0.0.1:9/handlehome"
    remote = open_store(Settings.model_validate({"mongo_uri": uri}), tmp_path / "other.sqlite3")
    assert isinstance(remote, MongoCallStore)
    remote.close()
    assert not (tmp_path / "other.sqlite3").exists()


def test_a_running_daemons_things_can_be_opened(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.sqlite3")
    settings = Settings(data_dir=tmp_path, log_dir=tmp_path / "logs")
    with open_keepers(settings) as keepers:
        assert keepers.journal.unfinished() == []
        assert keepers.store.get("CA1") is None
        assert keepers.files.recordings == tmp_path / "recordings"
    journal.close()


def test_where_no_daemon_has_run_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no journal"), open_keepers(Settings(data_dir=tmp_path / "data")):
        pass
    assert not (tmp_path / "data").exists()
