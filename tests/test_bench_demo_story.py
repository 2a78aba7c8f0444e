"""A call as its journal tells it."""

import io
from typing import Any

from handlehome.bench.demo_screen import Screen
from handlehome.bench.demo_story import Story
from handlehome.store.records import Event


def told(*events: Event) -> tuple[list[str], Story]:
    out = io.StringIO()
    story = Story(Screen(out))
    for event in events:
        story.tell([event])
    return [" ".join(line.split()) for line in out.getvalue().splitlines()], story


def event(at: float, kind: str, **data: Any) -> Event:
    return Event("CA1", 1000 + at, kind, data)


START = event(0, "call_started", **{"from": "+33612345678", "to": "+33123456789"})


def turn(**data: Any) -> Event:
    return event(5, "turn", **{"id": "i1", "role": "assistant", "start_ms": 2500, **data})


def test_a_call_from_its_start_to_its_record() -> None:
    lines, story = told(
        START,
        event(0.25, "leg_started", leg=1, stream_sid="MZ1"),
        event(9, "leg_ended", leg=1, reason="stopped"),
        event(9.5, "call_ended", reason="caller_hung_up"),
        event(9.75, "call_saved"),
    )
    assert lines == [
        "0.0 s 📞 Call from +33612345678 to +33123456789",
        "0.2 s 🔌 The media stream is open",
        "9.5 s 👋 The call has ended: caller hung up",
        "9.8 s 💾 The record is saved",
    ]
    assert story.saved


def test_a_turn_is_told_once_when_its_words_are_known() -> None:
    lines, story = told(
        START, turn(), turn(text="Bonjour.", response_ms=640), turn(text="Bonjour.", heard_ms=800)
    )
    assert lines[1:] == ["2.5 s 🤖 Assistant Bonjour. ⏱ 640 ms"]
    assert not story.saved


def test_an_interruption_is_told_once_behind_its_turn() -> None:
    cut: dict[str, Any] = {"text": "Je comprends, madame.", "interrupted": True, "heard_ms": 900}
    cut |= {"heard_text": "Je comprends,", "end_ms": 3400}
    lines, _ = told(START, turn(text=cut["text"]), turn(**cut), turn(**cut))
    assert lines[1:] == [
        "2.5 s 🤖 Assistant Je comprends, madame.",
        "3.4 s ✋ The caller cuts in: 900 ms were heard, up to “… Je comprends,”",
    ]
