"""The demonstration's judgement: nothing that went wrong may pass."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from handlehome.bench.demo_checks import Evidence, check_call
from handlehome.bench.demo_latency import LineItem
from handlehome.bench.demo_recording import Comparison, Side
from handlehome.bench.demo_script import Line
from handlehome.bench.speech import Recording
from handlehome.store.records import CallRecord, Event, LegRecord, TurnRecord

ADVICE = "un deux trois quatre cinq six sept huit neuf dix"
LINES = (
    Line(Recording("g", "assistant", "Bonjour.", bytes(800))),
    Line(Recording("caller-leak", "caller", "Une question.", bytes(800))),
    Line(Recording("a", "assistant", ADVICE, bytes(range(250)) * 32), cut_after=0.4),
    Line(Recording("caller-address", "caller", "Attendez !", bytes(800)), untranscribed=True),
    Line(Recording("assistant-appointment", "assistant", "Au revoir.", bytes(800))),
)

DATA: dict[str, Any] = {
    "customer": {
        "first_name": "Claire",
        "last_name": "Martin",
        "phone": "+33612345678",
        "phone_source": "said",
        "email": None,
        "address": {"street": "12 rue des Lilas", "postcode": None, "city": "Lyon"},
        "company": None,
    },
    "appointment": {"date": "1970-01-01", "time": "15:00", "duration_minutes": None, "mode": "on_site"},
    "evidence": [
        {"field": field, "turns": [turn], "confidence": 1.0}
        for turn, fields in (("i2", ("first_name", "last_name")), ("i4", ("phone", "street", "city")))
        for field in fields
    ],
}
EXTRACTION = {"status": "complete", "method": "model", "model": "gpt-5.6-luna", "schema": "default"}
EXTRACTION |= {"attempts": 1, "error": None}
USAGE: dict[str, Any] = {
    source: {"model": source, "seconds": 1} for source in ("realtime", "transcription", "extraction")
} | {"cost": 0.01, "currency": "USD"}


def said(text: str | None) -> dict[str, Any]:
    return {"id": "i4", "role": "caller", "text": text}


EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("call_started", {"from": "+33465710042"}),
    ("turn", said(None)),
    ("call_ended", {"reason": "assistant_said_goodbye"}),
    ("call_saved", {"seq": 3}),
    ("turn", said("Attendez !")),
    ("extracted", {"data": DATA, "extraction": EXTRACTION}),
    ("call_saved", {"seq": 6}),
)


def journal(*events: tuple[str, dict[str, Any]]) -> list[Event]:
    return [Event("CA1", 0.0, kind, data, seq) for seq, (kind, data) in enumerate(events, 1)]


def good() -> Evidence:
    turns = (
        TurnRecord("i1", "assistant", "Bonjour.", 0, 100, heard_ms=100),
        TurnRecord("i2", "caller", "Une question.", 200, 300),
        TurnRecord("i3", "assistant", ADVICE, 400, 800, 410, "un deux trois quatre", True, 100),
        TurnRecord("i4", "caller", "Attendez !", 750, 850),
        TurnRecord("i5", "assistant", "Au revoir.", 900, 1000, heard_ms=100),
    )
    record = CallRecord(
        "CA1",
        0.0,
        status="ended",
        ended_at=1.0,
        end_reason="assistant_said_goodbye",
        legs=(LegRecord(1, "MZ1", 0.0, 1.0, "stopped"),),
        turns=turns,
        from_="+33465710042",
        data=DATA,
        extraction=EXTRACTION,
        usage=USAGE,
    )
    items = [
        LineItem("i1", 0.0, 800, 800, 800),
        LineItem("i3", 0.4, 8000, 6000, 3200, cut=True),
        LineItem("i5", 0.9, 800, 800, 800),
    ]
    spoken = bytes(range(200)) * 40
    return Evidence(
        LINES,
        record=record,
        items=items,
        truncations=[("i3", 410, True)],
        spoken=spoken,
        understood=spoken[:-160],
        audible=bytes(800) + LINES[2].recording.ulaw[:3200] + bytes(800),
        events=journal(*EVENTS),
        recording=Comparison(200.0, Side(2.0, 1.0, 0.5, 0.0), Side(3.0, 1.0, 20.0, 0.0)),
        rest_requests=[("/v1/audio/transcriptions", 200), ("/v1/responses", 200)],
        exit_status=0,
    )


def failed(evidence: Evidence) -> set[str]:
    return {check.what for check in check_call(evidence) if not check.passed}


def turn(evidence: Evidence, number: int, **changes: object) -> None:
    assert evidence.record is not None
    turns = list(evidence.record.turns)
    turns[number - 1] = replace(turns[number - 1], **changes)  # type: ignore[arg-type]  # a test's own fields
    evidence.record = replace(evidence.record, turns=tuple(turns))


def record(evidence: Evidence, **changes: object) -> None:
    assert evidence.record is not None
    evidence.record = replace(evidence.record, **changes)  # type: ignore[arg-type]  # a test's own fields


def customer(evidence: Evidence, **changes: object) -> None:
    record(evidence, data={**DATA, "customer": {**DATA["customer"], **changes}})


def support(evidence: Evidence, *turns: str) -> None:
    first, *others = DATA["evidence"]
    record(evidence, data={**DATA, "evidence": [{**first, "turns": list(turns)}, *others]})


def sides(evidence: Evidence, caller: Side, assistant: Side) -> None:
    evidence.recording = Comparison(200.0, caller, assistant)


def swap(evidence: Evidence) -> None:
    assert evidence.record is not None
    a, b, c, d, e = evidence.record.turns
    record(evidence, turns=(a, c, b, d, e))


def test_a_good_call_passes() -> None:
    checks = check_call(good())
    assert all(check.passed for check in checks), checks
    assert all(check.seen for check in checks)


FAULTS: dict[str, tuple[Callable[[Evidence], object], set[str]]] = {
    "broken off": (lambda e: setattr(e, "trouble", "no answer within 20 s"), {"conversation"}),
    "no record": (lambda e: setattr(e, "record", None), {"record"}),
    "not ended": (lambda e: record(e, status="live"), {"record"}),
    "other end": (lambda e: record(e, end_reason="line_dropped"), {"record"}),
    "second leg": (lambda e: record(e, legs=e.record.legs * 2 if e.record else ()), {"record"}),
    "other words": (lambda e: turn(e, 4, text="Attendez"), {"words and order", "turn 4"}),
    "no words": (lambda e: turn(e, 2, text=None), {"words and order", "turn 2"}),
    "other role": (lambda e: turn(e, 5, role="caller"), {"words and order", "turn 5"}),
    "other order": (swap, {"words and order", "turn 2", "turn 3", "evidence"}),
    "turn missing": (
        lambda e: record(e, turns=e.record.turns[:-1] if e.record else ()),
        {"words and order", "turn 5"},
    ),
    "none interrupted": (lambda e: turn(e, 3, interrupted=False), {"interruption"}),
    "two interrupted": (lambda e: turn(e, 5, interrupted=True), {"interruption"}),
    "no truncation": (lambda e: e.truncations.clear(), {"truncation"}),
    "two truncations": (
        lambda e: e.truncations.append(("i5", 10, True)),
        {"truncation", "heard, as told to the model"},
    ),
    "refused": (lambda e: e.truncations.__setitem__(0, ("i3", 410, False)), {"truncation"}),
    "told too much": (
        lambda e: e.truncations.__setitem__(0, ("i3", 501, True)),
        {"heard, as told to the model"},
    ),
    "recorded too little": (lambda e: turn(e, 3, heard_ms=299), {"heard, by the record"}),
    "nothing recorded": (lambda e: turn(e, 3, heard_ms=None), {"heard, by the record"}),
    "all words heard": (lambda e: turn(e, 3, heard_text=ADVICE), {"words heard"}),
    "no words heard": (lambda e: turn(e, 3, heard_text=None), {"words heard"}),
    "other words heard": (lambda e: turn(e, 3, heard_text="deux trois quatre cinq"), {"words heard"}),
    "too many words heard": (lambda e: turn(e, 3, heard_text=ADVICE[:-4]), {"words heard"}),
    "never at the line": (lambda e: setattr(e, "items", e.items[::2]), {"heard", "assistant's audio"}),
    "caller's byte lost": (lambda e: setattr(e, "understood", e.understood[1:]), {"caller's audio"}),
    "caller's byte twice": (
        lambda e: setattr(e, "understood", e.spoken + e.spoken[-1:]),
        {"caller's audio"},
    ),
    "caller cut off": (lambda e: setattr(e, "understood", e.spoken[:4000]), {"caller's audio"}),
    "caller unheard": (lambda e: setattr(e, "understood", b""), {"caller's audio"}),
    "assistant's byte lost": (lambda e: setattr(e, "audible", e.audible[1:]), {"assistant's audio"}),
    "stale audio": (lambda e: setattr(e, "audible", e.audible + bytes(160)), {"assistant's audio"}),
    "Twilio warns": (lambda e: e.line_problems.append("31950 no media"), {"Twilio's protocol"}),
    "OpenAI warns": (lambda e: e.model_problems.append("append before"), {"OpenAI's protocol"}),
    "no data": (
        lambda e: record(e, data=None),
        {"customer", "appointment", "evidence"},
    ),
    "not extracted": (
        lambda e: record(e, extraction={**EXTRACTION, "status": "waiting"}),
        {"extraction"},
    ),
    "extracted by rules": (
        lambda e: record(e, extraction={**EXTRACTION, "method": "rules", "model": None}),
        {"extraction"},
    ),
    "other name": (lambda e: customer(e, last_name="Durand"), {"customer"}),
    "something invented": (lambda e: customer(e, email="claire@example.org"), {"customer"}),
    "other phone": (
        lambda e: customer(e, phone="+33465710042", phone_source="caller_id"),
        {"customer"},
    ),
    "no address": (lambda e: customer(e, address={}), {"customer"}),
    "other day": (
        lambda e: record(e, data={**DATA, "appointment": {"date": "1970-01-02", "time": "15:00"}}),
        {"appointment"},
    ),
    "evidence of nowhere": (lambda e: support(e, "i2", "gone"), {"evidence"}),
    "evidence of another turn": (lambda e: support(e, "i4"), {"evidence"}),
    "transcribed live": (
        lambda e: setattr(e, "events", journal(EVENTS[0], ("turn", said("Attendez !")), *EVENTS[2:])),
        {"transcribed after it"},
    ),
    "not transcribed": (
        lambda e: (turn(e, 4, text=None), e.events.pop(4)),
        {"words and order", "turn 4", "transcribed after it"},
    ),
    "no usage": (lambda e: record(e, usage=None), {"usage"}),
    "nothing used": (lambda e: record(e, usage={**USAGE, "extraction": {"model": "x"}}), {"usage"}),
    "no cost": (lambda e: record(e, usage={**USAGE, "cost": None}), {"usage"}),
    "audio kept": (lambda e: e.kept_audio.append("CA1.wav"), {"kept audio"}),
    "never saved": (
        lambda e: setattr(e, "events", [event for event in e.events if event.kind != "call_saved"]),
        {"saved"},
    ),
    "saved once": (lambda e: e.events.pop(), {"saved"}),
    "saved twice": (lambda e: e.events.append(e.events[-1]), {"saved"}),
    "no recording": (lambda e: setattr(e, "recording", None), {"recording"}),
    "caller missing": (
        lambda e: sides(e, Side(2.0, 0.99, 0.0, 0.0), Side(3.0, 1.0, 0.0, 0.0)),
        {"recording"},
    ),
    "assistant shifted": (
        lambda e: sides(e, Side(2.0, 1.0, 0.0, 0.0), Side(3.0, 1.0, 40.1, 0.0)),
        {"recording"},
    ),
    "more than was heard": (
        lambda e: sides(e, Side(2.0, 1.0, 0.0, 0.0), Side(3.0, 1.0, 0.0, 0.1)),
        {"recording"},
    ),
    "request refused": (lambda e: e.rest_requests.append(("/v1/responses", 400)), {"OpenAI's REST API"}),
    "request unanswered": (
        lambda e: e.rest_requests.append(("/v1/responses", None)),
        {"OpenAI's REST API"},
    ),
    "nothing requested": (lambda e: e.rest_requests.clear(), {"OpenAI's REST API"}),
    "error logged": (lambda e: e.logged_errors.append("TypeError"), {"error.log"}),
    "daemon killed": (lambda e: setattr(e, "exit_status", -9), {"end of the daemon"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed_and_says_what_was_expected(fault: str) -> None:
    evidence = good()
    break_it, expected = FAULTS[fault]
    break_it(evidence)
    assert failed(evidence) == expected
    assert all(check.expected and check.seen for check in check_call(evidence) if not check.passed)


def test_nothing_at_all_fails() -> None:
    everything = {"record", "recording", "caller's audio", "assistant's audio", "OpenAI's REST API"}
    assert everything | {"end of the daemon"} <= failed(Evidence(LINES))


def test_a_number_that_was_not_said_is_the_one_that_called() -> None:
    evidence = good()
    evidence.lines = [replace(line, recording=replace(line.recording, id="x")) for line in LINES]
    nobody = {**DATA["customer"], "first_name": None, "last_name": None, "address": {}}
    nobody |= {"phone": "+33465710042", "phone_source": "caller_id"}
    record(evidence, data={"customer": nobody, "appointment": {"date": None, "time": None}, "evidence": []})
    assert failed(evidence) == set()
    customer(evidence, **{**nobody, "phone_source": "said"})
    assert "customer" in failed(evidence)
