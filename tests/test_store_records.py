"""Records: the fold of a call's events."""

import itertools
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.store.records import CallFold, CallRecord, Event, TurnRecord, fold
from tests.test_store_itemorder import conversations

START = 1_900_000_000.0
STARTED = Event(
    "CA1",
    START,
    "call_started",
    {
        "from": "+33612345678",
        "to": "+33123456789",
        "direction": "inbound",
        "account_sid": "AC1",
        "assistant": "lea",
    },
)


def event(second: float, kind: str, **data: Any) -> Event:
    return Event("CA1", START + second, kind, data)


def turn(item: str, after: str | None, start_ms: float | None = None, **more: Any) -> Event:
    return event(1, "turn", id=item, after=after, role="caller", start_ms=start_ms, **more)


def ids(record: CallRecord) -> list[str]:
    return [turn.id for turn in record.turns]


def test_whole_call() -> None:
    record = fold(
        [
            STARTED,
            event(0.5, "leg_started", leg=0, stream_sid="MZ1"),
            event(3, "turn", id="u1", after="a1", role="caller", text=None, start_ms=3000),
            event(
                2,
                "turn",
                id="a1",
                after=None,
                role="assistant",
                text="Bonjour, que puis-je faire pour vous ?",
                start_ms=600,
                end_ms=2900,
                heard_ms=2300.5,
                heard_text="Bonjour, que",
                interrupted=True,
                response_ms=None,
            ),
            event(
                5, "turn", id="u1", after="a1", role="caller", text="Une fuite !", start_ms=3000, end_ms=4100
            ),
            event(1, "recording", file="CA1.wav", channels=2),
            event(6, "usage", source="realtime", model="gpt-realtime-2.1", input_audio_tokens=500),
            event(
                7,
                "usage",
                source="realtime",
                model="gpt-realtime-2.1",
                input_audio_tokens=200,
                output_audio_tokens=300,
            ),
            event(60, "leg_ended", leg=0, reason="stop"),
            event(61.25, "call_ended", reason="caller_hung_up"),
            event(62, "turn", id="u2", after="u1", role="caller", text="Merci.", start_ms=50000),
            event(63, "call_saved"),
            event(64, "extracted", data={}, extraction={"status": "retrying", "method": "rules"}),
            event(65, "usage", source="transcription", model="gpt-transcribe", seconds=2.5),
            event(
                66,
                "extracted",
                data={"customer": {"last_name": "Martin"}},
                extraction={"status": "complete", "method": "model"},
            ),
        ]
    )
    assert record.to_document() == {
        "_id": "CA1",
        "from": "+33612345678",
        "to": "+33123456789",
        "direction": "inbound",
        "account_sid": "AC1",
        "assistant": "lea",
        "status": "ended",
        "started_at": "2030-03-17T17:46:40.000Z",
        "ended_at": "2030-03-17T17:47:41.250Z",
        "duration_ms": 61250,
        "end_reason": "caller_hung_up",
        "legs": [
            {
                "leg": 0,
                "stream_sid": "MZ1",
                "started_at": "2030-03-17T17:46:40.500Z",
                "ended_at": "2030-03-17T17:47:40.000Z",
                "end_reason": "stop",
            }
        ],
        "turns": [
            {
                "id": "a1",
                "role": "assistant",
                "text": "Bonjour, que puis-je faire pour vous ?",
                "start_ms": 600,
                "end_ms": 2900,
                "heard_ms": 2300.5,
                "heard_text": "Bonjour, que",
                "interrupted": True,
                "response_ms": None,
            },
            {
                "id": "u1",
                "role": "caller",
                "text": "Une fuite !",
                "start_ms": 3000,
                "end_ms": 4100,
                "heard_ms": None,
                "heard_text": None,
                "interrupted": False,
                "response_ms": None,
            },
            {
                "id": "u2",
                "role": "caller",
                "text": "Merci.",
                "start_ms": 50000,
                "end_ms": None,
                "heard_ms": None,
                "heard_text": None,
                "interrupted": False,
                "response_ms": None,
            },
        ],
        "data": {"customer": {"last_name": "Martin"}},
        "extraction": {"status": "complete", "method": "model"},
        "usage": {
            "realtime": {"input_audio_tokens": 700, "output_audio_tokens": 300, "model": "gpt-realtime-2.1"},
            "transcription": {"seconds": 2.5, "model": "gpt-transcribe"},
        },
        "recording": "CA1.wav",
        "latency": None,
    }


def test_call_without_events_has_no_record() -> None:
    with pytest.raises(ValueError, match="no events"):
        fold([])
    with pytest.raises(ValueError, match="no events of CA1"):
        CallFold("CA1").record()


def test_events_of_two_calls_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="CA2 in the fold of CA1"):
        fold([STARTED, Event("CA2", START, "call_resumed", {})])


def test_usage_of_another_model_is_summed_apart() -> None:
    used = [("a", 1), ("b", 2), ("a", 4), ("b", 8)]
    events = [event(1, "usage", source="extraction", model=model, seconds=number) for model, number in used]
    assert fold([STARTED, *events]).usage == {
        "extraction": {"model": "a", "seconds": 5},
        "extraction/b": {"model": "b", "seconds": 10},
    }


def test_ended_call_waits_for_its_extraction() -> None:
    live = fold([STARTED])
    assert live.extraction is None
    ended = fold([STARTED, event(1, "call_ended", reason="caller_hung_up")])
    assert ended.data is None
    assert ended.extraction is not None
    assert ended.extraction["status"] == "waiting"


def test_extraction_ahead_of_the_end_is_kept() -> None:
    extracted = event(1, "extracted", data={"a": 1}, extraction={"status": "complete"})
    record = fold([STARTED, extracted, event(2, "call_ended", reason="caller_hung_up")])
    assert (record.data, record.extraction) == ({"a": 1}, {"status": "complete"})


def test_live_call_has_no_end() -> None:
    record = fold([STARTED, event(1, "leg_started", leg=0, stream_sid="MZ1")])
    assert (record.status, record.ended_at, record.duration_ms) == ("live", None, None)
    assert record.legs[0].ended_at is None


def test_crash_ends_the_open_leg_with_the_last_sign_of_life() -> None:
    events = [
        STARTED,
        event(1, "leg_started", leg=0, stream_sid="MZ1"),
        event(7, "turn", id="u", role="caller"),
    ]
    record = fold([*events, event(900, "call_interrupted")])
    assert record.status == "interrupted"
    assert (record.legs[0].ended_at, record.legs[0].end_reason) == (START + 7, "interrupted")


def test_resumed_call_goes_on_with_another_leg() -> None:
    record = fold(
        [
            STARTED,
            event(1, "leg_started", leg=0, stream_sid="MZ1"),
            event(20, "call_interrupted"),
            event(21, "call_resumed"),
            event(22, "leg_started", leg=1, stream_sid="MZ2"),
            event(30, "call_ended", reason="goodbye"),
        ]
    )
    assert record.status == "ended"
    assert [leg.end_reason for leg in record.legs] == ["interrupted", "goodbye"]
    assert record.legs[1].ended_at == record.ended_at == START + 30


def test_interrupted_call_can_end() -> None:
    record = fold([STARTED, event(2, "call_interrupted"), event(62, "call_ended", reason="daemon_stopped")])
    assert (record.status, record.end_reason, record.duration_ms) == ("ended", "daemon_stopped", 62000)


def test_first_end_counts_and_nothing_revives_the_call() -> None:
    end = event(5, "call_ended", reason="goodbye")
    record = fold([STARTED, end, event(6, "call_ended", reason="other"), event(7, "call_resumed")])
    assert record == fold([STARTED, end, event(8, "call_interrupted")]) == fold([STARTED, end])


def test_leg_ends_once_and_unknown_legs_are_not_made_up() -> None:
    record = fold(
        [
            STARTED,
            event(1, "leg_started", leg=0, stream_sid="MZ1"),
            event(2, "leg_ended", leg=0, reason="stop"),
            event(3, "leg_ended", leg=0, reason="again"),
            event(3, "leg_ended", leg=5, reason="what leg"),
        ]
    )
    assert [(leg.leg, leg.end_reason) for leg in record.legs] == [(0, "stop")]


def test_call_whose_start_was_lost_is_dated_by_its_first_event() -> None:
    record = fold([event(4, "leg_started", leg=0, stream_sid="MZ1")])
    assert (record.started_at, record.from_) == (START + 4, None)


def test_unknown_kinds_and_fields_are_passed_over() -> None:
    record = fold([STARTED, event(1, "weather", sun=True), turn("u", None, colour="red")])
    assert record.turns == (TurnRecord("u", "caller"),)


def test_clock_set_back_makes_no_negative_duration() -> None:
    assert fold([STARTED, event(-100, "call_ended", reason="goodbye")]).duration_ms == 0


def test_late_turn_is_placed_by_the_chain() -> None:
    assert ids(fold([turn("a", None), turn("c", "b"), turn("d", "c"), turn("b", "a")])) == [
        "a",
        "b",
        "c",
        "d",
    ]


def test_rewritten_turn_keeps_its_place() -> None:
    record = fold([turn("a", None, 0), turn("b", None, 50), turn("a", None, 999, text="new")])
    assert [(turn.id, turn.text) for turn in record.turns] == [("a", "new"), ("b", None)]


@given(conversations(), st.randoms(use_true_random=False))
def test_turns_in_any_order_give_the_same_record_and_the_last_writing_wins(
    items: list[tuple[str, str | None, int]], chance: random.Random
) -> None:
    """Each turn is written three times, in any interleaving that keeps each turn's own writings in order."""
    slots = [item for item in items for _ in range(3)]
    chance.shuffle(slots)
    written: dict[str, int] = {}
    events = [STARTED]
    for name, after, start in slots:
        written[name] = written.get(name, 0) + 1
        events.append(turn(name, after, start, text=f"{name} {written[name]}"))
    record = fold(events)
    assert [(turn.id, turn.text) for turn in record.turns] == [(name, f"{name} 3") for name, _, _ in items]
    assert fold(itertools.chain.from_iterable((event, event) for event in events)) == record
    assert fold([*events, *events]) == record


milliseconds = st.none() | st.integers(0, 10_000_000) | st.floats(0, 1e7)
names = st.sampled_from("abcdefgh")
words = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
turns = st.fixed_dictionaries(
    {"id": names, "after": st.none() | names, "role": st.sampled_from(["caller", "assistant"])},
    optional={
        "text": words,
        "start_ms": milliseconds,
        "end_ms": milliseconds,
        "heard_ms": milliseconds,
        "heard_text": words,
        "interrupted": st.booleans(),
        "response_ms": milliseconds,
    },
)
events = st.builds(
    lambda at, what: Event("CA1", at, *what),
    st.floats(0, 4e9),
    st.one_of(
        st.tuples(
            st.just("call_started"), st.fixed_dictionaries({"from": words, "to": words, "assistant": words})
        ),
        st.tuples(
            st.just("leg_started"), st.fixed_dictionaries({"leg": st.integers(0, 3), "stream_sid": words})
        ),
        st.tuples(st.just("leg_ended"), st.fixed_dictionaries({"leg": st.integers(0, 3), "reason": words})),
        st.tuples(st.just("turn"), turns),
        st.tuples(st.sampled_from(["call_interrupted", "call_resumed", "call_saved"]), st.just({})),
        st.tuples(st.just("call_ended"), st.fixed_dictionaries({"reason": words})),
        st.tuples(st.just("recording"), st.fixed_dictionaries({"file": words})),
        st.tuples(
            st.just("extracted"),
            st.fixed_dictionaries(
                {"data": st.none() | st.dictionaries(names, words), "extraction": st.none()}
            ),
        ),
    ),
)


@given(st.lists(events, min_size=1, max_size=30))
def test_any_record_survives_its_document(happened: list[Event]) -> None:
    """Through JSON, as the store keeps it; and each event taken twice in a row counts once."""
    record = fold(happened)
    assert CallRecord.from_document(orjson.loads(orjson.dumps(record.to_document()))) == record
    assert fold([again for event in happened for again in (event, event)]) == record


@given(st.lists(events, min_size=1, max_size=30))
def test_record_read_at_any_moment_does_not_disturb_the_fold(happened: list[Event]) -> None:
    live = CallFold("CA1")
    for number, each in enumerate(happened, 1):
        live.apply(each)
        assert live.record() == fold(happened[:number])


def test_document_times_without_a_zone_are_utc() -> None:
    assert CallRecord.from_document({"_id": "CA1", "started_at": "2030-03-17T17:46:40"}).started_at == START


@pytest.mark.parametrize("turn_id", [None, 7, [], {}])
def test_turn_without_a_name_is_passed_over(turn_id: object) -> None:
    """What a record is made of was checked before, but a journal outlives the code that wrote it."""
    events = [
        Event("CA1", 1.0, "call_started", {}),
        Event("CA1", 2.0, "turn", {"id": turn_id, "after": turn_id, "role": "caller", "text": "x"}),
        Event("CA1", 3.0, "turn", {"id": "a", "after": turn_id, "role": "caller", "text": "y"}),
        Event("CA1", 4.0, "call_ended", {"reason": "caller_hung_up"}),
    ]
    assert [turn.text for turn in fold(events).turns] == ["y"]
