"""A call as its journal tells it."""

import io
from typing import Any

import pytest

from handlehome.bench.demo_screen import Screen
from handlehome.bench.demo_story import Aftermath, Story
from handlehome.store.records import Event


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tests run in several processes, they are told the terminal's width."""
    monkeypatch.delenv("COLUMNS", raising=False)


def told(*events: Event) -> tuple[list[str], Story]:
    out = io.StringIO()
    story = Story(Screen(out), "CA1")
    for event in events:
        story.tell([event])
    return [" ".join(line.split()) for line in out.getvalue().splitlines()], story


def event(at: float, kind: str, /, **data: Any) -> Event:
    return Event("CA1", 1000 + at, kind, data)


def extracted(at: float, seq: int, status: str, model: str | None = "gpt-5.6-luna") -> Event:
    extraction = {"status": status, "model": model, "method": "model" if model else "rules"}
    return Event("CA1", 1000 + at, "extracted", {"data": None, "extraction": extraction}, seq)


START = event(0, "call_started", **{"from": "+33612345678", "to": "+33123456789"})


def turn(**data: Any) -> Event:
    return event(5, "turn", **{"id": "i1", "role": "assistant", "start_ms": 2500, **data})


def test_a_call_from_its_start_to_its_record() -> None:
    lines, story = told(
        START,
        event(0.25, "leg_started", leg=1, stream_sid="MZ1"),
        event(9, "leg_ended", leg=1, reason="stopped"),
        event(9.5, "call_ended", reason="caller_hung_up"),
        event(9.75, "call_saved", seq=4),
        extracted(10.5, 6, "complete"),
        event(10.75, "call_saved", seq=6),
    )
    assert lines == [
        "0.0 s 📞 Call from +33612345678 to +33123456789",
        "0.2 s 🔌 The media stream is open",
        "9.5 s 👋 The call has ended: caller hung up",
        "9.8 s 💾 The record is saved",
        "10.5 s 🔎 The customer's data are extracted: complete, by gpt-5.6-luna",
        "10.8 s 💾 The record is saved, with the customer's data",
    ]
    assert story.over


def test_a_turn_is_told_once_when_its_words_are_known() -> None:
    lines, story = told(
        START, turn(), turn(text="Bonjour.", response_ms=640), turn(text="Bonjour.", heard_ms=800)
    )
    assert lines[1:] == ["2.5 s 🤖 Assistant Bonjour. ⏱ 640 ms"]
    assert not story.over


def test_an_interruption_is_told_once_behind_its_turn() -> None:
    cut: dict[str, Any] = {"text": "Je comprends, madame.", "interrupted": True, "heard_ms": 900}
    cut |= {"heard_text": "Je comprends,", "end_ms": 3400}
    lines, _ = told(START, turn(text=cut["text"]), turn(**cut), turn(**cut))
    assert lines[1:] == [
        "2.5 s 🤖 Assistant Je comprends, madame.",
        "3.4 s ✋ The caller cuts in: 900 ms were heard, up to “… Je comprends,”",
    ]


def test_words_that_come_after_the_call_are_told_behind_it() -> None:
    """Where they were said, the line stands without them: once, and in its place before the answer."""
    heard: dict[str, Any] = {"id": "i0", "role": "caller", "start_ms": 1600, "end_ms": 2400}
    lines, _ = told(
        START,
        event(2.4, "turn", **heard, text=None),
        turn(text="Merci."),
        turn(id="i2", start_ms=4000, text="Au revoir."),
        event(9, "call_ended", reason="caller_hung_up"),
        event(9.5, "turn", **heard, text="Douze, rue des Lilas."),
    )
    assert lines[1:] == [
        "1.6 s 👤 Caller … (no words yet; the audio is kept)",
        "2.5 s 🤖 Assistant Merci.",
        "4.0 s 🤖 Assistant Au revoir.",
        "9.0 s 👋 The call has ended: caller hung up",
        "9.5 s 📝 Transcribed from the kept audio, the turn at 1.6 s: “Douze, rue des Lilas.”",
    ]


def test_words_that_come_in_time_are_told_in_their_place() -> None:
    heard: dict[str, Any] = {"id": "i0", "role": "caller", "start_ms": 1600, "end_ms": 2400}
    lines, _ = told(
        START,
        event(2.4, "turn", **heard, text=None),
        event(2.5, "turn", **heard, text="Oui."),
        turn(text="Bien."),
    )
    assert lines[1:] == ["1.6 s 👤 Caller Oui.", "2.5 s 🤖 Assistant Bien."]


def test_other_calls_are_passed_over() -> None:
    lines, story = told(Event("CA2", 1000, "call_started", {"from": "x", "to": "y"}))
    assert lines == []
    assert not story.over


def test_a_call_is_over_when_the_store_has_what_is_final() -> None:
    aftermath = Aftermath("CA1")
    aftermath.take([event(1, "call_saved", seq=1), extracted(2, 3, "retrying", None)])
    aftermath.take([event(3, "call_saved", seq=3)])
    assert not aftermath.over, "the model will be asked again"
    aftermath.take([extracted(4, 5, "complete"), event(4, "call_saved", seq=4)])
    assert not aftermath.over, "that is what was known before"
    aftermath.take([event(5, "call_saved", seq=6)])
    assert aftermath.over
