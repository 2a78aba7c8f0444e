"""`handlehome export` and `erase`, run as commands on a data directory."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from handlehome.store.journal import Journal
from handlehome.store.records import fold
from handlehome.store.sqlite import SqliteCallStore

NUMBER, OTHER = "+33612345678", "+33698765432"
FIRST, SECOND = "CA" + "1" * 32, "CA" + "2" * 32
DAY = 1_900_000_000.0  # 2030-03-17, 18:46 in Paris


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with two calls, a day apart."""
    data = tmp_path / "data"
    data.mkdir()
    journal = Journal.open(data / "journal.sqlite3")
    store = SqliteCallStore(data / "calls.sqlite3")
    for call_sid, number, at in ((FIRST, NUMBER, DAY), (SECOND, OTHER, DAY + 86_400)):
        journal.append(call_sid, "call_started", {"from": number, "direction": "inbound"}, at)
        turn = {"id": "u1", "role": "caller", "text": "Mon numéro est le 06 12 34 56 78."}
        journal.append(call_sid, "turn", turn, at + 1)
        journal.append(call_sid, "call_ended", {"reason": "caller_hung_up"}, at + 2)
        assert journal.flush_sync(5)
        store.save(fold(journal.events(call_sid)))
    journal.close()
    store.close()
    return tmp_path


def handlehome(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "handlehome.relay.cli", *arguments],
        cwd=folder,
        env={
            "OPENAI_REALTIME_URL": "ws://127.0.0.1:9/v1/realtime",
            "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def exported(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [row["call_sid"] for row in csv.DictReader(io.StringIO(done.stdout))]


def test_days_are_exported_in_the_assistants_time_zone(folder: Path) -> None:
    assert exported(handlehome(folder, "export")) == [SECOND, FIRST]
    assert exported(handlehome(folder, "export", "--since", "2030-03-18")) == [SECOND]
    assert exported(handlehome(folder, "export", "--until", "2030-03-17")) == [FIRST]
    assert exported(handlehome(folder, "export", "--since", "2030-03-19")) == []


def test_an_exported_file_is_for_its_owner_only(folder: Path) -> None:
    done = handlehome(folder, "export", "--format", "jsonl", "-o", "calls.jsonl")
    assert done.returncode == 0
    assert "2 calls exported to calls.jsonl" in done.stderr
    assert (folder / "calls.jsonl").stat().st_mode & 0o777 == 0o600
    assert len((folder / "calls.jsonl").read_text().splitlines()) == 2


def test_erasing_asks_first_then_reports(folder: Path) -> None:
    asked = handlehome(folder, "erase", "06 12 34 56 78")
    assert asked.returncode == 1
    assert "--yes" in asked.stderr
    assert len(exported(handlehome(folder, "export"))) == 2
    done = handlehome(folder, "erase", "06 12 34 56 78", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"Erased of {NUMBER}" in done.stdout
    assert FIRST in done.stdout
    assert exported(handlehome(folder, "export")) == [SECOND]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("export", "--format", "xml"), 2, "csv or jsonl"),
        (("erase", "nobody"), 2, "'nobody' is no phone number"),
        (("export", "-o", "/nowhere/calls.csv"), 1, "/nowhere/calls.csv"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = handlehome(folder, *arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_without_calls_is_named(tmp_path: Path) -> None:
    done = handlehome(tmp_path, "export")
    assert done.returncode == 1
    assert "no journal in DATA_DIR" in done.stderr
    assert not (tmp_path / "data").exists()
