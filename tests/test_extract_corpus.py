from collections import Counter
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import phonenumbers
import pytest

from handlehome.extract import corpus, normalise, rules, scoring
from handlehome.extract.corpus import Case
from handlehome.extract.schema import CUSTOMER_FIELDS, load_schema

CASES = corpus.load()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

# What the rules reach on the whole corpus is 1.0 in each; the bounds leave room for cases that are harder.
BOUNDS = {
    "phone": 0.95,
    "email": 0.95,
    "postcode": 0.95,
    "date": 0.95,
    "time": 0.95,
    "city": 0.85,
    "type": 0.85,
}


def extracted(case: Case) -> dict[str, object]:
    return rules.extract(case.record, region=case.region, time_zone=case.time_zone, language=case.language)


def test_there_are_calls_enough_in_both_languages() -> None:
    languages = Counter(case.expected["language"] for case in CASES)
    assert languages["fr"] >= 30
    assert languages["en"] >= 5
    assert len({case.region for case in CASES}) >= 5
    assert len({case.time_zone for case in CASES}) >= 5


@each_case
def test_what_is_expected_keeps_to_the_schema(case: Case) -> None:
    load_schema().check(case.expected)
    assert case.note


@each_case
def test_what_is_expected_is_normal_already(case: Case) -> None:
    """Or a model whose answer is normalised could never reach it."""
    called_on = datetime.fromtimestamp(case.record.started_at, ZoneInfo(case.time_zone)).date()
    normal = normalise.data(case.expected, region=case.region, caller=None, on=called_on)
    assert scoring.score(case.expected, normal).differences == ()


@each_case
def test_the_evidence_is_for_what_is_expected_and_cites_turns_that_are_there(case: Case) -> None:
    customer = case.expected["customer"]
    values = {**customer, **customer["address"]}
    assert {entry["field"] for entry in case.expected["evidence"]} == {
        field for field in CUSTOMER_FIELDS if values[field] is not None
    }
    ids = {turn.id for turn in case.record.turns}
    assert all(entry["turns"] and set(entry["turns"]) <= ids for entry in case.expected["evidence"])


@each_case
def test_an_appointment_is_not_before_its_call(case: Case) -> None:
    day = case.expected["appointment"]["date"]
    called_on = datetime.fromtimestamp(case.record.started_at, ZoneInfo(case.time_zone)).date()
    assert day is None or date.fromisoformat(day) >= called_on


@each_case
def test_the_number_that_called_is_one(case: Case) -> None:
    caller = case.record.from_
    assert caller is None or phonenumbers.is_valid_number(phonenumbers.parse(caller))


@each_case
def test_a_call_is_a_conversation(case: Case) -> None:
    assert case.record.turns[0].role == "assistant"
    assert all(first.role != second.role for first, second in pairwise(case.record.turns))


def test_the_rules_hold_their_bounds() -> None:
    total = scoring.total(scoring.score(case.expected, extracted(case)) for case in CASES)
    for field, bound in BOUNDS.items():
        counts = total.fields[field]
        assert (counts.f1 or 0) >= bound, (field, counts)
        assert (counts.precision or 0) >= 0.97, (field, counts)
    assert (total.overall.precision or 0) >= 0.98
    assert total.fields["language"].f1 == 1
    assert (total.fields["evidence"].precision or 0) >= 0.98


@pytest.mark.parametrize(
    "name", ["injection", "insultes", "rien_dit", "faux_numero", "renseignement_sans_nom"]
)
def test_nothing_is_made_up(name: str) -> None:
    """Where there is nothing to be had, or only something wrong, no field may be filled wrongly."""
    (case,) = (case for case in CASES if case.name == name)
    wrong = scoring.score(case.expected, extracted(case)).overall.wrong
    assert wrong == 0


def test_a_wrong_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    for content, problem in (
        ("x = [", "broken"),
        ('note = ""\nstarted = 2026-01-01T00:00:00Z\nturns = ["B: x"]\n[expected]', "neither"),
        (
            'note = ""\nstarted = 2026-01-01T00:00:00Z\nturns = []\n[expected]\nname = 1',
            "unknown fields: name",
        ),
        ("turns = []", "started"),
    ):
        (tmp_path / "broken.toml").write_text(content)
        with pytest.raises(ValueError, match=r"broken\.toml") as error:
            corpus.load()
        assert problem in str(error.value)
