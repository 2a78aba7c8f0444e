"""`handlehome reprocess`, run as a command on a data directory."""

import csv
import io
from pathlib import Path

import pytest

from tests.test_relay_records_commands import FIRST, NUMBER, SECOND, folder, handlehome

__all__ = ["folder"]  # a fixture

KEY = "sk-test-not-to-be-seen"


def test_reprocessing_without_a_key_goes_by_rules(folder: Path) -> None:
    done = handlehome(folder, "reprocess", "--since", "2030-03-18")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 calls extracted" in done.stderr
    rows = list(csv.DictReader(io.StringIO(handlehome(folder, "export").stdout)))
    assert [(row["call_sid"], row["phone"], row["extraction_method"]) for row in rows] == [
        (SECOND, NUMBER, "rules"),
        (FIRST, "", ""),
    ]


def test_an_unreachable_server_is_told_with_its_call(folder: Path) -> None:
    done = handlehome(folder, "reprocess", FIRST, OPENAI_API_KEY=KEY)
    assert done.returncode == 1
    assert f"{FIRST}  extraction: " in done.stderr
    assert "(still waiting)" in done.stderr
    assert "0 of 1 calls extracted" in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "name calls, or give --since"), ((FIRST, "--since", "2030-01-01"), "not both")],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = handlehome(tmp_path, "reprocess", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
