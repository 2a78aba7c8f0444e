"""Twilio's side of HTTP: request signatures and the webhook client.

Signatures are computed here on our own, so that the daemon's check, which uses Twilio's package, is tested
against a second implementation of https://www.twilio.com/docs/usage/webhooks/webhooks-security.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx2

API_VERSION = "2010-04-01"
WEBHOOK_SECONDS = 15.0
"""A webhook of a live call is given up after this time."""

Params = Mapping[str, str] | Iterable[tuple[str, str]]


def signature(token: str, url: str, params: Params = ()) -> str:
    """Returns the value of `X-Twilio-Signature`.

    Args:
        token: The account's primary Auth Token.
        url: The URL to sign: `https://...` with its query, or the `wss://...` of a stream. No fragment.
        params: A form's decoded parameters, blank ones included; a name may occur more than once.
    """
    pairs = params.items() if isinstance(params, Mapping) else params
    # Each distinct value of each distinct name, in ascending order of name, then value.
    text = url + "".join(name + value for name, value in sorted(set(pairs)))
    return base64.b64encode(hmac.digest(token.encode(), text.encode(), hashlib.sha1)).decode()


def signed_url(url: str) -> str:
    """Returns the form of a webhook's URL that Twilio signs: no fragment; for https no user info, no port."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if parts.scheme == "https":
        netloc = netloc.rpartition("@")[2]
        if parts.port is not None:
            netloc = netloc.rpartition(":")[0]
    return urlunsplit(parts._replace(netloc=netloc, fragment=""))


def new_sid(prefix: str) -> str:
    """Returns a fresh SID: `CA` (call), `MZ` (stream) or `AC` (account), and 32 hex digits."""
    return prefix + uuid.uuid4().hex


def voice_form(*, call_sid: str, account_sid: str, from_: str, to: str) -> dict[str, str]:
    """Returns the parameters of a voice webhook for an inbound call; the geographic ones come empty.

    `CallStatus` is `in-progress`; it is `ringing` in a call's first request.
    """
    form = {
        "AccountSid": account_sid,
        "ApiVersion": API_VERSION,
        "CallSid": call_sid,
        "CallStatus": "in-progress",
        "CallToken": "%7B%22parentCallInfoToken%22%3A%22simulated%22%7D",
        "Direction": "inbound",
        "StirVerstat": "TN-Validation-Passed-A",
    }
    for name, number in {"Called": to, "Caller": from_, "From": from_, "To": to}.items():
        form[name] = number
        form |= {f"{name}City": "", f"{name}Country": "FR", f"{name}State": "", f"{name}Zip": ""}
    return dict(sorted(form.items()))


def status_form(form: Mapping[str, str], *, seconds: float, sequence: int = 0) -> dict[str, str]:
    """Returns the parameters of the call status callback that ends a call.

    Args:
        form: The call's `voice_form`.
        seconds: How long the call lasted.
        sequence: `SequenceNumber`: 0 for the first callback of a call.
    """
    return dict(form) | {
        "CallStatus": "completed",
        "CallDuration": str(round(seconds)),
        "Duration": str(max(1, -(-round(seconds) // 60))),
        "CallbackSource": "call-progress-events",
        "SequenceNumber": str(sequence),
        "Timestamp": formatdate(usegmt=False, localtime=False),
    }


def stream_form(
    form: Mapping[str, str], stream_sid: str, name: str | None, event: str, error: str = ""
) -> dict[str, str]:
    """Returns the parameters of a stream status callback.

    Args:
        form: The call's `voice_form`.
        stream_sid: `MZ...`.
        name: The stream's name; by default its SID.
        event: `stream-started`, `stream-stopped` or `stream-error`.
        error: What went wrong, with `stream-error`.
    """
    parameters = {
        "AccountSid": form["AccountSid"],
        "CallSid": form["CallSid"],
        "StreamSid": stream_sid,
        "StreamName": name or stream_sid,
        "StreamEvent": event,
        "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return parameters | {"StreamError": error} if error else parameters


class WebhookError(Exception):
    """A webhook that Twilio could not use.

    Attributes:
        code: Twilio's error number: 11200 (answered with an error), 11205 (not reached), 12300 (not XML).
        status: The HTTP status, if there was an answer.
    """

    def __init__(self, code: int, reason: str, status: int | None = None) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.status = status


@dataclass(frozen=True)
class WebhookAnswer:
    """What a webhook answered."""

    status: int
    content_type: str
    body: bytes
    ms: float
    """From the first byte sent to the last one received, the connection's opening included."""
    idempotency_token: str


@dataclass
class Origin:
    """Where the daemon is, seen from outside and from here.

    Twilio requests and signs the public URL. A reverse proxy passes the request on to the daemon, with the
    public host in the Host header; the simulator plays the proxy, too, when the two differ.
    """

    base_url: str
    """Where the daemon listens, e.g. `http://127.0.0.1:8080`."""
    public_url: str = ""
    """What Twilio knows, e.g. `https://phone.example.com`; by default `base_url`."""

    def __post_init__(self) -> None:
        self.base_url = self.base_url.rstrip("/")
        self.public_url = (self.public_url or self.base_url).rstrip("/")

    def public(self, path: str) -> str:
        """Returns the public URL of a path."""
        return self.public_url + path

    def connect(self, url: str) -> str:
        """Returns the URL to really connect to for a public URL, http or WebSocket; others stay as they are.

        The scheme is the one of `base_url`: a stream is `wss` to Twilio even when the daemon has no TLS.
        """
        web_socket = urlsplit(url).scheme in {"ws", "wss"}
        rest = url.partition("://")[2]
        for known in (self.public_url, self.base_url):
            prefix = known.partition("://")[2]
            if rest == prefix or rest.startswith((prefix + "/", prefix + "?", prefix + "#")):
                target = self.base_url + rest.removeprefix(prefix)
                return target.replace("http", "ws", 1) if web_socket else target
        return url


class WebhookClient:
    """Sends webhooks as Twilio does. Use it as an asynchronous context manager.

    Args:
        origin: Where the daemon is.
        auth_token: Signs the requests; without it they carry no signature.
    """

    def __init__(self, origin: Origin, auth_token: str | None = None) -> None:
        self._origin = origin
        self._auth_token = auth_token
        secure = origin.base_url.startswith("https")
        self._client = httpx2.AsyncClient(
            # Building a TLS context takes 40 ms; an unused one costs every call that much.
            verify=ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            timeout=WEBHOOK_SECONDS,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def request(
        self, url: str, form: Mapping[str, str], *, method: str = "POST", idempotency_token: str | None = None
    ) -> WebhookAnswer:
        """Sends one webhook.

        Args:
            url: Its public URL.
            form: Its parameters; with GET they go into the query.
            method: `GET` or `POST`.
            idempotency_token: Of the request that this one repeats; by default a new one.

        Raises:
            WebhookError: No answer within 15 s (11205). An answer with an error status is returned.
        """
        token = idempotency_token or str(uuid.uuid4())
        url = url.partition("#")[0]
        body = b""
        if method == "GET":
            url += ("&" if "?" in url else "?") + urlencode(form)
        else:
            body = urlencode(form).encode()
        headers = {
            "host": urlsplit(url).netloc.rpartition("@")[2],
            "user-agent": "TwilioProxy/1.1",
            "accept": "*/*",
            "accept-encoding": "gzip",
            "i-twilio-idempotency-token": token,
        }
        if method == "POST":
            headers["content-type"] = "application/x-www-form-urlencoded; charset=UTF-8"
        if self._auth_token is not None:
            params = form if method == "POST" else {}
            headers["x-twilio-signature"] = signature(self._auth_token, signed_url(url), params)
        started = time.monotonic()
        try:
            answer = await self._client.request(
                method, self._origin.connect(url), content=body, headers=headers
            )
        except httpx2.TransportError as error:
            raise WebhookError(11205, f"{method} {url}: {error!r}") from error
        return WebhookAnswer(
            answer.status_code,
            answer.headers.get("content-type", ""),
            answer.content,
            (time.monotonic() - started) * 1000,
            token,
        )
