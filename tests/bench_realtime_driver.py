"""Drives a simulated Realtime session without a socket, in virtual time."""

import base64
import json
import math
from typing import Any

from handlehome.bench.realtime.channel import Close, Drop
from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.session import Session

LOUD = b"\x10\x90" * 80
QUIET = b"\xff" * 160
PCMU = {"type": "audio/pcmu"}
PHONE = {
    "type": "realtime",
    "instructions": "Be brief.",
    "audio": {
        "input": {
            "format": PCMU,
            "transcription": {"model": "gpt-transcribe"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
        },
        "output": {"format": PCMU, "voice": "marin"},
    },
}


class Driver:
    """A client of one session: sends events, moves the clock, reads what comes back."""

    def __init__(self, script: Script, *, configured: bool = True, seed: int = 0) -> None:
        self.session = Session(0, "gpt-realtime-2.1", script, seed=seed)
        self.now = 1000.0
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.ends: list[Close | Drop] = []
        self._read = 0
        self.session.start(self.now, 1_800_000_000)
        self._collect()
        if configured:
            self.update(PHONE)
            self.take()

    def _collect(self) -> None:
        outbox = self.session.channel.outbox
        while outbox:
            message = outbox.popleft()
            if isinstance(message, bytes):
                self.events.append((self.now, json.loads(message)))
            else:
                self.ends.append(message)

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Sends one event and gives the new events."""
        return self.send_text(json.dumps({"type": kind, **fields}))

    def send_text(self, message: str | bytes) -> list[dict[str, Any]]:
        self.session.receive(message, self.now)
        self._collect()
        return self.take()

    def update(self, session: dict[str, Any]) -> list[dict[str, Any]]:
        return self.send("session.update", session=session)

    def append(self, audio: bytes) -> None:
        message = {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}
        self.session.receive(json.dumps(message, separators=(",", ":")), self.now)
        self._collect()

    def say(self, frame: bytes, seconds: float) -> None:
        """Sends audio in frames of 20 ms, in real time."""
        for _ in range(round(seconds * 50)):
            self.advance(0.02)
            self.append(frame)

    def start_speech(self) -> None:
        self.session.start_speech(self.now)
        self._collect()

    def stop_speech(self) -> None:
        self.session.stop_speech(self.now)
        self._collect()

    def advance(self, seconds: float) -> None:
        """Lets time pass, step by step through everything that is due."""
        target = self.now + seconds
        while (self.session.channel.deadline or math.inf) <= target:
            self.now = max(self.now, self.session.channel.deadline or 0)
            self.session.tick(self.now)
            self._collect()
        self.now = target

    def take(self) -> list[dict[str, Any]]:
        """The events that came since the last time."""
        new = [event for _, event in self.events[self._read :]]
        self._read = len(self.events)
        return new

    def all(self, kind: str) -> list[dict[str, Any]]:
        """All events of a type so far."""
        return [event for _, event in self.events if event["type"] == kind]

    def first_at(self, kind: str) -> float:
        """When the first event of a type came."""
        return next(t for t, event in self.events if event["type"] == kind)


def types(events: list[dict[str, Any]]) -> list[str]:
    """The events' types without deltas."""
    return [event["type"] for event in events if not event["type"].endswith(".delta")]


def audio_of(events: list[dict[str, Any]]) -> bytes:
    """The audio of all audio deltas among events."""
    deltas = [event["delta"] for event in events if event["type"] == "response.output_audio.delta"]
    return b"".join(base64.b64decode(delta) for delta in deltas)
