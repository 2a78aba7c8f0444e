"""A real daemon in its own process, for scenario tests and campaigns."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from handlehome.store.calls import SqliteCallStore
from handlehome.store.records import CallRecord

KEY = "sk-test-0123456789abcdef"
TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class RunningDaemon:
    """A daemon that answers.

    Attributes:
        url: where.
        data: its `DATA_DIR`.
        logs: its `LOG_DIR`.
        console: what it printed so far.
    """

    process: asyncio.subprocess.Process
    data: Path
    logs: Path
    url: str = ""
    console: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> list[dict[str, object]]:
        """The lines of combined.log so far."""
        text = (self.logs / "combined.log").read_bytes()
        return [orjson.loads(line) for line in text.splitlines()]

    def records(self) -> dict[str, CallRecord]:
        """The stored records by CallSid."""
        store = SqliteCallStore(self.data / "calls.sqlite3")
        try:
            return {record.call_sid: record for record in store.recent(10_000)}
        finally:
            store.close()

    def cpu_seconds(self) -> float:
        """User and system time that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """Open file descriptors."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    async def stop(self, signum: int = signal.SIGTERM, within: float = 20.0) -> int:
        """Sends a signal and waits for the end."""
        if self.process.returncode is None:
            self.process.send_signal(signum)
        return await asyncio.wait_for(self.process.wait(), within)


@asynccontextmanager
async def running_daemon(
    folder: Path,
    model_url: str,
    settings: Mapping[str, str] | None = None,
    *,
    command: tuple[str, ...] = (sys.executable, "-m", "handlehome.relay.cli", "start"),
) -> AsyncIterator[RunningDaemon]:
    """Starts a daemon on a free port; ends it and checks that it ended in order."""
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": "0",
        "DATA_DIR": str(folder / "data"),
        "LOG_DIR": str(folder / "logs"),
        "OPENAI_REALTIME_URL": model_url,
        "OPENAI_API_KEY": KEY,
        "TWILIO_AUTH_TOKEN": TOKEN,
        **(settings or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stderr=asyncio.subprocess.PIPE
    )
    daemon = RunningDaemon(process, Path(environment["DATA_DIR"]), Path(environment["LOG_DIR"]))
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            text = line.decode().rstrip()
            daemon.console.append(text)
            found = re.search(r" answers on (http://\S+)", text)
            if found and not ready.done():
                ready.set_result(found[1])
        if not ready.done():
            ready.set_exception(RuntimeError("the daemon did not start:\n" + "\n".join(daemon.console)))

    reader = asyncio.create_task(read())
    try:
        daemon.url = await asyncio.wait_for(ready, 20)
        yield daemon
        if process.returncode is None:
            status = await daemon.stop()
            assert status == 0, "\n".join(daemon.console[-30:])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reader
