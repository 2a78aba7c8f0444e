"""Recordings of whole calls over real sockets, beside what the simulated line knows was said and heard."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from handlehome.bench.network import LineDelay
from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Script
from handlehome.codecs import wav
from tests.harness import Scenarios, Stage, running_daemon, running_stage

scenarios = Scenarios[Path](seconds=60)

NEAR = LineDelay((5.0, 25.0), (5.0, 25.0))
FRAME = 160  # samples in 20 ms
SILENCE = 0xFF


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[Path]:
    """A folder: each scenario has a daemon of its own."""
    yield folder


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    folder = tmp_path_factory.mktemp("recordings")
    return scenarios.play(request, lambda: world(folder))


def speech(seconds: float, first: int) -> bytes:
    """Speech that tells at each moment which moment it is: a code for each 20 ms."""
    return b"".join(bytes([first + number % 100]) * FRAME for number in range(round(seconds * 50)))


def caller() -> Callable[[int, int], bytes]:
    """What the caller says: a code for each frame, and not the same on a further leg."""
    numbers = itertools.count()
    return lambda _frame, size: bytes([next(numbers) % 251 + 1]) * size


SCRIPT = Script(
    greeting=Answer(text="Bonjour.", audio=speech(1.0, 1)),
    answers=[Answer(text="Un plombier viendra demain matin à neuf heures.", audio=speech(3.0, 101))],
    repeat=True,
    vad="manual",
)


def channels(path: Path) -> list[NDArray[np.uint8]]:
    return [np.frombuffer(each, np.uint8) for each in wav.read(path.read_bytes()).channels]


def shifts(recorded: NDArray[np.uint8], truth: bytes) -> NDArray[np.float64]:
    """By how many samples each 20 ms in the recording are later than in the truth; NaN: they aren't there."""
    codes = np.frombuffer(truth, np.uint8)
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1), len(codes)]
    found = []
    for start, stop in itertools.pairwise(edges):
        if codes[start] != SILENCE and stop - start == FRAME:
            low = max(start - 6400, 0)
            where = np.flatnonzero(recorded[low : stop + 6400] == codes[start])
            found.append(where.mean() + low - (start + stop - 1) / 2 if len(where) else np.nan)
    return np.array(found)


def check(recording: Path, phone: PhoneCall) -> None:
    """Both channels are the line's own, and both are off by the same: the call began before its stream."""
    left, right = channels(recording)
    assert len(left) == len(right)
    said, heard = shifts(left, phone.spoken()), shifts(right, phone.heard())
    assert len(heard) > 150
    assert np.count_nonzero(np.isnan(said)) <= 5, "no more than was under way when the line was lost"
    assert not np.isnan(heard).any()
    shift = np.nanmedian(said)
    assert 0 <= shift < 6400
    assert np.nanmax(np.abs(said - shift)) <= FRAME
    assert np.max(np.abs(heard - shift)) <= FRAME
    # Nothing but what was heard: neither what was sent and cleared, nor anything twice.
    truth = np.frombuffer(phone.heard(), np.uint8)
    assert np.count_nonzero(right != SILENCE) == pytest.approx(np.count_nonzero(truth != SILENCE), abs=400)


async def answer(phone: PhoneCall, session: SimSession) -> None:
    """The caller says something and is answered; a second of that has been heard."""
    session.speech_started()
    await phone.wait_quiet(0.2)
    session.speech_stopped()
    await phone.wait_heard(phone.heard_bytes + 8000)


async def size(path: Path, least: int) -> None:
    """Waits until a file has so many bytes."""
    async with asyncio.timeout(10):
        # Another process writes it: there is nothing to wait on.
        while not path.exists() or path.stat().st_size < least:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@scenarios
async def both_sides_as_they_were_heard(tmp_path: Path) -> None:
    """An interruption, a lost line and a further leg are all in one file, at the call's time."""
    async with running_stage(tmp_path, {"RECORD_CALLS": "true"}) as stage:
        async with stage.phone(source=caller(), delay=NEAR) as phone:
            session = await stage.session(await stage.dial(phone, SCRIPT))
            await phone.wait_answer()
            await answer(phone, session)
            await answer(phone, session)  # and interrupts the one before
            await phone.wait_quiet()
            await phone.drop()
            await phone.wait_leg(2)
            await answer(phone, session)
            await phone.wait_quiet()
            await phone.hang_up()
            await stage.daemon.record(phone.call_sid)
        record = stage.daemon.records()[phone.call_sid]
        path = stage.daemon.data / "recordings" / f"{phone.call_sid}.wav"
        assert record.recording == path.name
        assert record.duration_ms is not None
        await size(path, 58 + record.duration_ms * 16 - 320)
        assert phone.leg.clears or phone.legs[0].clears
        check(path, phone)
        assert len(channels(path)[0]) == pytest.approx(record.duration_ms * 8, abs=160)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        # The caller's words are found where the record says that they are.
        left = channels(path)[0]
        assert all(turn.start_ms is None or turn.start_ms * 8 < len(left) for turn in record.turns)


@scenarios
async def the_caller_alone_without_recording(tmp_path: Path) -> None:
    """Until his words are had; nothing of the assistant."""
    tmp_path = tmp_path / "spool"
    async with running_stage(tmp_path) as stage, stage.phone(source=caller(), delay=NEAR) as phone:
        await stage.dial(phone, SCRIPT)
        await phone.wait_heard(4000)
        path = stage.daemon.data / "audio" / f"{phone.call_sid}.wav"
        await size(path, 8000)
        (line,) = channels(path)
        found = shifts(line, phone.spoken()[: len(line) - 6400])
        assert np.nanmax(np.abs(found - np.nanmedian(found))) <= FRAME
        assert not (stage.daemon.data / "recordings").exists()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        assert record.recording is None


async def killed(stage: Stage, phone: PhoneCall) -> float:
    """Kills the daemon in the middle of an answer; gives the time."""
    session = await stage.session(await stage.dial(phone, SCRIPT))
    await phone.wait_answer()
    await answer(phone, session)
    at = time.monotonic()
    stage.daemon.process.kill()
    await stage.daemon.process.wait()
    await phone.leg.gone.wait()
    return at


@scenarios
async def a_killed_daemon_leaves_all_but_the_last_second(tmp_path: Path) -> None:
    """And the next one repairs what it left."""
    tmp_path = tmp_path / "killed"
    async with running_stage(tmp_path, {"RECORD_CALLS": "true"}) as stage:
        async with stage.phone(source=caller(), delay=NEAR) as phone:
            at = await killed(stage, phone)
        path = stage.daemon.data / "recordings" / f"{phone.call_sid}.wav"
        whole = path.read_bytes()
        path.write_bytes(whole + b"torn")
        settings = {"RECORD_CALLS": "true", "RESUME_SECONDS": "0"}
        async with running_daemon(tmp_path, stage.model.url, settings) as daemon:
            await daemon.wait_console("Repaired", path.name)
            left, right = channels(path)
        last = round((at - 1.1 - phone.legs[0].began) * 8000)
        for recorded, truth in ((left, phone.spoken()), (right, phone.heard())):
            found = shifts(recorded, truth[:last])
            assert len(found) > 20
            assert not np.isnan(found).any()


@pytest.mark.parametrize("name", scenarios.names)
def test_recording(name: str, played: dict[str, BaseException | None]) -> None:
    """Each call is recorded as its scenario says."""
    if (error := played[name]) is not None:
        raise error
