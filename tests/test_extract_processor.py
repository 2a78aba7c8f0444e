"""After the call: retries in virtual time, circuits, threads, restarts; the SDK against a simulated API."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from handlehome.bench.rest import faults
from handlehome.bench.rest.server import RestSimulator
from handlehome.extract.attempt import Calls, Profile
from handlehome.extract.backlog import BARE_SECONDS
from handlehome.extract.processor import FINAL, JOURNAL_FULL, NO_CALL, NO_KEY, Outcome, TranscriptionProcessor
from handlehome.extract.retries import PROBE_SECONDS
from handlehome.extract.schema import AnswerSchema
from handlehome.store.records import CallRecord
from tests.extract_room import (
    DEFAULT_SCHEMA,
    ENDED_AT,
    RESPONSES,
    SPEECH,
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
        self,
        *,
        key: bool = True,
        schema: AnswerSchema = DEFAULT_SCHEMA,
        workers: int = 2,
        calls: Calls | None = None,
        start: bool = True,
        clock: Callable[[], float] | None = None,
        **options: Any,
    ) -> TranscriptionProcessor:
        made = TranscriptionProcessor(
            calls or self.ledger.calls,
            Profile(schema),
            rest_of(self.api, **options) if key else None,
            workers=workers,
            clock=clock or (lambda: self.now),
            chance=lambda: 0.0,
        )
        self.made.append(made)
        if start:
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


async def test_a_complete_call_is_left_alone(room: Room) -> None:
    room.ledger.add("CA1")
    processor = room.processor()
    for _ in range(2):
        processor.submit("CA1")
        await room.ledger.status("CA1", "complete")
        await room.idle(processor)
    assert len(room.api.of(RESPONSES)) == 1


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


async def test_a_call_is_given_up_after_a_day_of_failures(room: Room) -> None:
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
    assert room.now >= ENDED_AT + 5 + DAY
    assert room.ledger.extraction("CA1")["status"] == "given_up"
    assert room.ledger.extraction("CA1")["attempts"] == attempts == len(room.api.requests)
    assert 45 < attempts < 60
    assert processor.health().given_up == 1
    room.advance(DAY)
    processor.submit("CA1")
    await room.idle(processor)
    assert len(room.api.requests) == attempts
    room.api.faults = faults.none
    assert (await asyncio.to_thread(processor.once, "CA1")).status == "complete"


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


async def test_the_first_failure_after_a_long_stop_is_not_the_last(room: Room) -> None:
    """A wrong key over a long week-end, then a rate limit: the day to try again in begins only now."""
    for sid in ("CA1", "CA2"):
        room.ledger.add(sid)
    room.api.faults = faults.always(faults.INVALID_KEY)
    processor = room.processor(workers=1)
    for sid in ("CA1", "CA2"):
        processor.submit(sid)
        await room.ledger.status(sid, "stopped")
    await room.idle(processor)
    for probe in range(2, 12):
        room.advance(DAY / 2)
        await room.api.wait_requests(probe, answered=True)
        await room.idle(processor)
    room.api.faults = faults.numbered({12: faults.rate_limited(1)})
    room.advance(PROBE_SECONDS)
    await room.ledger.status("CA1", "complete", "retrying")
    await room.ledger.status("CA2", "complete", "retrying")
    await room.idle(processor)
    (retried,) = [sid for sid in ("CA1", "CA2") if room.ledger._status(sid) == "retrying"]
    room.advance(4.9)
    await room.idle(processor)
    assert len(room.api.requests) == 13
    room.advance(0.1)
    await room.ledger.status(retried, "complete")


async def test_the_first_failure_after_the_daemon_was_down_for_long_is_not_the_last(room: Room) -> None:
    room.ledger.add("CA1")
    room.now += 25 * 3600
    room.api.faults = faults.numbered({0: faults.SERVER_ERROR})
    processor = room.processor()
    processor.submit("CA1")
    await room.ledger.status("CA1", *FINAL, "retrying")
    assert room.ledger.extraction("CA1")["status"] == "retrying"
    await room.idle(processor)
    room.advance(5.0)
    await room.ledger.status("CA1", "complete")


async def test_a_client_that_cannot_be_built_stops_all_and_a_probe_resumes_them(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sid in ("CA1", "CA2"):
        room.ledger.add(sid)
    with monkeypatch.context() as environment:
        environment.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
        processor = room.processor(workers=1)
        for sid in ("CA1", "CA2"):
            processor.submit(sid)
            await room.ledger.status(sid, "stopped")
        await room.idle(processor)
    extraction = room.ledger.extraction("CA1")
    assert extraction["method"] == "rules"
    assert extraction["error"].startswith("extraction: the client can't be built: ")
    assert processor.health().reason == extraction["error"]
    assert processor.health().stopped == 2
    room.advance(PROBE_SECONDS)
    for sid in ("CA1", "CA2"):
        await room.ledger.status(sid, "complete")


async def test_audio_that_cannot_be_read_for_a_while_is_not_lost(room: Room) -> None:
    room.ledger.add("CA1", [*TURNS, UNHEARD])
    broken = [True]

    def audio(*_: Any) -> bytes:
        if broken[0]:
            raise OSError(24, "Too many open files")
        return SPEECH

    processor = room.processor(calls=replace(room.ledger.calls, audio=audio))
    processor.submit("CA1")
    await room.ledger.status("CA1", *FINAL, "retrying")
    extraction = room.ledger.extraction("CA1")
    assert (extraction["status"], extraction["method"]) == ("retrying", "model")
    assert extraction["error"] == "transcription: the audio can't be read: Too many open files"
    assert processor.health().reason is None
    await room.idle(processor)
    broken[0] = False
    room.advance(5.0)
    await room.ledger.status("CA1", "complete")
    assert room.ledger.record("CA1").turns[2].text == "Au revoir."


async def test_when_the_api_hangs_rules_help_out_within_seconds(room: Room) -> None:
    """All workers are held by the first calls, which are without data as long as the others."""
    sids = [f"CA{number}" for number in range(40)]
    for sid in sids:
        room.ledger.add(sid)
    room.api.faults = faults.always(faults.SILENT)
    processor = room.processor(workers=4, timeout=2.0)
    for sid in sids:
        processor.submit(sid)
    await room.api.wait_requests(4)
    assert room.ledger.saved == []
    room.advance(BARE_SECONDS)
    await room.ledger.until(lambda: len(room.ledger.saved) >= 40)
    for sid in sids:  # no request has failed yet
        record = room.ledger.record(sid)
        assert record.data is not None
        assert record.data["summary"] == "rules"
        assert record.extraction is not None
        assert (record.extraction["status"], record.extraction["method"]) == ("waiting", "rules")
    assert processor.health().running == 4
    room.api.faults = faults.none
    for sid in sids[4:]:
        await room.ledger.status(sid, "complete")


async def test_the_thread_of_the_rules_learns_of_each_call(room: Room) -> None:
    """Time passes while the only worker takes the call, and nothing but `submit` wakes anybody."""
    times: list[float] = []

    def clock() -> float:
        return times.pop(0) if len(times) > 1 else times[0] if times else ENDED_AT

    for sid in ("CA0", "CA1"):
        room.ledger.add(sid)
    processor = room.processor(workers=1, timeout=1.0, clock=clock)
    processor.submit("CA0")
    await room.ledger.status("CA0", "complete")
    await room.idle(processor)
    room.api.faults = faults.always(faults.SILENT)
    times += [ENDED_AT, ENDED_AT + BARE_SECONDS]
    processor.submit("CA1")
    await room.ledger.status("CA1", "waiting")


async def test_a_call_with_a_result_needs_no_help(room: Room) -> None:
    room.ledger.add("CA1")
    room.ledger.add("CA2")
    room.api.faults = faults.always(faults.SERVER_ERROR)
    first = room.processor()
    first.submit("CA1")
    await room.ledger.status("CA1", "retrying")
    assert await asyncio.to_thread(first.close)
    room.api.faults = faults.always(faults.SILENT)
    second = room.processor(timeout=1.0)
    second.submit("CA1")  # has what rules found, from an earlier process
    second.submit("CA2")
    await room.api.wait_requests(3)
    room.advance(BARE_SECONDS)
    await room.ledger.status("CA2", "waiting")
    assert len(room.ledger.of("CA1", "extracted")) == 1


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


async def test_a_journal_that_takes_nothing_for_days_is_waited_for(room: Room) -> None:
    room.ledger.add("CA1")
    room.ledger.refuses = {"extracted"}
    processor = room.processor()
    processor.submit("CA1")
    for _ in range(6):
        await room.idle(processor)
        assert processor.health().retrying == 1
        room.advance(DAY / 2)
    await room.idle(processor)
    room.ledger.refuses = set()
    room.advance(1800.0)
    await room.ledger.status("CA1", "complete")


async def test_a_call_that_cannot_be_processed_is_given_up_visibly(room: Room) -> None:
    room.ledger.add("CA1", [*TURNS, UNHEARD])

    def audio(*_: Any) -> bytes:
        raise ValueError("a bug")

    processor = room.processor(calls=replace(room.ledger.calls, audio=audio))
    processor.submit("CA1")
    await room.idle(processor)
    assert room.ledger._status("CA1") is None
    room.advance(DAY)
    await room.ledger.status("CA1", "given_up")
    record, extraction = room.ledger.record("CA1"), room.ledger.extraction("CA1")
    assert record.data is not None
    assert record.data["summary"] == "rules"
    assert (extraction["method"], extraction["error"]) == ("rules", "processing: ValueError")
    await room.idle(processor)
    assert (processor.health().given_up, len(processor._backlog)) == (1, 0)


async def test_a_store_that_fails_under_one_call_ends_no_worker(room: Room) -> None:
    room.ledger.add("CA1")
    room.ledger.add("CA2")
    broken = {"CA1"}

    def load(sid: str) -> Any:
        if sid in broken:
            raise RuntimeError("damaged")
        return room.ledger.load(sid)

    processor = room.processor(calls=replace(room.ledger.calls, load=load), workers=1)
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


# A single attempt


async def once(room: Room, sid: str = "CA1", **options: Any) -> Outcome:
    return await asyncio.to_thread(room.processor(start=False, **options).once, sid)


async def completed(room: Room, turns: list[dict[str, Any]] = TURNS) -> CallRecord:
    room.ledger.add("CA1", turns)
    assert await once(room) == Outcome("CA1", "complete")
    return room.ledger.record("CA1")


async def test_a_single_attempt_extracts_anew(room: Room) -> None:
    await completed(room, [*TURNS, UNHEARD])
    room.api.answer = lambda _: {"summary": "Anew."}
    room.now += 30 * DAY
    outcome = await once(room)
    assert (outcome, outcome.ok) == (Outcome("CA1", "complete"), True)
    record, extraction = room.ledger.record("CA1"), room.ledger.extraction("CA1")
    assert record.data is not None
    assert record.data["summary"] == "Anew."
    assert (extraction["attempts"], extraction["at"][:10]) == (1, "2026-12-24")
    assert record.turns[2].text == "Au revoir."
    assert room.ledger.saved == ["CA1", "CA1"]


@pytest.mark.parametrize(
    "fault", [faults.SERVER_ERROR, faults.REFUSAL, faults.INVALID_KEY], ids=lambda f: f.name
)
async def test_a_single_attempt_that_fails_leaves_data_and_status(room: Room, fault: faults.Fault) -> None:
    before = await completed(room)
    room.api.faults = faults.always(fault)
    outcome = await once(room)
    assert (outcome.ok, outcome.status) == (False, "complete")
    assert outcome.error is not None
    assert outcome.error.startswith("extraction: ")
    after = room.ledger.record("CA1")
    assert (after.data, after.extraction) == (before.data, before.extraction)
    assert len(room.api.requests) == 2


async def test_a_single_attempt_keeps_the_turns_it_transcribed_before_it_failed(room: Room) -> None:
    room.ledger.add("CA1", [*TURNS, UNHEARD])
    room.api.faults = faults.always(faults.SERVER_ERROR, path=RESPONSES)
    outcome = await once(room)
    assert (outcome.status, outcome.ok) == ("waiting", False)
    assert room.ledger.record("CA1").turns[2].text == "Au revoir."
    assert (room.ledger.of("CA1", "extracted"), room.ledger.saved) == ([], ["CA1"])


async def test_single_attempts_stop_asking_when_the_key_is_wrong(room: Room) -> None:
    sids = [f"CA{number}" for number in range(5)]
    for sid in sids:
        room.ledger.add(sid)
    room.api.faults = faults.always(faults.INVALID_KEY)
    processor = room.processor(start=False)
    outcomes = [await asyncio.to_thread(processor.once, sid) for sid in sids]
    assert {(outcome.status, outcome.error) for outcome in outcomes} == {("waiting", outcomes[0].error)}
    assert len(room.api.requests) == 1
    room.api.faults = faults.none
    room.advance(PROBE_SECONDS)
    assert (await asyncio.to_thread(processor.once, "CA4")).ok
    assert (await asyncio.to_thread(processor.once, "CA3")).ok


async def test_single_attempts_may_be_made_side_by_side(room: Room) -> None:
    sids = [f"CA{number}" for number in range(8)]
    for sid in sids:
        room.ledger.add(sid)
    processor = room.processor(start=False)
    outcomes = await asyncio.gather(*(asyncio.to_thread(processor.once, sid) for sid in sids))
    assert outcomes == [Outcome(sid, "complete") for sid in sids]


async def test_a_single_attempt_finds_that_nobody_said_anything(room: Room) -> None:
    room.ledger.add("CA1", TURNS[:1])
    assert await once(room) == Outcome("CA1", "nothing_said")


@pytest.mark.parametrize("sid", ["unknown", "live"])
async def test_a_single_attempt_needs_an_ended_call(room: Room, sid: str) -> None:
    room.ledger.add("live", ended_at=None)
    assert await once(room, sid) == Outcome(sid, None, NO_CALL)


async def test_without_a_key_a_single_attempt_goes_by_rules_and_leaves_the_models_data(room: Room) -> None:
    room.ledger.add("CA1")
    assert await once(room, key=False) == Outcome("CA1", "complete")
    extraction = room.ledger.extraction("CA1")
    assert (extraction["method"], extraction["error"]) == ("rules", NO_KEY)
    assert (await once(room)).ok
    assert await once(room, key=False) == Outcome("CA1", "complete", NO_KEY)
    assert room.ledger.extraction("CA1")["method"] == "model"
    assert await once(room, key=False, schema=OWN) == Outcome("CA1", "complete", NO_KEY)


async def test_a_single_attempt_tells_that_the_journal_took_nothing(room: Room) -> None:
    room.ledger.add("CA1")
    room.ledger.refuses = {"extracted"}
    assert await once(room) == Outcome("CA1", "waiting", JOURNAL_FULL)


async def test_a_single_attempt_passes_on_what_the_store_raises(room: Room) -> None:
    def load(_: str) -> CallRecord | None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        await once(room, calls=replace(room.ledger.calls, load=load))


async def test_after_the_end_a_single_attempt_changes_nothing(room: Room) -> None:
    room.ledger.add("CA1")
    processor = room.processor(start=False)
    processor.close()
    outcome = await asyncio.to_thread(processor.once, "CA1")
    assert (outcome.status, outcome.ok) == ("waiting", False)
    assert room.ledger.saved == []
