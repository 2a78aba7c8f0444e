"""Both ends of one call under load: the phone that speaks, the model session that returns what it hears.

Every frame of 160 bytes carries its call and its number as the first digits of its base64 text, so that both
ends know which one came, and how long it took. Times (seconds of `time.monotonic()`) are taken before a frame
is given to the event loop and after the read that brought it.

The model session returns every append's audio at once, as a delta of one endless response, and is half a
second ahead, as a real model is: otherwise a relay would, rightly, gather audio whenever the load is late.
"""

from __future__ import annotations

import asyncio
import base64
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from handlehome.bench import media, twilio
from handlehome.bench.loadsocket import ClientSocket, ServerSocket
from handlehome.bench.phone import ACCOUNT_SID

FRAME_BYTES = 160
NUMBERS = 100_000
"""Frames of one call; the digits above are the call's."""

HEAD_START_BYTES = 4000
_DIGITS = 8
_TEXT = 216  # characters of a frame's base64 text
_REST = bytes(range(64, 64 + FRAME_BYTES - 6))  # of a frame, behind the six bytes that are the digits
_HEAD_START = base64.b64encode(b"\xff" * HEAD_START_BYTES)
_APPEND = b'{"type":"input_audio_buffer.append","audio":"'
_PAYLOAD = b'"payload":"'


@dataclass
class Totals:
    """What passed so far, all calls together.

    Attributes:
        sent, arrived: caller's frames: out of the phones, and in at the sessions.
        returned, played: the same frames: out of the sessions, and in at the phones.
        messages_up, messages_down: the messages that they came in.
        disordered: frames that came in the wrong call or order, or damaged.
    """

    sent: int = 0
    arrived: int = 0
    returned: int = 0
    played: int = 0
    messages_up: int = 0
    messages_down: int = 0
    disordered: int = 0

    @property
    def missing(self) -> int:
        """Frames on their way, or lost."""
        return self.sent - self.arrived + self.returned - self.played

    def since(self, before: Totals) -> Totals:
        """What passed between two moments."""
        return Totals(**{name: value - getattr(before, name) for name, value in vars(self).items()})


@dataclass
class Window:
    """What was measured between two moments; latencies in seconds.

    Attributes:
        busy: share of its core that the load itself used.
        lateness: of the load's own ticks, seconds.
    """

    seconds: float = 0.0
    busy: float = 0.0
    totals: Totals = field(default_factory=Totals)
    up: array[float] = field(default_factory=lambda: array("d"))
    down: array[float] = field(default_factory=lambda: array("d"))
    lateness: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Ledger:
    """What both ends of all calls write into.

    Attributes:
        totals: What passed so far.
        window: What is being measured; None: nothing is.
        barge_ins: Seconds from `speech_started` to `clear`.
        faults: What should not have happened.
        ending: Connections may close.
    """

    phones: list[Phone] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    window: Window | None = None
    barge_ins: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    ending: bool = False

    def introduce(self, session: Session, call: int) -> Phone | None:
        """Tells a session whose call it is; None: no such call, or it has another session."""
        if not 0 <= call < len(self.phones) or self.phones[call].session is not None:
            return None
        self.phones[call].session = session
        return self.phones[call]

    def lost(self, what: str) -> None:
        """A connection is gone."""
        if not self.ending:
            self.faults.append(what)


class Phone(ClientSocket):
    """The line's end of one call.

    Attributes:
        index: Number of the call.
        session: The model's end, once a frame has arrived there.
        started: When `start` was sent; 0.0 before.
        sent_at: When each frame was sent.
        relayed: Set when the first frame has come back.
    """

    def __init__(self, ledger: Ledger, index: int) -> None:
        super().__init__()
        self.index = index
        self.session: Session | None = None
        self.started = 0.0
        self.sent_at = array("d")
        self.relayed = asyncio.Event()
        self._ledger = ledger
        self._messages: media.StreamMessages | None = None
        self._marks: deque[tuple[float, str]] = deque()
        self._dry_at = 0.0

    def start(self, call_sid: str, parameters: dict[str, str]) -> None:
        """Begins the stream; frames follow with the ticks."""
        self._messages = media.StreamMessages(ACCOUNT_SID, call_sid, twilio.new_sid("MZ"), parameters)
        self.send(self._messages.connected().encode())
        self.started = time.monotonic()
        self.send((self._messages.start() or "").encode())

    def tick(self) -> None:
        """Sends the next frame, and the marks that playback has reached."""
        messages = self._messages
        if messages is None or not self.is_open:
            return
        digits = b"%08d" % (self.index * NUMBERS + len(self.sent_at))
        text = messages.media(base64.b64decode(digits) + _REST).encode()
        now = time.monotonic()
        self.sent_at.append(now)
        self.send(text)
        self._ledger.totals.sent += 1
        while self._marks and self._marks[0][0] <= now:
            self._return_mark(messages)

    def stop(self) -> None:
        """Hangs up."""
        if self._messages is not None:
            self.send(self._messages.stop().encode())
        self.close()

    def message_received(self, at: float, message: bytes) -> None:
        begin = message.find(_PAYLOAD)
        if begin < 0:
            self._other_message(at, message)
            return
        begin += len(_PAYLOAD)
        text = message[begin : message.find(b'"', begin)]
        self._dry_at = max(self._dry_at, at) + len(text) * 3 // 4 / 8000
        if len(text) == _TEXT:
            self._ledger.totals.messages_down += 1
            self._frame(at, text)
        elif text != _HEAD_START:
            self._ledger.totals.messages_down += 1
            for frame in frames_in(text):
                self._frame(at, frame)

    def lost(self) -> None:
        self._ledger.lost(f"the stream of call {self.index} was closed by the relay")

    def _frame(self, at: float, text: bytes) -> None:
        ledger = self._ledger
        ledger.totals.played += 1
        returned = self.session.returned if self.session is not None else None
        if not returned:
            ledger.totals.disordered += 1
            return
        digits, returned_at = returned.popleft()
        self.relayed.set()
        if text[:_DIGITS] != digits:
            ledger.totals.disordered += 1
        elif ledger.window is not None:
            ledger.window.down.append(at - returned_at)

    def _other_message(self, at: float, text: bytes) -> None:
        message = media.read(text, self._messages.stream_sid if self._messages else "")
        if isinstance(message, media.Mark):
            self._marks.append((self._dry_at, message.name))
        elif isinstance(message, media.Clear) and self._messages is not None:
            self._dry_at = at
            if self.session is not None:
                self.session.cleared(at)
            while self._marks:
                self._return_mark(self._messages)

    def _return_mark(self, messages: media.StreamMessages) -> None:
        self.send(messages.mark(self._marks.popleft()[1]).encode())


class Session(ServerSocket):
    """The model's end of one call.

    Attributes:
        phone: Known from the first frame on.
        asked_at: When the greeting was asked for; 0.0 before.
        returned: Frames on their way to the phone: digits, and when they were sent.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.phone: Phone | None = None
        self.asked_at = 0.0
        self.returned: deque[tuple[bytes, float]] = deque()
        self._ledger = ledger
        self._expected = 0
        self._responses = 0
        self._delta = b""  # head of a delta; empty while nothing is said
        self._interrupted_at = 0.0

    def opened(self) -> None:
        self._ledger.sessions.append(self)
        self._emit({"type": "session.created", "event_id": "event_0", "session": {"type": "realtime"}})

    def message_received(self, at: float, message: bytes) -> None:
        if not message.startswith(_APPEND):
            self._other_event(at, orjson.loads(message))
            return
        self._ledger.totals.messages_up += 1
        text = message[len(_APPEND) : -2]
        if len(text) == _TEXT:
            self._frame(at, text)
        else:
            for frame in frames_in(text):
                self._frame(at, frame)
        if self._delta:
            self.send(self._delta + text + b'"}')

    def lost(self) -> None:
        self._ledger.lost("a model session was closed by the relay")

    def interrupt(self) -> None:
        """The caller is heard: `speech_started`."""
        if self._delta:
            self._delta = b""
            event = {
                "type": "input_audio_buffer.speech_started",
                "event_id": "event_1",
                "audio_start_ms": self._expected * 20,
                "item_id": f"item_caller{self._responses:012d}",
            }
            self._interrupted_at = time.monotonic()
            self._emit(event)

    def resume(self) -> None:
        """The caller has finished: the interrupted response ends, and a new one begins."""
        if self._delta or not self.is_open:
            return
        caller = f"item_caller{self._responses:012d}"
        self.returned.clear()
        for event in (
            {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": self._expected * 20,
                "item_id": caller,
            },
            {"type": "input_audio_buffer.committed", "previous_item_id": None, "item_id": caller},
            {"type": "response.done", "response": self._response("cancelled")},
        ):
            self._emit(event | {"event_id": "event_2"})
        self._respond(None)

    def cleared(self, at: float) -> None:
        """The phone was told to drop what it has not played."""
        if self._interrupted_at:
            self._ledger.barge_ins.append(at - self._interrupted_at)
            self._interrupted_at = 0.0

    def _frame(self, at: float, text: bytes) -> None:
        ledger = self._ledger
        ledger.totals.arrived += 1
        digits = text[:_DIGITS]
        call, number = divmod(int(digits), NUMBERS) if digits.isdigit() else (-1, -1)
        phone = self.phone
        if phone is None:
            phone = self.phone = ledger.introduce(self, call)
        if phone is None or call != phone.index or number != self._expected:
            ledger.totals.disordered += 1
            self._expected = number + 1
            return
        self._expected = number + 1
        if ledger.window is not None:
            ledger.window.up.append(at - phone.sent_at[number])
        if self._delta:
            ledger.totals.returned += 1
            self.returned.append((digits, time.monotonic()))

    def _other_event(self, at: float, event: dict[str, Any]) -> None:
        if event["type"] == "session.update":
            self._emit({"type": "session.updated", "event_id": "event_3", "session": event["session"]})
        elif event["type"] == "response.create":
            self.asked_at = self.asked_at or at
            self._respond((event.get("response") or {}).get("metadata"))

    def _respond(self, metadata: dict[str, str] | None) -> None:
        self._responses += 1
        response = self._response("in_progress") | {"metadata": metadata}
        self._emit({"type": "response.created", "event_id": "event_4", "response": response})
        self._delta = (
            b'{"type":"response.output_audio.delta","event_id":"event_5AbCdEfGhIjKlMnOpQrSt",'
            b'"response_id":"%b","item_id":"item_assistant%012d","output_index":0,"content_index":0,"delta":"'
            % (response["id"].encode(), self._responses)
        )
        self.send(self._delta + _HEAD_START + b'"}')

    def _response(self, status: str) -> dict[str, Any]:
        return {"object": "realtime.response", "id": f"resp_{self._responses:016d}", "status": status}

    def _emit(self, event: dict[str, Any]) -> None:
        self.send(orjson.dumps(event))


def frames_in(text: bytes) -> list[bytes]:
    """The base64 text of the frames that were put together in one message; the head start is none."""
    ulaw = base64.b64decode(text)
    pieces = [base64.b64encode(ulaw[n : n + 6]) for n in range(0, len(ulaw), FRAME_BYTES)]
    return [piece for piece in pieces if piece.isdigit()]
