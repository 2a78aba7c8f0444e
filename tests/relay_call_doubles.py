"""A phone line, a model and premises in virtual time, for tests of calls without sockets."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from loguru import logger

from handlehome.codecs.framepool import FramePool
from handlehome.relay.call.call import Call, PhoneLeg
from handlehome.relay.call.premises import Party, Premises
from handlehome.relay.call.switchboard import Switchboard
from handlehome.relay.model.interface import Listener, ModelLost
from handlehome.relay.phone.desk import Accepted, IncomingCall
from handlehome.relay.phone.handler import TwilioMessageHandler
from handlehome.relay.wheel import TimerWheel
from handlehome.store.records import CallRecord, Event, fold
from tests.virtual_time import VirtualClock

ACCOUNT = "AC" + "1" * 32
CALL = "CA" + "0123456789abcdef" * 2
GREETING = "Say hello."
PARTY = Party(CALL, ACCOUNT, "+33612345678", "+33123456789", "inbound")


def stream_sid(number: int = 1) -> str:
    return f"MZ{number:032x}"


def audio(ms: int, byte: int = 0x55) -> tuple[bytes, int]:
    """Base64 text of so much audio, and its size."""
    ulaw = bytes([byte]) * (ms * 8)
    return base64.b64encode(ulaw), len(ulaw)


@pytest.fixture(autouse=True)
def calm() -> Iterator[list[str]]:
    """Nothing is logged as an error, such as an exception in a timer; import it to apply it to a module."""
    errors: list[str] = []
    sink = logger.add(errors.append, level="ERROR", format="{message}\n{exception}")
    yield errors
    logger.remove(sink)
    assert errors == []


class VirtualModel:
    """A model that does what it is told by the test, and writes down what the call asks of it."""

    def __init__(self, listener: Listener, log: list[tuple[Any, ...]]) -> None:
        self.listener = listener
        self.log = log
        self.ready = False
        self.closed = False
        self.active_response: str | None = None
        self.heard_bytes = 0
        self.heard = bytearray()
        self.answers: list[str] = []
        self.spoken: dict[str, int] = {}  # ms of audio by item
        self._numbers = 0

    # what a call asks

    def hear(self, payload: bytes, size: int) -> None:
        if not self.closed:
            self.heard_bytes += size
            self.heard += base64.b64decode(payload, validate=True)

    def answer(self, purpose: str, instructions: str | None = None) -> None:
        self.answers.append(purpose)
        self.log.append(("answer", purpose, instructions))

    def cut(self, item_id: str, heard_ms: int) -> None:
        assert 0 <= heard_ms <= self.spoken.get(item_id, 0), "more than there was is an error of the API's"
        self.log.append(("cut", item_id, heard_ms))

    def commit(self) -> None:
        self.log.append(("commit",))

    def cancel(self, response_id: str) -> None:
        self.log.append(("cancel", response_id))

    def tool_result(self, call_id: str, output: dict[str, Any]) -> None:
        self.log.append(("tool_result", call_id, output))

    def close(self) -> None:
        if not self.closed:
            self.log.append(("model closed",))
        self.closed = True
        self.ready = False

    # what it does: nothing any more once it is closed

    def become_ready(self) -> None:
        if not self.closed and not self.ready:
            self.ready = True
            self.listener.model_ready()

    def lose(self, reason: ModelLost = ModelLost.DROPPED) -> None:
        if not self.closed:
            self.close()
            self.listener.model_lost(reason, "test")

    def begin(self) -> str:
        """A response is created; returns its number, which is its item's too."""
        self._numbers += 1
        self.active_response = f"resp_{self._numbers}"
        if not self.closed:
            self.listener.item_placed(f"item_{self._numbers}", None, "assistant")
        return str(self._numbers)

    def speak(self, number: str, ms: int, text: str = "") -> None:
        if self.closed:
            return
        self.speak_item(number, f"item_{number}", ms)
        if text:
            self.listener.assistant_said(f"item_{number}", text, final=False)

    def speak_item(self, number: str, item_id: str, ms: int) -> None:
        """Audio of a further item of a response."""
        self.spoken[item_id] = self.spoken.get(item_id, 0) + ms
        self.listener.assistant_audio(f"resp_{number}", item_id, *audio(ms))

    def done(self, number: str, status: str = "completed", text: str | None = None) -> None:
        if self.closed:
            return
        self.listener.assistant_audio_done(f"item_{number}")
        if text is not None:
            self.listener.assistant_said(f"item_{number}", text, final=True)
        self.listener.response_done(f"resp_{number}", status, None)
        if self.active_response == f"resp_{number}":
            self.active_response = None

    def say(self, ms: int, text: str) -> str:
        """A whole answer at once."""
        number = self.begin()
        self.speak(number, ms)
        self.done(number, text=text)
        return number

    def caller_starts(self, item_id: str, start_ms: int) -> None:
        if not self.closed:
            self.listener.caller_started(item_id, start_ms)

    def caller_stops(self, item_id: str, end_ms: int, after: str | None = None) -> None:
        if not self.closed:
            self.listener.caller_stopped(item_id, end_ms)
            self.listener.item_placed(item_id, after, "user")

    def transcribe(self, item_id: str, text: str | None) -> None:
        if not self.closed:
            self.listener.caller_said(item_id, text)

    def call_tool(self, name: str, call_id: str = "call_1") -> None:
        if not self.closed:
            self.listener.tool_called(call_id, name, "{}")


class VirtualLine:
    """Twilio's end of one stream: plays what it gets in virtual time, and sends marks back."""

    def __init__(self, clock: VirtualClock, log: list[tuple[Any, ...]]) -> None:
        self.clock = clock
        self.log = log
        self.leg: PhoneLeg | None = None
        self.closed: tuple[int, str] | None = None
        self.echoing = True
        self._play_end = 0.0
        self._outstanding: list[str] = []
        self._frames = 0

    def media(self, payload: bytes) -> None:
        assert self.closed is None
        size = len(base64.b64decode(payload, validate=True))
        self.log.append(("media", size))
        self._play_end = max(self._play_end, self.clock.now) + size / 8000

    def marked_media(self, payload: bytes, name: str) -> None:
        self.media(payload)
        self.mark(name)

    def mark(self, name: str) -> None:
        assert self.closed is None
        self._outstanding.append(name)
        self.clock.call_at(max(self._play_end, self.clock.now), self._echo, name)

    def clear(self) -> None:
        assert self.closed is None
        self.log.append(("clear",))
        self._play_end = self.clock.now
        for name in list(self._outstanding):
            self.clock.call_soon(self._echo, name)

    def close(self, code: int, reason: str) -> None:
        self.log.append(("stream closed", code))
        self.closed = (code, reason)

    def _echo(self, name: str) -> None:
        if self.echoing and self.leg is not None and self.closed is None and name in self._outstanding:
            self._outstanding.remove(name)
            self.leg.mark(name)

    def speak(self, ms: int = 20, byte: int = 0x33) -> None:
        """The caller's audio, in frames of 20 ms and in real time."""
        for _ in range(ms // 20):
            if self.leg is not None and self.closed is None:
                self.leg.frame(self._frames + 1, self._frames * 20, *audio(20, byte))
            self._frames += 1
            self.clock.advance(0.020)


@dataclass
class House:
    """Premises in virtual time, and everything that happened there.

    Attributes:
        log: What was asked of the line and of the model, in order.
        events: The journal.
        finished: CallSids of which nothing more comes.
    """

    lead: float = 1.0
    max_seconds: float = 3600.0
    resume_seconds: float = 60.0
    server_interrupts: bool = True
    padding_ms: int = 0
    silence_ms: int = 0
    blocks: int = 2000
    log: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    models: list[VirtualModel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = VirtualClock()
        self.wheel = TimerWheel(self.clock)
        self.pool = FramePool(self.blocks)
        self.premises = Premises(
            open_model=self._open_model,
            write=self._write,
            pool=self.pool,
            wheel=self.wheel,
            clock=self.clock.time,
            greeting=GREETING,
            assistant="Camille",
            lead=self.lead,
            max_seconds=self.max_seconds,
            resume_seconds=self.resume_seconds,
            server_interrupts=self.server_interrupts,
            padding_ms=self.padding_ms,
            silence_ms=self.silence_ms,
        )

    def _open_model(self, listener: Listener, party: Party) -> VirtualModel:
        self.models.append(VirtualModel(listener, self.log))
        return self.models[-1]

    def _write(self, call_sid: str, kind: str, data: dict[str, Any]) -> None:
        self.events.append(Event(call_sid, self.clock.now, kind, orjson.loads(orjson.dumps(data))))

    def call(self) -> Call:
        """A call whose webhook has just come, without a switchboard."""
        return Call(PARTY, self.premises, lambda call: self.finished.append(call.call_sid))

    def line(self, call: Call, number: int = 1) -> VirtualLine:
        """A stream that the call takes."""
        line = VirtualLine(self.clock, self.log)
        line.leg = call.start_leg(stream_sid(number), line)
        assert line.leg is not None
        return line

    def record(self, call_sid: str = CALL) -> CallRecord:
        return fold([event for event in self.events if event.call_sid == call_sid])

    def kinds(self, call_sid: str = CALL) -> list[str]:
        return [event.kind for event in self.events if event.call_sid == call_sid]

    def model_of(self, call_sid: str) -> VirtualModel:
        """The newest model that was opened for a call."""
        return next(
            model
            for model in reversed(self.models)
            if isinstance(model.listener, Call) and model.listener.call_sid == call_sid
        )

    def assert_all_is_free(self) -> None:
        assert self.wheel.pending == 0
        assert self.pool.in_use == 0
        assert all(model.closed for model in self.models)


class Wire:
    """A connection's place: takes what the handler sends, says so to the test, closes when asked."""

    def __init__(self) -> None:
        self.is_open = True
        self.write_paused = False
        self.sent: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None

    def send_text(self, message: bytes) -> None:
        if self.is_open:
            self.sent.append(orjson.loads(message))

    def send_texts(self, first: bytes, second: bytes) -> None:
        self.send_text(first)
        self.send_text(second)

    def close(self, code: int = 1000, reason: str = "") -> None:
        if self.is_open:
            self.is_open = False
            self.closed = (code, reason)

    def events(self) -> list[str]:
        return [message["event"] for message in self.sent]


class TwilioStream:
    """One media stream, Twilio's part: the real handler on a connection without a socket."""

    def __init__(
        self, house: House, switchboard: Switchboard, *, call_sid: str = CALL, number: int = 1
    ) -> None:
        self.call_sid = call_sid
        self.sid = stream_sid(number)
        self.wire = Wire()
        self.handler = TwilioMessageHandler(switchboard, house.wheel, house.clock.time)
        self.lost = False
        self._sequence = 0
        self._frames = 0
        self.handler.connection_made(self.wire)  # type: ignore[arg-type] # quacks like one

    def send(self, event: str, **fields: Any) -> None:
        if not self.wire.is_open:
            return
        message: dict[str, Any] = {"event": event}
        if event != "connected":
            self._sequence += 1
            message["sequenceNumber"] = str(self._sequence)
        self.handler.text_received(orjson.dumps({**message, **fields}))

    def start(self, token: str, call_sid: str | None = None) -> None:
        self.send("connected", protocol="Call", version="1.0.0")
        start = {
            "accountSid": ACCOUNT,
            "streamSid": self.sid,
            "callSid": call_sid or self.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token},
        }
        self.send("start", start=start, streamSid=self.sid)

    def media(self, byte: int = 0x33) -> None:
        payload = audio(20, byte)[0].decode()
        stamp = str(self._frames * 20)
        self._frames += 1
        fields = {"track": "inbound", "chunk": str(self._frames), "timestamp": stamp, "payload": payload}
        self.send("media", media=fields, streamSid=self.sid)

    def echo_marks(self) -> None:
        """Everything that was sent has been played: all marks come back."""
        for message in list(self.wire.sent):
            if message["event"] == "mark":
                self.wire.sent.remove(message)
                self.send("mark", streamSid=self.sid, mark=message["mark"])

    def stop(self) -> None:
        self.send("stop", stop={"accountSid": ACCOUNT, "callSid": self.call_sid}, streamSid=self.sid)
        self.lose(1000)

    def lose(self, code: int = 1006) -> None:
        """The socket is gone."""
        self.wire.is_open = False
        if not self.lost:
            self.lost = True
            self.handler.connection_lost(code, "")


def incoming(call_sid: str = CALL, **parameters: str) -> IncomingCall:
    """A request of Twilio's for instructions."""
    return IncomingCall(
        call_sid, ACCOUNT, PARTY.from_, PARTY.to, PARTY.direction, None, {"CallSid": call_sid, **parameters}
    )


def admitted(switchboard: Switchboard, call_sid: str = CALL) -> str:
    """The token of a call that is taken."""
    answer = switchboard.incoming_call(incoming(call_sid))
    assert isinstance(answer, Accepted), answer
    return answer.token


def asked(house: House) -> list[tuple[object, ...]]:
    return [entry for entry in house.log if entry[0] == "answer"]


def live(house: House | None = None) -> tuple[House, VirtualLine]:
    """A call whose line is open and whose model is ready; its log is empty."""
    house = house or House()
    call = house.call()
    house.models[0].become_ready()
    line = house.line(call)
    house.clock.advance(0.1)
    house.log.clear()
    return house, line


def call_of(house: House) -> Call:
    call = house.models[0].listener
    assert isinstance(call, Call)
    return call
