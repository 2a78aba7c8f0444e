"""Short calls and what becomes of them, for scenario tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from handlehome.bench import speech
from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.script import Answer, Script
from handlehome.store.records import CallRecord
from tests.harness import RunningDaemon, Stage

GREETING = Answer(text="Bonjour, que puis-je faire pour vous ?", audio=b"\x11\x91" * 2400)
LEAK = speech.load("caller-leak")
ADDRESS = speech.load("caller-address")


def brief(recording: speech.Recording) -> speech.Recording:
    """Its words in half a second, where nobody listens to the audio."""
    middle = len(recording.ulaw) // 2
    return replace(recording, ulaw=recording.ulaw[middle - 2000 : middle + 2000])


BRIEF_LEAK = brief(LEAK)
BRIEF_ADDRESS = brief(ADDRESS)


async def call(stage: Stage, *says: speech.Recording, **script: Any) -> PhoneCall:
    """A short call in which the caller says some of the recordings."""
    texts = [each.text for each in says]
    answers = (Answer(text="D'accord.", audio=b"\x12\x92" * 1600),)
    model = Script(greeting=GREETING, answers=answers, repeat=True, caller_texts=texts, **script)
    async with stage.phone() as phone:
        await stage.dial(phone, model)
        await phone.wait_answer(quiet=0.2)
        for each in says:
            await phone.say(each.ulaw)
            await phone.wait_answer(quiet=0.4)
        await phone.hang_up()
    return phone


async def until(
    find: Callable[[], CallRecord | None], right: Callable[[CallRecord], bool], within: float = 20.0
) -> CallRecord:
    """Waits until a stored record is as it shall be."""
    async with asyncio.timeout(within):
        while True:
            record = await asyncio.to_thread(find)
            if record is not None and right(record):
                return record
            await asyncio.sleep(0.02)  # another process writes it: there is nothing to wait on


async def extracted(
    daemon: RunningDaemon, call_sid: str, status: str, method: str | None = None, within: float = 20.0
) -> CallRecord:
    """Waits until the extraction of a record in the embedded store has a status."""

    def right(record: CallRecord) -> bool:
        extraction = record.extraction or {}
        return extraction.get("status") == status and method in (None, extraction["method"])

    return await until(lambda: daemon.records().get(call_sid), right, within)
