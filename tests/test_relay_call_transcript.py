"""The transcript: turns in the order of the conversation, whenever their events come."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.relay.call.transcript import Transcript
from handlehome.store.records import Event, TurnRecord, fold


class Book:
    """A transcript and the journal that it writes to."""

    def __init__(self) -> None:
        self.events = [Event("CA1", 0.0, "call_started", {})]
        self.transcript = Transcript(self._write)

    def _write(self, turn: dict[str, Any]) -> None:
        self.events.append(Event("CA1", len(self.events), "turn", dict(turn)))

    def turns(self) -> tuple[TurnRecord, ...]:
        return fold(self.events).turns

    def texts(self) -> list[tuple[str, str | None]]:
        return [(turn.role, turn.text) for turn in self.turns()]

    def caller(self, item: str, after: str | None, start: int, end: int, text: str | None) -> None:
        self.transcript.caller_started(item, start)
        self.transcript.caller_stopped(item, end)
        self.transcript.placed(item, after)
        self.transcript.caller_said(item, text)

    def assistant(self, item: str, after: str | None, start: int, ms: int, text: str) -> None:
        self.transcript.placed(item, after)
        self.transcript.assistant_audio(item, ms * 8)
        self.transcript.assistant_started(item, start)
        self.transcript.assistant_said(item, text, final=True)
        self.transcript.heard(item, ms, complete=True, since_ms=start)


def test_a_conversation_in_order() -> None:
    book = Book()
    book.assistant("a1", None, 100, 900, "Bonjour.")
    book.caller("u1", "a1", 1200, 2000, "Bonjour, une fuite.")
    book.assistant("a2", "u1", 2600, 800, "Où donc ?")
    assert book.texts() == [
        ("assistant", "Bonjour."),
        ("caller", "Bonjour, une fuite."),
        ("assistant", "Où donc ?"),
    ]
    first, caller, second = book.turns()
    assert (first.start_ms, first.end_ms, first.heard_ms, first.response_ms) == (100, 1000, 900, None)
    assert (caller.start_ms, caller.end_ms) == (1200, 2000)
    assert second.response_ms == 600


def test_words_that_come_after_the_answer_land_in_their_place() -> None:
    book = Book()
    transcript = book.transcript
    transcript.caller_started("u1", 0)
    transcript.caller_stopped("u1", 1000)
    transcript.placed("u1", None)
    assert transcript.waiting
    book.assistant("a1", "u1", 1500, 500, "Oui ?")
    assert book.texts() == [("caller", None), ("assistant", "Oui ?")]
    transcript.caller_said("u1", " Allô ? ")
    assert not transcript.waiting
    assert book.texts() == [("caller", "Allô ?"), ("assistant", "Oui ?")]


def test_a_transcription_that_failed_is_not_waited_for() -> None:
    book = Book()
    book.caller("u1", None, 0, 1000, None)
    assert not book.transcript.waiting
    assert book.texts() == [("caller", None)]


def test_nobody_waits_for_a_caller_who_still_speaks_or_for_the_assistant() -> None:
    book = Book()
    book.transcript.caller_started("u1", 0)
    book.transcript.assistant_started("a1", 0)
    assert not book.transcript.waiting


def test_items_that_are_no_turns_hold_their_place_only() -> None:
    """A function call and its result stand between the turns."""
    book = Book()
    book.caller("u1", None, 5000, 6000, "Un.")
    book.transcript.placed("f1", "u1", spoken=False)
    book.transcript.placed("o1", "f1", spoken=False)
    book.assistant("a1", "o1", 0, 500, "Deux.")
    book.caller("u2", "a1", 7000, 7500, "Trois.")
    assert [text for _, text in book.texts()] == ["Un.", "Deux.", "Trois."]


def test_an_answer_that_begins_only_after_the_next_turn_was_placed_stands_in_front_of_it() -> None:
    book = Book()
    book.transcript.placed("a1", None)
    book.caller("u1", "a1", 1000, 2000, "Allô ?")
    book.transcript.heard("a1", 0, complete=False, since_ms=None)
    assert [turn.id for turn in book.turns()] == ["a1", "u1"]


def test_a_place_that_becomes_known_later_counts() -> None:
    book = Book()
    book.transcript.caller_started("u1", 0)
    book.transcript.caller_stopped("u1", 1000)
    book.transcript.placed("u1", None)
    book.transcript.assistant_said("a1", "Oui ?", final=True)
    book.transcript.placed("a1", "u1")
    assert [turn.id for turn in book.turns()] == ["u1", "a1"]


def test_places_in_a_circle_end() -> None:
    book = Book()
    book.transcript.placed("x", "y", spoken=False)
    book.transcript.placed("y", "x", spoken=False)
    book.caller("u1", "x", 0, 1, "Oui.")
    assert book.texts() == [("caller", "Oui.")]


@pytest.mark.parametrize(
    ("heard_ms", "words"),
    [
        (0, ""),
        (50, ""),
        (240, "un"),
        (500, "un deux"),
        (999, "un deux trois"),
        (1000, "un deux trois quatre"),
        (5000, "un deux trois quatre"),
    ],
)
def test_an_interruption_cuts_the_words_at_a_words_end(heard_ms: int, words: str) -> None:
    book = Book()
    transcript = book.transcript
    transcript.placed("a1", None)
    transcript.assistant_audio("a1", 8000)
    transcript.assistant_started("a1", 0)
    transcript.assistant_said("a1", "un deux trois quatre", final=True)
    transcript.heard("a1", heard_ms, complete=False, since_ms=0)
    (turn,) = book.turns()
    assert turn.heard_text == words
    assert (turn.interrupted, turn.heard_ms, turn.end_ms) == (True, heard_ms, heard_ms)
    assert turn.text == "un deux trois quatre"


def test_words_that_come_after_the_interruption_are_cut_too() -> None:
    book = Book()
    transcript = book.transcript
    transcript.assistant_audio("a1", 4000)
    transcript.assistant_said("a1", "un deux ", final=False)
    transcript.heard("a1", 250, complete=False, since_ms=None)
    assert (book.turns()[0].text, book.turns()[0].heard_text) == ("un deux ", "un")
    transcript.assistant_audio("a1", 4000)
    transcript.assistant_said("a1", "trois quatre", final=False)
    transcript.assistant_said("a1", "un deux trois quatre", final=True)
    assert book.turns()[0].heard_text == "un"


def test_what_was_heard_whole_has_no_cut_words() -> None:
    book = Book()
    book.assistant("a1", None, 0, 1000, "Bonjour.")
    (turn,) = book.turns()
    assert (turn.interrupted, turn.heard_text) == (False, None)


def test_the_response_time_is_corrected_by_what_was_really_heard() -> None:
    book = Book()
    book.caller("u1", None, 0, 1000, "Oui ?")
    transcript = book.transcript
    transcript.placed("a1", "u1")
    transcript.assistant_started("a1", 1400)
    transcript.assistant_started("a1", 9999)
    transcript.heard("a1", 500, complete=True, since_ms=1450)
    turn = book.turns()[1]
    assert (turn.start_ms, turn.end_ms, turn.response_ms) == (1450, 1950, 450)


def test_only_the_first_answer_has_a_response_time() -> None:
    book = Book()
    book.caller("u1", None, 0, 1000, "Oui ?")
    book.assistant("a1", "u1", 1300, 100, "Un.")
    book.assistant("a2", "a1", 1500, 100, "Deux.")
    assert [turn.response_ms for turn in book.turns()] == [None, 300, None]


def test_a_turn_is_written_only_when_it_has_changed() -> None:
    book = Book()
    book.caller("u1", None, 0, 1000, "Oui.")
    count = len(book.events)
    book.transcript.caller_said("u1", "Oui.")
    book.transcript.caller_stopped("u1", 1000)
    book.transcript.placed("u1", None)
    book.transcript.complete()
    assert len(book.events) == count


def test_the_end_writes_what_is_unfinished() -> None:
    book = Book()
    book.transcript.caller_started("u1", 50)
    book.transcript.assistant_said("a1", "Un mo", final=False)
    assert book.turns() == ()
    book.transcript.complete()
    assert book.texts() == [("caller", None), ("assistant", "Un mo")]


# ---- any order -----------------------------------------------------------------------------------

Step = tuple[str, Callable[[Transcript], None]]


@st.composite
def conversations(draw: st.DrawFn) -> list[Step]:
    """A conversation as steps in order, each with the thing that it is about."""
    steps: list[Step] = []
    after: str | None = None
    now = 0

    def add(about: str, step: Callable[[Transcript], None]) -> None:
        steps.append((about, step))

    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["caller", "assistant", "tool"]))
        item = f"{kind[0]}{number}"
        start = now + draw(st.integers(1, 500))
        now = start + draw(st.integers(0, 3000))
        text = draw(st.none() | st.sampled_from(["Oui.", "Une fuite d'eau.", "Un deux trois."]))
        add("places", lambda t, i=item, a=after, s=kind != "tool": t.placed(i, a, spoken=s))  # type: ignore[misc]
        if kind == "caller":
            add(item + "start", lambda t, i=item, s=start: t.caller_started(i, s))  # type: ignore[misc]
            add(item + "stop", lambda t, i=item, s=now: t.caller_stopped(i, s))  # type: ignore[misc]
            add(item + "said", lambda t, i=item, x=text: t.caller_said(i, x))  # type: ignore[misc]
        elif kind == "assistant":
            heard = draw(st.integers(0, now - start))
            add(item + "audio", lambda t, i=item, n=8 * (now - start): t.assistant_audio(i, n))  # type: ignore[misc]
            words = (text or "").split(" ")
            for word in words:
                add(item + "words", lambda t, i=item, w=word: t.assistant_said(i, w + " ", final=False))  # type: ignore[misc]
            if text is not None:
                add(item + "words", lambda t, i=item, x=text: t.assistant_said(i, x, final=True))  # type: ignore[misc]
            add(
                item + "heard",
                lambda t, i=item, h=heard, c=heard == now - start: t.heard(i, h, complete=c, since_ms=None),  # type: ignore[misc]
            )
        after = item
    return steps


@given(conversations(), st.randoms(use_true_random=False))
def test_any_order_of_events_makes_the_same_turns(steps: list[Step], chance: Any) -> None:
    """Places come in the order of the conversation, and an item's words in theirs; the rest as it likes."""
    queues: dict[str, list[Callable[[Transcript], None]]] = {}
    for about, step in steps:
        queues.setdefault(about, []).append(step)
    shuffled = Book()
    while queues:
        about = chance.choice(sorted(queues))
        queues[about].pop(0)(shuffled.transcript)
        if not queues[about]:
            del queues[about]
    straight = Book()
    for _, step in steps:
        step(straight.transcript)
    for book in (shuffled, straight):
        book.transcript.complete()
    assert {turn.id: turn for turn in shuffled.turns()} == {turn.id: turn for turn in straight.turns()}
    assert [turn.id for turn in straight.turns()] == sorted(
        (turn.id for turn in straight.turns()), key=lambda item: int(item[1:])
    )
    assert [turn.id for turn in shuffled.turns()] == [turn.id for turn in straight.turns()]


@given(conversations())
def test_the_journal_folds_to_the_transcript(steps: list[Step]) -> None:
    """At every moment the journal holds what was last written of each turn, and at the end all there is."""
    book = Book()
    last: dict[str, dict[str, Any]] = {}
    for _, step in steps:
        before = len(book.events)
        step(book.transcript)
        for event in book.events[before:]:
            last[event.data["id"]] = event.data
        assert {turn.id: turn for turn in book.turns()} == {
            item: TurnRecord.from_document(data) for item, data in last.items()
        }
    book.transcript.complete()
    assert all(turn.written == turn.event() for turn in book.transcript._turns.values())
