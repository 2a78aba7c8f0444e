"""What the tests of extraction share: calls in memory, a clock moved by hand, a simulated API."""

import asyncio
import audioop
import math
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from handlehome.bench.rest.request import RESPONSES, TRANSCRIPTIONS
from handlehome.bench.rest.server import RestSimulator
from handlehome.extract.attempt import Calls
from handlehome.extract.openai_rest import OpenAIRest, SpeechHints
from handlehome.extract.schema import DEFAULT, AnswerSchema, load_schema
from handlehome.store.records import CallRecord, Event, TurnRecord, fold

__all__ = ["RESPONSES", "TRANSCRIPTIONS"]

STARTED_AT = 1_795_530_600.0  # Tuesday 2026-11-24, 15:30 in Paris
ENDED_AT = STARTED_AT + 120
CALLER = "+33612345678"

ANSWER = {
    "customer": {"first_name": "Jean", "last_name": "Dupont", "email": "Jean.Dupont@Gmail.com"},
    "request": {"type": "quote", "services": ["chaudière"]},
    "appointment": {"date": "2026-11-25", "time": "10:00"},
    "summary": "Devis pour une chaudière.",
    "language": "fr",
    "evidence": [{"field": "last_name", "turns": ["T2", "T99"], "confidence": 0.9}],
}
"""What the simulated model says, unless a test says otherwise; the simulator fills in the rest."""

SPEECH = bytes(
    audioop.lin2ulaw(
        b"".join(int(9000 * math.sin(n / 4)).to_bytes(2, "little", signed=True) for n in range(8000)), 2
    )
)
"""One second of a tone, mu-law."""

SILENCE = b"\xff" * 8000


def turn(item: str, role: str, text: str | None, start: float = 0.0, **more: Any) -> dict[str, Any]:
    record = TurnRecord(item, role, text, start, start + 1000.0)  # type: ignore[arg-type]  # a test's literal
    return replace(record, **more).to_document()


TURNS = [
    turn("item_a", "assistant", "Bonjour, Maison Service, je vous écoute."),
    turn("item_b", "caller", "Jean Dupont. Je voudrais un devis pour une chaudière, demain.", 2000),
]
UNHEARD = turn("item_c", "caller", None, 5000)


class Ledger:
    """Calls in memory, with what a journal does: the record is the fold of the events."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.saved: list[str] = []
        self.audio: Callable[[str, float, float], bytes | None] = lambda *_: SPEECH
        self.refuses: set[str] = set()
        self._changed = threading.Condition()

    @property
    def calls(self) -> Calls:
        return Calls(
            self.load,
            self.append,
            self.audio,
            lambda _: {"summary": "rules"},
            self.done,
        )

    def add(
        self, sid: str, turns: list[dict[str, Any]] = TURNS, *, ended_at: float | None = ENDED_AT
    ) -> None:
        self.events[sid].append(Event(sid, STARTED_AT, "call_started", {"from": CALLER}))
        self.events[sid] += [Event(sid, STARTED_AT + 1, "turn", each) for each in turns]
        if ended_at is not None:
            self.events[sid].append(Event(sid, ended_at, "call_ended", {"reason": "caller"}))

    def load(self, sid: str) -> CallRecord | None:
        with self._changed:
            if sid not in self.events:
                return None
            events = list(self.events[sid])
        results = [event.data for event in events if event.kind == "extracted"]
        return replace(fold(events), **results[-1]) if results else fold(events)

    def append(self, sid: str, kind: str, data: dict[str, Any]) -> bool:
        with self._changed:
            if kind in self.refuses:
                return False
            self.events[sid].append(Event(sid, ENDED_AT + 1, kind, data))
            return True

    def done(self, sid: str) -> None:
        with self._changed:
            self.saved.append(sid)
            self._changed.notify_all()

    def record(self, sid: str) -> CallRecord:
        record = self.load(sid)
        assert record is not None
        return record

    def extraction(self, sid: str) -> dict[str, Any]:
        return self.record(sid).extraction or {}

    def of(self, sid: str, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.events[sid] if event.kind == kind]

    async def until(self, what: Callable[[], bool]) -> None:
        """Waits until something is true; looked at after each result."""

        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(what, 10.0), "it never came true"

        await asyncio.to_thread(wait)

    async def status(self, sid: str, *wanted: str) -> None:
        """Waits until the call's last extraction has one of the statuses."""
        await self.until(lambda: self._status(sid) in wanted)

    def _status(self, sid: str) -> str | None:
        results = self.of(sid, "extracted")
        return results[-1]["extraction"]["status"] if results else None


def rest_of(simulator: RestSimulator, **options: Any) -> OpenAIRest:
    """A client of the simulator."""
    given: dict[str, Any] = {
        "api_key": "sk-test",
        "base_url": simulator.url,
        "extraction_model": "gpt-5.6-luna",
        "transcription_model": "gpt-transcribe",
        "hints": SpeechHints(("fr",), ("Maison Service",)),
        "timeout": 5.0,
    }
    return OpenAIRest(**given | options)


def model(**options: Any) -> RestSimulator:
    """A simulated API that says `ANSWER`."""
    return RestSimulator(**{"answer": lambda _: ANSWER, "transcribe": lambda *_: "Au revoir."} | options)


DEFAULT_SCHEMA: AnswerSchema = load_schema()


def empty() -> dict[str, Any]:
    """What the default schema says of a call in which nothing was said."""

    def of(schema: dict[str, Any]) -> Any:
        if schema["type"] == "object":
            return {name: of(inner) for name, inner in schema["properties"].items()}
        return [] if schema["type"] == "array" else None

    return of(DEFAULT)  # type: ignore[no-any-return]  # JSON
