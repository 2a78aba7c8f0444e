"""The daemon's own life, each in a process of its own: full, draining, and starts that must fail."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Script
from handlehome.relay.assistant import load_assistant
from tests.harness import KEY, Scenarios, Stage, failing_start, running_daemon, running_stage

scenarios = Scenarios[Path](seconds=120)

GREETING = Answer(text="Bonjour.", audio=bytes([0x11, 0x91]) * 2000)
ANSWER = Answer(text="Bien sûr.", audio=bytes([0x12, 0x92]) * 2000)
SCRIPT = Script(greeting=GREETING, answers=[ANSWER] * 100, vad="manual")
TEXTS = load_assistant().texts


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    @contextlib.asynccontextmanager
    async def folder() -> AsyncIterator[Path]:
        yield tmp_path_factory.mktemp("daemon")

    return scenarios.play(request, folder)


@contextlib.asynccontextmanager
async def calling(stage: Stage) -> AsyncIterator[tuple[PhoneCall, SimSession]]:
    """A call that has been greeted."""
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, SCRIPT))
        await phone.wait_answer()
        yield phone, session


async def exchange(phone: PhoneCall, session: SimSession) -> None:
    """The caller says something and is answered."""
    session.speech_started()
    await phone.say(b"\x21" * 1600)
    session.speech_stopped()
    await phone.wait_answer()


# ---- full ------------------------------------------------------------------------------------------


@scenarios
async def full_house(folder: Path) -> None:
    """One call too many is told so in words; the one before it ends at its time limit."""
    limits = {"MAX_CALLS": "1", "MAX_CALL_SECONDS": "4"}
    async with running_stage(folder / "full", limits) as stage, calling(stage) as (phone, session):
        ready = await stage.daemon.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "at_capacity")
        async with stage.phone() as late:
            await late.dial()
            await late.ended()
        assert late.said == [TEXTS.line_full]
        assert not late.legs
        assert not late.errors
        await exchange(phone, session)
        await phone.ended()
        record = await stage.daemon.record(phone.call_sid)
        assert record.end_reason == "time_limit"
        assert late.call_sid not in stage.daemon.records()
        assert (await stage.daemon.get("/readyz")).status_code == 200
        assert stage.model.handshakes == 1
        assert not session.violations
        async with calling(stage) as (another, _):
            await another.hang_up()


# ---- draining --------------------------------------------------------------------------------------


@scenarios
async def drains_with_a_running_call(folder: Path) -> None:
    """After SIGTERM running calls go on, the HTTP face stays up, and new calls hear words.

    A second signal doesn't wait for the calls that are left.
    """
    async with (
        running_stage(folder / "drain") as stage,
        calling(stage) as (phone, session),
        calling(stage) as (other, _),
    ):
        stage.daemon.process.send_signal(signal.SIGTERM)
        await stage.daemon.wait_console("SIGTERM")
        ready = await stage.daemon.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
        assert (await stage.daemon.get("/healthz")).status_code == 200
        async with stage.phone() as late:
            await late.dial()
            await late.ended()
        assert late.said == [TEXTS.unavailable]
        await exchange(phone, session)
        await phone.hang_up()
        assert not phone.errors
        record = await stage.daemon.record(phone.call_sid)
        assert other.live
        stage.daemon.process.send_signal(signal.SIGTERM)
        await other.ended()
        assert await asyncio.wait_for(stage.daemon.process.wait(), 30) == 0
        assert record.end_reason == "caller_hung_up"
        assert stage.daemon.records()[other.call_sid].end_reason == "daemon_stopped"
        assert [each.role for each in record.turns] == ["assistant", "caller", "assistant"]
        with pytest.raises(httpx2.ConnectError):
            await stage.daemon.get("/healthz")


@scenarios
async def drains_until_the_deadline(folder: Path) -> None:
    """A call that outlasts `DRAIN_SECONDS` is ended in order: its webhook answered, its record saved."""
    async with running_stage(folder / "deadline", {"DRAIN_SECONDS": "0.5"}) as stage:
        async with calling(stage) as (phone, session):
            stage.daemon.process.send_signal(signal.SIGTERM)
            await phone.ended()
            assert await asyncio.wait_for(stage.daemon.process.wait(), 30) == 0
            await session.wait_closed()
        assert phone.leg.close_code == 1000
        # The last document was fetched; only the status callback may have found nobody.
        assert len(phone.documents) == 2
        assert stage.daemon.records()[phone.call_sid].end_reason == "daemon_stopped"


# ---- starts that must fail -------------------------------------------------------------------------


@scenarios
async def wrong_settings(folder: Path) -> None:
    """Each wrong value is named in a line of its own; status 2, no traceback, no secret."""
    wrong = {
        "PORT": "eighty",
        "MAX_CALLS": "0",
        "LOG_LEVEL": "LOUD",
        "APP_ENV": "staging",
        "AUDIO_FORMAT": "opus",
        "OPENAI_REALTIME_URL": "https://example.com",
        "DRAIN_SECONDS": "nan",
        "TWILIO_ACCOUNT_SID": "AC12",
        "OPENAI_API_KEY": f"{KEY} and more",
    }
    status, lines = await failing_start(folder / "wrong", wrong)
    assert status == 2
    assert len(lines) == len(wrong)
    for name in wrong:
        (line,) = (line for line in lines if line.startswith(f"handlehome: {name}"))
        assert KEY not in line


@scenarios
async def production_without_keys(folder: Path) -> None:
    """Production insists on everything that keeps strangers out."""
    missing = {"TWILIO_AUTH_TOKEN": "", "OPENAI_API_KEY": "", "APP_ENV": "production"}
    status, lines = await failing_start(folder / "production", missing)
    assert status == 2
    named = ("TWILIO_AUTH_TOKEN", "PUBLIC_URL", "OPENAI_API_KEY", "X_API_KEY")
    assert len(lines) == len(named)
    for name in named:
        assert any(line.startswith(f"handlehome: {name}") for line in lines)


@scenarios
async def broken_assistant_file(folder: Path) -> None:
    """A persona that can't be used is named, with what is wrong in it."""
    persona = folder / "persona.toml"
    persona.write_text('name = "Camille"\nlanguage = "xx"\n')
    status, lines = await failing_start(folder / "persona", {"ASSISTANT_FILE": str(persona)})
    assert status == 2
    assert all("persona.toml" in line for line in lines)
    assert any("language" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


@scenarios
async def port_in_use(folder: Path) -> None:
    """A port that is taken is named, and nothing is created."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, lines = await failing_start(folder / "port", {"PORT": str(port)})
    assert (status, len(lines)) == (1, 1)
    assert f"PORT={port}" in lines[0]
    assert not (folder / "port" / "data").exists()


@scenarios
async def empty_machine(folder: Path) -> None:
    """Without a key, a token or a directory, development starts and creates what it needs; SIGINT ends it."""
    bare = {"OPENAI_API_KEY": "", "TWILIO_AUTH_TOKEN": ""}
    where = folder / "empty" / "a" / "b"
    async with running_daemon(where, "ws://127.0.0.1:9/v1/realtime", bare) as daemon:
        assert (daemon.data / "journal.sqlite3").exists()
        async with PhoneCall(daemon.url) as phone:  # unsigned, and no model to be had
            await phone.dial()
            await phone.ended()
        assert phone.said == [TEXTS.unavailable]

        # One daemon per DATA_DIR: the second says who has it, and the first does not notice.
        status, lines = await failing_start(folder / "second", {"DATA_DIR": str(daemon.data)})
        assert (status, len(lines)) == (1, 1)
        assert str(daemon.data) in lines[0]
        assert (await daemon.get("/healthz")).status_code == 200
        assert await daemon.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("name", scenarios.names)
def test_daemon(name: str, played: dict[str, BaseException | None]) -> None:
    """Each daemon did as its scenario says."""
    if (error := played[name]) is not None:
        raise error
