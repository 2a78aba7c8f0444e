"""The error object."""

from __future__ import annotations

import pytest

from handlehome.bench.rest import errors


def test_an_error_has_the_apis_four_keys() -> None:
    refused = errors.no_model("gpt-9", "model")
    assert refused.status == 404
    assert refused.body() == {
        "error": {
            "message": "The model `gpt-9` does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "an integer"),
        (1.5, "a decimal number"),
        ("x", "a string"),
        ([], "an array"),
        ({}, "an object"),
    ],
)
def test_a_wrong_type_is_told_in_json_terms(value: object, named: str) -> None:
    refused = errors.wrong_type("model", "a string", value)
    assert refused.message == f"Invalid type for 'model': expected a string, but got {named} instead."
    assert (refused.status, refused.param, refused.code) == (400, "model", "invalid_type")


def test_a_wrong_key_is_shown_in_part_only() -> None:
    assert errors.wrong_key("sk-proj-0123456789").message == "Incorrect API key provided: sk-***6789."
    assert "short" not in errors.wrong_key("sk-short").message
