"""Webhooks and streams as the internet delivers them: repeated, out of order, unsigned, replayed, broken.

The calls run at once, on one daemon.
"""

from __future__ import annotations

import re

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from handlehome.bench import media, twilio
from handlehome.bench.realtime.script import Answer, Faults, Script
from handlehome.relay.assistant import load_assistant
from tests.harness import TOKEN, Scenarios, Stage, running_stage

scenarios = Scenarios[Stage](seconds=120)

GREETING = Answer(text="Bonjour.", audio=bytes([0x11, 0x91]) * 2000)
SCRIPT = Script(greeting=GREETING, vad="manual")
UNAVAILABLE = load_assistant().texts.unavailable


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    folder = tmp_path_factory.mktemp("webhooks")
    return scenarios.play(request, lambda: running_stage(folder))


def token_in(document: str | bytes) -> str:
    """The one-time token of a TwiML document."""
    text = document if isinstance(document, str) else document.decode()
    (token,) = re.findall(r'name="token" value="([^"]+)"', text)
    return str(token)


def with_token(token: str) -> media.StartHook:
    """Puts another token into the `start` message."""

    def hook(start: dict[str, object]) -> dict[str, object]:
        body = start["start"]
        assert isinstance(body, dict)
        body["customParameters"] = {"token": token}
        return start

    return hook


# ---- webhooks --------------------------------------------------------------------------------------


@scenarios
async def voice_webhook_by_get(stage: Stage) -> None:
    """Twilio may be set up to ask with GET: the parameters stand in the signed query then."""
    async with stage.phone(method="GET") as phone:
        session = await stage.session(await stage.dial(phone, SCRIPT))
        await phone.wait_answer()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
    assert (record.from_, record.end_reason) == ("+33612345678", "caller_hung_up")
    assert not phone.errors
    assert not session.violations


@scenarios
async def voice_webhook_twice(stage: Stage) -> None:
    """A retried webhook gets a token of its own, and both belong to one call with one session."""
    async with stage.phone() as phone:
        first = b""

        async def ask_twice() -> None:
            nonlocal first
            first = (await phone.webhook("/incoming-call")).body
            await phone.dial()

        session = await stage.session(await stage.dial(phone, SCRIPT, ask_twice))
        await phone.wait_answer()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
    assert token_in(first) != token_in(phone.documents[0])
    assert len(session.response_creates) == 1
    assert len(record.legs) == 1


@scenarios
async def nothing_without_a_signature(stage: Stage) -> None:
    """A request without Twilio's signature, or with one of another token, changes nothing: 403."""
    forged = (stage.phone(auth_token=None), stage.phone(auth_token="f" * 32))
    for phone in forged:
        async with phone:
            for path in ("/incoming-call", "/call-ended", "/call-status", "/stream-status"):
                answer = await phone.webhook(path, CallStatus="completed")
                assert answer.status == 403
            assert (await phone.webhook("/incoming-call", method="GET")).status == 403
            assert not any(phone.call_sid in line for line in stage.daemon.console)
    async with stage.phone() as phone:
        await stage.dial(phone, SCRIPT)
        (url,) = re.findall(r'<Stream[^>]* url="([^"]+)"', phone.documents[0])
        target = url.replace("wss:", "ws:")
        for headers in ({}, {"x-twilio-signature": twilio.signature("f" * 32, url)}):
            with pytest.raises(InvalidStatus, match="403"):
                async with connect(target, additional_headers=headers, proxy=None):
                    pass
        elsewhere = url.replace("/media-stream/", "/other/")
        with pytest.raises(InvalidStatus, match="404"):
            async with connect(
                elsewhere.replace("wss:", "ws:"),
                additional_headers={"x-twilio-signature": twilio.signature(TOKEN, elsewhere)},
                proxy=None,
            ):
                pass
        await phone.hang_up()


@scenarios
async def callbacks_out_of_order_and_twice(stage: Stage) -> None:
    """A call ends once, whatever Twilio says of it in whatever order."""
    async with stage.phone() as phone:
        for status in ("completed", "ringing"):  # of a call that has not come yet
            assert (await phone.webhook("/call-status", CallStatus=status)).status == 204
        session = await stage.session(await stage.dial(phone, SCRIPT))
        assert (await phone.webhook("/call-status", CallStatus="in-progress")).status == 204
        await phone.wait_answer()
        assert phone.live
        await phone.hang_up(callback_first=True, callback_twice=True)
        record = await stage.daemon.record(phone.call_sid)
        await session.wait_closed()
        late = await phone.webhook("/call-ended")
        again = await phone.webhook("/incoming-call")
    assert not phone.errors
    assert record.end_reason == "caller_hung_up"
    kinds = [event.kind for event in await stage.daemon.journal_until(phone.call_sid, "call_saved")]
    assert kinds.count("call_ended") == kinds.count("call_saved") == 1
    # The call is over: nothing to do, and whoever is still there hears why.
    assert late.body.decode().rstrip().endswith("<Response/>") or b"<Response />" in late.body
    assert UNAVAILABLE in again.body.decode()


@scenarios
async def call_ended_of_an_unknown_call(stage: Stage) -> None:
    """A question about a call nobody knows gets an empty document, not an error."""
    async with stage.phone() as phone:
        answer = await phone.webhook("/call-ended")
    assert answer.status == 200
    assert b"<Say" not in answer.body
    assert b"<Connect" not in answer.body


@scenarios
async def twilio_gives_up_the_stream_first(stage: Stage) -> None:
    """`/call-ended` while the socket still seems open: Twilio knows better, and the call goes on."""
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, SCRIPT))
        await phone.wait_answer()
        answer = await phone.webhook("/call-ended")
        assert b"<Connect" in answer.body
        await phone.wait_leg(2)
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
    assert [leg.end_reason for leg in record.legs] == ["dropped", "stopped"]
    assert len(session.response_creates) == 1


@scenarios
async def call_that_never_connects(stage: Stage) -> None:
    """A session opened at the webhook is closed when Twilio says that the call came to nothing."""
    async with stage.phone() as phone:
        number = await stage.dial(phone, SCRIPT, lambda: phone.webhook("/incoming-call"))
        session = await stage.session(number)
        assert (await phone.webhook("/call-status", CallStatus="canceled")).status == 204
        await session.wait_closed()
        record = await stage.daemon.record(phone.call_sid)
    assert record.end_reason == "never_connected"
    assert not record.legs


# ---- streams ---------------------------------------------------------------------------------------


@scenarios
async def wrong_token(stage: Stage) -> None:
    """A stream with an invented token is closed with a named reason, and its call is hung up."""
    async with stage.phone(start_hook=with_token("A" * 43)) as phone:
        await stage.dial(phone, SCRIPT)
        await phone.ended()
        record = await stage.daemon.record(phone.call_sid)
    assert (phone.leg.close_code, phone.leg.close_reason) == (1008, "unknown token")
    assert "<Hangup" in phone.documents[-1]
    assert not phone.leg.sent_ulaw or not phone.leg.playback.played_bytes
    assert record.end_reason == "stream_refused"


@scenarios
async def token_of_another_call(stage: Stage) -> None:
    """A token opens the stream of its own call only, and isn't spoilt by a stranger."""
    async with stage.phone() as owner:
        number = await stage.dial(owner, SCRIPT, lambda: owner.webhook("/incoming-call"))
        token = token_in((await owner.webhook("/incoming-call")).body)
        async with stage.phone(start_hook=with_token(token)) as stranger:
            await stage.dial(stranger, SCRIPT)
            await stranger.ended()
            record = await stage.daemon.record(stranger.call_sid)
        assert (stranger.leg.close_code, stranger.leg.close_reason) == (1008, "token of another call")
        assert record.end_reason == "stream_refused"
    async with stage.phone(call_sid=owner.call_sid, start_hook=with_token(token)) as phone:
        await phone.dial()
        await phone.wait_answer()
        await phone.hang_up()
    session = await stage.session(number)
    assert len(session.response_creates) == 1


@scenarios
async def token_used_twice(stage: Stage) -> None:
    """A replayed upgrade and `start` are refused, and the call whose token it was doesn't notice."""
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, SCRIPT))
        (url,) = re.findall(r'<Stream[^>]* url="([^"]+)"', phone.documents[0])
        headers = {"x-twilio-signature": twilio.signature(TOKEN, url)}
        async with connect(url.replace("wss:", "ws:"), additional_headers=headers, proxy=None) as replayed:
            messages = media.StreamMessages(
                "AC" + "0" * 32,
                phone.call_sid,
                twilio.new_sid("MZ"),
                {"token": token_in(phone.documents[0])},
            )
            await replayed.send(messages.connected())
            await replayed.send(messages.start(None) or "")
            with pytest.raises(ConnectionClosed) as closed:
                await replayed.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "token already used")
        await phone.wait_answer()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
    assert phone.leg.playback.played() == GREETING.audio
    assert bytes(session.audio) == bytes(phone.leg.sent_ulaw)
    assert len(record.legs) == 1


@scenarios
async def streams_that_break_the_protocol(stage: Stage) -> None:
    """A binary frame, a malformed message and an oversized one each end a leg by its own close code."""
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, SCRIPT))
        await phone.wait_answer()
        broken: tuple[tuple[str | bytes, int], ...] = (
            (b"\x00" * 160, 1003),
            ('{"event":"media",', 1007),
            ('{"event":"media","media":{"payload":"' + "A" * 70_000 + '"}}', 1009),
        )
        for number, (message, code) in enumerate(broken, start=2):
            leg = phone.leg
            leg.send_raw(message)
            await phone.wait_leg(number)
            assert leg.close_code == code
            assert leg.close_reason
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
    assert len(record.legs) == 4
    assert record.end_reason == "caller_hung_up"
    assert len(session.response_creates) == 1


@scenarios
async def line_that_drops_again_and_again(stage: Stage) -> None:
    """After three reconnections the caller hears why the call can't go on."""
    async with stage.phone() as phone:
        await stage.dial(phone, SCRIPT)
        for number in (2, 3, 4):
            await phone.drop()
            await phone.wait_leg(number)
        await phone.drop()
        await phone.ended()
        record = await stage.daemon.record(phone.call_sid)
    assert phone.said == [UNAVAILABLE]
    assert len(record.legs) == 4
    assert record.end_reason == "line_dropped"


@scenarios
async def strangers_in_every_message(stage: Stage) -> None:
    """Unknown fields and events of either side change nothing; nor does another layout of the JSON."""
    script = Script(
        greeting=GREETING,
        answers=[GREETING],
        vad="manual",
        faults=Faults(unknown_event_every=2, unknown_fields=True),
    )
    async with stage.phone(compact_json=False, extra_fields={"weather": {"sky": ["clear"]}}) as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_answer()
        phone.leg.send_raw('{"event":"sunrise","streamSid":"' + phone.leg.stream_sid + '"}')
        phone.dtmf("12#")
        session.speech_started()
        await phone.say(b"\x21" * 1600)
        session.speech_stopped()
        await phone.wait_answer()
        await phone.hang_up()
        await session.wait_closed()
    assert not phone.violations
    assert not phone.errors
    assert not session.violations
    assert phone.leg.playback.played() == GREETING.audio * 2
    assert bytes(session.audio) == bytes(phone.leg.sent_ulaw)


@pytest.mark.parametrize("name", scenarios.names)
def test_call(name: str, played: dict[str, BaseException | None]) -> None:
    """Each call went as its scenario says."""
    if (error := played[name]) is not None:
        raise error
