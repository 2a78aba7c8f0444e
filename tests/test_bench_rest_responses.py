"""What a request for a response must be, and what the answer looks like."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from handlehome.bench.rest import responses
from handlehome.bench.rest.errors import ApiError
from handlehome.bench.rest.faults import Output
from handlehome.bench.rest.request import RESPONSES, RestRequest
from tests.test_bench_rest_schema import TEXT, obj

SCHEMA = obj({"name": {"anyOf": [TEXT, {"type": "null"}]}, "urgency": {"enum": ["low", "high"]}})


def body(**more: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "name": "Record", "strict": True, "schema": SCHEMA}
    return {"model": "gpt-5.6-luna", "input": "Bonjour.", "text": {"format": form}, **more}


def formatted(**more: Any) -> dict[str, Any]:
    return body(text={"format": body()["text"]["format"] | more})


def request(**more: Any) -> RestRequest:
    sent = orjson.dumps(body(**more))
    return RestRequest(0, "POST", RESPONSES, {}, sent, 0.0, "req_7", body=responses.parse(sent))


def answer(
    text: str = '{"name":"Ann","urgency":"low"}', output: Output | None = None, **more: Any
) -> Response:
    """The answer, read as the SDK does."""
    return Response.model_validate(responses.answer(request(**more), text, 5, output), strict=True)


@pytest.mark.parametrize(
    "good",
    [
        body(),
        body(instructions="Extract.", store=False, reasoning={"effort": "low"}, max_output_tokens=16),
        body(input=[{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]),
        body(model="gpt-4.1", temperature=0),
        body(text={"format": {"type": "json_object"}, "verbosity": "low"}),
        {"model": "m", "input": "x"},
        formatted(strict=False, schema={"type": "array"}),
    ],
)
def test_a_right_request_is_taken(good: dict[str, Any]) -> None:
    assert responses.parse(orjson.dumps(good)) == good


@pytest.mark.parametrize(
    ("bad", "param", "code"),
    [
        (body(model=None), "model", "missing_required_parameter"),
        (body(input=None), "input", "missing_required_parameter"),
        (body(model=5), "model", "invalid_type"),
        (body(store="no"), "store", "invalid_type"),
        (body(max_output_tokens=True), "max_output_tokens", "invalid_type"),
        (body(max_output_tokens=15), "max_output_tokens", "integer_below_min_value"),
        (body(response_format={}), "response_format", "unknown_parameter"),
        (body(temperature=0), "temperature", "unsupported_parameter"),
        (body(model="gpt-6-astra", top_p=0.5), "top_p", "unsupported_parameter"),
        (body(reasoning={"effort": "huge"}), "reasoning.effort", "invalid_value"),
        (body(stream=True), "stream", "unsupported_value"),
        (body(input=["x"]), "input[0]", "invalid_type"),
        (body(input=[{"role": "caller", "content": "x"}]), "input[0].role", "invalid_value"),
        (body(input=[{"role": "user"}]), "input[0].content", "invalid_type"),
        (body(input=[{"type": "function_call"}]), "input[0].type", "invalid_value"),
        (body(text={"format": []}), "text.format", "invalid_type"),
        (body(text={"format": "json"}), "text.format", "invalid_type"),
        (body(text={"format": {"type": "xml"}}), "text.format.type", "invalid_value"),
        (formatted(name=None), "text.format.name", "missing_required_parameter"),
        (formatted(name="my record"), "text.format.name", "invalid_value"),
        (formatted(name="x" * 65), "text.format.name", "invalid_value"),
        (formatted(schema=None), "text.format.schema", "missing_required_parameter"),
        (formatted(schema=[]), "text.format.schema", "invalid_type"),
        (formatted(schema={"type": "object"}), "text.format.schema", "invalid_json_schema"),
    ],
)
def test_a_wrong_one_is_refused_with_its_parameter(bad: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as refused:
        responses.parse(orjson.dumps(bad))
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null"])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError, match="could not parse the JSON body"):
        responses.parse(raw)


def test_a_schema_that_is_not_strict_is_named_with_its_format() -> None:
    with pytest.raises(ApiError, match=r"Invalid schema for response_format 'Record': In context=\(\)"):
        responses.parse(orjson.dumps(formatted(schema={"type": "object"})))


def test_what_the_model_knows_is_filled_up_to_the_schema() -> None:
    assert orjson.loads(responses.text_of(request(), {"name": "Ann", "age": 5})) == {
        "name": "Ann",
        "urgency": "low",
    }
    assert responses.text_of(request(), "not even JSON") == "not even JSON"
    assert responses.text_of(request(text=None), {"a": 1}) == '{"a":1}'


def test_the_answer_is_a_response_of_the_api() -> None:
    got = answer(instructions="Extract.", store=False, metadata={"call": "CA1"})
    assert (got.id, got.status, got.model) == ("resp_7", "completed", "gpt-5.6-luna")
    assert got.output_text == '{"name":"Ann","urgency":"low"}'
    assert got.metadata == {"call": "CA1"}
    assert got.usage is not None
    assert got.usage.input_tokens > 20
    assert got.usage.output_tokens == 64 + 8
    assert got.usage.output_tokens_details.reasoning_tokens == 64
    assert got.usage.total_tokens == got.usage.input_tokens + got.usage.output_tokens


def test_a_model_that_reasons_says_so_before_its_message() -> None:
    assert [item.type for item in answer().output] == ["reasoning", "message"]
    assert [item.type for item in answer(model="gpt-4.1").output] == ["message"]
    quick = answer(reasoning={"effort": "none"})
    assert [item.type for item in quick.output] == ["message"]
    assert quick.usage is not None
    assert quick.usage.output_tokens_details.reasoning_tokens == 0


def test_an_answer_longer_than_allowed_is_cut() -> None:
    got = answer(max_output_tokens=64 + 5)
    assert got.status == "incomplete"
    assert got.incomplete_details is not None
    assert got.incomplete_details.reason == "max_output_tokens"
    assert got.output_text == '{"name":"Ann","urgen'
    assert answer(max_output_tokens=64 + 8).status == "completed"


@pytest.mark.parametrize(
    ("output", "status", "text"),
    [
        ("refusal", "completed", ""),
        ("no_message", "completed", ""),
        ("cut", "incomplete", '{"name":"Ann","urgen'),
        ("filtered", "incomplete", '{"name":"Ann","urgen'),
        ("missing_field", "completed", '{"name":"Ann"}'),
        ("commentary", "completed", "I read the text first."),
        ("preamble", "completed", 'I read the text first.{"name":"Ann","urgency":"low"}'),
        ("failed", "failed", ""),
    ],
)
def test_each_fault_of_the_output(output: Output, status: str, text: str) -> None:
    got = answer(output=output)
    assert (got.status, got.output_text) == (status, text)
    assert (got.error is not None) == (output == "failed")
    assert (got.incomplete_details is not None) == (status == "incomplete")
    phases = [item.phase for item in got.output if item.type == "message"]
    assert ("final_answer" in phases) == (output not in ("no_message", "commentary", "failed"))


def test_a_refusal_is_a_part_of_its_own() -> None:
    (message,) = (item for item in answer(output="refusal").output if item.type == "message")
    assert [part.type for part in message.content] == ["refusal"]
