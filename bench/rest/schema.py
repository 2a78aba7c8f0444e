"""What JSON Schemas the strict mode of structured outputs takes.

Source of the rules: OpenAI's guide "Structured model outputs", section "Supported schemas"; wording of the
refusals after the API's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]
Context = tuple[str, ...]

MAX_DEPTH = 10
MAX_PROPERTIES = 5000
MAX_ENUM_VALUES = 1000
MAX_CHARACTERS = 120_000

NOT_PERMITTED = frozenset(
    {"allOf", "contains", "default", "dependentRequired", "dependentSchemas", "else", "if", "maxContains"}
    | {"maxProperties", "minContains", "minProperties", "not", "oneOf", "patternProperties", "prefixItems"}
    | {"propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems"}
)


def problem(schema: Mapping[str, Any]) -> str | None:
    """What keeps strict mode from taking a schema; None: nothing."""
    if "anyOf" in schema or schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {schema.get('type')!r}'."
    properties = enums = characters = 0
    for context, part, depth in _parts(schema, (), 1):
        where = f"In context={context}, "
        if not isinstance(part, Mapping):
            return f"{where}schema must be an object."
        wrong = _wrong(part, schema)
        if wrong:
            return where + wrong
        if depth > MAX_DEPTH:
            return f"{where}schema exceeds {MAX_DEPTH} levels of nesting."
        names, values = list(part.get("properties", ())), part.get("enum", ())
        properties += len(names)
        enums += len(values)
        characters += sum(len(str(text)) for text in (*names, *values, *part.get("$defs", ())))
    for count, most, what in (
        (properties, MAX_PROPERTIES, "object properties"),
        (enums, MAX_ENUM_VALUES, "enum values"),
        (characters, MAX_CHARACTERS, "characters of names and enum values"),
    ):
        if count > most:
            return f"Expected at most {most} {what} in total within a schema, but received {count}."
    return None


def _parts(part: Any, context: Context, depth: int) -> Iterator[tuple[Context, Any, int]]:
    """The schema and all schemas in it; depth counts objects and arrays."""
    yield context, part, depth
    if not isinstance(part, Mapping):
        return
    for key in ("properties", "$defs", "definitions"):
        inside = part.get(key)
        for name, sub in inside.items() if isinstance(inside, Mapping) else ():
            yield from _parts(sub, (*context, key, name), depth + (key == "properties"))
    if "items" in part:
        yield from _parts(part["items"], (*context, "items"), depth + 1)
    options = part.get("anyOf")
    for number, sub in enumerate(options if isinstance(options, list) else ()):
        yield from _parts(sub, (*context, "anyOf", str(number)), depth)


def _wrong(part: Mapping[str, Any], root: Mapping[str, Any]) -> str | None:
    """What is wrong with one schema, those in it apart."""
    banned = next((key for key in part if key in NOT_PERMITTED), None)
    if banned:
        return f"'{banned}' is not permitted."
    if "$ref" in part:
        return _wrong_reference(part, root)
    if "anyOf" in part:
        return None if isinstance(part["anyOf"], list) and part["anyOf"] else "'anyOf' must be an array."
    if not {"type", "enum", "const"} & part.keys():
        return "schema must have a 'type' key."
    if "array" in types_of(part) and "items" not in part:
        return "array schema missing items."
    return _wrong_object(part) if "object" in types_of(part) else None


def _wrong_reference(part: Mapping[str, Any], root: Mapping[str, Any]) -> str | None:
    others = sorted(part.keys() - {"$ref"})
    if others:
        return f"$ref cannot have keywords {{{', '.join(map(repr, others))}}}."
    return None if target(part["$ref"], root) else "reference can only point to definitions of the schema."


def _wrong_object(part: Mapping[str, Any]) -> str | None:
    if part.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false."
    properties, required = part.get("properties", {}), part.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return "'properties' must be an object and 'required' an array."
    rule = "'required' is required to be supplied and to be an array including every key in properties."
    for name in properties:
        if name not in required:
            return f"{rule} Missing '{name}'."
    for name in required:
        if name not in properties:
            return f"{rule} Extra required key '{name}' supplied."
    return None


def types_of(part: Mapping[str, Any]) -> list[str]:
    """The names in `type`; where there is none, `enum` or `const`, and `null` if that is among the values."""
    named = part.get("type", [])
    if not named and "const" in part:
        return ["null"] if part["const"] is None else ["const"]
    if not named and "enum" in part:
        return ["null", "enum"] if None in part["enum"] else ["enum"]
    return [named] if isinstance(named, str) else list(named)


def target(reference: object, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a `$ref` within the schema `root` points to; None: nothing."""
    if reference == "#":
        return root
    for key in ("$defs", "definitions"):
        prefix = f"#/{key}/"
        if isinstance(reference, str) and reference.startswith(prefix):
            target = root.get(key, {}).get(reference.removeprefix(prefix))
            return target if isinstance(target, Mapping) else None
    return None
