"""The default schema, the user's own, and answers that keep to them or don't."""

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from handlehome.extract.schema import DEFAULT, AnswerError, SchemaError, load_schema
from tests.extract_room import empty

OWN: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"plate": {"type": ["string", "null"]}, "day": {"type": "string", "format": "date"}},
    "required": ["plate", "day"],
    "additionalProperties": False,
}


def leaves(schema: dict[str, Any]) -> list[dict[str, Any]]:
    if schema["type"] == "object":
        return [leaf for inner in schema["properties"].values() for leaf in leaves(inner)]
    return [schema]


def written(path: Path, content: object) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return path


def test_every_leaf_of_the_default_schema_may_be_empty() -> None:
    for leaf in leaves(DEFAULT):  # type: ignore[arg-type]  # JSON
        assert leaf["type"] == "array" or "null" in leaf["type"]
        assert "enum" not in leaf or None in leaf["enum"]
    load_schema().check(empty())


def test_the_default_schema_is_valid_and_small() -> None:
    Draft202012Validator.check_schema(DEFAULT)
    assert len(orjson.dumps(DEFAULT)) < 4500  # it is paid for with each call


def test_the_default_schema_goes_out_as_strict() -> None:
    schema = load_schema()
    assert schema.is_default
    assert schema.text_format == {"type": "json_schema", "name": "default", "strict": True, "schema": DEFAULT}


def test_an_own_schema_is_read_and_named_after_its_file(tmp_path: Path) -> None:
    schema = load_schema(written(tmp_path / "car repairs.v2.json", OWN))
    assert (schema.name, schema.is_default) == ("car repairs.v2", False)
    assert schema.text_format["name"] == "car_repairs_v2"
    assert "$schema" not in schema.schema
    assert schema.parse('{"plate": null, "day": "2026-11-24"}') == {"plate": None, "day": "2026-11-24"}
    with pytest.raises(AnswerError, match="#/day: format"):
        schema.parse('{"plate": null, "day": "tomorrow"}')


def test_an_own_schema_named_default_is_not_taken_for_ours(tmp_path: Path) -> None:
    assert load_schema(written(tmp_path / "default.json", OWN)).name == "custom"


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    assert not load_schema(written(tmp_path / "a.json", b"\xef\xbb\xbf" + orjson.dumps(OWN))).is_default


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"type": ', "line 1, column 10: is no JSON"),
        (b"[]", "#: the schema must be a JSON object"),
        (OWN | {"required": ["day"]}, "#/properties/plate: must be listed in required"),
        (b" " * (1 << 20) + b" ", "is larger than 1048576 bytes"),
    ],
)
def test_an_unusable_file_is_named_with_what_is_wrong(tmp_path: Path, content: object, line: str) -> None:
    path = written(tmp_path / "own.json", content)
    with pytest.raises(SchemaError) as raised:
        load_schema(path)
    assert [found for found in raised.value.lines if line in found]
    assert all(found.startswith(f"{path}: ") for found in raised.value.lines)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="cannot be read: No such file"):
        load_schema(tmp_path / "none.json")
    with pytest.raises(SchemaError, match="cannot be read: Is a directory"):
        load_schema(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"summary": 5}, "#/summary: type"),
        ({"surprise": "x"}, "additionalProperties"),
        ({"sentiment": "furious"}, "#/sentiment: enum"),
        ({"customer": None}, "#/customer: type"),
    ],
)
def test_an_answer_that_breaks_the_schema_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(AnswerError, match=problem):
        load_schema().parse(orjson.dumps(empty() | change).decode())


def test_a_missing_field_a_cut_answer_and_no_object_are_refused() -> None:
    schema, answer = load_schema(), empty()
    text = orjson.dumps(answer).decode()
    with pytest.raises(AnswerError, match="is no JSON"):
        schema.parse(text[: len(text) // 2])
    with pytest.raises(AnswerError, match="#: type"):
        schema.parse("[]")
    lacking = copy.deepcopy(answer)
    del lacking["customer"]["email"]
    with pytest.raises(AnswerError, match="#/customer: required"):
        schema.parse(orjson.dumps(lacking).decode())


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', '{"a": NaN}', "", "null", '"' + "x" * 200_000 + '"'])
def test_what_could_not_be_stored_is_refused(text: str) -> None:
    with pytest.raises(AnswerError):
        load_schema().parse(text)


def test_a_refusal_repeats_nothing_that_was_said() -> None:
    with pytest.raises(AnswerError) as raised:
        load_schema().check(empty() | {"summary": ["Jean Dupont"]})
    assert "Dupont" not in str(raised.value)
