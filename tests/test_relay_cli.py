"""The command line, as a user runs it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("start", "dev", "check", "demo", "bench", "simulate-openai", "simulate-call", "test-multiple")
GOOD = {"OPENAI_API_KEY": "sk-test-0123456789", "PATH": "/usr/bin:/bin"}


def handlehome(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "handlehome.relay.cli", *arguments],
        cwd=cwd,
        env=GOOD if env is None else env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = handlehome("--help", cwd=tmp_path).stdout
    assert [command for command in COMMANDS if command not in shown] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, tmp_path: Path) -> None:
    shown = handlehome(command, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "Usage: handlehome" in shown.stdout


def test_bench_names_its_suites_and_each_explains_itself(tmp_path: Path) -> None:
    assert "codecs" in handlehome("bench", "--help", cwd=tmp_path).stdout
    shown = handlehome("bench", "codecs", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "Usage: handlehome bench codecs" in shown.stdout


@pytest.mark.parametrize(("wish", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)])
def test_blas_keeps_to_one_thread_unless_the_environment_wishes_more(
    wish: dict[str, str], threads: int, tmp_path: Path
) -> None:
    script = (
        "import sys, handlehome.relay.cli; assert 'numpy' not in sys.modules\n"
        "import numpy; from threadpoolctl import threadpool_info as info\n"
        "print(*(pool['num_threads'] for pool in info() if pool['user_api'] == 'blas'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=GOOD | wish,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [str(threads)]


def test_check_is_content_with_the_defaults_and_a_key(tmp_path: Path) -> None:
    checked = handlehome("check", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "in order" in checked.stdout


@pytest.mark.parametrize("command", ["check", "start"])
def test_a_schema_that_cannot_be_used_is_named_before_anything_starts(command: str, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "array"}')
    done = handlehome(command, cwd=tmp_path, env=GOOD | {"PORT": "0", "EXTRACTION_SCHEMA": str(schema)})
    assert done.returncode == 2
    assert "EXTRACTION_SCHEMA: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "start"])
def test_each_wrong_value_is_a_line_and_the_status_is_2(command: str, tmp_path: Path) -> None:
    wrong = handlehome(command, cwd=tmp_path, env=GOOD | {"PORT": "http", "MAX_CALLS": "0"})
    assert wrong.returncode == 2
    lines = wrong.stderr.splitlines()
    assert len(lines) == 2, wrong.stderr
    assert any("PORT" in line for line in lines)
    assert any("MAX_CALLS" in line for line in lines)


def test_check_names_what_is_wrong_with_the_assistants_file(tmp_path: Path) -> None:
    (tmp_path / "assistant.toml").write_text('name = "Camille"\n', encoding="utf-8")
    wrong = handlehome("check", cwd=tmp_path, env=GOOD | {"ASSISTANT_FILE": "assistant.toml"})
    assert wrong.returncode == 2
    assert "assistant.toml: company: missing" in wrong.stderr


def test_simulated_call_without_a_daemon_is_one_line(tmp_path: Path) -> None:
    failed = handlehome("simulate-call", "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


def test_a_simulated_openai_whose_port_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = handlehome("simulate-openai", "--port", "0", "--rest-port", port, cwd=tmp_path)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert port in line
