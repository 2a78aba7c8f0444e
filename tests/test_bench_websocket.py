"""The phone's WebSocket: handshake, silence and refusals."""

from __future__ import annotations

import asyncio

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


async def test_the_upgrade_has_twilios_headers_and_no_others() -> None:
    async with running(TinyRelay(listen)) as relay, PhoneCall(relay.url, auth_token=TOKEN) as call:
        await call.dial()
        await call.hang_up()
    headers = dict(relay.streams[0].websocket.headers)
    assert list(headers) == [
        "host",
        "user-agent",
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "x-twilio-signature",
        "accept-encoding",
    ]
    url = relay.url.replace("http", "wss", 1) + "/media-stream/a"
    assert RequestValidator(TOKEN).validate(url, {}, headers["x-twilio-signature"])


async def test_the_streams_query_is_dropped() -> None:
    relay = TinyRelay(listen, CONNECT.replace("/media-stream/a", "/media-stream/a?token=x"))
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.hang_up()
    assert relay.streams[0].websocket.url.query == ""


async def test_a_silent_line_keeps_its_connection_and_does_not_answer_the_close() -> None:
    went = asyncio.Event()

    async def cut(stream: Stream) -> None:
        await stream.until("media")
        await went.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.drain()
        await stream.websocket.close(4000, "half-open")
        stream.closed = True

    async with running(TinyRelay(cut)) as relay, PhoneCall(relay.url) as call:
        await call.dial()
        await call.say(frames(2))
        call.go_silent()
        heard = len(call.leg.sent_at)
        went.set()
        await call.wait_stream_end()
        assert call.leg.close_code == 4000
        assert call.leg.close_reason == "half-open"
        assert len(call.leg.sent_at) == heard
        assert not call.leg.gone.is_set()


async def test_a_refused_upgrade_falls_through() -> None:
    relay = TinyRelay(listen, CONNECT.replace("</Response>", "<Say>Occupé</Say></Response>"))
    relay.refuse_upgrade = True
    relay.ended = iter(["<Response><Dial action='/redirected'>+33199999999</Dial></Response>"])
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
        assert not call.live
        assert [error.code for error in call.errors] == [31920]
        assert "403" in call.errors[0].reason
        assert call.dialled == ["+33199999999"]
        (redirected,) = relay.of("/redirected")
        assert redirected.form["DialCallStatus"] == "completed"
        with pytest.raises(CallOverError, match="31920"):
            await call.wait_quiet()


async def test_nobody_listens_on_the_streams_port() -> None:
    relay = TinyRelay(listen, CONNECT.replace("{host}", "127.0.0.1:1"))
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
    assert [error.code for error in call.errors] == [31902]
