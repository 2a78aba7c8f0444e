"""A simulated model in a process of its own, whose callers interrupt it at random moments.

    python -m tests.soak.model_process

Prints its URL. A line `CALLS INTERRUPTIONS` on the standard input starts the interruptions of the first CALLS
sessions; when they are done, a line of JSON tells when each was sent, and when each greeting was asked for.
"""

from __future__ import annotations

import asyncio
import random
import sys

import orjson

from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from tests.harness import KEY

# Long enough to be interrupted, in few and even pieces, so that the simulators have little to do.
SPEECH = Answer(text="Une réponse.", audio=bytes([0x11, 0x91]) * 20_000, delta_ms=(200, 200))
SCRIPT = Script(greeting=SPEECH, answers=[SPEECH], repeat=True, vad="manual")


async def _interrupt(session: SimSession, count: int, rng: random.Random) -> list[float]:
    """Interrupts one answer after the other; gives when, as seconds of the monotonic clock."""
    sent = []
    session.speech_started()
    for _ in range(count):
        session.speech_stopped()
        await asyncio.sleep(rng.uniform(0.5, 1.5))  # the answer is being heard
        told = len(session.truncations)
        sent.append(session.speech_started())
        await session.wait_until(lambda session, n=told: len(session.truncations) > n)
        await asyncio.sleep(0.1)
    return sent


async def main() -> None:
    """Serves one campaign."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with RealtimeSimulator(SCRIPT, api_key=KEY, keep_audio=False) as model:
        print(model.url, flush=True)
        while line := await commands.readline():
            calls, interruptions = map(int, line.split())
            sessions = model.sessions[:calls]
            sent = await asyncio.gather(
                *(
                    _interrupt(session, interruptions, random.Random(number))
                    for number, session in enumerate(sessions)
                )
            )
            report = {
                "speech_started": sent,
                "response_create": [session.response_creates[0][0] for session in sessions],
                "violations": [violation for session in sessions for violation in session.violations],
            }
            print(orjson.dumps(report).decode(), flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
