"""What a daemon that was killed leaves behind, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.twilio import Origin, WebhookClient, new_sid
from handlehome.relay.assistant import load_assistant
from handlehome.store.datadir import DataDir
from handlehome.store.journal import Journal
from tests.harness import TOKEN, RunningDaemon, Scenarios, running_daemon, running_stage

scenarios = Scenarios["Crash"](seconds=120)

GREETING = Answer(text="Bonjour.", audio=bytes([0x11, 0x91]) * 2000)
ANSWER = Answer(text="Un plombier viendra demain matin.", audio=bytes([0x12, 0x92]) * 12_000)
NO_MODEL = "ws://127.0.0.1:9/v1/realtime"
RESUME = {"RESUME_SECONDS": "1.5"}


@dataclass(frozen=True)
class Crash:
    """What is left of a daemon that was killed in the middle of two calls.

    Attributes:
        folder: for the scenarios; each works on a copy.
        data: its `DATA_DIR`.
        calls: the CallSids.
    """

    folder: Path
    data: Path
    calls: tuple[str, str]

    def copy(self, name: str) -> Path:
        """A folder whose `DATA_DIR` is as the dead daemon left it."""
        shutil.copytree(self.data, self.folder / name / "data")
        return self.folder / name


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    return scenarios.play(request, lambda: crashed(tmp_path_factory.mktemp("crash")))


@contextlib.asynccontextmanager
async def crashed(folder: Path) -> AsyncIterator[Crash]:
    """Kills a daemon while it gives two callers an answer."""
    script = Script(greeting=GREETING, answers=[ANSWER], vad="manual", caller_texts=["Allô ?"])
    async with running_stage(folder / "first") as stage:

        async def talk(phone: PhoneCall) -> None:
            session = await stage.session(await stage.dial(phone, script))
            await phone.wait_answer()
            session.speech_started()
            await phone.say(b"\x21" * 1600)
            session.speech_stopped()
            await phone.wait_heard(len(GREETING.audio) + 4000)
            await stage.daemon.wait_console(phone.call_sid, "Allô ?")

        async with stage.phone() as one, stage.phone() as other:
            await asyncio.gather(talk(one), talk(other))
            stage.daemon.process.kill()
            await stage.daemon.process.wait()
        yield Crash(folder, stage.daemon.data, (one.call_sid, other.call_sid))


async def callback(daemon: RunningDaemon, path: str, call_sid: str, status: str) -> bytes:
    """Posts a callback of a call whose phone is no more."""
    async with WebhookClient(Origin(daemon.url), TOKEN) as client:
        form = {"CallSid": call_sid, "AccountSid": "AC" + "0" * 32, "CallStatus": status}
        answer = await client.request(daemon.url + path, form)
        assert answer.status < 300
        return answer.body


def check_record(daemon: RunningDaemon, call_sid: str) -> None:
    """The record holds what was said until the daemon died."""
    record = daemon.records()[call_sid]
    assert (record.status, record.end_reason) == ("ended", "daemon_stopped")
    assert [(turn.role, turn.text) for turn in record.turns[:2]] == [
        ("assistant", GREETING.text),
        ("caller", "Allô ?"),
    ]
    assert [leg.end_reason for leg in record.legs] == ["interrupted"]
    assert record.ended_at is not None
    assert record.started_at < record.ended_at < time.time()


@scenarios
async def waits_for_the_call_to_come_back(crash: Crash) -> None:
    """The calls are interrupted at first, and given up `RESUME_SECONDS` later."""
    where = crash.copy("waits")
    async with running_daemon(where, NO_MODEL, RESUME) as daemon:
        for call_sid in crash.calls:
            await daemon.journal_until(call_sid, "call_interrupted")
        assert not daemon.records()
        for call_sid in crash.calls:
            await daemon.record(call_sid)
            times = {event.kind: event.at for event in await daemon.journal_until(call_sid, "call_saved")}
            assert times["call_saved"] - times["call_interrupted"] > 1
            check_record(daemon, call_sid)
    async with running_daemon(where, NO_MODEL, RESUME) as daemon:  # nothing is left to do
        assert not any(call_sid in line for line in daemon.console for call_sid in crash.calls)


@scenarios
async def twilio_speaks_of_the_call(crash: Crash) -> None:
    """A terminal status ends an interrupted call at once; a caller who is still there gets a further leg."""
    hung_up, waiting = crash.calls
    async with running_daemon(crash.copy("told"), NO_MODEL) as daemon:  # RESUME_SECONDS is a minute
        await callback(daemon, "/call-status", hung_up, "in-progress")
        assert not daemon.records()
        await callback(daemon, "/call-status", hung_up, "completed")
        await daemon.record(hung_up)
        check_record(daemon, hung_up)
        said = await callback(daemon, "/call-ended", waiting, "in-progress")
        assert "<Connect" in said.decode()
        # No model can be had here: the caller hears why the call can't go on.
        await daemon.journal_until(waiting, "call_resumed")
        await daemon.wait_console("The model is lost", waiting)
        said = await callback(daemon, "/call-ended", waiting, "in-progress")
        assert load_assistant().texts.unavailable in said.decode()
        record = await daemon.record(waiting)
        assert record.end_reason == "model_lost"
        assert record.turns, "what was said before the crash is in the same record"


@scenarios
async def ended_but_not_saved(crash: Crash) -> None:
    """A call that ended a moment before the crash is saved by the next start."""
    where = crash.folder / "unsaved"
    where.mkdir()
    call_sid = new_sid("CA")
    with DataDir.open(where / "data", instance="before") as data:
        journal = Journal.open(data.journal)
        try:
            journal.append(call_sid, "call_started", {"from": "+33612345678"})
            journal.append(call_sid, "turn", {"id": "a", "after": None, "role": "caller", "text": "Allô ?"})
            journal.append(call_sid, "call_ended", {"reason": "caller_hung_up"})
            await journal.flush()
        finally:
            await asyncio.to_thread(journal.close)
    async with running_daemon(where, NO_MODEL) as daemon:
        record = await daemon.record(call_sid)
        assert (record.status, record.end_reason) == ("ended", "caller_hung_up")
        assert [turn.text for turn in record.turns] == ["Allô ?"]
        await daemon.journal_until(call_sid, "call_saved")


@scenarios
async def killed_again(crash: Crash) -> None:
    """A daemon that dies while it puts things in order leaves no more disorder behind."""
    where = crash.copy("again")
    async with running_daemon(where, NO_MODEL, RESUME) as daemon:
        daemon.process.kill()
        await daemon.process.wait()
    async with running_daemon(where, NO_MODEL, RESUME) as daemon:
        for call_sid in crash.calls:
            await daemon.record(call_sid)
            check_record(daemon, call_sid)
            events = await daemon.journal_until(call_sid, "call_saved")
            assert [event.kind for event in events].count("call_ended") == 1
        async with PhoneCall(daemon.url, auth_token=TOKEN) as phone:
            await phone.dial()  # and it answers
            await phone.ended()
            assert phone.said


@pytest.mark.parametrize("name", scenarios.names)
def test_crash(name: str, played: dict[str, BaseException | None]) -> None:
    """Each crash left behind what its scenario says."""
    if (error := played[name]) is not None:
        raise error
