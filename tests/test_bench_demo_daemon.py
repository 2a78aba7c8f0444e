"""The demonstration's daemon process, its folder and its journal."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from handlehome.bench.demo_daemon import DaemonError, JournalReader, make_folder, running_daemon
from handlehome.store.journal import Journal

ACCESS = {
    "model_url": "ws://127.0.0.1:9/v1/realtime",
    "rest_url": "http://127.0.0.1:9/v1",
    "api_key": "sk-x",
    "auth_token": "x" * 32,
}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "journal.sqlite3")
    yield opened
    opened.close()


async def test_it_starts_stops_and_is_not_disturbed_by_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "no number")
    monkeypatch.setenv("MONGO_URI", "mongodb://somewhere")
    (tmp_path / ".env").write_text("DATA_DIR=/nowhere\nOPENAI_API_KEY=another key\n")
    async with running_daemon(tmp_path, **ACCESS) as daemon:
        assert daemon.url.startswith("http://127.0.0.1:")
        assert daemon.start_seconds > 0
        assert daemon.exit_status is None
    assert daemon.exit_status == 0
    assert (tmp_path / "data" / "journal.sqlite3").exists()
    assert (tmp_path / "logs" / "combined.log").exists()
    assert any("answers on" in line for line in daemon.console())
    assert daemon.errors() == []


async def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(DaemonError, match="exit status 2") as caught:
        async with running_daemon(tmp_path, **ACCESS):
            raise AssertionError("it started")
    assert any("DATA_DIR" in line for line in caught.value.console)


def test_folders_do_not_collide(tmp_path: Path) -> None:
    folders = [make_folder(tmp_path) for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.parent == tmp_path / "data" / "demo" and folder.is_dir() for folder in folders)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_where_nothing_can_be_written_a_temporary_folder_does(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    folder = make_folder(tmp_path)
    assert folder.is_dir()
    assert tmp_path not in folder.parents
    folder.rmdir()


def test_the_reader_follows_the_journal(tmp_path: Path, journal: Journal) -> None:
    with closing(JournalReader(journal.path)) as reader:
        assert reader.new() == []
        journal.append("CA1", "call_started", {"from": "+33612345678"})
        journal.append("CA1", "call_ended", {"reason": "x"})
        journal.flush_sync(5)
        events = reader.new()
        assert [(event.kind, event.data) for event in events] == [
            ("call_started", {"from": "+33612345678"}),
            ("call_ended", {"reason": "x"}),
        ]
        assert [event.seq for event in events] == [event.seq for event in journal.events("CA1")]
        journal.append("CA1", "call_saved", {})
        journal.flush_sync(5)
        assert [event.kind for event in reader.new()] == ["call_saved"]
        assert reader.new() == []


def test_a_journal_that_is_not_there_yet_has_no_events(tmp_path: Path) -> None:
    with closing(JournalReader(tmp_path / "journal.sqlite3")) as reader:
        assert reader.new() == []
        assert not (tmp_path / "journal.sqlite3").exists()
        sqlite3.connect(tmp_path / "journal.sqlite3").close()
        assert reader.new() == [], "nor has one that is still empty"
