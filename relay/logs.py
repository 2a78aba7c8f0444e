"""Logs: a console for people, `combined.log` and `error.log` as JSON lines for machines.

    loguru --(masked by `Masker.patch`)--> one sink --> queue, thread --> combined.log, error.log
                                                   \\-> queue, thread --> console

The code that logs never waits for a disk or a terminal: it puts the masked line into a bounded queue,
and a thread of ours renders and writes it. loguru's own `enqueue=True` was measured and left aside: it
pickles each record into a pipe of 64 KiB, and a writer that stalls fills the pipe and then blocks the
event loop. Here a full queue drops lines, and the next line that gets through says how many.
Console and files have a queue each, so that a stopped terminal doesn't hold up the files.

Guarantee: a line is handed to the operating system as soon as its thread runs, usually within
milliseconds, without a buffer of ours in between: after a kill -9 the files hold all but the last
instant, and only whole lines. (There is no fsync: a power cut may take the last seconds.)

A line's keys, always all of them: `time` (ISO 8601, UTC), `level`, `message`, `call_sid`, `event`,
`fields` (all other bound values), `exception` (the traceback), `source` (module, function, line).
"""

import atexit
import contextlib
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

import orjson
from loguru import logger

from handlehome.relay.masking import EXCEPTION_KEY, Masker

if TYPE_CHECKING:
    from loguru import Logger, Message, Record

QUEUE_LINES: Final = 8192
"""Lines that wait for a writer at most; what comes on top is dropped and counted."""

_BATCH_LINES: Final = 32  # Few: the thread holds the GIL while it renders them.
_CLOSE_SECONDS: Final = 5.0

_QUIET: Final = (
    "asyncio",
    "httpcore2",
    "httpx2",
    "openai",
    "pymongo",
    "twilio",
    "urllib3",
    "uvicorn.access",
    "websockets",
)
"""Libraries of which only warnings are logged: below, they log every request or even every frame."""


class Event(StrEnum):
    """The kinds of event that a log line can be about (its key `event`)."""

    DAEMON_STARTED = "daemon_started"
    DAEMON_DRAINING = "daemon_draining"
    DAEMON_STOPPED = "daemon_stopped"
    CALL_STARTED = "call_started"
    CALL_ENDED = "call_ended"
    CALL_RECOVERED = "call_recovered"
    LEG_STARTED = "leg_started"
    LEG_LOST = "leg_lost"
    MODEL_CONNECTED = "model_connected"
    MODEL_LOST = "model_lost"
    CALLER_TURN = "caller_turn"
    ASSISTANT_TURN = "assistant_turn"
    BARGE_IN = "barge_in"
    TOOL_CALLED = "tool_called"
    EXTRACTED = "extracted"
    SAVED = "saved"
    REFUSED = "refused"
    WARNING = "warning"
    ERROR = "error"


class _Look(NamedTuple):
    emoji: str
    level: str = "INFO"


# Emoji of one code point and two columns each, so that lines stay aligned in a terminal.
_LOOKS: Final[dict[str, _Look]] = {
    Event.DAEMON_STARTED: _Look("🚀"),
    Event.DAEMON_DRAINING: _Look("⏳"),
    Event.DAEMON_STOPPED: _Look("🏁"),
    Event.CALL_STARTED: _Look("📞"),
    Event.CALL_ENDED: _Look("👋"),
    Event.CALL_RECOVERED: _Look("🩹", "WARNING"),
    Event.LEG_STARTED: _Look("🔌"),
    Event.LEG_LOST: _Look("📵", "WARNING"),
    Event.MODEL_CONNECTED: _Look("🧠"),
    Event.MODEL_LOST: _Look("💥", "WARNING"),
    Event.CALLER_TURN: _Look("💬"),
    Event.ASSISTANT_TURN: _Look("🤖"),
    Event.BARGE_IN: _Look("✋"),
    Event.TOOL_CALLED: _Look("🔧"),
    Event.EXTRACTED: _Look("🔎"),
    Event.SAVED: _Look("💾"),
    Event.REFUSED: _Look("⛔", "WARNING"),
    Event.WARNING: _Look("🔶", "WARNING"),
    Event.ERROR: _Look("🚨", "ERROR"),
}
_LEVEL_EMOJI: Final = {"WARNING": "🔶", "ERROR": "🚨", "CRITICAL": "🔥"}
_PLAIN_EMOJI: Final = "🔹"
_COLOURS: Final = {
    "TRACE": "2",
    "DEBUG": "2",
    "SUCCESS": "32",
    "WARNING": "33",
    "ERROR": "31",
    "CRITICAL": "1;31",
}
# What is printed must not steer the terminal or forge a line: a caller's name may contain anything.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS_IN_TRACEBACKS: Final = {code: text for code, text in _CONTROLS.items() if chr(code) not in "\n\t"}


def call_logger(call_sid: str) -> "Logger":
    """The logger of one call: each of its lines carries the CallSid."""
    return logger.bind(call_sid=call_sid)


def log_event(
    log: "Logger", event: Event, message: str, *, error: BaseException | None = None, **fields: object
) -> None:
    """Logs one event, at its own level.

    Args:
        log: `logger`, or what `call_logger` returned.
        event: What kind of event this is.
        message: The sentence to log, taken as it is: braces in it mean nothing.
        error: An exception whose traceback belongs to the line.
        fields: Further values, for machines.
    """
    log.opt(depth=1, exception=error).bind(event=event.value, **fields).log(_LOOKS[event].level, message)


class Line(NamedTuple):
    """One masked log line, on its way to the writers."""

    time: datetime
    level: str
    level_number: int
    message: str
    call_sid: str | None
    event: str | None
    fields: dict[str, object]
    exception: str | None
    source: str


def _line_of(record: "Record") -> Line:
    fields = dict(record["extra"])
    call_sid, event, exception = (fields.pop(key, None) for key in ("call_sid", "event", EXCEPTION_KEY))
    return Line(
        time=record["time"],
        level=record["level"].name,
        level_number=record["level"].no,
        message=record["message"],
        call_sid=None if call_sid is None else str(call_sid),
        event=None if event is None else str(event),
        fields=fields,
        exception=None if exception is None else str(exception),
        source=f"{record['name']}:{record['function']}:{record['line']}",
    )


def _render_json(line: Line) -> bytes:
    document = {
        "time": line.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": line.level,
        "message": line.message,
        "call_sid": line.call_sid,
        "event": line.event,
        "fields": line.fields,
        "exception": line.exception,
        "source": line.source,
    }
    try:
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # A lone surrogate or an integer beyond 64 bits, which orjson refuses.
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _render_console(line: Line, *, colour: bool) -> str:
    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colour and code and text else text

    look = _LOOKS.get(line.event) if line.event else None
    emoji = look.emoji if look else _LEVEL_EMOJI.get(line.level, _PLAIN_EMOJI)
    level = "" if line.level == "INFO" else f"{line.level} "
    call = f"{line.call_sid} " if line.call_sid else ""
    if colour and line.call_sid:
        call = f"…{line.call_sid[-6:]} "
    fields = "".join(f"  {key}={value}" for key, value in line.fields.items())
    text = (
        paint("2", f"{line.time:%H:%M:%S}.{line.time.microsecond // 1000:03} ")
        + f"{emoji} "
        + paint("36", call.translate(_CONTROLS))
        + paint(_COLOURS.get(line.level, ""), level + line.message.translate(_CONTROLS))
        + paint("2", fields.translate(_CONTROLS))
    )
    if line.exception:
        text += "\n" + paint("2", line.exception.translate(_CONTROLS_IN_TRACEBACKS))
    return text + "\n"


class RotatingFile:
    """A file that is appended to without a buffer, and renamed when it is full.

    `combined.log` becomes `combined.log.1`, that becomes `.2`, and so on. A file that was moved or
    deleted by someone else (logrotate, another daemon in the same directory) is opened anew.

    Args:
        path: The file.
        max_bytes: Its size at which it is renamed.
        keep: How many renamed files stay.

    Raises:
        OSError: The file can't be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor = self._open()

    def write(self, data: bytes) -> None:
        """Appends whole lines.

        Raises:
            OSError: They can't be written.
        """
        self._reopen_if_moved()
        size = os.fstat(self._descriptor).st_size
        if size and size + len(data) > self._max_bytes:
            self._rotate()
            size = 0
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # A full disk: no half line stays for the next one to be glued to.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        # Not for everyone: transcripts are personal data.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _reopen_if_moved(self) -> None:
        try:
            there = os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            there = False
        if not there:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._replace_descriptor()

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number).rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))
        self._replace_descriptor()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _replace_descriptor(self) -> None:
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor


class _Writer:
    """A bounded queue of lines and the thread that writes them.

    `put` never waits. It may be called from any thread, also while the garbage collector runs
    (`SimpleQueue` is re-entrant). A failing `write` loses its lines and counts them; it never ends
    the thread.
    """

    def __init__(self, name: str, write: Callable[[list[Line]], None]) -> None:
        self._write = write
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._dropped = 0
        self._failed = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> None:
        if self._lines.qsize() < QUEUE_LINES:
            self._lines.put(line)
        else:
            self._dropped += 1  # loguru calls its sinks one at a time.

    def close(self) -> bool:
        """Waits until all is written, 5 s at most; returns whether the thread has ended."""
        self._lines.put(None)
        self._thread.join(_CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        running = True
        while running:
            batch: list[Line] = []
            line = self._lines.get()
            while line is not None:
                batch.append(line)
                if len(batch) == _BATCH_LINES or self._lines.empty():
                    break
                line = self._lines.get()
            running = line is not None
            lost = self._dropped + self._failed - self._reported
            if lost:
                batch.append(_lost_line(lost))
            try:
                self._write(batch)
                self._reported += lost
            except Exception:  # A full disk, a closed terminal; whatever it is, logging goes on.
                self._failed += len(batch) - bool(lost)


def _lost_line(count: int) -> Line:
    return Line(
        time=datetime.now(UTC).astimezone(),
        level="WARNING",
        level_number=30,
        message=f"{count} log lines were lost here: they could not be written, or not fast enough",
        call_sid=None,
        event=Event.WARNING.value,
        fields={"lost": count},
        exception=None,
        source=__name__,
    )


class _StandardLogging(logging.Handler):
    """Passes what libraries log by the standard library on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        def set_source(patched: "Record") -> None:
            patched["name"], patched["function"], patched["line"] = (
                record.name,
                record.funcName,
                record.lineno,
            )

        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        with contextlib.suppress(Exception):  # A library's broken line must not break the library.
            logger.patch(set_source).opt(exception=record.exc_info).log(level, record.getMessage())


class _Logging:
    """All that `setup_logging` started."""

    def __init__(
        self,
        *,
        log_dir: Path | None,
        level: str,
        stream: TextIO | None,
        masker: Masker,
        max_bytes: int,
        keep: int,
    ) -> None:
        self._writers: list[_Writer] = []
        self._files: list[RotatingFile] = []
        self._thresholds: dict[str, int] = {}
        if log_dir is not None:
            log_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._open_files(log_dir, max_bytes, keep)
        if stream is not None:
            self._writers.append(_Writer("console", _console_writer(stream)))
        logger.remove()
        logger.configure(patcher=masker.patch)
        # The empty format: the sink reads the record, and the text is never built.
        logger.add(self._sink, level=level, format="", colorize=False, backtrace=False, diagnose=False)
        self._handler = _StandardLogging()
        root = logging.getLogger()
        self._thresholds[""] = root.level
        root.addHandler(self._handler)
        root.setLevel(max(logging.INFO, logger.level(level).no))
        for name in _QUIET:
            self._thresholds[name] = logging.getLogger(name).level
            logging.getLogger(name).setLevel(logging.WARNING)

    def close(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        for name, threshold in self._thresholds.items():
            logging.getLogger(name).setLevel(threshold)
        logger.remove()
        logger.configure(patcher=lambda _record: None)
        finished = [writer.close() for writer in self._writers]
        if all(finished):  # Otherwise a thread still writes to them.
            for file in self._files:
                file.close()

    def _open_files(self, log_dir: Path, max_bytes: int, keep: int) -> None:
        for name in ("combined.log", "error.log"):
            self._files.append(RotatingFile(log_dir / name, max_bytes=max_bytes, keep=keep))
        combined, errors = self._files

        def write(batch: list[Line]) -> None:
            rendered = [(line, _render_json(line)) for line in batch]
            combined.write(b"".join(text for _, text in rendered))
            serious = b"".join(text for line, text in rendered if line.level_number >= logging.ERROR)
            if serious:
                errors.write(serious)

        self._writers.append(_Writer("files", write))

    def _sink(self, message: "Message") -> None:
        line = _line_of(message.record)
        for writer in self._writers:
            writer.put(line)


def _console_writer(stream: TextIO) -> Callable[[list[Line]], None]:
    colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def write(batch: list[Line]) -> None:
        text = "".join(_render_console(line, colour=colour) for line in batch)
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()

    return write


_active: list[_Logging] = []


def setup_logging(
    log_dir: Path | None,
    level: str = "INFO",
    *,
    console: bool = True,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    max_bytes: int = 20_000_000,
    keep: int = 10,
) -> None:
    """Starts logging, for the whole process; replaces what an earlier call set up.

    Args:
        log_dir: Directory of `combined.log` and `error.log`, created if missing; None writes no files.
        level: The least important level that is logged.
        console: Whether to log to the console too, coloured if it is a terminal (and `NO_COLOR` is
            not set).
        secrets: Values that must appear nowhere (`Settings.secrets`).
        stream: The console; by default stderr.
        max_bytes: Size at which a file is renamed.
        keep: How many renamed files of each kind stay.

    Raises:
        OSError: `log_dir` can't be created or written.
    """
    shutdown_logging()
    _active.append(
        _Logging(
            log_dir=log_dir,
            level=level,
            stream=(stream or sys.stderr) if console else None,
            masker=Masker(secrets),
            max_bytes=max_bytes,
            keep=keep,
        )
    )


def shutdown_logging() -> None:
    """Writes what still waits (5 s per writer at most) and ends logging. Also done at exit.

    Lines that are logged afterwards go nowhere.
    """
    while _active:
        _active.pop().close()


atexit.register(shutdown_logging)
