"""What a request asks for."""

from __future__ import annotations

from typing import Any

from handlehome.bench.rest.form import Form
from handlehome.bench.rest.request import RESPONSES, RestRequest


def request(**body: Any) -> RestRequest:
    return RestRequest(0, "POST", RESPONSES, {}, b"", 0.0, "req_0", body=body)


def test_a_plain_input_is_the_text() -> None:
    got = request(model="m", instructions="Extract.", input="Bonjour.")
    assert (got.model, got.instructions, got.text) == ("m", "Extract.", "Bonjour.")


def test_messages_are_split_by_who_has_a_say() -> None:
    got = request(
        instructions="Extract.",
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]},
            {"role": "assistant", "content": "no"},
            {"role": "user", "content": "b"},
        ],
    )
    assert got.instructions == "Extract.\nBe brief."
    assert got.text == "a\nb"


def test_the_schema_is_that_of_the_format() -> None:
    schema = {"type": "object"}
    got = request(text={"format": {"type": "json_schema", "schema": schema}})
    assert got.schema is schema
    assert request().schema is None
    assert request(text={}).format == {"type": "text"}


def test_a_forms_model_counts_too() -> None:
    got = request()
    assert got.model == ""
    got.form = Form({"model": ["whisper-1"]})
    assert got.model == "whisper-1"
