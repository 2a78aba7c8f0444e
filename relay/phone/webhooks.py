"""The webhooks that Twilio calls: thin shells that check a request, ask the desk, and answer in TwiML.

Each is read within bounds, then its signature is checked, then its parameters; only then the desk hears of
it. A form is parsed by the standard library from the raw body, because the signature covers every field:
blank values, repeated names and surrounding spaces included.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from fastapi import APIRouter, HTTPException, Request, Response
from loguru import logger
from starlette.requests import ClientDisconnect

from handlehome.relay.logs import Event, call_logger, log_event
from handlehome.relay.phone import twiml
from handlehome.relay.phone.desk import Accepted, Desk, IncomingCall, NextStep, RefusalReason
from handlehome.relay.phone.signature import SIGNATURE_HEADER, SignatureChecker, SignatureVerdict

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 500
BODY_SECONDS = 5.0

_IDEMPOTENCY_HEADER = "i-twilio-idempotency-token"
_CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}")
# A host name, an IPv4 address or a bracketed IPv6 one, with or without a port: what may go into our TwiML.
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Sentences:
    """What a caller hears whom no assistant can answer. Never empty: nobody is met with silence.

    Attributes:
        language: of all sentences, BCP 47.
        at_capacity: said when `MAX_CALLS` is reached.
        unavailable: said while the daemon drains, or when the model can't be had at the start.
        fallback: said when a call that was taken can't go on.
        goodbye: said when it is we who end a call: its time is up, or the daemon stops.

    Raises:
        ValueError: one of them is blank.
    """

    language: str = "fr-FR"
    at_capacity: str = (
        "Bonjour. Toutes nos lignes sont occupées pour le moment. "
        "Merci de rappeler dans quelques minutes. Au revoir."
    )
    unavailable: str = (
        "Bonjour. Notre service est momentanément indisponible. "
        "Merci de rappeler dans quelques minutes. Au revoir."
    )
    fallback: str = (
        "Veuillez nous excuser, un problème technique nous empêche de poursuivre cet appel. "
        "Merci de rappeler un peu plus tard. Au revoir."
    )

    goodbye: str = "Nous devons malheureusement mettre fin à cet appel. Merci, et au revoir."

    def __post_init__(self) -> None:
        for name in ("language", "at_capacity", "unavailable", "fallback", "goodbye"):
            if not getattr(self, name).strip():
                raise ValueError(f"the sentence {name!r} is empty")


@dataclass(frozen=True)
class _Checked:
    """A request whose signature is right, with the first value of each of its parameters."""

    call_sid: str
    parameters: dict[str, str]

    def required(self, name: str) -> str:
        value = self.parameters.get(name)
        if not value:
            raise HTTPException(400, f"{name} is missing")
        return value


def routes(
    desk: Desk,
    *,
    checker: SignatureChecker | None,
    public_url: str | None,
    instance: str,
    sentences: Sentences | None = None,
) -> APIRouter:
    """The routes `/incoming-call`, `/call-ended`, `/call-status` and `/stream-status`.

    Args:
        desk: who answers.
        checker: None lets every request in: for development only.
        public_url: http(s) URL under which Twilio reaches us; None takes the request's Host (development).
        instance: this process's segment of the stream's path.
        sentences: what a refused caller hears; French by default.
    """
    router = APIRouter()
    spoken = _SpokenDocuments(sentences or Sentences())
    public = twiml.Addresses.public(public_url, instance) if public_url is not None else None
    hang_up, nothing = twiml.hang_up(), twiml.empty()

    def addresses(request: Request) -> twiml.Addresses:
        return public or twiml.Addresses.development(request.scope["scheme"], _host(request), instance)

    async def incoming_call(request: Request) -> Response:
        """A call comes in: connect it to the media socket, or say why not."""
        checked = await _check(request, checker)
        ours = addresses(request)

        def answer() -> str:
            match desk.incoming_call(_incoming(request, checked)):
                case Accepted(token):
                    return twiml.connect(ours, token)
                case refused:
                    return spoken.refusals[refused.reason]

        return _document(answer, spoken.fallback, checked.call_sid)

    async def call_ended(request: Request) -> Response:
        """The media stream is over: say what the call does next."""
        checked = await _check(request, checker)
        ours = addresses(request)

        def answer() -> str:
            match desk.connect_ended(_incoming(request, checked)):
                case NextStep.RECONNECT, str(token):
                    return twiml.connect(ours, token)
                case NextStep.HANG_UP, _:
                    return hang_up
                case NextStep.NOTHING, _:
                    return nothing
                case NextStep.GOODBYE, _:
                    return spoken.goodbye
                case _:
                    return spoken.fallback

        return _document(answer, spoken.fallback, checked.call_sid)

    async def call_status(request: Request) -> Response:
        """The call changed its status."""
        checked = await _check(request, checker)
        desk.call_status(checked.call_sid, checked.required("CallStatus"))
        return Response(status_code=204)

    async def stream_status(request: Request) -> Response:
        """The media stream started, stopped or failed."""
        checked = await _check(request, checker)
        desk.stream_status(
            checked.call_sid,
            checked.required("StreamSid"),
            checked.required("StreamEvent"),
            checked.parameters.get("StreamError") or None,
        )
        return Response(status_code=204)

    # Plain routes: they take the request as it is, so FastAPI's parsing of parameters has no work, and its
    # look at the source of an endpoint, which costs the first caller some 30 ms, is not made.
    router.add_route("/incoming-call", incoming_call, methods=["GET", "POST"])
    for path, endpoint in (
        ("/call-ended", call_ended),
        ("/call-status", call_status),
        ("/stream-status", stream_status),
    ):
        router.add_route(path, endpoint, methods=["POST"])
    return router


class _SpokenDocuments:
    """The documents that are the same for every call, written once."""

    def __init__(self, sentences: Sentences) -> None:
        def say(text: str) -> str:
            return twiml.say_and_hang_up(text, sentences.language)

        self.fallback = say(sentences.fallback)
        self.goodbye = say(sentences.goodbye)
        self.refusals = {
            RefusalReason.AT_CAPACITY: say(sentences.at_capacity),
            RefusalReason.DRAINING: say(sentences.unavailable),
            RefusalReason.UNAVAILABLE: say(sentences.unavailable),
            # Nobody should be on this line any more; if somebody is, they hear why nothing happens.
            RefusalReason.CALL_OVER: self.fallback,
        }


def _document(answer: Callable[[], str], fallback: str, call_sid: str) -> Response:
    """Serves the TwiML that `answer` makes."""
    try:
        document = answer()
    except Exception:  # A caller waits for these words: a bug of ours must not become a dead line.
        call_logger(call_sid).exception("The webhook failed; the caller hears the fallback")
        document = fallback
    # A token in a cache would be one that is used twice.
    return Response(document, media_type=twiml.MEDIA_TYPE, headers={"cache-control": "no-store"})


def _incoming(request: Request, checked: _Checked) -> IncomingCall:
    parameters = checked.parameters
    return IncomingCall(
        call_sid=checked.call_sid,
        account_sid=parameters.get("AccountSid", ""),
        from_=parameters.get("From", ""),
        to=parameters.get("To", ""),
        direction=parameters.get("Direction", ""),
        idempotency_token=request.headers.get(_IDEMPOTENCY_HEADER),
        parameters=parameters,
    )


async def _check(request: Request, checker: SignatureChecker | None) -> _Checked:
    """Reads a request and lets it pass only when it is Twilio's and names its call.

    Raises:
        HTTPException: 403 without a right signature; 400, 408, 413 or 415 for what can't be read, named.
    """
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    form: list[tuple[str, str]] = []
    raw_body = b""
    if request.method == "POST":
        body = await _body(request)
        if _is_form(request):
            form = _fields(body)
        else:
            raw_body = body
    if checker is not None:
        target = (path + b"?" + query if query else path).decode("latin-1")
        verdict = checker.webhook(
            target,
            request.headers.get("host"),
            request.headers.get(SIGNATURE_HEADER),
            form=form,
            raw_body=raw_body,
        )
        if verdict is not SignatureVerdict.VALID:
            log_event(
                logger,
                Event.REFUSED,
                f"Refused {request.method} {request.scope['path']}: the signature {verdict.value}"
                " (if it was Twilio: check PUBLIC_URL and TWILIO_AUTH_TOKEN)",
            )
            raise HTTPException(403, f"the signature {verdict.value}")
    if raw_body:
        raise HTTPException(415, "a form is expected: application/x-www-form-urlencoded")
    parameters: dict[str, str] = {}
    for name, value in form if request.method == "POST" else _fields(query):
        parameters.setdefault(name, value)
    call_sid = parameters.get("CallSid")
    if not call_sid:
        raise HTTPException(400, "CallSid is missing")
    if not _CALL_SID.fullmatch(call_sid):
        raise HTTPException(400, "CallSid is malformed: CA and 32 hexadecimal digits are expected")
    return _Checked(call_sid, parameters)


async def _body(request: Request) -> bytes:
    """Reads the body, up to `MAX_BODY_BYTES` in up to `BODY_SECONDS`."""
    # An unread rest of the body would otherwise be taken in, for as long as the client likes to send it.
    closing = {"connection": "close"}
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(413, f"the body is over {MAX_BODY_BYTES} bytes", headers=closing)
    except TimeoutError:
        raise HTTPException(408, f"the body took over {BODY_SECONDS:g} s", headers=closing) from None
    except ClientDisconnect:
        # Nobody reads this; it only ends the request without a traceback in the log.
        raise HTTPException(400, "the client left") from None
    return bytes(body)


def _is_form(request: Request) -> bool:
    media_type, _, _ = request.headers.get("content-type", "").partition(";")
    return media_type.strip().lower() == "application/x-www-form-urlencoded"


def _fields(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, f"there are over {MAX_FIELDS} fields") from None


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise HTTPException(400, "Host is malformed")
    return host
