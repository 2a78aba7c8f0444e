"""The webhooks over real sockets: what Twilio asks, what it is answered, and who is turned away."""

import asyncio
import contextlib
import http.client
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import pytest
from fastapi import FastAPI
from twilio.request_validator import RequestValidator
from uvicorn.protocols.http.h11_impl import H11Protocol

from handlehome.relay.phone import webhooks
from handlehome.relay.phone.desk import Accepted, Desk, IncomingCall, NextStep, RefusalReason, Refused
from handlehome.relay.phone.signature import SignatureChecker
from handlehome.relay.phone.webhooks import MAX_BODY_BYTES, MAX_FIELDS, Sentences
from handlehome.relay.server import DaemonServer, listen

CALL = "CA" + "0123456789abcdef" * 2
STREAM = "MZ" + "1" * 32
AUTH_TOKEN = "12345"
PUBLIC_URL = "https://relay.example.com"
FORM_TYPE = "application/x-www-form-urlencoded"
FORM = {
    "AccountSid": "AC" + "1" * 32,
    "CallSid": CALL,
    "CallStatus": "ringing",
    "Direction": "inbound",
    "From": "+15550001111",
    "FromCity": "",
    "To": "+15550002222",
}


class Switchboard(Desk):
    """A desk with one rule: it does what the test set, and remembers what it heard."""

    def __init__(self) -> None:
        self.reason: RefusalReason | None = None
        self.next: tuple[NextStep, str | None] = (NextStep.HANG_UP, None)
        self.broken = False
        self.incoming: list[IncomingCall] = []
        self.ended: list[IncomingCall] = []
        self.statuses: list[tuple[str, str]] = []
        self.streams: list[tuple[str, str, str, str | None]] = []

    def heard_nothing(self) -> bool:
        return not (self.incoming or self.ended or self.statuses or self.streams)

    @property
    def refusing(self) -> RefusalReason | None:
        return self.reason

    @property
    def active_calls(self) -> int:
        return len(self.incoming)

    def incoming_call(self, call: IncomingCall) -> Accepted | Refused:
        if self.broken:
            raise RuntimeError("a bug")
        self.incoming.append(call)
        return Refused(self.reason) if self.reason else Accepted(f"token-{len(self.incoming)}")

    def connect_ended(self, call: IncomingCall) -> tuple[NextStep, str | None]:
        if self.broken:
            raise RuntimeError("a bug")
        self.ended.append(call)
        return self.next

    def call_status(self, call_sid: str, status: str) -> None:
        self.statuses.append((call_sid, status))

    def stream_status(self, call_sid: str, stream_sid: str, event: str, error: str | None) -> None:
        self.streams.append((call_sid, stream_sid, event, error))


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str

    @property
    def twiml(self) -> ET.Element:
        assert self.status == 200, self.body
        assert self.headers["content-type"].partition(";")[0] == "text/xml"
        return ET.fromstring(self.body)  # noqa: S314 - our own document

    def spoken(self) -> str:
        """What the caller hears before the hang-up."""
        say, hang_up = self.twiml
        assert (say.tag, hang_up.tag) == ("Say", "Hangup")
        assert say.attrib["language"] == "fr-FR"
        return say.text or ""


@dataclass
class Face:
    """The webhooks on a port, and a client for them."""

    port: int
    desk: Switchboard
    headers: dict[str, str] = field(default_factory=dict)

    async def request(
        self,
        method: str,
        target: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        def send() -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.closing(connection):
                connection.request(method, target, body, self.headers | dict(headers or {}))
                response = connection.getresponse()
                return Answer(response.status, response.headers, response.read().decode())

        return await asyncio.to_thread(send)

    async def post(
        self, target: str, form: Mapping[str, str] = FORM, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return await self.request(
            "POST", target, urlencode(form), {"content-type": FORM_TYPE} | dict(headers or {})
        )

    async def post_signed(
        self, target: str, form: Mapping[str, str] = FORM, headers: Mapping[str, str] | None = None
    ) -> Answer:
        signature = RequestValidator(AUTH_TOKEN).compute_signature(PUBLIC_URL + target, form)
        return await self.post(target, form, {"X-Twilio-Signature": signature} | dict(headers or {}))


@contextlib.asynccontextmanager
async def serving(
    *, checker: SignatureChecker | None, public_url: str | None, sentences: Sentences | None = None
) -> AsyncIterator[Face]:
    desk = Switchboard()
    app = FastAPI()
    app.include_router(
        webhooks.routes(desk, checker=checker, public_url=public_url, instance="i1", sentences=sentences)
    )
    ready = asyncio.Event()
    server = DaemonServer(
        app,
        listen("127.0.0.1", 0),
        http=H11Protocol,
        ws=asyncio.Protocol,
        on_signal=lambda signum, hurry: None,
        on_ready=lambda port: ready.set(),
    )
    task = asyncio.create_task(server.serve())
    await ready.wait()
    try:
        yield Face(server.port, desk)
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def open_face() -> AsyncIterator[Face]:
    """Without signatures and public URL, as on a developer's machine."""
    async with serving(checker=None, public_url=None) as face:
        yield face


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    """As in production: signed, behind a public URL."""
    async with serving(checker=SignatureChecker(AUTH_TOKEN, PUBLIC_URL), public_url=PUBLIC_URL) as face:
        yield face


def stream_of(answer: Answer) -> tuple[str | None, str | None]:
    """The stream's URL and token."""
    stream = answer.twiml.find("Connect/Stream")
    assert stream is not None
    parameter = stream.find("Parameter")
    assert parameter is not None
    return stream.get("url"), parameter.get("value")


async def test_a_call_is_connected_to_the_media_socket(face: Face) -> None:
    answer = await face.post_signed("/incoming-call", headers={"I-Twilio-Idempotency-Token": "idem-1"})
    assert stream_of(answer) == ("wss://relay.example.com/media-stream/i1", "token-1")
    assert answer.headers["cache-control"] == "no-store"
    (call,) = face.desk.incoming
    assert call == IncomingCall(
        call_sid=CALL,
        account_sid="AC" + "1" * 32,
        from_="+15550001111",
        to="+15550002222",
        direction="inbound",
        idempotency_token="idem-1",
        parameters=FORM,
    )


async def test_get_has_its_parameters_in_the_query(face: Face) -> None:
    target = "/incoming-call?" + urlencode(FORM)
    signature = RequestValidator(AUTH_TOKEN).compute_signature(PUBLIC_URL + target, {})
    answer = await face.request("GET", target, headers={"X-Twilio-Signature": signature})
    assert stream_of(answer)[1] == "token-1"
    assert face.desk.incoming[0].parameters == FORM
    assert face.desk.incoming[0].idempotency_token is None


async def test_a_repeated_webhook_is_answered_with_a_fresh_token(face: Face) -> None:
    answers = [await face.post_signed("/incoming-call") for _ in range(2)]
    assert [stream_of(answer)[1] for answer in answers] == ["token-1", "token-2"]


async def test_without_public_url_the_host_header_names_us(open_face: Face) -> None:
    answer = await open_face.post("/incoming-call")
    host = f"127.0.0.1:{open_face.port}"
    assert stream_of(answer)[0] == f"wss://{host}/media-stream/i1"
    connect = answer.twiml.find("Connect")
    assert connect is not None
    assert connect.get("action") == "/call-ended"


async def test_a_host_that_is_none_gets_into_no_twiml(open_face: Face) -> None:
    for host in ('x"><Dial>+33</Dial>', "a b", "a/b", "user@host", "[::1", "h:99999999", ""):
        answer = await open_face.post("/incoming-call", headers={"Host": host})
        assert answer.status == 400, host
    assert open_face.desk.incoming == []


async def test_a_refused_call_hears_why(face: Face) -> None:
    for reason in RefusalReason:
        face.desk.reason = reason
        assert (await face.post_signed("/incoming-call")).spoken().endswith("Au revoir.")


async def test_a_full_house_has_its_own_sentence() -> None:
    sentences = Sentences(at_capacity="Complet.", unavailable="Fermé.", fallback="Panne.")
    async with serving(checker=None, public_url=None, sentences=sentences) as face:
        heard = []
        for reason in RefusalReason:
            face.desk.reason = reason
            heard.append((await face.post("/incoming-call")).spoken())
    assert dict(zip(RefusalReason, heard, strict=True)) == {
        RefusalReason.AT_CAPACITY: "Complet.",
        RefusalReason.DRAINING: "Fermé.",
        RefusalReason.UNAVAILABLE: "Fermé.",
        RefusalReason.CALL_OVER: "Panne.",
    }


@pytest.mark.parametrize("name", ["language", "at_capacity", "unavailable", "fallback"])
def test_no_sentence_may_be_silent(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Sentences(**{name: " "})


@pytest.mark.parametrize(
    ("step", "verbs"),
    [
        ((NextStep.HANG_UP, None), ["Hangup"]),
        ((NextStep.RECONNECT, "again"), ["Connect"]),
        ((NextStep.RECONNECT, None), ["Say", "Hangup"]),
        ((NextStep.FALLBACK, None), ["Say", "Hangup"]),
        ((NextStep.NOTHING, None), []),
    ],
)
async def test_what_follows_the_stream(
    face: Face, step: tuple[NextStep, str | None], verbs: list[str]
) -> None:
    face.desk.next = step
    answer = await face.post_signed("/call-ended")
    assert [verb.tag for verb in answer.twiml] == verbs
    if verbs == ["Connect"]:
        assert stream_of(answer) == ("wss://relay.example.com/media-stream/i1", "again")
    assert [call.call_sid for call in face.desk.ended] == [CALL]


@pytest.mark.parametrize("path", ["/incoming-call", "/call-ended"])
async def test_a_bug_of_ours_is_no_dead_line(face: Face, path: str) -> None:
    face.desk.broken = True
    assert "problème technique" in (await face.post_signed(path)).spoken()


async def test_call_status_is_taken_note_of(face: Face) -> None:
    form = {"CallSid": CALL, "CallStatus": "completed", "CallDuration": "12"}
    answer = await face.post_signed("/call-status", form)
    assert (answer.status, answer.body) == (204, "")
    assert face.desk.statuses == [(CALL, "completed")]


@pytest.mark.parametrize(
    ("extra", "error"),
    [({}, None), ({"StreamError": ""}, None), ({"StreamError": "31920"}, "31920")],
)
async def test_stream_status_is_taken_note_of(face: Face, extra: dict[str, str], error: str | None) -> None:
    form = {"CallSid": CALL, "StreamSid": STREAM, "StreamEvent": "stream-error"} | extra
    answer = await face.post_signed("/stream-status", form)
    assert (answer.status, answer.body) == (204, "")
    assert face.desk.streams == [(CALL, STREAM, "stream-error", error)]


PATHS = ["/incoming-call", "/call-ended", "/call-status", "/stream-status"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [({}, "missing"), ({"X-Twilio-Signature": "yq5oaul4DqWTNGFz3jD17VHnmdg="}, "wrong")],
)
async def test_without_twilios_signature_nobody_gets_in(
    face: Face, headers: dict[str, str], said: str
) -> None:
    for path in PATHS:
        answer = await face.post(path, FORM | {"StreamSid": STREAM, "StreamEvent": "stream-started"}, headers)
        assert answer.status == 403, path
        assert f"the signature is {said}" in answer.body
        assert answer.body.count("\n") == 0
    assert face.desk.heard_nothing()


async def test_a_changed_field_breaks_the_signature(face: Face) -> None:
    signature = RequestValidator(AUTH_TOKEN).compute_signature(PUBLIC_URL + "/incoming-call", FORM)
    answer = await face.post("/incoming-call", FORM | {"From": "+1666"}, {"X-Twilio-Signature": signature})
    assert answer.status == 403


@pytest.mark.parametrize(
    "content_type", [FORM_TYPE, FORM_TYPE + "; charset=UTF-8", FORM_TYPE.upper() + ";charset=utf-8"]
)
async def test_the_form_type_may_name_a_charset(face: Face, content_type: str) -> None:
    form = FORM | {"CallerName": " Zoé  & fils "}
    answer = await face.post_signed("/incoming-call", form, {"content-type": content_type})
    assert answer.status == 200
    assert face.desk.incoming[0].parameters == form


@pytest.mark.parametrize(
    ("call_sid", "said"),
    [
        (None, "CallSid is missing"),
        ("", "CallSid is missing"),
        ("CA123", "CallSid is malformed"),
        ("XX" + "1" * 32, "CallSid is malformed"),
        (CALL + "\n", "CallSid is malformed"),
        ("CA" + "g" * 32, "CallSid is malformed"),
    ],
)
async def test_a_call_without_a_right_sid_is_refused(
    open_face: Face, call_sid: str | None, said: str
) -> None:
    form = {"From": "+15550001111"} if call_sid is None else FORM | {"CallSid": call_sid}
    for path in PATHS:
        answer = await open_face.post(path, form)
        assert answer.status == 400, path
        assert said in answer.body
    assert open_face.desk.heard_nothing()


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/call-status", "CallStatus"),
        ("/stream-status", "StreamSid"),
        ("/stream-status", "StreamEvent"),
    ],
)
async def test_what_is_missing_is_named(open_face: Face, path: str, missing: str) -> None:
    form = {"CallSid": CALL, "CallStatus": "busy", "StreamSid": STREAM, "StreamEvent": "stream-started"}
    del form[missing]
    answer = await open_face.post(path, form)
    assert answer.status == 400
    assert f"{missing} is missing" in answer.body


async def test_a_call_with_nothing_but_its_sid_is_taken(open_face: Face) -> None:
    assert (await open_face.post("/incoming-call", {"CallSid": CALL})).status == 200
    assert open_face.desk.incoming[0].from_ == ""


async def test_a_body_that_is_no_form_is_refused(open_face: Face) -> None:
    answer = await open_face.request("POST", "/incoming-call", b"{}", {"content-type": "application/json"})
    assert answer.status == 415


async def test_the_body_is_bounded(open_face: Face) -> None:
    prefix = urlencode(FORM) + "&Padding="
    fits = prefix + "x" * (MAX_BODY_BYTES - len(prefix))
    headers = {"content-type": FORM_TYPE}
    assert (await open_face.request("POST", "/incoming-call", fits, headers)).status == 200
    answer = await open_face.request("POST", "/incoming-call", fits + "x", headers)
    assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_the_number_of_fields_is_bounded(open_face: Face) -> None:
    form = {"CallSid": CALL} | {f"n{i}": "" for i in range(MAX_FIELDS)}
    answer = await open_face.post("/incoming-call", form)
    assert answer.status == 400
    assert "fields" in answer.body


async def test_a_body_that_does_not_come_is_not_waited_for(
    open_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "BODY_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", open_face.port)
    writer.write(b"POST /call-status HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nCallSid=")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


async def test_random_bytes_in_a_form_are_no_server_error(open_face: Face) -> None:
    body = bytes(range(256)) + b"&CallSid=%ff%00&=&&;"
    answer = await open_face.request("POST", "/incoming-call", body, {"content-type": FORM_TYPE})
    assert answer.status == 400


@contextlib.asynccontextmanager
async def reverse_proxy(port: int, rewrite: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """Forwards one request per connection, its head rewritten; yields its port."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        body = await reader.readexactly(int(length[1]))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        up_writer.write(rewrite(head) + body)
        writer.write(await up_reader.read())
        for each in (writer, up_writer):
            each.close()
            await each.wait_closed()

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1]


async def test_signatures_hold_behind_a_proxy_that_rewrites_host_and_port(face: Face) -> None:
    def rewrite(head: bytes) -> bytes:
        head = re.sub(rb"Host: [^\r]+", b"Host: 10.0.0.7:9999\r\nConnection: close", head)
        return head.replace(
            b"\r\n\r\n", b"\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\n\r\n"
        )

    async with reverse_proxy(face.port, rewrite) as port:
        outside = Face(port, face.desk, {"Host": "relay.example.com"})
        answer = await outside.post_signed("/incoming-call")
        assert stream_of(answer)[0] == "wss://relay.example.com/media-stream/i1"
        assert (await outside.post("/incoming-call")).status == 403
