"""After the call: retries in virtual time, circuits, threads, restarts; the SDK against a simulated API."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from handlehome.bench.rest import faults
from handlehome.bench.rest.server import RestSimulator
from handlehome.extract.attempt import Profile
from handlehome.extract.processor import FINAL, NO_KEY, TranscriptionProcessor
from handlehome.extract.retries import PROBE_SECONDS
from handlehome.extract.schema import AnswerSchema
from tests.extract_room import (
    DEFAULT_SCHEMA,
    ENDED_AT,
    RESPONSES,
    TRANSCRIPTIONS,
    TURNS,
    UNHEARD,
    Ledger,
    model,
    rest_of,
)

DAY = 86_400.0
OWN = AnswerSchema("own", {"type": "object", "properties": {}, "required": [], "additionalProperties": False})


class Room:
    """A processor with a clock that is moved by hand."""

    def __init__(self, api: RestSimulator) -> None:
        self.api, self.ledger = api, Ledger()
        self.now = ENDED_AT + 5
        self.made: list[TranscriptionProcessor] = []

    def processor(
        self, *, key: bool = True, schema: AnswerSchema = DEFAULT_SCHEMA, workers: int = 2, **options: Any
    ) -> TranscriptionProcessor:
        made = TranscriptionProcessor(
            self.ledger.calls,
            Profile(schema),
            rest_of(self.api, **options) if key else None,
            workers=workers,
            clock=lambda: self.now,
            chance=lambda: 0.0,
        )
        self.made.append(made)
        made.start()
        return made

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for each in self.made:
            each.wake()

    async def idle(self, processor: TranscriptionProcessor) -> None:
        """Waits until no call runs, or could run by now."""

        def is_idle() -> bool:
            at = processor._backlog.wake_at()
            health = (processor._backlog.running, processor._backlog.waiting)
            return health == (0, 0) and (at is None or at > self.now)

        def wait() -> None:
            with processor._work:
                assert processor._work.wait_for(is_idle, 10.0)

        await asyncio.to_thread(wait)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with model(api_key="sk-test") as api:
        made = Room(api)
        yield made
        for processor in made.made:
            assert await asyncio.to_thread(processor.close)


async def test_an_ended_call_becomes_complete(room: Room) -> None:
    room.ledger.add("CA1", [*TURNS, UNHEARD])
    processor = room.processor()
    processor.submit("CA1")
    await room.ledger.status("CA1", "complete")
    record = room.ledger.record("CA1")
    assert record.extraction == {
        "status": "complete",
        "method": "model",
        "model": "gpt-5.6-luna",
        "schema": "default",
        "attempts": 1,
        "error": None,
        "at": "2026-11-24T14:32:05.000Z",
    }
    assert record.data is not None
    assert record.data["customer"]["last_name"] == "Dupont"
    assert record.turns[2].text == "Au revoir."
    kinds = [event.kind for event in room.ledger.events["CA1"]]
    assert kinds[-4:] == ["usage", "turn", "usage", "extracted"]
    assert room.ledger.saved == ["CA1"]
    await room.idle(processor)
    health = processor.health()
    assert (health.completed, health.given_up, health.last_error, health.reason) == (1, 0, None, None)


async def test_a_complete_call_is_left_alone_unless_it_is_reprocessed(room: Room) -> None:
    room.ledger.add("CA1")
    processor = room.processor()
    for _ in range(2):
        processor.submit("CA1")
        await room.ledger.status("CA1", "complete")
        await room.idle(processor)
    assert len(room.api.of(RESPONSES)) == 1
    room.api.answer = lambda _: {"summary": "Anew."}
    processor.reprocess("CA1")
    await room.ledger.until(lambda: len(room.ledger.saved) == 2)
    record = room.ledger.record("CA1")
    assert record.data is not None
    assert record.data["summary"] == "Anew."
    assert record.extraction is not None
    assert record.extraction["attempts"] == 1


async def test_a_call_is_processed_once_however_often_it_is_submitted(room: Room) -> None:
    room.ledger.add("CA1")
    room.api.delay_s = (0.05, 0.05)
    processor = room.processor(workers=4)
    threads = [threading.Thread(target=processor.submit, args=("CA1",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    await room.ledger.status("CA1", "complete")
    await room.idle(processor)
    assert len(room.api.requests) == 1


async def test_when_nobody_said_anything_no_request_is_made(room: Room) -> None:
    room.ledger.add("CA1", TURNS[:1])
    room.processor().submit("CA1")
    await room.ledger.status("CA1", "nothing_said")
    record = room.ledger.record("CA1")
    assert (record.data, room.ledger.extraction("CA1")["attempts"]) == (None, 0)
    assert room.api.requests == []


@pytest.mark.parametrize("sid", ["unknown", "live"])
async def test_what_is_no_ended_call_is_passed_over(room: Room, sid: str) -> None:
    room.ledger.add("live", ended_at=None)
    processor = room.processor()
    processor.submit(sid)
    await room.idle(processor)
    assert room.api.requests == []
    assert room.ledger.saved == []


@pytest.mark.parametrize(
    "fault",
    [faults.SERVER_ERROR, faults.OVERLOADED, faults.SLOW_DOWN, faults.REFUSAL, faults.CUT, faults.RESET],
    ids=lambda fault: fault.name,
)
async def test_a_failure_leaves_rules_data_at_once_and_is_retried(room: Room, fault: faults.Fault) -> None:
    room.ledger.add("CA1")
    room.api.faults = faults.numbered({0: fault, 1: fault})
    processor = room.processor()
    processor.submit("CA1")
    await room.ledger.status("CA1", "retrying")
    record, extraction = room.ledger.record("CA1"), room.ledger.extraction("CA1")
    assert record.data is not None
    assert record.data["summary"] == "rules"
    assert (extraction["method"], extraction["model"], extraction["attempts"]) == ("rules", None, 1)
    assert extraction["error"].startswith("extraction: ")
    await room.idle(processor)
    assert processor.health().retrying == 1
    assert processor.health().last_error == extraction["error"]
    room.advance(4.9)
    await room.idle(processor)
    assert len(room.api.requests) == 1
    room.advance(0.1)
    await room.ledger.until(lambda: len(room.ledger.saved) == 2)
    room.advance(10.0)
    await room.ledger.status("CA1", "complete")
    assert room.ledger.extraction("CA1")["attempts"] == 3
    await room.idle(processor)
    assert processor.health().retrying == 0


async def test_a_rate_limit_is_waited_for(room: Room) -> None:
    room.ledger.add("CA1")
    room.api.faults = faults.numbered({0: faults.rate_limited(40)})
    processor = room.processor()
    processor.submit("CA1")
    await room.ledger.status("CA1", "retrying")
    await room.idle(processor)
    room.advance(39.0)
    await room.idle(processor)
    assert len(room.api.requests) == 1
    room.advance(1.0)
    await room.ledger.status("CA1", "complete")


async def test_a_call_is_given_up_a_day_after_its_end(room: Room) -> None:
    room.ledger.add("CA1")
    room.api.faults = faults.always(faults.OVERLOADED)
    processor = room.processor(workers=1)
    processor.submit("CA1")
    attempts = 0
    while True:
        attempts += 1
        await room.ledger.until(lambda: len(room.ledger.saved) == attempts)  # noqa: B023  # awaited here
        await room.idle(processor)
        if not processor.health().retrying:
            break
        room.advance(1800.0)
    assert room.now >= ENDED_AT + DAY
    assert room.ledger.extraction("CA1")["status"] == "given_up"
    assert room.ledger.extraction("CA1")["attempts"] == attempts == len(room.api.requests)
    assert 45 < attempts < 60
    assert processor.health().given_up == 1
    room.advance(DAY)
    processor.submit("CA1")
    await room.idle(processor)
    assert len(room.api.requests) == attempts
    room.api.faults = faults.none
    processor.reprocess("CA1")
    await room.ledger.status("CA1", "complete")


async def test_after_a_restart_the_attempts_go_on_where_they_were(room: Room) -> None:
    room.ledger.add("CA1")
    room.api.faults = faults.always(faults.OVERLOADED)
    first = room.processor()
    first.submit("CA1")
    await room.ledger.status("CA1", "retrying")
    assert await asyncio.to_thread(first.close)
    second = room.processor()
    second.submit("CA1")
    await room.ledger.until(lambda: len(room.ledger.saved) == 2)
    assert room.ledger.extraction("CA1")["attempts"] == 2
    await room.idle(second)
    room.advance(9.9)
    await room.idle(second)
    assert len(room.api.requests) == 2
    room.api.faults = faults.none
    room.advance(0.1)
    await room.ledger.status("CA1", "complete")


STOPPING = [faults.INVALID_KEY, faults.FORBIDDEN, faults.INSUFFICIENT_QUOTA, faults.MODEL_NOT_FOUND]


@pytest.mark.parametrize("fault", STOPPING, ids=lambda fault: fault.name)
async def test_what_concerns_all_calls_stops_all_and_a_probe_resumes_them(
    room: Room, fault: faults.Fault
) -> None:
    sids = [f"CA{number}" for number in range(6)]
    for sid in sids:
        room.ledger.add(sid)
    room.api.faults = faults.always(fault)
    processor = room.processor(workers=1)
    for sid in sids:
        processor.submit(sid)
    for sid in sids:
        await room.ledger.status(sid, "stopped")
    await room.idle(processor)
    assert len(room.api.requests) == 1
    health = processor.health()
    assert health.stopped == 6
    assert health.reason is not None
    assert health.reason.startswith(f"extraction: HTTP {health.reason[17:20]} (")
    assert room.ledger.record("CA5").data is not None
    for probe in range(1, 4):
        room.advance(PROBE_SECONDS)
        await room.api.wait_requests(1 + probe, answered=True)
        await room.idle(processor)
    assert len(room.api.requests) == 4
    assert len(room.ledger.saved) == 6  # a probe that changed nothing is no news
    room.api.faults = faults.none
    room.advance(PROBE_SECONDS)
    for sid in sids:
        await room.ledger.status(sid, "complete")
    await room.idle(processor)
    assert processor.health().reason is None
    assert processor.health().stopped == 0


async def test_calls_that_wait_for_a_retry_are_stopped_with_the_others(room: Room) -> None:
    room.ledger.add("CA1")
    room.ledger.add("CA2")
    room.api.faults = faults.numbered({0: faults.OVERLOADED, 1: faults.INSUFFICIENT_QUOTA})
    processor = room.processor(workers=1)
    processor.submit("CA1")
    await room.ledger.status("CA1", "retrying")
    processor.submit("CA2")
    await room.ledger.status("CA1", "stopped")
    await room.ledger.status("CA2", "stopped")
    assert len(room.api.requests) == 2


async def test_stopped_calls_wait_for_as_long_as_it_takes(room: Room) -> None:
    """The repair may come after a long week-end: a call that was not asked about is not given up."""
    room.ledger.add("CA1")
    room.api.faults = faults.always(faults.INVALID_KEY)
    processor = room.processor()
    processor.submit("CA1")
    await room.ledger.status("CA1", "stopped")
    room.advance(4 * DAY)
    await room.api.wait_requests(2, answered=True)
    await room.idle(processor)
    assert room.ledger.extraction("CA1")["status"] == "stopped"
    room.api.faults = faults.none
    room.advance(PROBE_SECONDS)
    await room.ledger.status("CA1", "complete")


async def test_an_unknown_speech_model_stops_transcription_only(room: Room) -> None:
    for sid in ("CA1", "CA2"):
        room.ledger.add(sid, [*TURNS, UNHEARD])
    room.ledger.add("CA3")
    room.api.faults = faults.always(faults.MODEL_NOT_FOUND, path=TRANSCRIPTIONS)
    processor = room.processor(workers=1)
    for sid in ("CA1", "CA2", "CA3"):
        processor.submit(sid)
    await room.ledger.status("CA3", "complete")
    assert room.ledger.extraction("CA2")["status"] == "stopped"
    assert room.ledger.extraction("CA2")["method"] == "model"
    assert len(room.api.of(TRANSCRIPTIONS)) == 1
    reason = processor.health().reason
    assert reason is not None
    assert reason.startswith("transcription: HTTP 404 (model_not_found)")
    room.api.faults = faults.none
    room.advance(PROBE_SECONDS)
    for sid in ("CA1", "CA2"):
        await room.ledger.status(sid, "complete")
        assert room.ledger.record(sid).turns[2].text == "Au revoir."


async def test_when_only_transcription_fails_the_call_is_retried_with_the_models_data(room: Room) -> None:
    room.ledger.add("CA1", [*TURNS, UNHEARD])
    room.api.faults = faults.numbered({0: faults.SERVER_ERROR}, path=TRANSCRIPTIONS)
    room.processor().submit("CA1")
    await room.ledger.status("CA1", "retrying")
    extraction = room.ledger.extraction("CA1")
    assert (extraction["method"], extraction["error"]) == ("model", "transcription: HTTP 500 (server_error)")
    room.advance(5.0)
    await room.ledger.status("CA1", "complete")
    assert len(room.api.of(RESPONSES)) == 2


async def test_a_failed_reprocessing_leaves_the_models_data(room: Room) -> None:
    room.ledger.add("CA1")
    processor = room.processor()
    processor.submit("CA1")
    await room.ledger.status("CA1", "complete")
    data = room.ledger.record("CA1").data
    room.api.faults = faults.always(faults.SERVER_ERROR)
    room.now += 30 * DAY
    processor.reprocess("CA1")
    await room.ledger.status("CA1", "retrying")
    assert room.ledger.record("CA1").data == data
    assert room.ledger.extraction("CA1")["method"] == "model"
    room.api.faults = faults.none
    await room.idle(processor)
    room.advance(5.0)
    await room.ledger.status("CA1", "complete")


async def test_without_a_key_rules_are_final_and_the_record_says_so(room: Room) -> None:
    room.ledger.add("CA1", [*TURNS, UNHEARD])
    room.processor(key=False).submit("CA1")
    await room.ledger.status("CA1", *FINAL)
    extraction = room.ledger.extraction("CA1")
    assert (extraction["status"], extraction["method"], extraction["error"]) == ("complete", "rules", NO_KEY)


async def test_without_a_key_an_own_schema_is_given_up(room: Room) -> None:
    room.ledger.add("CA1")
    room.processor(key=False, schema=OWN).submit("CA1")
    await room.ledger.status("CA1", "given_up")
    assert room.ledger.record("CA1").data is None


@pytest.mark.parametrize("kinds", [{"usage", "extracted"}, {"extracted"}])
async def test_a_journal_that_takes_nothing_is_waited_for(room: Room, kinds: set[str]) -> None:
    room.ledger.add("CA1")
    room.ledger.refuses = kinds
    processor = room.processor()
    processor.submit("CA1")
    await room.idle(processor)
    assert processor.health().retrying == 1
    room.ledger.refuses = set()
    room.advance(10.0)
    await room.ledger.status("CA1", "complete")
    data = room.ledger.record("CA1").data
    assert data is not None
    assert data["customer"]["last_name"] == "Dupont"


async def test_a_store_that_fails_under_one_call_ends_no_worker(room: Room) -> None:
    room.ledger.add("CA1")
    room.ledger.add("CA2")
    broken = {"CA1"}

    def load(sid: str) -> Any:
        if sid in broken:
            raise RuntimeError("damaged")
        return room.ledger.load(sid)

    processor = TranscriptionProcessor(
        replace(room.ledger.calls, load=load),
        Profile(DEFAULT_SCHEMA),
        rest_of(room.api),
        workers=1,
        clock=lambda: room.now,
        chance=lambda: 0.0,
    )
    room.made.append(processor)
    processor.start()
    processor.submit("CA1")
    processor.submit("CA2")
    await room.ledger.status("CA2", "complete")
    broken.clear()
    room.advance(5.0)
    await room.ledger.status("CA1", "complete")


async def test_close_abandons_what_takes_too_long_and_nothing_comes_after_it(room: Room) -> None:
    room.ledger.add("CA1")
    room.api.faults = faults.always(faults.slow(0.5))
    processor = room.processor()
    processor.submit("CA1")
    await room.api.wait_requests(1)
    began = time.monotonic()
    assert not await asyncio.to_thread(processor.close, 0.05)
    assert time.monotonic() - began < 0.4
    processor.submit("CA1")
    await room.api.wait_requests(1, answered=True)
    assert await asyncio.to_thread(processor.close, 5.0)
    assert room.ledger.of("CA1", "extracted") == []
    assert room.ledger.saved == []
    room.api.faults = faults.none
    room.processor().submit("CA1")
    await room.ledger.status("CA1", "complete")


async def test_a_waiting_retry_does_not_hold_up_the_end(room: Room) -> None:
    room.ledger.add("CA1")
    room.api.faults = faults.always(faults.SERVER_ERROR)
    processor = room.processor()
    processor.submit("CA1")
    await room.ledger.status("CA1", "retrying")
    began = time.monotonic()
    assert await asyncio.to_thread(processor.close)
    assert time.monotonic() - began < 1


async def test_fifty_calls_with_slow_answers_leave_the_loop_free(room: Room) -> None:
    """The loop, which here carries the simulated API too, keeps turning; the workers work side by side."""
    sids = [f"CA{number}" for number in range(50)]
    for sid in sids:
        room.ledger.add(sid)
    room.api.delay_s = (0.1, 0.2)
    processor = room.processor(workers=10)
    worst, began = 0.0, time.monotonic()
    for sid in sids:
        processor.submit(sid)
    assert time.monotonic() - began < 0.1
    while any(room.ledger._status(sid) != "complete" for sid in sids):
        before = time.monotonic()
        await asyncio.sleep(0.005)
        worst = max(worst, time.monotonic() - before - 0.005)
        assert before - began < 20
    assert worst < 0.5
    assert time.monotonic() - began < 5  # one after the other they would take 7.5 s
    assert len(room.api.requests) == 50
