"""Checks of JSON values by which the simulated server refuses what the real one refuses."""

from typing import Any

import pytest

from handlehome.bench.realtime import checks
from handlehome.bench.realtime.checks import Check, RefusedError


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.text(), ""),
        (checks.text(longest=3), "abc"),
        (checks.text(pattern="[a-z]+"), "abc"),
        (checks.number(0.0, 1.0), 1),
        (checks.number(0.0, 1.0), 0.5),
        (checks.integer(1, 4096), 4096),
        (checks.boolean, False),
        (checks.literal("a", 24000), 24000),
        (checks.nullable(checks.text()), None),
        (checks.array(checks.text()), ["a", "b"]),
        (checks.string_map, {"purpose": "greeting"}),
        (checks.shape({"a": checks.anything}), {"a": [{}]}),
        (checks.tagged("type", {"a": checks.shape({"type": checks.text()})}), {"type": "a"}),
        (checks.either(str, checks.literal("inf"), checks.integer(1)), "inf"),
        (checks.either(str, checks.literal("inf"), checks.integer(1)), 5),
    ],
)
def test_what_fits_is_taken(check: Check, value: Any) -> None:
    check(value, "x")


@pytest.mark.parametrize(
    ("check", "value", "code", "param"),
    [
        (checks.text(), 5, "invalid_value", "x"),
        (checks.text(), None, "invalid_value", "x"),
        (checks.text(longest=3), "abcd", "invalid_value", "x"),
        (checks.text(pattern="[a-z]+"), "a b", "invalid_value", "x"),
        (checks.number(0.0, 1.0), 1.01, "invalid_value", "x"),
        (checks.number(0.0, 1.0), "0.5", "invalid_value", "x"),
        (checks.number(0.0, 1.0), True, "invalid_value", "x"),
        (checks.integer(0), 1.5, "invalid_value", "x"),
        (checks.integer(0), -1, "invalid_value", "x"),
        (checks.integer(0), True, "invalid_value", "x"),
        (checks.boolean, 1, "invalid_value", "x"),
        (checks.literal(1), True, "invalid_value", "x"),
        (checks.literal("a"), ["a"], "invalid_value", "x"),
        (checks.array(checks.text()), "a", "invalid_value", "x"),
        (checks.array(checks.text()), ["a", 1], "invalid_value", "x[1]"),
        (checks.array(checks.text(), longest=1), ["a", "b"], "invalid_value", "x"),
        (checks.string_map, [], "invalid_value", "x"),
        (checks.string_map, {"n": 1}, "invalid_value", "x.n"),
        (checks.string_map, {str(n): "" for n in range(17)}, "invalid_value", "x"),
        (checks.shape({}), [], "invalid_value", "x"),
        (checks.shape({}), {"b": 1}, "unknown_parameter", "x.b"),
        (checks.shape({"a": checks.anything}, "a"), {}, "missing_required_parameter", "x.a"),
        (checks.tagged("type", {"a": checks.anything}), "a", "invalid_value", "x"),
        (checks.tagged("type", {"a": checks.anything}), {}, "missing_required_parameter", "x.type"),
        (checks.tagged("type", {"a": checks.anything}), {"type": "b"}, "invalid_value", "x.type"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(check: Check, value: Any, code: str, param: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check(value, "x")
    assert (refused.value.code, refused.value.param) == (code, param)
