"""`/v1/responses`: what a request must be, and the answer's object."""

from __future__ import annotations

import re
from typing import Any

import orjson

from handlehome.bench.rest import errors, schema, values
from handlehome.bench.rest.errors import ApiError
from handlehome.bench.rest.faults import Output
from handlehome.bench.rest.request import Json, RestRequest

# Source: openai 3.54.0, types/responses/response_create_params.py.
PARAMETERS = frozenset(
    {"access_programs", "background", "background_options", "context_management", "conversation", "image"}
    | {"include", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model"}
    | {"moderation", "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key"}
    | {"prompt_cache_options", "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier"}
    | {"store", "stream", "stream_options", "temperature", "text", "tool_choice", "tools", "top_logprobs"}
    | {"top_p", "truncation", "user"}
)
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MIN_OUTPUT_TOKENS = 16
REASONING_TOKENS = 64
REFUSED = "I'm sorry, but I can't help with that request."

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REASONING = re.compile(r"gpt-[56](\D|$)")
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "model": (str, "a string"),
    "input": ((str, list), "one of a string or array"),
    "instructions": (str, "a string"),
    "max_output_tokens": (int, "an integer"),
    "store": (bool, "a boolean"),
    "text": (dict, "an object"),
    "reasoning": (dict, "an object"),
    "metadata": (dict, "an object"),
}


def tokens(text: str) -> int:
    """About how many tokens a text is: a quarter of its characters."""
    return -(-len(text) // 4)


def parse(raw: bytes) -> Json:
    """The body's JSON object, checked.

    Raises:
        ApiError: 400, it isn't one, or says something that the API refuses.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "We could not parse the JSON body of your request. (It must be a JSON object.)")
    for name in body:
        if name not in PARAMETERS:
            raise errors.unknown(name)
    for name in ("model", "input"):
        if body.get(name) is None:
            raise errors.missing(name)
    for name, (kind, expected) in _TYPES.items():
        if body.get(name) is not None and not _is(body[name], kind):
            raise errors.wrong_type(name, expected, body[name])
    _check_input(body["input"])
    _check_limits(body)
    _check_format(body.get("text") or {})
    return body


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _check_input(given: str | list[Any]) -> None:
    for number, item in enumerate(given if isinstance(given, list) else ()):
        where = f"input[{number}]"
        if not isinstance(item, dict):
            raise errors.wrong_type(where, "an object", item)
        if item.get("type", "message") != "message":
            raise errors.invalid(f"{where}.type", "This simulator knows input items of type 'message' only.")
        if item.get("role") not in ("user", "assistant", "system", "developer"):
            message = "Supported values are: 'assistant', 'system', 'developer', and 'user'."
            raise errors.invalid(f"{where}.role", f"Invalid value: {item.get('role')!r}. {message}")
        if not isinstance(item.get("content"), str | list):
            raise errors.wrong_type(f"{where}.content", "one of a string or array", item.get("content"))


def _check_limits(body: Json) -> None:
    most = body.get("max_output_tokens")
    if most is not None and most < MIN_OUTPUT_TOKENS:
        message = (
            f"integer below minimum value. Expected a value >= {MIN_OUTPUT_TOKENS}, but got {most} instead."
        )
        raise errors.invalid(
            "max_output_tokens", f"Invalid 'max_output_tokens': {message}", "integer_below_min_value"
        )
    for name in ("temperature", "top_p"):
        if body.get(name) is not None and _reasons(body):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise errors.invalid(name, message, "unsupported_parameter")
    effort = (body.get("reasoning") or {}).get("effort")
    if effort is not None and effort not in EFFORTS:
        raise errors.invalid("reasoning.effort", f"Invalid value: {effort!r}.")
    if body.get("stream"):
        raise errors.invalid("stream", "This simulator streams no responses.", "unsupported_value")


def _check_format(text: Json) -> None:
    form = text.get("format")
    if form is None:
        return
    if not isinstance(form, dict):
        raise errors.wrong_type("text.format", "an object", form)
    if form.get("type") not in ("text", "json_object", "json_schema"):
        raise errors.invalid("text.format.type", f"Invalid value: {form.get('type')!r}.")
    if form["type"] != "json_schema":
        return
    for name in ("name", "schema"):
        if form.get(name) is None:
            raise errors.missing(f"text.format.{name}")
    name = form["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = "string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]+$'."
        raise errors.invalid("text.format.name", f"Invalid 'text.format.name': {message}")
    if not isinstance(form["schema"], dict):
        raise errors.wrong_type("text.format.schema", "an object", form["schema"])
    wrong = schema.problem(form["schema"]) if form.get("strict") else None
    if wrong:
        message = f"Invalid schema for response_format '{name}': {wrong}"
        raise errors.invalid("text.format.schema", message, "invalid_json_schema")


def _reasons(body: Json) -> bool:
    """Whether the model thinks before it answers."""
    return _REASONING.match(body["model"]) is not None


def text_of(request: RestRequest, given: Json | str) -> str:
    """What the model says.

    Args:
        request: The request, parsed.
        given: A text is said as it is; of an object what the requested schema has a place for, the rest
            filled in with nulls and the like.

    Raises:
        values.NoValueError: There is no value of the schema.
    """
    if isinstance(given, str):
        return given
    form = request.schema
    return orjson.dumps(given if form is None else values.value(form, given)).decode()


def answer(request: RestRequest, text: str, created_at: int, output: Output | None = None) -> Json:
    """The `response` object.

    Args:
        request: The request, parsed.
        text: What the model says.
        created_at: Seconds since the epoch.
        output: What is wrong with it.
    """
    body = request.body
    effort = (body.get("reasoning") or {}).get("effort")
    thought = REASONING_TOKENS if _reasons(body) and effort != "none" else 0
    text, reason = _shortened(text, output, body.get("max_output_tokens"), thought)
    error = {"code": "server_error", "message": "The model failed to generate a response."}
    read = tokens(request.instructions + request.text + orjson.dumps(request.format).decode())
    said = thought + (0 if output in ("no_message", "failed") else tokens(text))
    return {
        "id": f"resp_{request.request_id.removeprefix('req_')}",
        "object": "response",
        "created_at": created_at,
        "status": "failed" if output == "failed" else "incomplete" if reason else "completed",
        "background": False,
        "error": error if output == "failed" else None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"],
        "output": _items(request, text, output, thinks=thought > 0, cut=reason is not None),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": effort, "summary": None},
        "store": body.get("store") is not False,
        "temperature": 1.0,
        "text": {"format": request.format, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": read + said,
        },
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def _items(request: RestRequest, text: str, output: Output | None, *, thinks: bool, cut: bool) -> list[Json]:
    """The `output`: what the model thought (never told), and its messages."""
    number = request.request_id.removeprefix("req_")

    def message(content: Json, phase: str) -> Json:
        return {
            "id": f"msg_{number}_{phase}",
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if cut else "completed",
            "content": [content],
            # Only the newer models tell it.
            **({"phase": phase} if thinks or phase == "commentary" else {}),
        }

    items: list[Json] = [{"id": f"rs_{number}", "type": "reasoning", "summary": []}] if thinks else []
    if output in ("commentary", "preamble"):
        items.append(message(_said("I read the text first."), "commentary"))
    if output == "refusal":
        items.append(message({"type": "refusal", "refusal": REFUSED}, "final_answer"))
    elif output not in ("commentary", "no_message", "failed"):
        items.append(message(_said(text), "final_answer"))
    return items


def _said(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _shortened(text: str, output: Output | None, most: int | None, thought: int) -> tuple[str, str | None]:
    """The text as far as it got, and why it got no further."""
    if output == "missing_field":
        fields = orjson.loads(text)
        if isinstance(fields, dict) and fields:
            fields.popitem()
        return orjson.dumps(fields).decode(), None
    if output in ("cut", "filtered"):
        return text[: len(text) * 2 // 3], "max_output_tokens" if output == "cut" else "content_filter"
    if most is not None and thought + tokens(text) > most:
        return text[: max(0, most - thought) * 4], "max_output_tokens"
    return text, None
