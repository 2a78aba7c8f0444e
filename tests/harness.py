"""A real daemon in its own process, for scenario tests and campaigns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx2
import orjson
import pytest
import uvloop

from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.store.calls import CallStore
from handlehome.store.records import CallRecord, Event
from handlehome.store.sqlite import SqliteCallStore

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
    _printed: asyncio.Event = field(default_factory=asyncio.Event)

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
            return {record.call_sid: record for record in all_records(store)}
        finally:
            store.close()

    def journal(self, call_sid: str) -> list[Event]:
        """A call's events in the journal, in order."""
        database = sqlite3.connect(f"file:{self.data / 'journal.sqlite3'}?mode=ro", uri=True)
        query = "SELECT at, kind, data FROM events WHERE call_sid = ? ORDER BY seq"
        with contextlib.closing(database):
            rows = database.execute(query, (call_sid,)).fetchall()
        return [Event(call_sid, at, kind, orjson.loads(data)) for at, kind, data in rows]

    async def journal_until(self, call_sid: str, kind: str, within: float = 10.0) -> list[Event]:
        """Waits until the journal holds an event of this kind of a call; gives the call's events."""
        async with asyncio.timeout(within):
            while True:
                events = self.journal(call_sid)
                if any(event.kind == kind for event in events):
                    return events
                await asyncio.sleep(0.01)  # another process writes it: there is nothing to wait on

    async def wait_console(self, *parts: str, within: float = 10.0) -> str:
        """Waits for a line on the console that holds all of `parts`, and gives it.

        Raises:
            TimeoutError: there was none within `within` seconds.
        """
        seen = 0
        async with asyncio.timeout(within):
            while True:
                for line in self.console[seen:]:
                    if all(part in line for part in parts):
                        return line
                seen = len(self.console)
                self._printed.clear()
                await self._printed.wait()

    async def record(self, call_sid: str, within: float = 10.0) -> CallRecord:
        """Waits until the record of a call is saved, and gives it."""
        await self.wait_console(call_sid, "The record is saved", within=within)
        return self.records()[call_sid]

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """Requests a path, on a connection of its own."""
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False) as client:
            return await client.get(path, headers=headers)

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


START_SECONDS = 60.0
"""How long a process may take to start, on a machine that starts many of them at once."""

NO_REST = "http://127.0.0.1:9/v1"
"""Where nobody answers: in tests that don't care about what comes after a call, rules extract the data."""

START = (sys.executable, "-m", "handlehome.relay.cli", "start")


def _environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PORT": "0",
        "DATA_DIR": str(folder / "data"),
        "LOG_DIR": str(folder / "logs"),
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": NO_REST,
        "TWILIO_AUTH_TOKEN": TOKEN,
        **settings,
    }


@asynccontextmanager
async def running_daemon(
    folder: Path,
    model_url: str,
    settings: Mapping[str, str] | None = None,
    *,
    command: tuple[str, ...] = START,
) -> AsyncIterator[RunningDaemon]:
    """Starts a daemon on a free port; ends it and checks that it ended in order."""
    environment = _environment(folder, {"OPENAI_REALTIME_URL": model_url, **(settings or {})})
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
            daemon._printed.set()
            found = re.search(r" answers on (http://\S+)", text)
            if found and not ready.done():
                ready.set_result(found[1])
        if not ready.done():
            ready.set_exception(RuntimeError("the daemon did not start:\n" + "\n".join(daemon.console)))

    reader = asyncio.create_task(read())
    try:
        daemon.url = await asyncio.wait_for(ready, START_SECONDS)
        yield daemon
        if process.returncode is None:
            status = await daemon.stop()
            assert status == 0, "\n".join(daemon.console[-30:])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reader


async def failing_start(
    folder: Path, settings: Mapping[str, str], within: float = START_SECONDS
) -> tuple[int, list[str]]:
    """Starts a daemon that has to give up by itself.

    Returns:
        Its exit status and the lines that it printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *START, cwd=folder, env=_environment(folder, settings), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, printed = await asyncio.wait_for(process.communicate(), within)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, printed.decode().splitlines()


def all_records(store: CallStore) -> list[CallRecord]:
    """All records of a store, page by page."""
    records: list[CallRecord] = []
    cursor: str | None = None
    while True:
        page = store.find(limit=200, cursor=cursor)
        records += [call.record for call in page.calls]
        cursor = page.cursor
        if cursor is None:
            return records


class Stage:
    """A daemon, and a simulated model in which each call is given a script of its own.

    Attributes:
        url: where the daemon answers.
        daemon: its process, if it has one of its own.
        model: the simulator.
    """

    def __init__(self, *, keep_audio: bool = True) -> None:
        self.url = ""
        self.daemon: RunningDaemon
        self.model = RealtimeSimulator(self._take, api_key=KEY, seed=1, keep_audio=keep_audio)
        self._script = Script()
        self._taken = asyncio.Event()
        self._turn = asyncio.Lock()

    def phone(self, **options: Any) -> PhoneCall:
        """A phone that calls this daemon, with signatures."""
        return PhoneCall(self.url, **{"auth_token": TOKEN, **options})

    async def dial(
        self, phone: PhoneCall, script: Script, how: Callable[[], Awaitable[object]] | None = None
    ) -> int:
        """Lets a phone dial, one at a time, so that its model's session plays `script`.

        Args:
            phone: the caller.
            script: what the model does in this call.
            how: what makes the daemon open a session, if not `phone.dial`.

        Returns:
            The number of the model's handshake, for `session`.
        """
        async with self._turn:
            self._script = script
            self._taken.clear()
            number = self.model.handshakes
            await (how or phone.dial)()
            await asyncio.wait_for(self._taken.wait(), 5)
            assert self.model.handshakes == number + 1
            return number

    async def session(self, number: int, within: float = 5.0) -> SimSession:
        """Waits for the session of a handshake."""
        async with asyncio.timeout(within):
            while True:
                for session in self.model.sessions:
                    if session.number == number:
                        return session
                await self.model.wait_session(len(self.model.sessions), within)

    def _take(self, _number: int) -> Script:
        self._taken.set()
        return self._script


@asynccontextmanager
async def running_stage(
    folder: Path, settings: Mapping[str, str] | None = None, *, keep_audio: bool = True
) -> AsyncIterator[Stage]:
    """A daemon with its model."""
    stage = Stage(keep_audio=keep_audio)
    async with stage.model, running_daemon(folder, stage.model.url, settings) as stage.daemon:
        stage.url = stage.daemon.url
        yield stage


World = TypeVar("World")


class Scenarios(Generic[World]):
    """Scenarios that are played all at once, because each of them mostly waits, and are reported one by one.

        scenarios = Scenarios[Stage](seconds=30)

        @scenarios
        async def the_caller_hangs_up(stage: Stage) -> None: ...

    Args:
        seconds: how long any of them may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._all: dict[str, Callable[[World], Awaitable[None]]] = {}

    def __call__(self, scenario: Callable[[World], Awaitable[None]]) -> Callable[[World], Awaitable[None]]:
        """Adds a scenario."""
        self._all[scenario.__name__] = scenario
        return scenario

    @property
    def names(self) -> list[str]:
        """The scenarios' names."""
        return list(self._all)

    def play(
        self, request: pytest.FixtureRequest, world: Callable[[], AbstractAsyncContextManager[World]]
    ) -> dict[str, BaseException | None]:
        """Plays those scenarios that this run of pytest has chosen; gives what each of them raised.

        Args:
            request: of a fixture of the module whose tests are parametrised with `names`.
            world: makes what the scenarios play in.
        """
        chosen = [
            item.callspec.params["name"]
            for item in request.session.items
            if isinstance(item, pytest.Function)
            and item.path == request.path
            and "name" in getattr(getattr(item, "callspec", None), "params", ())
        ]

        async def bounded(name: str, here: World) -> None:
            async with asyncio.timeout(self._seconds):
                await self._all[name](here)

        async def play_all() -> dict[str, BaseException | None]:
            async with world() as here:
                playing = (bounded(name, here) for name in chosen)
                raised = await asyncio.gather(*playing, return_exceptions=True)
            return dict(zip(chosen, raised, strict=True))

        return uvloop.run(play_all())
