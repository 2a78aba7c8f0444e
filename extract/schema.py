"""What is extracted: the default schema, or the user's own; and the check that an answer keeps to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from handlehome.extract import strict

__all__ = [
    "CUSTOMER_FIELDS",
    "DEFAULT",
    "MODES",
    "REQUEST_TYPES",
    "SENTIMENTS",
    "URGENCIES",
    "AnswerError",
    "AnswerSchema",
    "SchemaError",
    "load_schema",
]

REQUEST_TYPES: Final = (
    "quote", "intervention", "emergency", "appointment", "complaint", "invoice", "information", "other",
)  # fmt: skip
URGENCIES: Final = ("low", "normal", "high", "emergency")
MODES: Final = ("on_site", "phone", "video")
SENTIMENTS: Final = ("positive", "neutral", "negative")
CUSTOMER_FIELDS: Final = (
    "first_name", "last_name", "phone", "email", "street", "postcode", "city", "company",
)  # fmt: skip
"""The customer's fields, as `evidence` names them."""

MAX_FILE_BYTES: Final = 1 << 20
MAX_ANSWER_CHARACTERS: Final = 100_000
"""More is no record of a call, whatever the schema says."""


class SchemaError(Exception):
    """A schema file can't be used.

    Attributes:
        lines: one line per problem: `file: JSON pointer: problem`.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class AnswerError(Exception):
    """An answer does not keep to the schema; the message names the place and repeats nothing of it."""


class AnswerSchema:
    """A schema that strict mode takes, ready to be sent and to check answers; one path for every schema.

    Attributes:
        name: "default", or the stem of the user's file; it stands in `extraction.schema`.
        schema: the JSON Schema as it is sent.
        is_default: whether the data has the built-in shape, which is normalised and can be filled by rules.
    """

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        self.name = name
        self.schema: dict[str, object] = dict(schema)
        self.is_default = self.schema == DEFAULT
        self._validator = Draft202012Validator(
            self.schema, format_checker=Draft202012Validator.FORMAT_CHECKER
        )

    @property
    def text_format(self) -> dict[str, object]:
        """The request's `text.format`; the API takes names of 64 letters, digits, `_` and `-`."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", self.name)[:64] or "data"
        return {"type": "json_schema", "name": name, "strict": True, "schema": self.schema}

    def parse(self, text: str) -> dict[str, Any]:
        """The object in an answer's text.

        Raises:
            AnswerError: it is no JSON (cut off, for example), or not what the schema says.
        """
        if len(text) > MAX_ANSWER_CHARACTERS:
            raise AnswerError(f"the answer has {len(text)} characters")
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise AnswerError(f"the answer is no JSON (line {error.lineno}, column {error.colno})") from None
        self.check(data)
        checked: dict[str, Any] = data
        return checked

    def check(self, data: object) -> None:
        """Raises:
        AnswerError: `data` is not what the schema says.
        """
        wrong = best_match(self._validator.iter_errors(data))
        if wrong is not None:
            place = "/".join(map(str, wrong.absolute_path))
            raise AnswerError(f"the answer breaks the schema: #{place and '/'}{place}: {wrong.validator}")


def load_schema(path: Path | None = None) -> AnswerSchema:
    """Reads and checks a user's schema.

    Args:
        path: the JSON file; None takes the default schema.

    Raises:
        SchemaError: the file can't be read, is no JSON, or strict mode can't take it; all of it is listed.
    """
    if path is None:
        return AnswerSchema("default", DEFAULT)
    path = path.expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SchemaError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(content) > MAX_FILE_BYTES:
        raise SchemaError([f"{path}: is larger than {MAX_FILE_BYTES} bytes"])
    try:
        schema = orjson.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise SchemaError(
            [f"{path}: line {error.lineno}, column {error.colno}: is no JSON: {error.msg}"]
        ) from None
    if isinstance(schema, dict):
        for note in ("$schema", "$id", "$comment"):  # for editors; the API refuses them
            schema.pop(note, None)
    lines = strict.problems(schema)
    if lines:
        raise SchemaError([f"{path}: {line}" for line in lines])
    return AnswerSchema("custom" if path.stem == "default" else path.stem, schema)


def _object(properties: dict[str, object], description: str | None = None) -> dict[str, object]:
    schema: dict[str, object] = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return schema | ({"description": description} if description else {})


def _text(description: str) -> dict[str, object]:
    return {"type": ["string", "null"], "description": description}


def _choice(values: tuple[str, ...], description: str) -> dict[str, object]:
    return {"type": ["string", "null"], "enum": [*values, None], "description": description}


DEFAULT: Final[dict[str, object]] = _object({
    "customer": _object({
        "first_name": _text("The caller's first name"),
        "last_name": _text("The caller's family name"),
        "phone": _text("The number to call back that the caller said, in digits"),
        "email": _text("The address that the caller said; 'jean point dupont arobase' is jean.dupont@"),
        "address": _object({
            "street": _text("House number and street"),
            "postcode": _text("Postcode, in digits"),
            "city": _text("Town or city"),
        }, "Where the work is to be done, else where the caller lives"),
        "company": _text("The company that the caller speaks for; never the one that was called"),
    }, "The person who called or on whose behalf somebody called"),
    "request": _object({
        "type": _choice(REQUEST_TYPES, "What the call was for"),
        "services": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Trades or works asked for, a word or two each; empty if none",
        },
        "description": _text("What is wanted or broken, with all that a craftsman should know"),
        "urgency": _choice(URGENCIES, "How soon help is needed; emergency: danger or damage right now"),
    }),
    "appointment": _object({
        "date": _text("The day last agreed on, or else wished for, YYYY-MM-DD"),
        "time": _text("Its time, HH:MM, 24 hours"),
        "duration_minutes": {"type": ["integer", "null"], "description": "Its length, if one was said"},
        "mode": _choice(MODES, "Where it takes place"),
    }),
    "follow_up": _text("What the company's side promised to do next"),
    "summary": _text("Two or three sentences on the call"),
    "language": _text("The caller's language, ISO 639-1"),
    "sentiment": _choice(SENTIMENTS, "The caller's mood at the end"),
    "evidence": {
        "type": "array",
        "description": "One entry for each customer field that is not null",
        "items": _object({
            "field": {"type": "string", "enum": list(CUSTOMER_FIELDS)},
            "turns": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The turns that support it, such as T4",
            },
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        }),
    },
})  # fmt: skip
"""The built-in schema: a request by phone to a home-services company. Every leaf is nullable."""
