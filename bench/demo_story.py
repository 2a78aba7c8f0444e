"""A call told turn by turn from the daemon's journal, as it is written: what the daemon knows, no more."""

from __future__ import annotations

from collections.abc import Sequence

from handlehome.bench.demo_screen import Screen
from handlehome.store.records import Event, TurnRecord


class Story:
    """Tells one call.

    Args:
        screen: Where.

    Attributes:
        saved: The call's record is in the store: nothing more comes.
    """

    def __init__(self, screen: Screen) -> None:
        self.saved = False
        self._screen = screen
        self._began = 0.0
        self._told: set[str] = set()
        self._cut: set[str] = set()

    def tell(self, events: Sequence[Event]) -> None:
        """Takes the next events of the journal."""
        for event in events:
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
                self._turn(TurnRecord.from_document(data))
            case "call_ended":
                reason = str(data["reason"]).replace("_", " ")
                screen.happened(at_ms, f"👋 The call has ended: {reason}", "bold")
            case "call_saved":
                screen.happened(at_ms, "💾 The record is saved")
                self.saved = True

    def _turn(self, turn: TurnRecord) -> None:
        """Tells a turn when its words and its time are known, and that it was cut short when that is."""
        if turn.text and turn.start_ms is not None and turn.id not in self._told:
            self._told.add(turn.id)
            self._screen.turn(turn)
        if turn.interrupted and turn.heard_text and turn.id not in self._cut:
            self._cut.add(turn.id)
            self._screen.interruption(turn)
