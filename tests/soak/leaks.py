"""Campaign: what calls leave behind in a daemon that runs in this very process and loop.

The phones and the model run here as well, so that a task, timer or descriptor of either side shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from handlehome.bench.realtime.script import Answer, Faults, Script
from handlehome.relay.assistant import load_assistant
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.backoffice import BackOffice
from handlehome.relay.config import load_settings
from handlehome.relay.daemon import Daemon
from handlehome.relay.logs import setup_logging, shutdown_logging
from handlehome.relay.recording import Recorder
from handlehome.relay.server import listen
from handlehome.store.datadir import DataDir
from handlehome.store.journal import Journal
from handlehome.store.sqlite import SqliteCallStore
from tests.harness import KEY, NO_REST, TOKEN, Stage

GREETING = Answer(text="Bonjour.", audio=bytes([0x11, 0x91]) * 400)
LONG = Answer(text="Un plombier viendra.", audio=bytes([0x12, 0x92]) * 20_000)
SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Belongings:
    """What a process holds.

    Attributes:
        tasks: of the loop.
        timers: of the daemon's wheel.
        blocks: lent by the daemon's frame pool.
        files: what the open descriptors are, and how many of each; sockets are of one kind, and databases
            are not counted.
        calls: of the switchboard.
        saving: records on their way to the store.
    """

    tasks: frozenset[str]
    timers: int
    blocks: int
    files: dict[str, int]
    calls: int
    saving: int


def _open_files() -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the directory's own descriptor, closed meanwhile
            target = str(descriptor.readlink())
            # SQLite keeps the descriptors of closed connections for the next ones, as long as another
            # connection to that file is open (https://www.sqlite.org/howtocorrupt.html, section 2.2).
            if ".sqlite3" not in target:
                kinds[target.partition(":[")[0]] += 1
    return dict(kinds)


class House:
    """A daemon in this process, and its model.

    Attributes:
        daemon: the daemon.
        stage: for phones.
        store: its call store.
    """

    def __init__(self, daemon: Daemon, stage: Stage, store: SqliteCallStore) -> None:
        self.daemon = daemon
        self.stage = stage
        self.store = store

    def belongings(self) -> Belongings:
        """What there is now."""
        daemon = self.daemon
        mine = asyncio.current_task()
        return Belongings(
            frozenset(task.get_name() for task in asyncio.all_tasks() if task is not mine),
            daemon._wheel.pending,
            daemon._pool.in_use,
            _open_files(),
            daemon.switchboard.active_calls,
            daemon._office.health()["outbox"]["waiting"],
        )

    async def settled(self, before: Belongings) -> Belongings:
        """Waits until all is as before, for a bounded time; gives what there is then."""
        for _ in range(round(SETTLE_SECONDS / 0.05)):
            if (now := self.belongings()) == before:
                break
            await asyncio.sleep(0.05)  # sockets close by and by, and nothing tells of the last one
        return now


@contextlib.asynccontextmanager
async def house(folder: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[House]:
    """Runs a daemon here, put together as its `main` does, and ends it as a supervisor does: by SIGTERM."""
    stage = Stage(keep_audio=False)
    thresholds = gc.get_threshold()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(stage.model)
        checked = load_settings(
            {
                "DATA_DIR": str(folder / "data"),
                "LOG_DIR": str(folder / "logs"),
                "OPENAI_REALTIME_URL": stage.model.url,
                "OPENAI_API_KEY": KEY,
                "TWILIO_AUTH_TOKEN": TOKEN,
                "MAX_CALLS": "1000",
                "OPENAI_BASE_URL": NO_REST,
                **(settings or {}),
            },
            None,
        )
        sockets = listen("127.0.0.1", 0)
        stage.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        data = stack.enter_context(DataDir.open(checked.data_dir))
        setup_logging(checked.log_dir, secrets=checked.secrets, console=False)
        stack.callback(shutdown_logging)
        journal = Journal.open(data.journal)
        stack.callback(journal.close)
        store = SqliteCallStore(data.calls)
        stack.callback(store.close)
        # The daemon freezes and tunes the collector of what it takes for its own process.
        stack.callback(gc.set_threshold, *thresholds)
        stack.callback(gc.unfreeze)
        files = AudioFiles(data.path)
        recorder = Recorder(files, both=checked.record_calls)
        stack.callback(recorder.close)
        assistant = load_assistant()
        office = BackOffice(checked, assistant, journal, store, recorder)
        daemon = Daemon(checked, assistant, office, recorder)
        running = asyncio.create_task(daemon.run(sockets), name="daemon")
        try:
            async with httpx2.AsyncClient(trust_env=False) as client:
                await client.get(stage.url + "/healthz")  # the listener is up from here on
            await asyncio.sleep(0.3)  # and that connection gone
            yield House(daemon, stage, store)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(running, 20)


# ---- calls -----------------------------------------------------------------------------------------


async def good(stage: Stage) -> None:
    """Greeting, a turn, hang-up."""
    script = Script(greeting=GREETING, answers=[GREETING], vad="manual")
    async with stage.phone(keep_audio=False) as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_heard(800)
        session.speech_started()
        session.speech_stopped()
        await phone.wait_heard(1600)
        await phone.hang_up()


async def interrupted(stage: Stage) -> None:
    """Hung up in mid-answer, with audio waiting in the pool and marks on their way."""
    async with stage.phone(keep_audio=False) as phone:
        await stage.dial(phone, Script(greeting=LONG, vad="manual"))
        await phone.wait_heard(1600)
        await phone.hang_up()


async def goodbye(stage: Stage) -> None:
    """The assistant hangs up."""
    leave = Answer(text="Au revoir.", audio=GREETING.audio, function_call=("end_call", "{}"))
    async with stage.phone(keep_audio=False) as phone:
        await stage.dial(phone, Script(greeting=leave, vad="manual"))
        await phone.ended()


async def dropped(stage: Stage) -> None:
    """The line is lost in mid-answer and nothing is heard of it again."""
    async with stage.phone(keep_audio=False) as phone:
        await stage.dial(phone, Script(greeting=LONG, vad="manual"))
        await phone.wait_heard(1600)


async def resumed(stage: Stage) -> None:
    """The line is lost and comes back."""
    async with stage.phone(keep_audio=False) as phone:
        await stage.dial(phone, Script(greeting=LONG, vad="manual"))
        await phone.wait_heard(1600)
        await phone.drop()
        await phone.wait_leg(2)
        await phone.hang_up()


async def refused_token(stage: Stage) -> None:
    """The stream brings a wrong token."""

    def wrong(start: dict[str, object]) -> dict[str, object]:
        body = start["start"]
        assert isinstance(body, dict)
        body["customParameters"] = {"token": "wrong"}
        return start

    async with stage.phone(start_hook=wrong) as phone:
        await stage.dial(phone, Script(greeting=GREETING, vad="manual"))
        await phone.ended()


async def model_lost(stage: Stage) -> None:
    """The model's connection breaks in mid-answer."""
    async with stage.phone(keep_audio=False) as phone:
        session = await stage.session(await stage.dial(phone, Script(greeting=LONG, vad="manual")))
        await phone.wait_heard(1600)
        session.drop()
        await phone.ended()


async def model_refuses(stage: Stage) -> None:
    """The model's handshake is answered with 401."""
    async with stage.phone() as phone:
        await stage.dial(phone, Script(faults=Faults(handshake_status=401)))
        await phone.ended()


async def model_never_answers(stage: Stage) -> None:
    """The caller hangs up while the model's handshake is under way; audio waits in the pool."""
    async with stage.phone() as phone:
        await stage.dial(phone, Script(faults=Faults(handshake_delay_s=1.5)))
        await phone.say(b"\x21" * 4000)
        await phone.hang_up()


async def model_deaf_to_close(stage: Stage) -> None:
    """The model doesn't answer our close frame."""
    script = Script(greeting=GREETING, vad="manual", faults=Faults(close_answer="silence"))
    async with stage.phone() as phone:
        await stage.dial(phone, script)
        await phone.wait_heard(800)
        await phone.hang_up()


async def never_connected(stage: Stage) -> None:
    """Twilio says that the call came to nothing."""
    async with stage.phone() as phone:
        await stage.dial(phone, Script(), lambda: phone.webhook("/incoming-call"))
        await phone.webhook("/call-status", CallStatus="no-answer")


async def never_heard_of_again(stage: Stage) -> None:
    """Nothing follows the webhook; the call is given up when its token has expired."""
    async with stage.phone() as phone:
        await stage.dial(phone, Script(), lambda: phone.webhook("/incoming-call"))


BADLY_ENDED: tuple[Callable[[Stage], Awaitable[None]], ...] = (
    interrupted,
    goodbye,
    dropped,
    resumed,
    refused_token,
    model_lost,
    model_refuses,
    model_never_answers,
    model_deaf_to_close,
    never_connected,
)
