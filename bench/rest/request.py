"""A request as it arrived, for answers and for assertions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from handlehome.bench.rest.audio import Wav
from handlehome.bench.rest.form import Form

Json = dict[str, Any]

RESPONSES = "/v1/responses"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
MODELS = "/v1/models"


@dataclass(slots=True)
class RestRequest:
    """One request and what became of it.

    Attributes:
        number: Of the request among those for the same path, from 0.
        method: In capitals.
        path: Without query.
        headers: By their lower-case names.
        raw: The body.
        arrived_at: Time of the loop.
        request_id: The answer's `x-request-id`.
        body: What the JSON of `/v1/responses` says; {} until it is parsed.
        form: The form of `/v1/audio/transcriptions`; empty until it is parsed.
        wav: Its audio, once it is read.
        fault: Name of its fault; empty: none.
        status: Of the answer; None: none was sent, or not yet.
        answer: The JSON or text that was answered.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    arrived_at: float
    request_id: str
    body: Json = field(default_factory=dict)
    form: Form = field(default_factory=Form)
    wav: Wav | None = None
    fault: str = ""
    status: int | None = None
    answer: Json | str | None = None

    @property
    def model(self) -> str:
        """The model that is asked; empty: none."""
        return str(self.body.get("model") or self.form.value("model") or "")

    @property
    def format(self) -> Json:
        """`text.format` of a request for a response; plain text when there is none."""
        text = self.body.get("text")
        form = text.get("format") if isinstance(text, dict) else None
        return form if isinstance(form, dict) else {"type": "text"}

    @property
    def schema(self) -> Json | None:
        """The JSON Schema that the answer has to follow."""
        schema = self.format.get("schema")
        return schema if isinstance(schema, dict) else None

    @property
    def instructions(self) -> str:
        """What the client's operator says: `instructions`, and messages of system and developer."""
        told = [str(self.body.get("instructions") or "")]
        return "\n".join(filter(None, told + self._said("system", "developer")))

    @property
    def text(self) -> str:
        """What is to be worked on, here a transcript: the input, the user's messages."""
        given = self.body.get("input")
        return given if isinstance(given, str) else "\n".join(self._said("user"))

    def _said(self, *roles: str) -> list[str]:
        given = self.body.get("input")
        said = []
        for item in given if isinstance(given, list) else ():
            if isinstance(item, dict) and item.get("role") in roles:
                content = item.get("content")
                parts = content if isinstance(content, list) else [{"text": content}]
                said += [str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text")]
        return said
