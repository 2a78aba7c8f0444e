"""Campaign: every byte arrives once and in order, in both directions, checked by content.

The caller's frames carry the call's number and their own; each answer is noise of its own. Half of the calls
have a model that returns what it hears, the other half one that gives long answers to short turns.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from handlehome.bench.leg import FrameSource
from handlehome.bench.network import LineDelay
from handlehome.bench.realtime.script import Answer, Script
from tests.harness import Stage, running_stage

ECHO_LAG_BYTES = 12_000
"""What may be on its way when a call is hung up: the playout's lead, the line's delay."""


@dataclass
class Outcome:
    """What a campaign saw.

    Attributes:
        calls: how many there were.
        up_bytes: the caller's audio that was compared.
        down_bytes: the model's audio that was compared.
        faults: what was not as it should be.
    """

    calls: int
    up_bytes: int = 0
    down_bytes: int = 0
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        """The figures as a line of a table."""
        return (
            f"| integrity | {self.calls} calls | up {self.up_bytes / 1e6:.2f} MB, "
            f"down {self.down_bytes / 1e6:.2f} MB | {len(self.faults)} differences |"
        )


def numbered(call: int) -> FrameSource:
    """The caller's audio: each 8 bytes of it are the call's number and the frame's."""

    def frame(number: int, size: int) -> bytes:
        return (call << 40 | number).to_bytes(8) * (size // 8)

    return frame


def first_difference(expected: bytes, got: bytes) -> str:
    """Where two byte strings part, in words; empty when they are equal."""
    if expected == got:
        return ""
    pairs = enumerate(zip(expected, got, strict=False))
    at = next((index for index, (a, b) in pairs if a != b), min(len(expected), len(got)))
    return f"{len(got)} bytes for {len(expected)}, different from byte {at} (frame {at // 160}) on"


async def campaign(folder: Path, *, calls: int, seconds: float) -> Outcome:
    """Runs `calls` calls at once, each for `seconds` of talk."""
    outcome = Outcome(calls)
    async with running_stage(folder) as stage:
        await asyncio.gather(
            *(
                (_echo if number % 2 else _answers)(stage, number, seconds, outcome)
                for number in range(1, calls + 1)
            )
        )
    return outcome


def _delay(number: int) -> LineDelay:
    """Every other pair of calls has a line with jitter."""
    return LineDelay((10, 60), (10, 60)) if number % 4 >= 2 else LineDelay()


async def _echo(stage: Stage, number: int, seconds: float, outcome: Outcome) -> None:
    async with stage.phone(source=numbered(number), delay=_delay(number)) as phone:
        session = await stage.session(await stage.dial(phone, Script(echo=True)))
        await phone.wait_heard(round(seconds * 8000), within=seconds + 15)
        await phone.hang_up()
        await session.wait_closed()
    sent = bytes(phone.leg.sent_ulaw)
    heard = phone.leg.playback.played()
    _compare(outcome, f"call {number} up", sent, bytes(session.audio))
    _compare(outcome, f"call {number} down", sent[: len(heard)], heard)
    if len(heard) < len(sent) - ECHO_LAG_BYTES:
        outcome.faults.append(f"call {number}: only {len(heard)} of {len(sent)} bytes were heard")
    outcome.faults += [f"call {number}: {violation}" for violation in phone.violations]
    outcome.faults += [f"call {number}: {violation}" for violation in session.violations]
    outcome.up_bytes += len(sent)
    outcome.down_bytes += len(heard)


async def _answers(stage: Stage, number: int, seconds: float, outcome: Outcome) -> None:
    rng = random.Random(f"answers {number}")
    answers = [
        Answer(text=f"answer {index}", audio=rng.randbytes(rng.randint(4000, 24_000))) for index in range(200)
    ]
    script = Script(greeting=answers[0], answers=answers[1:], vad="manual")
    async with stage.phone(source=numbered(number), delay=_delay(number)) as phone:
        session = await stage.session(await stage.dial(phone, script))
        until = time.monotonic() + seconds
        expected = answers[0].audio
        await phone.wait_heard(len(expected), within=30)
        for answer in answers[1:]:
            if time.monotonic() >= until:
                break
            session.speech_started()
            session.speech_stopped()
            expected += answer.audio
            await phone.wait_heard(len(expected), within=30)
        await phone.hang_up()
        await session.wait_closed()
    _compare(outcome, f"call {number} up", bytes(phone.leg.sent_ulaw), bytes(session.audio))
    _compare(outcome, f"call {number} down", expected, phone.leg.playback.played())
    outcome.faults += [f"call {number}: {violation}" for violation in phone.violations]
    outcome.faults += [f"call {number}: {violation}" for violation in session.violations]
    outcome.up_bytes += len(phone.leg.sent_ulaw)
    outcome.down_bytes += len(expected)


def _compare(outcome: Outcome, what: str, expected: bytes, got: bytes) -> None:
    difference = first_difference(expected, got)
    if difference:
        outcome.faults.append(f"{what}: {difference}")
