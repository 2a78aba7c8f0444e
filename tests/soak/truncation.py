"""Campaign: interruptions at random moments, and what the model is told was heard.

The simulated line knows how many bytes of which answer it had played when `clear` took effect; the
simulated model gets `audio_end_ms`. Both run in this process, the daemon in its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from handlehome.bench.network import LineDelay
from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from tests.harness import KEY, TOKEN, running_daemon


@dataclass
class Outcome:
    """What a campaign saw.

    Attributes:
        errors_ms: told minus played, one for each interruption.
        missed: interruptions that nothing was done about.
        refused: truncations that the model refused.
        unheard: interruptions of answers of which nothing had come yet; they are not in `errors_ms`.
        stale: bytes heard after a `clear` of an answer that was interrupted.
    """

    errors_ms: list[float] = field(default_factory=list)
    missed: int = 0
    unheard: int = 0
    refused: int = 0
    stale: int = 0

    def quantile(self, q: float) -> float:
        """Quantile of the errors' absolute values."""
        ranked = sorted(abs(error) for error in self.errors_ms)
        return ranked[min(len(ranked) - 1, math.ceil(q * len(ranked)) - 1)]


RUN_BYTES = 40
"""5 ms: less of an answer at a stretch is none of it."""


def _answers(rng: random.Random, template: Answer) -> Iterator[Answer]:
    """Answers whose audio tells which one it is: each is made of a byte of its own."""
    while True:
        for tag in range(1, 120):
            yield Answer(
                text=f"answer {tag}",
                audio=bytes([tag]) * (8 * rng.randint(4000, 9000)),
                think_ms=(30, 80),
                delta_ms=template.delta_ms,
                pace=template.pace,
                stall_chance=template.stall_chance,
                stall_ms=template.stall_ms,
            )


def _played_of(call: PhoneCall, tag: int, until: float) -> tuple[int, int]:
    """Bytes of an answer that were audible until a moment, and after it.

    Where the audio is resampled, another answer's edges ring, and single samples of it may be this one's.
    """
    before = after = 0
    for segment in call.leg.playback.segments():
        if segment.at < until:
            before += segment.ulaw.count(tag)
        else:
            after += segment.ulaw.count(bytes([tag]) * RUN_BYTES) * RUN_BYTES
    return before, after


async def _interrupt(session: SimSession, rng: random.Random, count: int) -> list[tuple[float, str]]:
    """Interrupts one answer after the other at a random moment; gives time and item of each."""
    done: list[tuple[float, str]] = []
    for _ in range(count):
        await asyncio.sleep(rng.uniform(0.9, 3.8))
        speaking = [key for key, item in session.items.items() if item.body.get("role") == "assistant"][-1]
        done.append((session.speech_started(), speaking))
        await asyncio.sleep(0.6)
        answers = len(session.items)
        session.speech_stopped()
        await session.wait_until(lambda s, n=answers: len(s.items) >= n + 1)
    return done


async def campaign(
    folder: Path,
    *,
    template: Answer,
    delay_ms: tuple[float, float],
    calls: int,
    each: int,
    seed: int = 1,
    settings: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs `calls` calls at once with `each` interruptions and compares."""
    outcome = Outcome()

    def script(number: int) -> Script:
        rng = random.Random(f"{seed} {number}")
        answers = _answers(rng, template)
        return Script(greeting=next(answers), answers=[next(answers) for _ in range(each + 2)], vad="manual")

    async with (
        RealtimeSimulator(script, api_key=KEY, seed=seed) as model,
        running_daemon(folder, model.url, settings) as daemon,
    ):
        phones = [
            PhoneCall(daemon.url, auth_token=TOKEN, delay=LineDelay(delay_ms, delay_ms), seed=seed + n)
            for n in range(calls)
        ]

        async def one(number: int, phone: PhoneCall, session: SimSession) -> None:
            rng = random.Random(f"{seed} moment {number}")
            await phone.wait_heard(1)
            done = await _interrupt(session, rng, each)
            await asyncio.sleep(1.0)
            _compare(outcome, phone, session, done)
            assert not phone.violations, phone.violations[:3]
            assert not session.violations, session.violations[:3]
            await phone.hang_up()

        async with contextlib.AsyncExitStack() as stack:
            running: list[asyncio.Task[None]] = []
            for number, phone in enumerate(phones):
                await stack.enter_async_context(phone)
                await phone.dial()
                session = await model.wait_session(number)
                running.append(asyncio.create_task(one(number, phone, session)))
            await asyncio.gather(*running)
    return outcome


def _compare(outcome: Outcome, phone: PhoneCall, session: SimSession, done: list[tuple[float, str]]) -> None:
    spoken = [item_id for item_id, item in session.items.items() if item.body.get("role") == "assistant"]
    told = {item: (ms, accepted) for _, item, ms, accepted in session.truncations}
    for at, item_id in done:
        clear = next((clear for clear in phone.leg.clears if 0 <= clear.t_received - at < 0.6), None)
        tag = spoken.index(item_id) + 1  # answers are tagged in the order in which they are given
        if item_id not in told or clear is None:
            # Nothing to act on if nothing of the answer had left the model; its late audio is dropped.
            heard = sum(_played_of(phone, tag, at))
            outcome.missed += heard > 0 or item_id not in told
            outcome.unheard += heard == 0
            continue
        ms, accepted = told[item_id]
        outcome.refused += not accepted
        played, stale = _played_of(phone, tag, clear.t_effective)
        outcome.errors_ms.append(ms - played / 8)
        outcome.stale += stale
