"""A simulated call over real sockets, against a small honest relay."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from twilio.request_validator import RequestValidator

from handlehome.bench.mouth import CallOverError
from handlehome.bench.phone import PhoneCall
from tests.tiny_relay import CONNECT, Stream, TinyRelay, running

TOKEN = "12345"


def frames(count: int) -> bytes:
    """Audio in which every frame is different, and none is silence."""
    return b"".join(number.to_bytes(2, "big") * 80 for number in range(1, count + 1))


async def listen(stream: Stream) -> None:
    await stream.drain()


async def test_speech_can_wait_for_its_moment() -> None:
    async with running(TinyRelay(listen)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        at = time.monotonic() + 0.3
        spoken = await call.say(frames(2), at=at)
        await call.hang_up()
    assert spoken.began >= at - 0.021
    assert relay.streams[0].heard().startswith(b"\xff" * 1600)


async def test_a_source_speaks_instead() -> None:
    relay = TinyRelay(lambda stream: stream.until("media", 5))
    async with (
        running(relay),
        PhoneCall(relay.url, source=lambda number, size: bytes([number]) * size) as call,
    ):
        await call.dial()
        await call.ended()
    assert relay.streams[0].heard() == b"".join(bytes([n]) * 160 for n in range(5))


async def test_hang_up_sends_stop_closes_and_reports() -> None:
    async with running(TinyRelay(listen)) as relay, PhoneCall(relay.url, auth_token=TOKEN) as call:
        await call.dial()
        await call.hang_up()
        await call.hang_up()
    assert call.over
    assert relay.streams[0].events()[-1] == "stop"
    (status,) = relay.of("/call-status")
    assert status.form["CallStatus"] == "completed"
    assert status.form["CallDuration"] == "0"
    assert status.form["SequenceNumber"] == "0"
    assert RequestValidator(TOKEN).validate(status.url, status.form, status.headers["x-twilio-signature"])
    assert relay.of("/call-ended") == []
    assert call.errors == []


async def test_when_the_relay_closes_the_action_decides() -> None:
    async def goodbye(stream: Stream) -> None:
        await stream.until("start")
        await stream.media(frames(3))
        await stream.mark("end")
        await stream.until("mark")

    relay = TinyRelay(goodbye)
    relay.ended = iter(["<Response><Say>Au revoir.</Say><Hangup/></Response>"])
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
    assert call.leg.close_code == 1000
    assert call.said == ["Au revoir."]
    assert [asked.path for asked in relay.asked] == ["/incoming-call", "/call-ended", "/call-status"]
    assert call.leg.unplayed_bytes == 0
    assert call.errors == []


async def test_a_lost_stream_is_resumed_as_a_second_leg() -> None:
    relay = TinyRelay(listen)
    relay.ended = iter([CONNECT])
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.say(frames(5))
        await call.drop()
        second = await call.wait_leg(2)
        await call.say(frames(5))
        await call.hang_up()
    assert [stream.events()[-1] for stream in relay.streams] == ["media", "stop"]
    assert call.legs[0].stream_sid != second.stream_sid
    assert second.began > call.legs[0].ended
    assert [error.code for error in call.errors] == [31921]
    assert call.spoken().count(frames(5)) == 2
    assert len(call.heard()) == pytest.approx((second.ended - call.legs[0].began) * 8000, abs=2)


async def test_a_refused_call_hears_why() -> None:
    relay = TinyRelay(listen, "<Response><Say language='fr-FR'>Rappelez.</Say><Hangup/></Response>")
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
    assert call.said == ["Rappelez."]
    assert len(relay.of("/call-status")) == 1


async def test_waiting_is_bounded_and_ends_with_the_call() -> None:
    relay = TinyRelay(listen)
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        with pytest.raises(TimeoutError, match="bytes heard"):
            await call.wait_heard(1, within=0.05)
        waiting = asyncio.create_task(call.wait_heard(1))
        unsaid = call.say(frames(10_000))
        await call.hang_up()
        with pytest.raises(CallOverError):
            await waiting
        with pytest.raises(CallOverError):
            await unsaid
        with pytest.raises(CallOverError):
            await call.say(frames(1))
        with pytest.raises(CallOverError):
            await call.wait_leg(2)


async def test_thirty_calls_at_once_leave_nothing_behind() -> None:
    async def parrot(stream: Stream) -> None:
        await stream.until("start")
        while (message := await stream.next()) is not None:
            if message["event"] == "media":
                await stream.media(base64.b64decode(message["media"]["payload"]))

    async def one(relay: TinyRelay, number: int) -> PhoneCall:
        async with PhoneCall(relay.url, seed=number) as call:
            await call.dial()
            await call.say(bytes([number]) * 160 * 30)
            await call.wait_heard(160 * 30)
            if number % 3:
                await call.hang_up()
        return call

    async with running(TinyRelay(parrot)) as relay:
        before = len(asyncio.all_tasks())
        calls = await asyncio.gather(*(one(relay, number) for number in range(30)))
        for number, call in enumerate(calls):
            assert set(call.leg.playback.played()) <= {number, 0xFF}
            assert bytes([number]) * 160 in call.heard()
            assert call.violations == []
            assert call.leg.gone.is_set()
        while relay_tasks := len(asyncio.all_tasks()) - before:
            assert relay_tasks > 0
            await asyncio.sleep(0)
