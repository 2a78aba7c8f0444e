"""What strict mode takes of JSON Schema."""

from typing import Any

import pytest

from handlehome.bench.rest import schema as simulated
from handlehome.extract.schema import DEFAULT
from handlehome.extract.strict import LARGE_ENUM, MAX_DEPTH, MAX_ENUM_VALUES, MAX_PROPERTIES, problems


def an_object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def nested(depth: int) -> dict[str, Any]:
    return an_object({"inner": nested(depth - 1)} if depth > 1 else {"leaf": {"type": "string"}})


TREE = an_object(
    {"root": {"$ref": "#/$defs/node"}},
    **{
        "$defs": {
            "node": an_object(
                {
                    "name": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "self": {"type": "array", "items": {"$ref": "#"}},
                }
            )
        }
    },
)

GOOD = {
    "default": DEFAULT,
    "empty": an_object({}),
    "every type": an_object(
        {
            "text": {"type": "string", "pattern": "^[a-z]+$", "title": "T"},
            "day": {"type": ["string", "null"], "format": "date", "description": "a day"},
            "number": {"type": "number", "minimum": 0, "exclusiveMaximum": 5, "multipleOf": 0.5},
            "whole": {"type": ["integer", "null"], "maximum": 3},
            "yes": {"type": "boolean"},
            "choice": {"type": ["string", "null"], "enum": ["a", "b", None]},
            "bare choice": {"enum": ["a", 1, None]},
            "constant": {"const": "x"},
            "list": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
            "either": {"anyOf": [{"type": "string"}, an_object({"a": {"type": "null"}})]},
        }
    ),
    "recursive": TREE,
    "as deep as allowed": nested(MAX_DEPTH - 1),
}

BAD: dict[str, tuple[Any, str]] = {
    "no object": ([], "#: the schema must be a JSON object"),
    "list at the root": (
        {"type": "array", "items": {"type": "string"}},
        '#: the root must have "type": "object"',
    ),
    "nullable root": (an_object({}, type=["object", "null"]), '#: the root must have "type": "object"'),
    "anyOf at the root": (an_object({}, anyOf=[{"type": "object"}]), "#/anyOf: is not supported at the root"),
    "optional property": (
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "required": [],
            "additionalProperties": False,
        },
        "#/properties/a: must be listed in required",
    ),
    "requires what is not there": (
        an_object({}, required=["b"]),
        "#/required: names 'b', which is no property",
    ),
    "open object": (
        {"type": "object", "properties": {}, "required": []},
        '#: must have "additionalProperties": false',
    ),
    "open object inside": (
        an_object({"a/b": {"type": "object", "properties": {}, "required": []}}),
        '#/properties/a~1b: must have "additionalProperties": false',
    ),
    "default": (
        an_object({"a": {"type": "string", "default": "x"}}),
        "#/properties/a/default: is not supported by strict mode for string",
    ),
    "keyword of another type": (
        an_object({"a": {"type": "string", "minimum": 1}}),
        "#/properties/a/minimum: is not supported by strict mode for string",
    ),
    "allOf": (an_object({"a": {"allOf": [{"type": "string"}]}}), "#/properties/a/allOf: is not supported"),
    "oneOf": (an_object({"a": {"oneOf": [{"type": "string"}]}}), "#/properties/a/oneOf: is not supported"),
    "no type": (
        an_object({"a": {"description": "x"}}),
        "#/properties/a: needs a type, anyOf, enum, const or $ref",
    ),
    "true": (an_object({"a": True}), "#/properties/a: true and false are no schemas"),
    "array without items": (an_object({"a": {"type": "array"}}), "#/properties/a: an array must have items"),
    "unknown format": (
        an_object({"a": {"type": "string", "format": "phone"}}),
        "#/properties/a/format: is none of",
    ),
    "unknown type": (an_object({"a": {"type": "text"}}), "#/properties/a/type: is no valid JSON Schema"),
    "broken pattern": (
        an_object({"a": {"type": "string", "pattern": "("}}),
        "#/properties/a/pattern: is no valid",
    ),
    "properties as a list": ({"type": "object", "properties": []}, "#/properties: is no valid JSON Schema"),
    "empty enum": (an_object({"a": {"enum": []}}), "#/properties/a/enum: is empty"),
    "object in enum": (an_object({"a": {"enum": [{}]}}), "#/properties/a: enum and const may hold"),
    "reference into nowhere": (
        an_object({"a": {"$ref": "#/$defs/x"}}),
        "#/properties/a/$ref: '#/$defs/x' leads nowhere",
    ),
    "reference to a file": (
        an_object({"a": {"$ref": "b.json#/x"}}),
        "#/properties/a/$ref: 'b.json#/x' leads nowhere",
    ),
    "circle": (
        an_object({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}]}}}),
        "#/$defs/x/anyOf/0/$ref: '#/$defs/x' leads nowhere",
    ),
    "beside a reference": (
        an_object({"a": {"$ref": "#", "description": "x"}}),
        "#/properties/a: nothing may stand beside $ref",
    ),
    "name for MongoDB": (an_object({"$a.b": {"type": "string"}}), "#/properties/$a.b: can't be stored"),
    "too deep": (nested(MAX_DEPTH), "/leaf: is nested deeper than 10 levels"),
    "too many properties": (
        an_object({f"p{n}": {"type": "null"} for n in range(MAX_PROPERTIES + 1)}),
        "#: has 5001 properties",
    ),
    "too many enum values": (
        an_object({"a": {"enum": list(range(MAX_ENUM_VALUES + 1))}}),
        "#: has 1001 enum values",
    ),
    "too many characters": (
        an_object({"a": {"enum": ["x" * 60_000, "y" * 60_001]}}),
        "#: has 120002 characters",
    ),
    "too large an enum": (
        an_object({"a": {"enum": [f"{n:064}" for n in range(LARGE_ENUM + 1)]}}),
        "#/properties/a/enum: has 16064 characters",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_schema_has_no_problems(name: str) -> None:
    """The simulated API, which knows the rules from elsewhere, takes it too."""
    assert problems(GOOD[name]) == []
    assert simulated.problem(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_place(name: str) -> None:
    schema, line = BAD[name]
    assert [found for found in problems(schema) if line in found], problems(schema)


def test_all_problems_are_listed() -> None:
    wrong = an_object({"a": {"type": "array"}, "b": {"oneOf": []}, "c": {"type": "string", "default": ""}})
    wrong["properties"]["b"] = {"type": "string", "not": {}}
    assert len(problems(wrong)) == 3
