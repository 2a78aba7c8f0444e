"""One media stream over real sockets, against a small honest relay."""

from __future__ import annotations

import base64
import itertools
import time

import pytest

from handlehome.bench.leg import LineDelay
from handlehome.bench.phone import PhoneCall
from tests.tiny_relay import Stream, TinyRelay, running


def frames(count: int) -> bytes:
    """Audio in which every frame is different, and none is silence."""
    return b"".join(number.to_bytes(2, "big") * 80 for number in range(1, count + 1))


async def listen(stream: Stream) -> None:
    await stream.drain()


async def test_messages_come_in_order_with_rising_numbers() -> None:
    async with running(TinyRelay(listen)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.say(frames(10))
        call.dtmf("1#")
        await call.hang_up()
    stream = relay.streams[0]
    assert stream.events() == ["connected", "start", "media", "dtmf", "dtmf", "stop"]
    connected, start, *rest = stream.messages
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start["start"]["customParameters"] == {"token": "t1"}
    assert start["start"]["callSid"] == call.call_sid
    assert [int(m["sequenceNumber"]) for m in [start, *rest]] == list(range(1, len(rest) + 2))
    media = [m for m in rest if m["event"] == "media"]
    assert [m["media"]["chunk"] for m in media] == [str(n) for n in range(1, len(media) + 1)]
    assert [m["media"]["timestamp"] for m in media] == [str(20 * n) for n in range(1, len(media) + 1)]
    assert [m["dtmf"]["digit"] for m in rest if m["event"] == "dtmf"] == ["1", "#"]
    assert {m["streamSid"] for m in [start, *rest]} == {call.leg.stream_sid}


async def test_every_byte_that_is_said_arrives_once_and_in_order() -> None:
    async with running(TinyRelay(listen)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        first = call.say(frames(20))
        second = await call.say(b"x" * 100)
        await call.hang_up()
    heard = relay.streams[0].heard()
    assert heard.lstrip(b"\xff").startswith(frames(20) + b"x" * 100 + b"\xff" * 60)
    assert heard == bytes(call.leg.sent_ulaw) == call.spoken()
    assert len(call.leg.sent_at) == len(heard) // 160
    assert first.result().ended - first.result().began == pytest.approx(0.4, abs=0.1)
    assert second.began == pytest.approx(first.result().ended, abs=0.1)


async def test_frames_keep_their_schedule() -> None:
    """Frame n leaves no earlier than n times 20 ms after `start`: nothing drifts."""
    async with running(TinyRelay(listen)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.say(frames(50))
        await call.hang_up()
    late = [at - call.leg.began - 0.02 * n for n, at in enumerate(call.leg.sent_at, 1)]
    assert min(late) >= 0
    assert sorted(late)[len(late) // 2] < 0.015


@pytest.mark.parametrize("size", [80, 320, 1600])
async def test_payloads_may_have_other_sizes(size: int) -> None:
    relay = TinyRelay(lambda stream: stream.until("media", 3))
    async with running(relay), PhoneCall(relay.url, frame_bytes=size) as call:
        await call.dial()
        await call.ended()
    media = [m["media"] for m in relay.streams[0].messages if m["event"] == "media"]
    assert {len(base64.b64decode(m["payload"])) for m in media} == {size}
    assert [int(m["timestamp"]) for m in media] == [size // 8, size // 4, size * 3 // 8]


async def test_json_layout_and_unknown_fields_can_be_chosen() -> None:
    texts: list[str] = []

    async def collect(stream: Stream) -> None:
        texts.extend([await stream.websocket.receive_text() for _ in range(4)])

    extra = {"new%s": {"a": [1]}}
    async with (
        running(TinyRelay(collect)) as relay,
        PhoneCall(relay.url, compact_json=False, extra_fields=extra) as call,
    ):
        await call.dial()
        await call.ended()
    assert all('"new%s": {"a": [1]}}' in text for text in texts)
    assert texts[2].startswith('{"event": "media", "sequenceNumber": "2", "media": {"track": "inbound", ')


async def test_the_start_message_can_be_forged_or_left_out() -> None:
    def forge(message: dict[str, object]) -> dict[str, object]:
        return message | {"start": {}}

    async with running(TinyRelay(listen)) as relay:
        async with PhoneCall(relay.url, start_hook=forge) as call:
            await call.dial()
            await call.hang_up()
        async with PhoneCall(relay.url, start_hook=lambda _: None) as call:
            await call.dial()
            assert not call.live
            await call.hang_up()
    assert relay.streams[0].messages[1]["start"] == {}
    assert relay.streams[1].events() == ["connected"]


async def test_marks_come_back_when_their_audio_was_played() -> None:
    times: list[float] = []

    async def play(stream: Stream) -> None:
        await stream.until("start")
        times.append(time.monotonic())
        await stream.media(frames(5))
        await stream.mark("one")
        await stream.media(frames(5))
        await stream.mark("two")
        for name in ("one", "two"):
            assert (await stream.until("mark"))["mark"]["name"] == name
            times.append(time.monotonic())
        await stream.drain()

    async with running(TinyRelay(play)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.wait_answer(quiet=0.05)
        await call.hang_up()
        assert call.heard().count(frames(5) + frames(5)) == 1
    assert call.heard().strip(b"\xff") == frames(10)[:1600].replace(frames(10)[800:1600], frames(5))
    assert 0.1 <= times[1] - times[0] < 0.2
    assert 0.2 <= times[2] - times[0] < 0.3
    assert [echo.name for echo in call.leg.echoes] == ["one", "two"]
    assert call.violations == []
    assert call.leg.unplayed_bytes == 0


async def test_clear_stops_playback_and_returns_the_marks() -> None:
    async def interrupt(stream: Stream) -> None:
        await stream.until("start")
        for name in ("a", "b", "c"):
            await stream.media(frames(50))
            await stream.mark(name)
        await stream.until("media", 10)
        await stream.clear()
        assert [(await stream.until("mark"))["mark"]["name"] for _ in range(3)] == ["a", "b", "c"]
        await stream.media(b"n" * 160)
        await stream.drain()

    async with running(TinyRelay(interrupt)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.wait_answer(quiet=0.1)
        await call.hang_up()
    (clear,) = call.leg.clears
    assert clear.t_received <= clear.t_effective
    assert 0.15 < clear.played_bytes / 8000 < 0.4
    assert clear.played_bytes + clear.dropped_bytes == 3 * 8000
    played = call.leg.playback.played()
    assert played == frames(50)[: clear.played_bytes] + b"n" * 160
    assert call.leg.playback.gaps() == []


async def test_the_line_delays_both_ways_and_keeps_the_order() -> None:
    echoed: list[float] = []

    async def ping(stream: Stream) -> None:
        await stream.until("start")
        for number in range(20):
            sent = time.monotonic()
            await stream.mark(str(number))
            assert (await stream.until("mark"))["mark"]["name"] == str(number)
            echoed.append(time.monotonic() - sent)
        await stream.drain()

    delay = LineDelay(up_ms=(5, 15), down_ms=(10, 30))
    async with running(TinyRelay(ping)) as relay, PhoneCall(relay.url, delay=delay, seed=1) as call:
        await call.dial()
        await call.say(frames(30))
        await call.wait_heard(0)
        while len(call.leg.echoes) < 20:
            await call.say(frames(1))
        await call.hang_up()
    assert min(echoed) >= 0.015
    assert sorted(echoed)[10] < 0.045
    stream = relay.streams[0]
    numbers = [int(m["sequenceNumber"]) for m in stream.messages[1:]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert stream.heard() == bytes(call.leg.sent_ulaw)


async def test_after_network_trouble_everything_comes_in_one_burst() -> None:
    arrivals: list[float] = []

    async def watch(stream: Stream) -> None:
        while (message := await stream.next()) is not None:
            if message["event"] == "media":
                arrivals.append(time.monotonic())

    async with running(TinyRelay(watch)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.say(frames(5))
        call.leg.hold_uplink(0.3)
        await call.say(frames(30))
        await call.hang_up()
    pauses = [after - before for before, after in itertools.pairwise(arrivals)]
    longest = max(pauses)
    assert longest > 0.25
    assert arrivals[pauses.index(longest) + 10] - arrivals[pauses.index(longest) + 1] < 0.1
    assert relay.streams[0].heard() == bytes(call.leg.sent_ulaw)


async def test_a_goodbye_that_is_cut_off_is_noticed() -> None:
    async def hasty(stream: Stream) -> None:
        await stream.until("start")
        await stream.media(frames(50))

    async with running(TinyRelay(hasty)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
    assert call.leg.unplayed_bytes > 7000


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b'{"event":"clear","streamSid":"SID"}', 31950),
        ('{"event":"clear","streamSid":"MZ0"}', 31951),
        ('{"event":"clear","streamSid":"SID","sequenceNumber":"1"}', 31951),
        ('{"event":"hangup","streamSid":"SID"}', 31951),
        ("[]", 31951),
    ],
)
async def test_wrong_messages_are_counted_and_dropped(message: str | bytes, code: int) -> None:
    async def offend(stream: Stream) -> None:
        await stream.until("start")
        if isinstance(message, bytes):
            await stream.websocket.send_bytes(message.replace(b"SID", stream.sid.encode()))
        else:
            await stream.websocket.send_text(message.replace("SID", stream.sid))
        await stream.mark("still there")
        await stream.until("mark")

    async with running(TinyRelay(offend)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
    assert [violation.code for violation in call.violations] == [code]
    assert call.leg.clears == []


async def test_a_message_before_start_is_a_violation() -> None:
    async def hasty(stream: Stream) -> None:
        await stream.until("connected")
        await stream.mark("too early")
        await stream.until("start")

    async with running(TinyRelay(hasty)) as relay, PhoneCall(relay.url, start_delay=0.2) as call:
        await call.dial()
        await call.ended()
    assert [violation.reason for violation in call.violations] == ["a message before start"]
