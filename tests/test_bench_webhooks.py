"""A simulated call's webhooks, asked of a small honest relay."""

from __future__ import annotations

import pytest
from twilio.request_validator import RequestValidator

from handlehome.bench.phone import PhoneCall
from handlehome.bench.twilio import WebhookError
from handlehome.bench.twiml import TwimlError
from tests.tiny_relay import CONNECT, Stream, TinyRelay, running

TOKEN = "12345"


async def listen(stream: Stream) -> None:
    await stream.drain()


async def test_the_webhook_carries_a_full_form_and_a_valid_signature() -> None:
    async with running(TinyRelay(listen)) as relay, PhoneCall(relay.url, auth_token=TOKEN) as call:
        await call.dial()
        await call.hang_up()
        (asked,) = relay.of("/incoming-call")
    assert asked.method == "POST"
    assert asked.form["CallSid"] == call.call_sid
    assert asked.form["CallStatus"] == "ringing"
    assert asked.form["FromCity"] == ""
    assert asked.headers["user-agent"] == "TwilioProxy/1.1"
    assert asked.headers["i-twilio-idempotency-token"]
    assert RequestValidator(TOKEN).validate(asked.url, asked.form, asked.headers["x-twilio-signature"])
    assert 0 < call.webhook_ms < 5000


async def test_a_get_webhook_signs_its_query() -> None:
    relay = TinyRelay(listen)
    async with (
        running(relay),
        PhoneCall(relay.url, auth_token=TOKEN, method="GET", form_extra={"Neuf": "é &"}) as call,
    ):
        await call.dial()
        await call.hang_up()
    (asked,) = relay.of("/incoming-call")
    assert asked.method == "GET"
    assert asked.form["Neuf"] == "é &"
    assert RequestValidator(TOKEN).validate(asked.url, {}, asked.headers["x-twilio-signature"])


async def test_behind_a_proxy_the_public_url_is_signed_and_the_daemon_is_reached() -> None:
    relay = TinyRelay(listen)
    async with (
        running(relay),
        PhoneCall(relay.url, auth_token=TOKEN, public_url="https://phone.example.com:8443") as call,
    ):
        await call.dial()
        await call.hang_up()
    (asked,) = relay.of("/incoming-call")
    assert asked.headers["host"] == "phone.example.com:8443"
    validator = RequestValidator(TOKEN)
    url = "https://phone.example.com/incoming-call"
    assert validator.validate(url, asked.form, asked.headers["x-twilio-signature"])
    headers = relay.streams[0].websocket.headers
    url = "wss://phone.example.com:8443/media-stream/a"
    assert headers["x-twilio-signature"] == validator.compute_signature(url, {})


async def test_hang_up_in_unusual_orders() -> None:
    async with running(TinyRelay(listen)) as relay:
        async with PhoneCall(relay.url) as call:
            await call.dial()
            await call.hang_up(stop=False, status_callback=False)
        assert "stop" not in relay.streams[0].events()
        assert relay.of("/call-status") == []
        async with PhoneCall(relay.url) as call:
            await call.dial()
            await call.hang_up(callback_first=True, callback_twice=True)
        tokens = [asked.headers["i-twilio-idempotency-token"] for asked in relay.of("/call-status")]
        assert len(tokens) == 2
        assert len(set(tokens)) == 1


async def test_a_webhook_that_fails_fails_the_call() -> None:
    relay = TinyRelay(listen)
    async with running(relay):
        relay.status = 500
        async with PhoneCall(relay.url) as call:
            with pytest.raises(WebhookError, match="11200"):
                await call.dial()
        relay.status, relay.content_type = 200, "application/json"
        async with PhoneCall(relay.url) as call:
            with pytest.raises(WebhookError, match="12300"):
                await call.dial()
        relay.content_type, relay.first = "application/xml", "<Response>"
        async with PhoneCall(relay.url) as call:
            with pytest.raises(TwimlError, match="12100"):
                await call.dial()
    async with PhoneCall(relay.url) as call:
        with pytest.raises(WebhookError, match="11205"):
            await call.dial()


async def test_an_endless_redirect_ends() -> None:
    relay = TinyRelay(listen, "<Response><Redirect>/incoming-call</Redirect></Response>")
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
    assert [error.code for error in call.errors] == [11200]


async def test_stream_status_callbacks_are_sent_when_asked_for() -> None:
    first = CONNECT.replace("<Stream ", "<Stream name='n' statusCallback='http://{host}/stream-status' ")
    relay = TinyRelay(lambda stream: stream.until("media"), first)
    async with running(relay), PhoneCall(relay.url) as call:
        await call.dial()
        await call.ended()
    forms = [asked.form for asked in relay.of("/stream-status")]
    assert [form["StreamEvent"] for form in forms] == ["stream-started", "stream-stopped"]
    assert {form["StreamName"] for form in forms} == {"n"}
    assert forms[0]["StreamSid"] == call.leg.stream_sid
