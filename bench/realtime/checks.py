"""Checks of JSON values: functions of a value and its path that raise `RefusedError`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]
Check = Callable[[object, str], None]


class RefusedError(Exception):
    """A client event that the server answers with ``error`` instead of obeying.

    Args:
        code: ``error.code``, as the API spells it.
        message: ``error.message``, a sentence for people.
        param: ``error.param``, the path of the field at fault, or None.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def _name_of_type(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


def _wrong_type(value: object, path: str, expected: str) -> RefusedError:
    message = f"Invalid type for '{path}': expected {expected}, but got {_name_of_type(value)} instead."
    return RefusedError("invalid_value", message, path)


def anything(value: object, path: str) -> None:
    """Takes every value: free JSON such as a function's parameters."""


def text(*, longest: int | None = None, pattern: str | None = None) -> Check:
    """A string, of at most `longest` characters, wholly matching `pattern`."""
    expression = re.compile(pattern) if pattern else None

    def check(value: object, path: str) -> None:
        if not isinstance(value, str):
            raise _wrong_type(value, path, "a string")
        if longest is not None and len(value) > longest:
            message = f"Invalid '{path}': string too long. Expected at most {longest} characters."
            raise RefusedError("invalid_value", message, path)
        if expression and not expression.fullmatch(value):
            message = f"Invalid '{path}': string does not match pattern. Expected '{pattern}'."
            raise RefusedError("invalid_value", message, path)

    return check


def number(low: float, high: float) -> Check:
    """An integer or decimal from `low` to `high`, both included."""

    def check(value: object, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(value, path, "a decimal")
        if not low <= value <= high:
            message = f"Invalid '{path}': expected a value from {low} to {high}, but got {value} instead."
            raise RefusedError("invalid_value", message, path)

    return check


def integer(low: int, high: int = 2**31 - 1) -> Check:
    """An integer from `low` to `high`, both included."""
    in_range = number(low, high)

    def check(value: object, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(value, path, "an integer")
        in_range(value, path)

    return check


def boolean(value: object, path: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong_type(value, path, "a boolean")


def literal(*allowed: object) -> Check:
    """One of the values `allowed`."""

    def check(value: object, path: str) -> None:
        if not any(type(value) is type(one) and value == one for one in allowed):
            wanted = ", ".join(repr(one) for one in allowed)
            message = f"Invalid value: {value!r}. Supported values are: {wanted}."
            raise RefusedError("invalid_value", message, path)

    return check


def nullable(inner: Check) -> Check:
    """Null, or what `inner` takes."""

    def check(value: object, path: str) -> None:
        if value is not None:
            inner(value, path)

    return check


def array(inner: Check, *, longest: int | None = None) -> Check:
    """An array whose every element `inner` takes."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, list):
            raise _wrong_type(value, path, "an array")
        if longest is not None and len(value) > longest:
            raise RefusedError(
                "invalid_value", f"Invalid '{path}': array too long. Expected {longest}.", path
            )
        for index, element in enumerate(value):
            inner(element, f"{path}[{index}]")

    return check


def string_map(value: object, path: str) -> None:
    """Metadata: at most 16 pairs, keys up to 64 characters, values strings up to 512."""
    if not isinstance(value, dict):
        raise _wrong_type(value, path, "an object")
    if len(value) > 16:
        raise RefusedError(
            "invalid_value", f"Invalid '{path}': too many properties. Expected at most 16.", path
        )
    for key, element in value.items():
        text(longest=64)(key, path)
        text(longest=512)(element, f"{path}.{key}")


def shape(fields: Mapping[str, Check], *required: str) -> Check:
    """An object of these fields and no others; `required` ones must be there."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise _wrong_type(value, path, "an object")
        prefix = f"{path}." if path else ""
        for name in value:
            if name not in fields:
                raise RefusedError(
                    "unknown_parameter", f"Unknown parameter: '{prefix}{name}'.", prefix + name
                )
        for name in required:
            if name not in value:
                message = f"Missing required parameter: '{prefix}{name}'."
                raise RefusedError("missing_required_parameter", message, prefix + name)
        for name, element in value.items():
            fields[name](element, prefix + name)

    return check


def tagged(tag: str, shapes: Mapping[str, Check]) -> Check:
    """An object whose field `tag` says which of `shapes` it must have."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise _wrong_type(value, path, "an object")
        if tag not in value:
            message = f"Missing required parameter: '{path}.{tag}'."
            raise RefusedError("missing_required_parameter", message, f"{path}.{tag}")
        literal(*shapes)(value[tag], f"{path}.{tag}")
        shapes[value[tag]](value, path)

    return check


def either(kind: type, this: Check, that: Check) -> Check:
    """`this` for values of type `kind`, otherwise `that`."""

    def check(value: object, path: str) -> None:
        (this if isinstance(value, kind) else that)(value, path)

    return check
