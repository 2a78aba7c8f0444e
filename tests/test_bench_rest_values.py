"""Values that follow a schema; jsonschema is the judge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from handlehome.bench.rest import schema, values
from tests.test_bench_rest_schema import TEXT, obj


def valid(rules: dict[str, Any], value: Any) -> bool:
    checker = Draft202012Validator.FORMAT_CHECKER
    return bool(Draft202012Validator(rules, format_checker=checker).is_valid(value))


NULLABLE = {"anyOf": [TEXT, {"type": "null"}]}
CUSTOMER = obj(
    {
        "name": NULLABLE,
        "age": {"type": ["integer", "null"]},
        "mood": {"type": "string", "enum": ["good", "bad"]},
        "services": {"type": "array", "items": TEXT},
        "address": obj({"city": NULLABLE}),
        "partner": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    }
)


def test_what_nobody_knows_is_null_the_first_choice_or_empty() -> None:
    assert values.value(CUSTOMER) == {
        "name": None,
        "age": None,
        "mood": "good",
        "services": [],
        "address": {"city": None},
        "partner": None,
    }


def test_what_is_known_is_laid_over_it() -> None:
    given = {
        "name": "Ann",
        "address": {"city": "Lyon"},
        "partner": {"name": "Bob", "services": ["x"]},
        "unheard": 1,
    }
    value = values.value(CUSTOMER, given)
    assert (value["name"], value["address"], value["age"]) == ("Ann", {"city": "Lyon"}, None)
    assert value["partner"]["name"] == "Bob"
    assert value["partner"]["partner"] is None
    assert "unheard" not in value
    assert valid(CUSTOMER, value)


@pytest.mark.parametrize(
    ("rules", "known", "value"),
    [
        ({"type": "string", "enum": ["a", "b"]}, "c", "a"),
        ({"type": "integer"}, "12", 0),
        ({"type": "integer"}, True, 0),
        ({"type": "integer", "maximum": 5}, 6, 0),
        ({"type": "integer", "multipleOf": 2}, 3, 0),
        ({"type": "string", "maxLength": 2}, "abc", ""),
        ({"type": "string", "format": "date"}, "mardi", "1970-01-01"),
        ({"type": ["string", "null"], "format": "date-time"}, "2026-11-24", None),
        ({"type": ["string", "null"], "format": "date"}, "2026-11-24", "2026-11-24"),
        ({"type": "string", "pattern": "^0"}, "1", "0"),
        ({"type": "array", "items": TEXT, "maxItems": 1}, ["a", "b"], []),
        ({"type": "array", "items": TEXT}, ["a", 1], ["a", ""]),
        (NULLABLE, {"first": "Ann"}, None),
        ({"type": ["string", "null"]}, 5, None),
        ({"anyOf": [TEXT, {"type": "integer"}]}, 5, 5),
    ],
)
def test_what_is_known_but_does_not_follow_the_schema_is_left_out(
    rules: dict[str, Any], known: object, value: object
) -> None:
    assert values.value(obj({"a": rules}), {"a": known}) == {"a": value}


@pytest.mark.parametrize(
    "rules",
    [
        {"type": "boolean"},
        {"const": 5},
        {"enum": [None, 1]},
        {"type": "number", "minimum": 1.5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1},
        {"type": "number", "maximum": -3},
        {"type": "integer", "exclusiveMinimum": 0},
        {"type": "integer", "exclusiveMaximum": 0},
        {"type": "integer", "minimum": 7, "multipleOf": 5},
        {"type": "number", "minimum": 0.1, "multipleOf": 0.5},
        {"type": "array", "items": TEXT, "minItems": 2},
        {"type": "string", "minLength": 3},
        {"type": "string", "pattern": r"^\+[1-9]\d{1,14}$"},
        {"type": "string", "pattern": r"^\d{5}$"},
        {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        *({"type": "string", "format": name} for name in ("date-time", "date", "time", "duration", "email")),
        *({"type": "string", "format": name} for name in ("hostname", "ipv4", "ipv6", "uuid")),
    ],
    ids=str,
)
def test_limits_are_kept(rules: dict[str, Any]) -> None:
    assert valid(rules, values.value(obj({"a": rules}))["a"])


def test_a_recursive_schema_ends_where_it_may() -> None:
    tree = obj({"root": {"$ref": "#/$defs/node"}}, **{"$defs": {}})
    tree["$defs"]["node"] = obj(
        {
            "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "string"}]},
            "more": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        }
    )
    assert values.value(tree) == {"root": {"left": "", "more": []}}
    assert values.value(tree, {"root": {"left": {"left": "x"}}})["root"]["left"]["left"] == "x"


@pytest.mark.parametrize(
    "endless",
    [
        obj({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": obj({"a": {"$ref": "#/$defs/x"}})}}),
        obj({"a": {"type": "string", "pattern": "^q{17}$"}}),
        obj({"a": {"type": "integer", "minimum": 1, "maximum": 0}}),
    ],
)
def test_a_schema_without_a_value_that_can_be_found_is_told(endless: dict[str, Any]) -> None:
    assert schema.problem(endless) is None
    with pytest.raises(values.NoValueError):
        values.value(endless)


LEAVES = st.one_of(
    st.sampled_from([TEXT, {"type": "boolean"}, {"type": ["string", "null"]}, {"type": "null"}]),
    st.lists(st.text(max_size=3) | st.integers(), min_size=1, max_size=3).map(lambda them: {"enum": them}),
    st.builds(
        lambda low, width: {"type": "integer", "minimum": low, "maximum": low + width},
        st.integers(-50, 50),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, step: {"type": "integer", "exclusiveMinimum": low, "multipleOf": step},
        st.integers(-50, 50),
        st.integers(1, 7),
    ),
    st.builds(lambda high: {"type": "number", "exclusiveMaximum": high}, st.floats(-50, 50, allow_nan=False)),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(obj)
        | st.builds(
            lambda items, n: {"type": "array", "items": items, "minItems": n}, inner, st.integers(0, 2)
        )
        | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    ),
    max_leaves=8,
).map(lambda inner: obj({"it": inner}))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(SCHEMAS, JSON)
def test_whatever_is_known_the_value_follows_the_schema(rules: dict[str, Any], known: Any) -> None:
    assert schema.problem(rules) is None
    assert valid(rules, values.value(rules))
    assert valid(rules, values.value(rules, {"it": known}))
