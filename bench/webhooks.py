"""The webhooks of one simulated call: TwiML requests and status callbacks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from handlehome.bench import twilio, twiml
from handlehome.bench.twilio import Origin, WebhookAnswer, WebhookClient, WebhookError

MAX_DOCUMENTS = 50
"""TwiML documents that one call runs; more are taken for a loop."""


class CallError(NamedTuple):
    """What Twilio's Debugger would list."""

    code: int
    reason: str


class CallWebhooks:
    """Requests that carry one call's parameters.

    Args:
        origin: Where the daemon is.
        auth_token: Signs the requests.
        form: The call's parameters.
        errors: Where errors and warnings of callbacks are noted.

    Attributes:
        documents: The TwiML documents that were fetched.
        first_ms: How long the first of them took.
    """

    def __init__(
        self, origin: Origin, auth_token: str | None, form: Mapping[str, str], errors: list[CallError]
    ) -> None:
        self.documents: list[str] = []
        self.first_ms = 0.0
        self._origin = origin
        self._http = WebhookClient(origin, auth_token)
        self._form = dict(form)
        self._errors = errors
        self._began = time.monotonic()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def request(
        self, path_or_url: str, method: str = "POST", idempotency_token: str | None = None, **extra: str
    ) -> WebhookAnswer:
        """Requests a path of the daemon or a public URL. Errors: `WebhookClient.request`."""
        url = self._origin.public(path_or_url) if path_or_url.startswith("/") else path_or_url
        return await self._http.request(
            url, self._form | extra, method=method, idempotency_token=idempotency_token
        )

    async def fetch(self, path_or_url: str, method: str, **extra: str) -> list[twiml.Verb]:
        """Requests TwiML.

        Raises:
            WebhookError: No answer, an error status, no XML, or too many documents in this call.
            twiml.TwimlError: It is not valid.
        """
        if len(self.documents) >= MAX_DOCUMENTS:
            raise WebhookError(11200, f"{MAX_DOCUMENTS} documents: a loop")
        url = self._origin.public(path_or_url) if path_or_url.startswith("/") else path_or_url
        answer = await self.request(url, method, **extra)
        if not self.documents:
            self.first_ms = answer.ms
        if answer.status != 200:
            raise WebhookError(11200, f"{url} answered {answer.status}", answer.status)
        if answer.content_type.partition(";")[0].strip() not in {"text/xml", "application/xml"}:
            raise WebhookError(12300, f"{url} answered with {answer.content_type!r}", answer.status)
        verbs = twiml.parse(answer.body, url)
        self.documents.append(answer.body.decode())
        return verbs

    async def post_status(self, path: str, repeat: int = 1) -> None:
        """Posts the status callback that ends the call; repetitions carry the same idempotency token."""
        form = twilio.status_form(self._form, seconds=time.monotonic() - self._began)
        token = None
        for _ in range(repeat):
            token = await self._callback(self._origin.public(path), "POST", form, token)

    async def post_stream_status(
        self, stream: twiml.Stream, stream_sid: str, event: str, error: str = ""
    ) -> None:
        """Posts a stream's status callback, if its TwiML asks for one."""
        if stream.status_callback is not None:
            form = twilio.stream_form(self._form, stream_sid, stream.name, event, error)
            await self._callback(stream.status_callback, stream.status_callback_method, form)

    async def _callback(
        self, url: str, method: str, form: Mapping[str, str], token: str | None = None
    ) -> str | None:
        """Requests a URL whose answer does not matter; returns the idempotency token."""
        try:
            answer = await self._http.request(url, form, method=method, idempotency_token=token)
        except WebhookError as error:
            self._errors.append(CallError(error.code, error.reason))
            return token
        if answer.status >= 400:
            self._errors.append(CallError(15003, f"{url} answered {answer.status}"))
        return answer.idempotency_token
