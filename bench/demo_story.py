"""A call told turn by turn from the daemon's journal, as it is written: what the daemon knows, no more."""

from __future__ import annotations

from collections.abc import Sequence

from handlehome.bench.demo_screen import Screen
from handlehome.store.records import Event, TurnRecord

_FINAL = frozenset({"complete", "given_up", "nothing_said"})
"""Values of `extraction.status` after which nothing more becomes of a call."""


class Aftermath:
    """How far a call has come after its end.

    Args:
        call_sid: Which; events of other calls are passed over.

    Attributes:
        over: The record is in the store with all that was extracted: nothing more comes.
    """

    def __init__(self, call_sid: str) -> None:
        self.over = False
        self._call_sid = call_sid
        self._extracted: int | None = None

    def take(self, events: Sequence[Event]) -> None:
        """Takes the next events of the journal."""
        for event in events:
            if event.call_sid != self._call_sid:
                continue
            if event.kind == "extracted" and event.data["extraction"]["status"] in _FINAL:
                self._extracted = event.seq
            elif event.kind == "call_saved" and self._extracted is not None:
                self.over = event.data["seq"] >= self._extracted


class Story:
    """Tells one call, up to its final record.

    Args:
        screen: Where.
        call_sid: Which; events of other calls are passed over.
    """

    def __init__(self, screen: Screen, call_sid: str) -> None:
        self._screen = screen
        self._call_sid = call_sid
        self._aftermath = Aftermath(call_sid)
        self._began = 0.0
        self._told: set[str] = set()
        self._cut: set[str] = set()
        self._wordless: dict[str, TurnRecord] = {}
        self._told_wordless: set[str] = set()
        self._ended = False

    @property
    def over(self) -> bool:
        """The record is in the store with all that was extracted: nothing more comes."""
        return self._aftermath.over

    def tell(self, events: Sequence[Event]) -> None:
        """Takes the next events of the journal."""
        for event in events:
            if event.call_sid == self._call_sid:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        screen, data = self._screen, event.data
        if event.kind == "call_started":
            self._began = event.at
        at_ms = (event.at - self._began) * 1000
        match event.kind:
            case "call_started":
                screen.happened(at_ms, f"📞 Call from {data['from']} to {data['to']}", "bold")
            case "leg_started":
                screen.happened(at_ms, "🔌 The media stream is open")
            case "turn":
                self._turn(at_ms, TurnRecord.from_document(data))
            case "call_ended":
                self._ended = True
                reason = str(data["reason"]).replace("_", " ")
                screen.happened(at_ms, f"👋 The call has ended: {reason}", "bold")
            case "extracted":
                self._aftermath.take([event])
                extraction = data["extraction"]
                by = extraction["model"] or extraction["method"] or "nobody"
                screen.happened(
                    at_ms, f"🔎 The customer's data are extracted: {extraction['status']}, by {by}"
                )
            case "call_saved":
                self._aftermath.take([event])
                what = "The record is saved, with the customer's data" if self.over else "The record is saved"
                screen.happened(at_ms, f"💾 {what}")

    def _turn(self, at_ms: float, turn: TurnRecord) -> None:
        """Tells a turn when its words and its time are known, and that it was cut short when that is.

        A caller's turn whose words have not come when the answer is told is told without; they follow.
        """
        if turn.role == "caller" and turn.text is None and turn.end_ms is not None:
            self._wordless[turn.id] = turn
        if turn.text and turn.start_ms is not None and turn.id not in self._told:
            self._told.add(turn.id)
            earlier = self._wordless.pop(turn.id, None)
            if self._ended and earlier is not None:
                self._screen.transcribed(at_ms, turn)
            else:
                if turn.role == "assistant":
                    self._tell_wordless()
                self._screen.turn(turn)
        if turn.interrupted and turn.heard_text and turn.id not in self._cut:
            self._cut.add(turn.id)
            self._screen.interruption(turn)

    def _tell_wordless(self) -> None:
        for turn in self._wordless.values():
            if turn.id not in self._told_wordless:
                self._told_wordless.add(turn.id)
                self._screen.turn(turn)
