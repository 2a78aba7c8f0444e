"""The demonstration's judgement: nothing that went wrong may pass."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from handlehome.bench.demo_checks import Evidence, check_call
from handlehome.bench.demo_latency import LineItem
from handlehome.bench.demo_script import Line
from handlehome.bench.speech import Recording
from handlehome.store.records import CallRecord, LegRecord, TurnRecord

ADVICE = "un deux trois quatre cinq six sept huit neuf dix"
LINES = (
    Line(Recording("g", "assistant", "Bonjour.", bytes(800))),
    Line(Recording("q", "caller", "Une question.", bytes(800))),
    Line(Recording("a", "assistant", ADVICE, bytes(range(250)) * 32), cut_after=0.4),
    Line(Recording("u", "caller", "Attendez !", bytes(800))),
    Line(Recording("e", "assistant", "Au revoir.", bytes(800))),
)


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
    "other order": (swap, {"words and order", "turn 2", "turn 3"}),
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
    assert {"record", "caller's audio", "assistant's audio", "end of the daemon"} <= failed(Evidence(LINES))
