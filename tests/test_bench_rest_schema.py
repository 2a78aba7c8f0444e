"""Strict mode's rules."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel

from handlehome.bench.rest import schema


def obj(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


TEXT = {"type": "string"}


class Address(BaseModel):
    city: str | None


class Person(BaseModel):
    name: str | None
    mood: Literal["good", "bad"]
    homes: list[Address]
    friend: Person | None


def test_what_the_sdk_makes_of_a_model_is_taken() -> None:
    assert schema.problem(to_strict_json_schema(Person)) is None


@pytest.mark.parametrize(
    "good",
    [
        obj({}),
        obj({"a": {"type": ["string", "null"], "pattern": "^a+$"}, "b": {"enum": ["x", None]}}),
        obj({"a": {"anyOf": [TEXT, obj({"b": TEXT}), {"type": "null"}]}}),
        obj({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": obj({"again": {"$ref": "#"}})}}),
        obj({"a": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 3}}),
    ],
)
def test_a_strict_schema_is_taken(good: dict[str, Any]) -> None:
    assert schema.problem(good) is None


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"type": "array", "items": TEXT}, "schema must be a JSON Schema of 'type: \"object\"'"),
        ({"anyOf": [obj({})]}, "schema must be a JSON Schema of 'type: \"object\"'"),
        (
            {"type": "object", "properties": {}, "required": []},
            "In context=(), 'additionalProperties' is required to be supplied and to be false.",
        ),
        (obj({"a": obj({}, additionalProperties=True)}), "In context=('properties', 'a'), 'additionalProp"),
        (obj({"a": TEXT}, required=[]), "every key in properties. Missing 'a'."),
        (obj({}, required=["a"]), "Extra required key 'a' supplied."),
        (obj({}, required=None), "'required' an array"),
        (obj({"a": {}}), "In context=('properties', 'a'), schema must have a 'type' key."),
        (obj({"a": True}), "In context=('properties', 'a'), schema must be an object."),
        (obj({"a": {"type": "array"}}), "array schema missing items."),
        (obj({"a": {"type": "array", "items": {}}}), "In context=('properties', 'a', 'items'), "),
        (obj({"a": {"anyOf": [TEXT, {}]}}), "In context=('properties', 'a', 'anyOf', '1'), "),
        (obj({"a": {"anyOf": []}}), "'anyOf' must be an array."),
        (obj({"a": {"oneOf": [TEXT]}}), "'oneOf' is not permitted."),
        (obj({"a": {**TEXT, "default": ""}}), "'default' is not permitted."),
        (obj({"a": {"$ref": "#/$defs/x"}}), "reference can only point to definitions"),
        (obj({"a": {"$ref": "#", "description": "x"}}), "$ref cannot have keywords {'description'}."),
        (obj({}, **{"$defs": {"x": obj({}, required=["y"])}}), "In context=('$defs', 'x'), "),
        (obj({str(n): TEXT for n in range(5001)}), "at most 5000 object properties"),
        (obj({"a": {"enum": list(range(1001))}}), "at most 1000 enum values"),
        (obj({"a" * 120_001: TEXT}), "at most 120000 characters"),
    ],
)
def test_another_is_refused_in_the_apis_words(bad: dict[str, Any], problem: str) -> None:
    assert problem in (schema.problem(bad) or "")


def test_ten_levels_are_taken_and_eleven_are_not() -> None:
    def nested(levels: int) -> dict[str, Any]:
        return obj({"a": nested(levels - 1)}) if levels > 1 else obj({})

    assert schema.problem(nested(10)) is None
    assert "10 levels" in (schema.problem(nested(11)) or "")
