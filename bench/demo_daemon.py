"""The demonstration's daemon: started as a user starts it, in a process and a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import orjson

from handlehome.store.records import Event

START_SECONDS = 30.0
"""A daemon that does not answer by then, on however slow a machine, does not start."""

STOP_SECONDS = 15.0
POLL_SECONDS = 0.02

_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("LC_", "PYTHON")


class DaemonError(Exception):
    """The daemon did not start.

    Attributes:
        console: What it printed.
    """

    def __init__(self, message: str, console: list[str]) -> None:
        super().__init__(message)
        self.console = console


class DemoDaemon:
    """A daemon that answers.

    Args:
        process: Its process.
        folder: Where its data, logs and console go.

    Attributes:
        url: Where it listens.
        start_seconds: From the command to the first answer.
        exit_status: Once it has stopped.
    """

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.url = ""
        self.start_seconds = 0.0
        self.exit_status: int | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def console(self) -> list[str]:
        """The lines that it printed so far."""
        return (self.folder / "console.log").read_text("utf-8", "replace").splitlines()

    def log(self) -> list[dict[str, Any]]:
        """The whole lines of combined.log so far."""
        try:
            text = (self.logs / "combined.log").read_bytes()
        except FileNotFoundError:
            return []
        return [orjson.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def errors(self) -> list[str]:
        """What it logged as an error, a line each, with the exception's last line."""
        errors = []
        for line in self.log():
            if line["level"] in {"ERROR", "CRITICAL"}:
                message, trace = str(line["message"]).splitlines(), str(line["exception"] or "").splitlines()
                errors.append(" ".join(message[:1] + trace[-1:]))
        return errors

    async def stop(self) -> int:
        """SIGTERM, and SIGKILL if that is not enough; returns the exit status."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
            except TimeoutError:
                self.process.kill()
        self.exit_status = await self.process.wait()
        return self.exit_status

    async def wait_ready(self) -> None:
        """Waits until it takes calls, as a load balancer does: by `/readyz`.

        Raises:
            DaemonError: It has ended, or is not ready in time.
        """
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            for line in self.log():
                if line["event"] == "daemon_started":
                    self.url = f"http://127.0.0.1:{line['fields']['port']}"
            if self.url and await _is_ready(self.url):
                self.start_seconds = time.monotonic() - began
                return
            if self.process.returncode is not None:
                status = self.process.returncode
                raise DaemonError(f"The daemon ended at once, with exit status {status}", self.console())
            await asyncio.sleep(POLL_SECONDS)
        raise DaemonError(f"The daemon did not answer within {START_SECONDS:.0f} s", self.console())


async def _is_ready(url: str) -> bool:
    async with httpx2.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"{url}/readyz")).status_code == 200
        except httpx2.HTTPError:
            return False


def make_folder(working_directory: Path) -> Path:
    """Makes a new folder `data/demo/<date-time>`, or a temporary one where that can't be written."""
    parent = working_directory / "data" / "demo"
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
    try:
        for folder in (parent.parent, parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in (stamp, *(f"{stamp}-{number}" for number in range(2, 100))):
            with contextlib.suppress(FileExistsError):
                (parent / name).mkdir(mode=0o700)
                return parent / name
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="handlehome-demo-"))


@asynccontextmanager
async def running_daemon(
    folder: Path, *, model_url: str, rest_url: str, api_key: str, auth_token: str
) -> AsyncIterator[DemoDaemon]:
    """Starts a daemon and stops it at the end.

    Neither the settings in this process's environment nor a `.env` file reach it.

    Args:
        folder: For everything that it writes; exists.
        model_url: The simulated speech model's.
        rest_url: The simulated REST API's.
        api_key: Which both expect.
        auth_token: With which the simulated phone signs.

    Raises:
        DaemonError: It does not start.
    """
    environment = {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    environment |= {
        "PORT": "0",
        "INSTANCE": "demo",
        "DATA_DIR": str(folder / "data"),
        "LOG_DIR": str(folder / "logs"),
        "OPENAI_REALTIME_URL": model_url,
        "OPENAI_BASE_URL": rest_url,
        "OPENAI_API_KEY": api_key,
        "TWILIO_AUTH_TOKEN": auth_token,
        "RECORD_CALLS": "true",
        # Whoever stops the demonstration does not want to wait.
        "DRAIN_SECONDS": "1",
    }
    command = (sys.executable, "-m", "handlehome.relay.cli", "start", "--env-file", os.devnull)
    with (folder / "console.log").open("wb") as console:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    daemon = DemoDaemon(process, folder)
    try:
        await daemon.wait_ready()
        yield daemon
    finally:
        await daemon.stop()


class JournalReader:
    """Follows a daemon's journal from outside, as it is written.

    Args:
        path: The journal's database; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen = 0

    def new(self) -> list[Event]:
        """The events since the last time, in order. Takes about 0.1 ms; never waits for the writer."""
        try:
            if self._connection is None:
                uri = f"{self._path.absolute().as_uri()}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
            rows = self._connection.execute(
                "SELECT seq, call_sid, at, kind, data FROM events WHERE seq > ? ORDER BY seq", (self._seen,)
            ).fetchall()
        except sqlite3.OperationalError:  # Not there yet, or locked for the moment.
            return []
        if rows:
            self._seen = rows[-1][0]
        return [Event(call_sid, at, kind, orjson.loads(data), seq) for seq, call_sid, at, kind, data in rows]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
