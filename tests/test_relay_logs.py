"""Logs: what a line holds, that nothing secret is in it, and that logging never waits."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from handlehome.relay import logs
from handlehome.relay.logs import Event, RotatingFile, call_logger, log_event, setup_logging, shutdown_logging

SID = "CA0123456789abcdef0123456789abcdef"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _stop_logging() -> Iterator[None]:
    yield
    shutdown_logging()


def read(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def console_of(stream: TextIO, level: str = "INFO") -> None:
    setup_logging(None, level, stream=stream)


def test_a_line_is_one_json_object_with_all_its_keys(tmp_path: Path) -> None:
    setup_logging(tmp_path / "new" / "logs", console=False)
    log_event(call_logger(SID), Event.CALL_STARTED, "call from +33612345678 {x}", legs=1, auth_token="t")
    logger.info("ready")
    shutdown_logging()
    first, second = read(tmp_path / "new" / "logs" / "combined.log")
    assert str(first.pop("time")).endswith("Z")
    assert str(first.pop("source")).startswith(f"{__name__}:test_a_line_is_one_json_object")
    assert first == {
        "level": "INFO",
        "message": "call from +336•••••78 {x}",
        "call_sid": SID,
        "event": "call_started",
        "fields": {"legs": 1, "auth_token": "•••••"},
        "exception": None,
    }
    assert second.keys() == first.keys() | {"time", "source"}
    assert (second["call_sid"], second["event"], second["fields"]) == (None, None, {})


def test_the_error_log_holds_errors_only_with_their_traceback(tmp_path: Path) -> None:
    setup_logging(tmp_path, console=False, secrets=["geheim-123"])
    log_event(logger, Event.REFUSED, "refused")
    try:
        raise ValueError("geheim-123 of +33612345678")
    except ValueError as error:
        log_event(logger, Event.ERROR, "it failed", error=error)
    shutdown_logging()
    (line,) = read(tmp_path / "error.log")
    assert line["message"] == "it failed"
    assert "ValueError: ••••• of +336•••••78" in str(line["exception"])
    assert len(read(tmp_path / "combined.log")) == 2


def test_lines_below_the_level_are_left_out(tmp_path: Path) -> None:
    setup_logging(tmp_path, "WARNING", console=False)
    logger.info("no")
    log_event(logger, Event.LEG_LOST, "yes")
    shutdown_logging()
    assert [line["message"] for line in read(tmp_path / "combined.log")] == ["yes"]


NUMBERS = st.from_regex(r"\+[1-9][0-9]{9,13}", fullmatch=True)
KEYS = st.from_regex(r"sk-(proj-)?[A-Za-z0-9_-]{20,60}", fullmatch=True)
TOKENS = st.from_regex(r"[A-Za-z0-9_.~-]{16,40}", fullmatch=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=st.text(), number=NUMBERS, key=KEYS, token=TOKENS, after=st.text())
def test_no_sink_ever_sees_a_secret(before: str, number: str, key: str, token: str, after: str) -> None:
    """Numbers, keys and configured tokens come through messages, fields, exceptions and libraries."""
    stream = Terminal()
    with TemporaryDirectory() as name:
        setup_logging(Path(name), "DEBUG", stream=stream, secrets=[token])
        secret = f"{before} {number} {key} {token} {after}"
        log_event(logger, Event.REFUSED, secret, field=secret, nested={secret: [secret.encode()]})
        logger.info("caller {} uses {}", number, key, token=token)
        logger.bind(authorization=key, call_sid=secret, event=secret).debug(secret)
        try:
            try:
                raise ValueError(secret)
            except ValueError as error:
                raise RuntimeError(f"Authorization: Bearer {token}") from error
        except RuntimeError as error:
            log_event(logger, Event.ERROR, "failed", error=error)
            logging.getLogger("uvicorn.error").error("refused %s", secret, exc_info=error)
        logging.getLogger("websockets").warning("%s %s", number, {"X-Twilio-Signature": token})
        shutdown_logging()
        files = [(Path(name) / each).read_bytes() for each in ("combined.log", "error.log")]
    lines = [orjson.loads(line) for line in files[0].splitlines()]
    assert len(lines) == 6
    # As values too, where no escape could hide them.
    for text in (
        *(file.decode() for file in files),
        stream.getvalue(),
        json.dumps(lines, ensure_ascii=False),
    ):
        assert number not in text
        assert number[1:] not in text
        assert key not in text
        assert token not in text


def test_odd_values_still_make_valid_lines(tmp_path: Path) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    setup_logging(tmp_path, console=False)
    logger.bind(big=2**80, nan=float("nan"), broken=Broken(), text="\ud800").info("lone \ud800 \u2028 \x00")
    shutdown_logging()
    (line,) = [json.loads(text) for text in (tmp_path / "combined.log").read_bytes().splitlines()]
    assert line["message"] == "lone ? \u2028 \x00"
    assert line["fields"]["big"] == 2**80


def test_what_libraries_log_arrives_but_not_their_chatter(tmp_path: Path) -> None:
    root_level = logging.getLogger().level
    setup_logging(tmp_path, "DEBUG", console=False)
    logging.getLogger("websockets.client").debug("a frame")
    logging.getLogger("httpx2").info("a request")
    logging.getLogger("uvicorn.error").info("started on %s", "127.0.0.1")
    logging.getLogger("websockets.client").warning("odd {braces}")
    logging.getLogger("x").log(35, "between the levels")
    shutdown_logging()
    lines = read(tmp_path / "combined.log")
    assert [line["message"] for line in lines] == [
        "started on 127.0.0.1",
        "odd {braces}",
        "between the levels",
    ]
    assert str(lines[0]["source"]).startswith("uvicorn.error:test_what_libraries_log")
    assert logging.getLogger().level == root_level


def test_a_library_s_broken_line_does_not_break_the_library(tmp_path: Path) -> None:
    setup_logging(tmp_path, console=False)
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%s and %s", ("one",), None)
    logs._StandardLogging().emit(record)


def test_the_console_is_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        console_of(stream)
        log_event(call_logger(SID), Event.BARGE_IN, "interrupted", heard_ms=1234)
        shutdown_logging()
    assert "✋" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
    assert file.getvalue().endswith(f" ✋ {SID} interrupted  heard_ms=1234\n")
    assert "\x1b" not in file.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    console_of(plain)
    log_event(logger, Event.SAVED, "saved")
    shutdown_logging()
    assert plain.getvalue().endswith(" 💾 saved\n")


def test_the_console_names_levels_and_shows_tracebacks() -> None:
    stream = io.StringIO()
    console_of(stream, "DEBUG")
    logger.debug("detail")
    logger.critical("gone")
    log_event(logger, Event.ERROR, "failed", error=ValueError("why"))
    shutdown_logging()
    text = stream.getvalue()
    assert " 🔹 DEBUG detail\n" in text
    assert " 🔥 CRITICAL gone\n" in text
    assert " 🚨 ERROR failed\nValueError: why\n" in text


def test_a_caller_cannot_forge_console_lines() -> None:
    stream = io.StringIO()
    console_of(stream)
    log_event(logger, Event.CALLER_TURN, "hello\n12:00 forged\x1b[2J", name="a\rb\x9b")
    shutdown_logging()
    assert stream.getvalue().endswith("hello\\x0a12:00 forged\\x1b[2J  name=a\\x0db\\x9b\n")


def test_a_console_that_is_no_utf8_still_gets_its_lines() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    console_of(stream)
    log_event(logger, Event.SAVED, "enregistré")
    shutdown_logging()
    assert raw.getvalue().endswith(b"\\U0001f4be enregistr\\xe9\n")


def test_every_event_has_a_look_of_its_own() -> None:
    looks = [logs._LOOKS[event] for event in Event]
    assert len({look.emoji for look in looks}) == len(logs._LOOKS) == len(Event)
    assert all(unicodedata.east_asian_width(look.emoji) == "W" for look in looks)


def test_a_stopped_console_holds_up_neither_the_caller_nor_the_files(tmp_path: Path) -> None:
    """Nobody reads the pipe; all lines are in the file before anybody does."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        setup_logging(tmp_path, stream=stream)
        for number in range(300):
            logger.info(f"{number} " + "long " * 200)
        deadline = time.monotonic() + 10
        while (tmp_path / "combined.log").read_bytes().count(b"\n") < 300:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        drain = threading.Thread(target=lambda: all(iter(lambda: os.read(reader, 65536), b"")))
        drain.start()
        shutdown_logging()
    drain.join(10)
    os.close(reader)
    assert not drain.is_alive()


def test_a_full_queue_drops_lines_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE_LINES", 5)
    entered, gate = threading.Event(), threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            entered.set()
            gate.wait(10)
            return super().write(text)

    stream = Slow()
    console_of(stream)
    logger.info("first")
    assert entered.wait(10)
    for number in range(12):
        logger.info(f"number {number}")
    gate.set()
    shutdown_logging()
    lines = stream.getvalue().splitlines()
    assert [line.split()[-1] for line in lines[:6]] == ["first", "0", "1", "2", "3", "4"]
    assert "WARNING 7 log lines were lost here" in lines[6]


def test_a_failing_console_loses_its_lines_and_says_so_later() -> None:
    class Failing(io.StringIO):
        failures = 1

        def write(self, text: str) -> int:
            if self.failures:
                self.failures -= 1
                failed.set()
                raise OSError(28, "No space left on device")
            return super().write(text)

    failed = threading.Event()
    stream = Failing()
    console_of(stream)
    logger.info("lost")
    assert failed.wait(10)
    # The writer counts after it failed; only a line that it takes afterwards can tell.
    shutdown_logging()
    assert "1 log lines were lost" in stream.getvalue()
    assert " lost\n" not in stream.getvalue()


def test_files_are_renamed_when_full_and_the_oldest_goes(tmp_path: Path) -> None:
    setup_logging(tmp_path, console=False, max_bytes=2000, keep=2)
    for number in range(200):
        logger.info(f"number {number}")
    shutdown_logging()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["combined.log", "combined.log.1", "combined.log.2", "error.log"]
    kept = [line["message"] for name in names[2::-1] for line in read(tmp_path / name)]
    assert kept == [f"number {number}" for number in range(200 - len(kept), 200)]


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = RotatingFile(tmp_path / "sub" / "x.log", max_bytes=100, keep=1)
    file.write(b"one\n")
    (tmp_path / "sub" / "x.log").rename(tmp_path / "moved")
    file.write(b"two\n")
    (tmp_path / "sub" / "x.log").unlink()
    (tmp_path / "sub").rmdir()
    file.write(b"three\n")
    file.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert (tmp_path / "sub" / "x.log").read_bytes() == b"three\n"


def test_a_full_disk_leaves_no_half_line() -> None:
    """/dev/full takes nothing; what counts is that the error comes out and the file is still usable."""
    file = RotatingFile(Path("/dev/full"), max_bytes=100, keep=1)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            file.write(b"line\n")
    file.close()


def test_a_directory_that_cannot_be_used_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        setup_logging(tmp_path / "file" / "logs")


def test_logs_are_not_readable_by_everyone(tmp_path: Path) -> None:
    setup_logging(tmp_path / "logs", console=False)
    shutdown_logging()
    assert (tmp_path / "logs").stat().st_mode & 0o007 == 0
    assert (tmp_path / "logs" / "combined.log").stat().st_mode & 0o007 == 0


def test_setting_up_again_replaces_and_shutting_down_leaves_nothing(tmp_path: Path) -> None:
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    handlers = list(logging.getLogger().handlers)
    for name in ("a", "b"):
        setup_logging(tmp_path / name, console=False)
        logger.info(name)
    shutdown_logging()
    shutdown_logging()
    logger.info("nobody listens")
    for name in ("a", "b"):
        assert [line["message"] for line in read(tmp_path / name / "combined.log")] == [name]
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert logging.getLogger().handlers == handlers


CHILD = """
import sys
from pathlib import Path
from loguru import logger
from handlehome.relay.logs import setup_logging
setup_logging(Path(sys.argv[1]), console=False)
for number in range(int(sys.argv[2])):
    logger.bind(number=number).info("line")
    print(number, flush=True)
"""


def test_lines_survive_a_kill_within_a_second(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), "1000000000"], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        last = 0
        while last < 300:
            last = int(child.stdout.readline())
        deadline = time.monotonic() + 1
        while b'"number":300}' not in (tmp_path / "combined.log").read_bytes():
            assert time.monotonic() < deadline
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.stdout.read()
    numbers = [line["fields"] for line in read(tmp_path / "combined.log")]
    assert numbers == [{"number": number} for number in range(len(numbers))]


def test_lines_are_written_when_the_process_just_ends(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), "500"], check=True, stdout=subprocess.DEVNULL)
    assert len(read(tmp_path / "combined.log")) == 500
