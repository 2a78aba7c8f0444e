"""Several simulated calls at once against a running daemon: what `handlehome test-multiple` does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from handlehome.bench import speech
from handlehome.bench.mouth import CallOverError
from handlehome.bench.phone import PhoneCall
from handlehome.bench.twilio import WebhookError
from handlehome.bench.twiml import TwimlError

ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Result:
    """How one call went.

    Attributes:
        number: of the call, from 1.
        webhook_ms: until the TwiML was there.
        answers: how often the assistant spoke, the greeting included.
        problem: what went wrong; empty if nothing did.
    """

    number: int
    webhook_ms: float
    answers: int
    problem: str = ""


async def call_several(
    url: str,
    count: int,
    *,
    speak: list[str],
    spread: float = 2.0,
    auth_token: str | None = None,
    public_url: str = "",
    done: Callable[[Result], None] = lambda _result: None,
) -> list[Result]:
    """Makes `count` calls at once; each says the recordings `speak` and waits for an answer to each.

    Args:
        url: where the daemon listens.
        count: calls.
        speak: ids of recordings.
        spread: seconds over which the calls begin.
        auth_token: signs webhooks and the upgrade.
        public_url: what Twilio knows the daemon by.
        done: told of each call as it ends.

    Raises:
        KeyError: there is no recording of that id.
    """
    recordings = [speech.load(recording_id) for recording_id in speak]

    async def one(number: int) -> Result:
        await asyncio.sleep(spread * (number - 1) / count)
        answers = 0
        problem = ""
        async with PhoneCall(
            url, auth_token=auth_token, public_url=public_url, from_=f"+336000{number:05d}", keep_audio=False
        ) as call:
            try:
                await call.dial()
                await call.wait_answer(within=ANSWER_SECONDS)
                answers += 1
                for recording in recordings:
                    await call.say(recording.ulaw)
                    await call.wait_answer(within=ANSWER_SECONDS)
                    answers += 1
                await call.hang_up()
            except (WebhookError, TwimlError, CallOverError, TimeoutError, OSError) as error:
                problem = str(error) or type(error).__name__
            if call.said and not problem:
                problem = f"refused: {call.said[0]}"
            troubles = [f"{error.code}: {error.reason}" for error in call.errors]
            troubles += [f"{violation.code}: {violation.reason}" for violation in call.violations]
            problem = problem or next(iter(troubles), "")
            result = Result(number, call.webhook_ms, answers, problem)
        done(result)
        return result

    return await asyncio.gather(*(one(number) for number in range(1, count + 1)))
