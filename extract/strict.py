"""Which JSON Schemas the strict mode of OpenAI's structured outputs takes, and what is wrong with the rest.

Pure. The rules are those of OpenAI's guide "Structured model outputs" (supported schemas, limits): the root
is an object, every object lists all its properties as required and allows no others, optional means
nullable, and only some keywords exist. A schema that breaks one is refused by the API with a 400, for every
call; here it is refused once, at start, with the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

__all__ = ["problems"]

MAX_DEPTH: Final = 10
MAX_PROPERTIES: Final = 5000
MAX_ENUM_VALUES: Final = 1000
MAX_NAME_CHARACTERS: Final = 120_000
LARGE_ENUM: Final = 250
MAX_LARGE_ENUM_CHARACTERS: Final = 15_000

_FOR_ALL: Final = frozenset({"type", "title", "description", "enum", "const"})
_BY_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"pattern", "format", "minLength", "maxLength"}),
    "number": frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "integer": frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
_FORMATS: Final = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"
})  # fmt: skip


def problems(schema: object) -> list[str]:
    """What strict mode won't take of a schema: lines of `POINTER: problem`; none when it is fine.

    Args:
        schema: decoded JSON. A pointer is its RFC 6901 JSON Pointer, `#` the schema itself.
    """
    if not isinstance(schema, dict):
        return ["#: the schema must be a JSON object"]
    # With formats: `pattern` must be a regular expression.
    meta = Draft202012Validator(
        Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    wrong = best_match(meta.iter_errors(schema))
    if wrong is not None:
        return [f"{_pointer(wrong.absolute_path)}: is no valid JSON Schema: {wrong.message[:200]}"]
    check = _Check(schema)
    if schema.get("type") != "object":
        check.note((), 'the root must have "type": "object" (not nullable, no $ref, no anyOf)')
    check.walk(schema, (), 1)
    check.limits()
    return check.lines


@dataclass(slots=True)
class _Check:
    root: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    properties: int = 0
    enum_values: int = 0
    characters: int = 0

    def note(self, at: tuple[str | int, ...], problem: str) -> None:
        self.lines.append(f"{_pointer(at)}: {problem}")

    def walk(self, schema: object, at: tuple[str | int, ...], depth: int) -> None:
        """Checks a schema and those in it; `depth` counts the objects and arrays round it, and itself."""
        if not isinstance(schema, dict):
            self.note(at, "true and false are no schemas in strict mode")
            return
        if depth > MAX_DEPTH:
            self.note(at, f"is nested deeper than {MAX_DEPTH} levels")
            return
        if not at:
            for name in sorted(_DEFINITIONS & schema.keys()):
                for key, inner in schema[name].items():
                    self.characters += len(key)
                    self.walk(inner, (name, key), 1)
        if "$ref" in schema:
            self._reference(schema, at)
            return
        types = schema.get("type", [])
        types = [types] if isinstance(types, str) else types
        self._keywords(schema, types, at)
        self._values(schema, at)
        if "object" in types:
            self._object(schema, at, depth)
        if "array" in types and "items" not in schema:
            self.note(at, "an array must have items")
        elif "items" in schema:
            self.walk(schema["items"], (*at, "items"), depth + 1)
        for index, inner in enumerate(schema.get("anyOf", ())):
            self.walk(inner, (*at, "anyOf", index), depth)

    def limits(self) -> None:
        """Checks what is counted over the whole schema."""
        for count, most, what in (
            (self.properties, MAX_PROPERTIES, "properties"),
            (self.enum_values, MAX_ENUM_VALUES, "enum values"),
            (self.characters, MAX_NAME_CHARACTERS, "characters in names, enum and const values"),
        ):
            if count > most:
                self.note((), f"has {count} {what}, at most {most} are allowed")

    def _keywords(self, schema: dict[str, Any], types: list[str], at: tuple[str | int, ...]) -> None:
        if not types and schema.keys().isdisjoint(("anyOf", "enum", "const")):
            self.note(at, "needs a type, anyOf, enum, const or $ref")
        known = _FOR_ALL.union({"anyOf"}, *(_BY_TYPE[each] for each in types))
        if not at:
            known |= _DEFINITIONS
        for keyword in sorted(schema.keys() - known):
            suffix = f" for {' or '.join(types)}" if types else ""
            self.note((*at, keyword), f"is not supported by strict mode{suffix}")
        if not at and "anyOf" in schema:
            self.note(("anyOf",), "is not supported at the root")
        if "format" in schema and schema["format"] not in _FORMATS:
            self.note((*at, "format"), f"is none of {', '.join(sorted(_FORMATS))}")

    def _values(self, schema: dict[str, Any], at: tuple[str | int, ...]) -> None:
        values = schema.get("enum", [])
        characters = sum(len(value) for value in values if isinstance(value, str))
        self.enum_values += len(values)
        self.characters += characters
        if isinstance(schema.get("const"), str):
            self.characters += len(schema["const"])
        if "enum" in schema and not values:
            self.note((*at, "enum"), "is empty")
        if any(isinstance(value, dict | list) for value in (*values, schema.get("const"))):
            self.note(at, "enum and const may hold texts, numbers, true, false and null only")
        if len(values) > LARGE_ENUM and characters > MAX_LARGE_ENUM_CHARACTERS:
            self.note((*at, "enum"), f"has {characters} characters, at most {MAX_LARGE_ENUM_CHARACTERS}")

    def _object(self, schema: dict[str, Any], at: tuple[str | int, ...], depth: int) -> None:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        self.properties += len(properties)
        if schema.get("additionalProperties") is not False:
            self.note(at, 'must have "additionalProperties": false')
        for name in sorted(properties.keys() - set(required)):
            self.note(
                (*at, "properties", name), "must be listed in required; make it nullable if it is optional"
            )
        for name in sorted(set(required) - properties.keys()):
            self.note((*at, "required"), f"names {name!r}, which is no property")
        for name, inner in properties.items():
            self.characters += len(name)
            if name.startswith("$") or "." in name or "\0" in name or not name:
                self.note(
                    (*at, "properties", name),
                    "can't be stored: a name is not empty, begins with no $, has no dot",
                )
            self.walk(inner, (*at, "properties", name), depth + 1)

    def _reference(self, schema: dict[str, Any], at: tuple[str | int, ...]) -> None:
        if len(schema) > 1 and at:
            self.note(at, "nothing may stand beside $ref")
        if self._leads_back(schema, frozenset()):
            self.note(
                (*at, "$ref"), f"{schema['$ref']!r} leads nowhere: there is no such definition, or a circle"
            )

    def _leads_back(self, schema: object, seen: frozenset[str]) -> bool:
        """Whether following references, without going into an object or an array, never comes to a schema."""
        if not isinstance(schema, dict):
            return False
        if "$ref" in schema:
            name = schema["$ref"]
            target = self._target(name)
            return name in seen or target is None or self._leads_back(target, seen | {name})
        return any(self._leads_back(inner, seen) for inner in schema.get("anyOf", ()))

    def _target(self, reference: str) -> object | None:
        parts = reference.split("/")
        if reference == "#":
            return self.root
        if len(parts) != 3 or parts[0] != "#" or parts[1] not in _DEFINITIONS:
            return None
        name = parts[2].replace("~1", "/").replace("~0", "~")
        definitions: dict[str, object] = self.root.get(parts[1], {})
        return definitions.get(name)


def _pointer(path: Iterable[str | int]) -> str:
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in path]
    return "#" + "".join(f"/{part}" for part in parts)
