"""What was said in a call, turn by turn, in the order of the conversation.

Transcription events come late, out of order, or never; the order is that of the conversation items.
Pure: times are milliseconds of call time, given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from handlehome.store.records import Role

BYTES_PER_MS = 8  # mu-law, 8 kHz

Write = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _Turn:
    id: str
    role: Role
    after: str | None = None
    parts: list[str] = field(default_factory=list)
    text: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    heard_ms: int | None = None
    audio_bytes: int = 0
    """Of the assistant's audio, all that the model made, sent to the line or not: its words go with it."""
    interrupted: bool = False
    response_ms: int | None = None
    failed: bool = False
    written: dict[str, Any] | None = None

    def event(self) -> dict[str, Any]:
        text = self.text if self.text is not None else "".join(self.parts) or None
        heard_text = None
        if self.interrupted and text and self.heard_ms is not None:
            heard_text = _heard_part(text, self.heard_ms * BYTES_PER_MS / max(self.audio_bytes, 1))
        return {
            "id": self.id,
            "after": self.after,
            "role": self.role,
            "text": text,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "heard_ms": self.heard_ms,
            "heard_text": heard_text,
            "interrupted": self.interrupted,
            "response_ms": self.response_ms,
        }


def _heard_part(text: str, share: float) -> str:
    """The words that were heard when `share` (0-1) of the audio was, cut at a word's end."""
    if share >= 1:
        return text
    cut = int(len(text) * max(share, 0.0))
    return text[: text.rfind(" ", 0, cut + 1) + 1].rstrip() if cut < len(text) else text


class Transcript:
    """Collects a call's turns and hands each out, whole, whenever it has changed.

    Args:
        write: gets the data of a `turn` event of the journal.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._turns: dict[str, _Turn] = {}
        self._places: dict[str, str | None] = {}
        self._mute: set[str] = set()  # items that are no turns
        self._stopped_ms: int | None = None  # when the caller last fell silent

    def placed(self, item_id: str, after: str | None, *, spoken: bool = True) -> None:
        """An item stands in the conversation behind `after`; only a `spoken` one can become a turn."""
        if self._places.get(item_id) is not None:
            return
        self._places[item_id] = after
        if not spoken:
            self._mute.add(item_id)
        turn = self._turns.get(item_id)
        if turn is not None:
            turn.after = self._turn_before(after)
            self._changed(turn)

    def caller_started(self, item_id: str, at_ms: int) -> None:
        """The caller began to speak."""
        self._turn(item_id, "caller").start_ms = at_ms

    def caller_stopped(self, item_id: str, at_ms: int) -> None:
        """The caller fell silent."""
        turn = self._turn(item_id, "caller")
        turn.end_ms = at_ms
        self._stopped_ms = at_ms
        self._changed(turn)

    def caller_said(self, item_id: str, text: str | None) -> None:
        """The transcript of what the caller said; None: it could not be had."""
        turn = self._turn(item_id, "caller")
        turn.text = text.strip() if text is not None else None
        turn.failed = text is None
        self._changed(turn)

    def assistant_audio(self, item_id: str, size: int) -> None:
        """The model has made `size` bytes of an answer's audio. Once per delta."""
        turn = self._turns.get(item_id) or self._turn(item_id, "assistant")
        turn.audio_bytes += size

    def assistant_started(self, item_id: str, at_ms: int) -> None:
        """The first audio of an answer was sent to the line, to be audible at `at_ms`."""
        turn = self._turn(item_id, "assistant")
        if turn.start_ms is not None:
            return
        turn.start_ms = at_ms
        if self._stopped_ms is not None:
            turn.response_ms = max(at_ms - self._stopped_ms, 0)
            self._stopped_ms = None

    def assistant_said(self, item_id: str, text: str, *, final: bool) -> None:
        """A piece of the assistant's words, or all of them."""
        turn = self._turn(item_id, "assistant")
        if final:
            turn.text = text.strip()
            self._changed(turn)
        elif turn.text is None:
            turn.parts.append(text)

    def heard(self, item_id: str, heard_ms: int, *, complete: bool, since_ms: int | None) -> None:
        """What the line has played of an answer; `complete`: all of it, otherwise it was cut there."""
        turn = self._turn(item_id, "assistant")
        if since_ms is not None and turn.start_ms is not None:
            if turn.response_ms is not None:
                turn.response_ms = max(turn.response_ms + since_ms - turn.start_ms, 0)
            turn.start_ms = since_ms
        turn.heard_ms = heard_ms
        turn.interrupted = turn.interrupted or not complete
        if turn.start_ms is not None:
            turn.end_ms = turn.start_ms + heard_ms
        self._changed(turn)

    def complete(self) -> None:
        """Nothing more will come: hands out what is still unfinished, a turn without an end, say."""
        for turn in self._turns.values():
            self._changed(turn)

    def _turn(self, item_id: str, role: Role) -> _Turn:
        turn = self._turns.get(item_id)
        if turn is None:
            turn = self._turns[item_id] = _Turn(item_id, role)
            turn.after = self._turn_before(self._places.get(item_id))
        return turn

    def _turn_before(self, after: str | None) -> str | None:
        """The nearest item in front that may be a turn, past a function call or its output."""
        seen: set[str] = set()
        while after in self._mute and after not in seen:
            seen.add(after)
            after = self._places[after]
        return after

    def _changed(self, turn: _Turn) -> None:
        event = turn.event()
        if event != turn.written:
            turn.written = event
            self._write(event)

    @property
    def speaking(self) -> str | None:
        """The caller's turn that has begun and not ended."""
        for turn in reversed(self._turns.values()):
            if turn.role == "caller":
                return turn.id if turn.end_ms is None and turn.text is None else None
        return None

    @property
    def waiting(self) -> bool:
        """Whether a caller's turn has ended whose words have not come."""
        return any(
            turn.role == "caller" and turn.end_ms is not None and turn.text is None and not turn.failed
            for turn in self._turns.values()
        )
