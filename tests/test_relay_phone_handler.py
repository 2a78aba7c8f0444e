"""A media stream over the real wire class behind uvicorn; its timers in virtual time."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from loguru import logger
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from handlehome.relay.phone.handler import (
    SILENCE_SECONDS,
    START_SECONDS,
    Refusal,
    StreamEnd,
    StreamListener,
    TwilioMessageHandler,
)
from handlehome.relay.phone.messages import Start
from handlehome.relay.wheel import TimerWheel
from tests.relay_call_doubles import (
    ACCOUNT,
    CALL,
    audio,
    calm,  # noqa: F401 - an autouse fixture
    stream_sid,
)
from tests.test_relay_wire_server import serving
from tests.virtual_time import VirtualClock

PATIENCE = 10.0
SID = stream_sid()
TOKEN = "the right one"


class Leg:
    """Writes down what a stream tells its leg."""

    def __init__(self, changed: asyncio.Event) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._changed = changed

    def _note(self, *entry: Any) -> None:
        self.told.append(entry)
        self._changed.set()

    def frame(self, chunk: int, timestamp_ms: int, payload: bytes, size: int) -> None:
        self._note("frame", chunk, timestamp_ms, payload, size)

    def mark(self, name: str) -> None:
        self._note("mark", name)

    def dtmf(self, digit: str) -> None:
        self._note("dtmf", digit)

    def stream_ended(self, end: StreamEnd, detail: str) -> None:
        self._note("ended", end)

    def writing_paused(self) -> None:
        self._note("paused")

    def writing_resumed(self) -> None:
        self._note("resumed")


@dataclass
class Office:
    """A reception with one rule: the right token opens a stream, another is what the test says."""

    port: int = 0
    clock: VirtualClock = field(default_factory=VirtualClock)
    refusal: Refusal = Refusal.UNKNOWN_TOKEN
    legs: list[Leg] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    handlers: list[TwilioMessageHandler] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.wheel = TimerWheel(self.clock)

    def gate(self, _request: object) -> TwilioMessageHandler:
        self.handlers.append(TwilioMessageHandler(self, self.wheel, self.clock.time))
        return self.handlers[-1]

    def stream_started(self, stream: TwilioMessageHandler, start: Start) -> StreamListener | Refusal:
        self.starts.append(start)
        if start.parameters.get("token") != TOKEN:
            return self.refusal
        self.legs.append(Leg(self.changed))
        stream.mark("0")
        return self.legs[-1]

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return self.legs[-1].told

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    place = Office()
    async with serving(place.gate) as (port, _):
        place.port = port
        yield place
    assert place.wheel.pending == 0
    assert all([entry[0] for entry in leg.told].count("ended") <= 1 for leg in place.legs)


@contextlib.asynccontextmanager
async def dialled(office: Office) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{office.port}/media-stream/a"
    async with connect(url, compression=None, proxy=None) as client:
        yield client


async def send(client: ClientConnection, event: str, **fields: Any) -> None:
    await client.send(json.dumps({"event": event, **fields}, separators=(",", ":")))


async def start(client: ClientConnection, token: str = TOKEN, **changes: Any) -> None:
    body = {
        "accountSid": ACCOUNT,
        "streamSid": SID,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": token},
        **changes,
    }
    await send(client, "connected", protocol="Call", version="1.0.0")
    await send(client, "start", sequenceNumber="1", start=body, streamSid=SID)


async def media(client: ClientConnection, stamp: int = 20, sid: str = SID, **fields: Any) -> None:
    body = {"track": "inbound", "chunk": "2", "timestamp": str(stamp), "payload": audio(20)[0].decode()}
    await send(client, "media", sequenceNumber="4", media={**body, **fields}, streamSid=sid)


@contextlib.asynccontextmanager
async def streaming(office: Office) -> AsyncIterator[ClientConnection]:
    """A stream that was let in."""
    async with dialled(office) as client:
        await start(client)
        assert json.loads(await client.recv()) == {"event": "mark", "streamSid": SID, "mark": {"name": "0"}}
        yield client


async def closed_with(client: ClientConnection) -> tuple[int | None, str | None]:
    """Reads until the relay has closed the stream."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code, client.close_reason


async def test_start_says_whose_stream_it_is(office: Office) -> None:
    async with streaming(office):
        pass
    assert office.starts == [Start(SID, CALL, ACCOUNT, {"token": TOKEN})]


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal.UNKNOWN_TOKEN,
        Refusal.FOREIGN_TOKEN,
        Refusal.USED_TOKEN,
        Refusal.EXPIRED_TOKEN,
        Refusal.CALL_OVER,
    ],
)
async def test_who_is_turned_away_is_told_why(office: Office, refusal: Refusal) -> None:
    office.refusal = refusal
    async with dialled(office) as client:
        await start(client, "wrong")
        assert await closed_with(client) == (refusal.code, refusal.reason)
    assert office.legs == []


@pytest.mark.parametrize("message", ["{", "[]", "null", '"start"', "{}", '{"event":1}'])
@pytest.mark.parametrize("started", [False, True])
async def test_a_malformed_message_is_the_end(office: Office, message: str, started: bool) -> None:
    async with streaming(office) if started else dialled(office) as client:
        await client.send(message)
        assert await closed_with(client) == (1007, "malformed message")
    if started:
        assert office.told == [("ended", StreamEnd.BROKEN)]


@pytest.mark.parametrize("started", [False, True])
async def test_a_binary_frame_is_the_end(office: Office, started: bool) -> None:
    async with streaming(office) if started else dialled(office) as client:
        await client.send(b"\x00\x01")
        assert await closed_with(client) == (Refusal.BINARY.code, Refusal.BINARY.reason)
    if started:
        assert office.told == [("ended", StreamEnd.BROKEN)]


async def test_a_message_over_64_kib_is_the_end(office: Office) -> None:
    async with streaming(office) as client:
        await client.send(json.dumps({"event": "media", "x": "y" * 65536}))
        assert (await closed_with(client))[0] == 1009
        await office.until(lambda: ("ended", StreamEnd.BROKEN) in office.told)


async def test_an_invalid_start_is_the_end(office: Office) -> None:
    for changes in ({"streamSid": "MZ1"}, {"callSid": None}, {"mediaFormat": {"encoding": "audio/l16"}}):
        async with dialled(office) as client:
            await start(client, **changes)
            assert await closed_with(client) == (1007, "malformed message")
    assert office.starts == []


async def test_a_reason_fits_into_a_close_frame() -> None:
    for refusal in Refusal:
        assert len(refusal.reason.encode()) <= 123
        assert 1000 <= refusal.code < 5000


async def test_start_has_to_come_within_five_seconds(office: Office) -> None:
    """Other messages don't count."""
    async with dialled(office) as client:
        await send(client, "connected", protocol="Call", version="1.0.0")
        await asyncio.wait_for(await client.ping(), PATIENCE)
        office.clock.advance(START_SECONDS - 0.1)
        assert office.wheel.pending == 1
        await send(client, "mark", mark={"name": "x"})
        await asyncio.wait_for(await client.ping(), PATIENCE)
        office.clock.advance(0.2)
        assert await closed_with(client) == (Refusal.NO_START.code, Refusal.NO_START.reason)


async def test_a_start_in_time_is_not_cut_off(office: Office) -> None:
    async with dialled(office) as client:
        await asyncio.wait_for(await client.ping(), PATIENCE)
        office.clock.advance(START_SECONDS - 0.1)
        await start(client)
        await client.recv()
        office.clock.advance(1)
        await media(client)
        await office.until(lambda: len(office.told) == 1)


async def test_frames_marks_and_keys_reach_the_leg_in_order(office: Office) -> None:
    payload, size = audio(20)
    async with streaming(office) as client:
        await media(client, 20)
        await send(client, "mark", sequenceNumber="5", streamSid=SID, mark={"name": "7"})
        await send(
            client, "dtmf", streamSid=SID, sequenceNumber="6", dtmf={"track": "inbound_track", "digit": "#"}
        )
        await client.send(
            json.dumps({"streamSid": SID, "media": {"payload": "//8=", "timestamp": 40}, "event": "media"})
        )
        await office.until(lambda: len(office.told) == 4)
        assert office.told == [
            ("frame", 2, 20, payload, size),
            ("mark", "7"),
            ("dtmf", "#"),
            ("frame", 3, 40, b"//8=", 2),
        ]
        assert office.handlers[0].slow_frames == 1


async def test_unknown_events_and_fields_are_tolerated(office: Office) -> None:
    async with streaming(office) as client:
        await send(client, "weather", sky={"clear": True})
        await send(client, "mark", mark="no object")
        await send(client, "dtmf", dtmf={"digit": 5})
        await media(client, 20, weather=[1])
        await media(client, 40, track="outbound")
        await media(client, 60, sid=stream_sid(2))
        await media(client, 80)
        await office.until(lambda: bool(office.told) and office.told[-1][0::2][:2] == ("frame", 80))
        assert [entry[2] for entry in office.told] == [20, 80]


@pytest.mark.parametrize("token", [TOKEN, "another"])
async def test_a_second_start_is_the_end(office: Office, token: str) -> None:
    """Twilio sends one; whoever sends another one has read the token somewhere."""
    async with streaming(office) as client:
        await start(client, token)
        assert await closed_with(client) == (Refusal.USED_TOKEN.code, Refusal.USED_TOKEN.reason)
    assert len(office.starts) == 1
    assert office.told == [("ended", StreamEnd.BROKEN)]


@pytest.mark.parametrize("message", [json.dumps({"event": "x" * 65536}), "{", b"binary"])
async def test_whoever_is_thrown_out_before_start_leaves_one_line(
    office: Office, message: str | bytes
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="INFO", format="{message}")
    async with dialled(office) as client:
        await client.send(message)
        code, _ = await closed_with(client)
    logger.remove(sink)
    (line,) = [line for line in lines if "closed with" in line]
    assert f"closed with {code}" in line


async def test_media_before_start_is_nobodys(office: Office) -> None:
    async with dialled(office) as client:
        await media(client, 20)
        await send(client, "stop", stop={})
        await start(client)
        await client.recv()
        await media(client, 40)
        await office.until(lambda: len(office.told) == 1)
        assert office.told[0][2] == 40


async def test_stop_ends_the_stream_and_is_answered_by_a_close(office: Office) -> None:
    async with streaming(office) as client:
        await send(client, "stop", stop={"accountSid": ACCOUNT, "callSid": CALL}, streamSid=SID)
        await media(client, 20)
        assert await closed_with(client) == (1000, "stopped")
    assert office.told == [("ended", StreamEnd.STOPPED)]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_socket_that_is_gone_without_stop_is_told(office: Office, how: str) -> None:
    async with streaming(office) as client:
        if how == "close":
            await client.close(1001)
        else:
            client.transport.abort()
        await office.until(lambda: bool(office.told))
    assert office.told == [("ended", StreamEnd.DROPPED)]


async def test_a_line_without_media_is_half_open_after_ten_seconds(office: Office) -> None:
    """The looks are 2 s apart; other messages are no sign of life."""
    async with streaming(office) as client:
        for _ in range(5):
            office.clock.advance(SILENCE_SECONDS / 5 - 0.01)
            await send(client, "mark", mark={"name": "x"})
            await asyncio.wait_for(await client.ping(), PATIENCE)
        assert ("ended", StreamEnd.SILENT) not in office.told
        office.clock.advance(2.1)
        assert await closed_with(client) == (Refusal.LINE_SILENT.code, Refusal.LINE_SILENT.reason)
        assert office.told[-1] == ("ended", StreamEnd.SILENT)


async def test_a_line_with_media_lives_on(office: Office) -> None:
    async with streaming(office) as client:
        for count in range(1, 30):
            office.clock.advance(SILENCE_SECONDS - 0.1 if count % 2 else 0.05)
            await media(client, count * 20)
            await office.until(lambda count=count: len(office.told) == count)  # type: ignore[misc]
        assert {entry[0] for entry in office.told} == {"frame"}


async def test_a_stream_that_we_close_tells_its_leg_nothing(office: Office) -> None:
    async with streaming(office) as client:
        office.handlers[0].close(1000, "bye")
        await client.send("{")
        assert await closed_with(client) == (1000, "bye")
    assert office.told == []


async def test_what_is_sent_reaches_the_line_in_order(office: Office) -> None:
    payload = audio(60)[0]
    async with streaming(office) as client:
        stream = office.handlers[0]
        stream.media(payload)
        stream.mark("1")
        stream.clear()
        got = [json.loads(await client.recv()) for _ in range(3)]
        assert got == [
            {"event": "media", "streamSid": SID, "media": {"payload": payload.decode()}},
            {"event": "mark", "streamSid": SID, "mark": {"name": "1"}},
            {"event": "clear", "streamSid": SID},
        ]


async def test_sending_on_a_stream_that_is_gone_is_harmless(office: Office) -> None:
    async with streaming(office) as client:
        client.transport.abort()
        await office.until(lambda: bool(office.told))
        stream = office.handlers[0]
        stream.media(audio(20)[0])
        stream.mark("1")
        stream.clear()
        stream.close(1000, "")


async def test_a_line_that_does_not_read_pauses_its_leg(office: Office) -> None:
    payload = audio(5000)[0]
    async with streaming(office) as client:
        client.transport.pause_reading()
        async with asyncio.timeout(PATIENCE):
            while ("paused",) not in office.told:
                office.handlers[0].media(payload)
                await asyncio.sleep(0)
        client.transport.resume_reading()
        reader = asyncio.ensure_future(closed_with(client))
        await office.until(lambda: ("resumed",) in office.told)
        office.handlers[0].close(1000, "")
        await reader
    assert [entry[0] for entry in office.told] == ["paused", "resumed"]
