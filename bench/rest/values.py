"""Values that follow a JSON Schema which strict mode takes: what a model has to say at least."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from handlehome.bench.rest.schema import target, types_of

_MISSING = object()
# One value of each format that strict mode knows, and what its values look like.
_FORMATS = {
    "date-time": ("1970-01-01T00:00:00Z", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
    "time": ("00:00:00Z", r"^\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
    "date": ("1970-01-01", r"^\d{4}-\d\d-\d\d$"),
    "duration": ("PT0S", r"^P\d*[YMWDT]"),
    "email": ("nobody@example.com", r"^[^@\s]+@[^@\s]+$"),
    "hostname": ("example.com", r"^[A-Za-z0-9.-]+$"),
    "ipv4": ("192.0.2.1", r"^\d+(\.\d+){3}$"),
    "ipv6": ("2001:db8::1", r"^[0-9a-fA-F:]+$"),
    "uuid": ("00000000-0000-4000-8000-000000000000", r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
}
# Tried on a `pattern`: a search for a text that matches is not worth its code here.
_TRIES = ("0", "a", "A", "00000", "0.00", "AA", "a@example.com", "+33612345678", "1970-01-01", "00:00", "#0")
_KINDS: dict[type, set[str]] = {
    dict: {"object"},
    list: {"array"},
    str: {"string"},
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    type(None): {"null"},
}

_Schema = Mapping[str, Any]


class NoValueError(ValueError):
    """There is no value of this schema, or none that can be found."""


def value(schema: _Schema, given: object = _MISSING) -> Any:
    """A value that follows a schema which strict mode takes.

    Null where it can be null, else the first value of an enum, an empty string or array, 0, false, or the
    least that the limits allow.

    Args:
        schema: The schema.
        given: What is known, laid over it: objects by their properties, arrays item by item. What has no
            place in the schema, or doesn't follow it, is left out.

    Raises:
        NoValueError: It is endless, or has limits or a `pattern` that no simple value keeps to.
    """
    return _value(schema, given, schema, ())


def _value(part: _Schema, given: object, root: _Schema, within: tuple[int, ...]) -> Any:
    """`within`: the definitions that this is in, so that one without end is noticed."""
    if "$ref" in part:
        definition = target(part["$ref"], root)
        known = given is not _MISSING and _fits(part, given, root)
        if definition is None or (not known and id(definition) in within):
            raise NoValueError(f"{part['$ref']} is not there, or never ends")
        return _value(definition, given, root, (*within, id(definition)))
    if "anyOf" in part:
        return _of_any(part["anyOf"], given, root, within)
    if given is _MISSING or not _fits(part, given, root):
        return _least(part, root, within)
    return _laid_over(part, given, root, within)


def _of_any(options: list[_Schema], given: object, root: _Schema, within: tuple[int, ...]) -> Any:
    def is_null(option: _Schema) -> bool:
        return "null" in types_of(_resolved(option, root))

    ranked = sorted(options, key=is_null, reverse=True)
    if given is not _MISSING:
        ranked = [option for option in options if _fits(option, given, root)] or ranked
    failed = NoValueError("'anyOf' without options")
    for option in ranked:
        try:
            return _value(option, given, root, within)
        except NoValueError as error:
            failed = error
    raise failed


def _laid_over(part: _Schema, given: object, root: _Schema, within: tuple[int, ...]) -> Any:
    if isinstance(given, Mapping):
        properties = part.get("properties", {}).items()
        return {name: _value(sub, given.get(name, _MISSING), root, within) for name, sub in properties}
    if isinstance(given, list):
        return [_value(part["items"], item, root, within) for item in given]
    return given


def _fits(part: _Schema, given: object, root: _Schema) -> bool:
    """Whether a value may stand here; of objects and arrays only the kind counts, and their length."""
    part = _resolved(part, root)
    if "anyOf" in part:
        return any(_fits(option, given, root) for option in part["anyOf"])
    if not any(_same(given, one) for one in part.get("enum", [given])):
        return False
    if not _same(given, part.get("const", given)):
        return False
    kinds = _KINDS.get(type(given), set())
    return ("type" not in part or not kinds.isdisjoint(types_of(part))) and _keeps_limits(part, given)


def _same(one: object, other: object) -> bool:
    """Equal in JSON, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _keeps_limits(part: _Schema, given: object) -> bool:
    if isinstance(given, str):
        return _is_text(part, given)
    if isinstance(given, list):
        return bool(part.get("minItems", 0) <= len(given) <= part.get("maxItems", math.inf))
    if isinstance(given, int | float) and not isinstance(given, bool):
        low, high = _limits(part)
        step = part.get("multipleOf")
        in_step = step is None or (given / step).is_integer()
        return low <= given <= high and given not in _excluded(part) and in_step
    return True


def _is_text(part: _Schema, text: str) -> bool:
    looks = (part.get("pattern", ""), _FORMATS.get(part.get("format", ""), ("", ""))[1])
    long_enough = part.get("minLength", 0) <= len(text) <= part.get("maxLength", math.inf)
    return long_enough and all(re.search(look, text) for look in looks)


def _least(part: _Schema, root: _Schema, within: tuple[int, ...]) -> Any:
    types = types_of(part)
    least: Any = None
    if "const" in part:
        least = part["const"]
    elif "enum" in part:
        least = None if None in part["enum"] else part["enum"][0]
    elif "null" in types:
        pass
    elif types[0] == "boolean":
        least = False
    elif types[0] == "object":
        least = _laid_over(part, {}, root, within)
    elif types[0] == "array":
        least = [_value(part["items"], _MISSING, root, within) for _ in range(part.get("minItems", 0))]
    elif types[0] in ("integer", "number"):
        least = _number(part, whole=types[0] == "integer")
    else:
        least = _text(part)
    return least


def _number(part: _Schema, *, whole: bool) -> int | float:
    """0, or what is nearest to it within the limits."""
    low, high = _limits(part)
    step = part.get("multipleOf", 1 if whole else 0)
    near = max(low, min(0, high))
    room = step or (min(high - low, 2) / 2)
    first = math.ceil(near / step) * step if step else near
    for number in (first, first - step, first + room, first - room):
        if low <= number <= high and number not in _excluded(part):
            return int(number) if whole else number
    raise NoValueError(f"no number found from {low} to {high}")


def _limits(part: _Schema) -> tuple[float, float]:
    low = max(part.get("minimum", -math.inf), part.get("exclusiveMinimum", -math.inf))
    return low, min(part.get("maximum", math.inf), part.get("exclusiveMaximum", math.inf))


def _excluded(part: _Schema) -> tuple[float | None, float | None]:
    return part.get("exclusiveMinimum"), part.get("exclusiveMaximum")


def _resolved(part: _Schema, root: _Schema) -> _Schema:
    return (target(part["$ref"], root) or {}) if "$ref" in part else part


def _text(part: _Schema) -> str:
    short, (example, _) = part.get("minLength", 0), _FORMATS.get(part.get("format", ""), ("", ""))
    for text in (example, "0" * short, "a" * short, *_TRIES):
        if _is_text(part, text):
            return text
    raise NoValueError(f"no text found that matches {part.get('pattern')!r}")
