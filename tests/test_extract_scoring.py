import copy
from typing import Any

import pytest

from handlehome.extract import corpus, scoring
from handlehome.extract.scoring import Counts, Score, score

EXPECTED: dict[str, Any] = {
    "customer": {
        "first_name": "Hélène",
        "last_name": "Le Goff",
        "phone": "+33612345678",
        "email": None,
        "address": {"street": "12 rue des Lilas", "postcode": "35400", "city": "Saint-Malo"},
        "company": None,
    },
    "request": {
        "type": "quote",
        "services": ["plomberie", "salle de bains"],
        "description": None,
        "urgency": None,
    },
    "appointment": {"date": "2026-03-17", "time": None, "duration_minutes": 60, "mode": "on_site"},
    "language": "fr",
    "sentiment": "neutral",
    "evidence": [{"field": "phone", "turns": ["T4", "T5"], "confidence": 1.0}],
}


def changed(**customer: Any) -> dict[str, Any]:
    data = copy.deepcopy(EXPECTED)
    data["customer"].update(customer)
    return data


def test_what_is_as_expected_is_a_hit_and_two_nulls_are_nothing() -> None:
    result = score(EXPECTED, EXPECTED)
    assert result.differences == ()
    assert result.fields["phone"] == Counts(hits=1)
    assert result.fields["email"] == Counts()
    assert result.overall.wrong == result.overall.missed == 0


@pytest.mark.parametrize(
    ("phone", "counts"),
    [
        ("+33612345678", Counts(hits=1)),
        (None, Counts(missed=1)),
        ("", Counts(missed=1)),
        ("+33612345679", Counts(wrong=1, missed=1)),
    ],
)
def test_missed_and_wrong(phone: str | None, counts: Counts) -> None:
    assert score(EXPECTED, changed(phone=phone)).fields["phone"] == counts


def test_what_is_invented_is_wrong() -> None:
    result = score(EXPECTED, changed(email="a@b.fr"))
    assert result.fields["email"] == Counts(wrong=1)
    (difference,) = result.differences
    assert (difference.field, difference.expected, difference.got) == ("email", None, "a@b.fr")


def test_names_are_alike_but_for_case_accents_and_hyphens() -> None:
    got = changed(
        first_name="helene", last_name="LE GOFF", address={"city": "saint malo", "postcode": "35400"}
    )
    assert {each.field for each in score(EXPECTED, got).differences} == {"street"}


def test_a_number_that_the_line_gave_was_not_said() -> None:
    got = changed(phone_source="caller_id")
    assert score(EXPECTED, got).fields["phone"] == Counts(missed=1)
    assert score(changed(phone=None), got).fields["phone"] == Counts()


def test_services_are_alike_when_they_begin_a_word_alike() -> None:
    got = copy.deepcopy(EXPECTED)
    got["request"]["services"] = ["Plombier", "toiture"]
    assert score(EXPECTED, got).fields["services"] == Counts(hits=1, wrong=1, missed=1)


def test_evidence_must_cite_a_turn_that_shows_the_field() -> None:
    got = copy.deepcopy(EXPECTED)
    got["evidence"] = [{"field": "phone", "turns": ["T5", "T9"], "confidence": 0.5}]
    assert score(EXPECTED, got).fields["evidence"] == Counts(hits=1)
    got["evidence"] = [
        {"field": "phone", "turns": ["T9"], "confidence": 0.5},
        {"field": "email", "turns": ["T4"]},
    ]
    result = score(EXPECTED, got)
    assert result.fields["evidence"] == Counts(wrong=2, missed=1)
    assert "evidence" in {each.field for each in result.differences}


@pytest.mark.parametrize(
    "data", [{}, {"customer": None, "request": [], "evidence": "x"}, {"evidence": [None, {}]}]
)
def test_data_that_is_no_data_has_found_nothing(data: dict[str, Any]) -> None:
    result = score(EXPECTED, data)
    assert result.overall.hits == result.overall.wrong == 0
    assert result.overall.recall == 0
    assert result.overall.precision is None


def test_precision_recall_and_f1() -> None:
    counts = Counts(hits=6, wrong=2, missed=4)
    assert counts.precision == 0.75
    assert counts.recall == 0.6
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    assert Counts().f1 is None
    assert Counts(missed=1).f1 == 0


def test_the_total_adds_up() -> None:
    total = scoring.total(
        [score(EXPECTED, EXPECTED), score(EXPECTED, changed(phone=None)), score(EXPECTED, {})]
    )
    assert total.fields["phone"] == Counts(hits=1, missed=2)
    assert total.of(["phone", "postcode"]) == Counts(hits=3, missed=3)
    assert scoring.total([]) == Score({name: Counts() for name in scoring.FIELDS})


def test_the_table_has_a_row_for_each_field_and_one_for_all() -> None:
    rows = scoring.table(score(EXPECTED, changed(phone=None)))
    assert [row["field"] for row in rows] == [*scoring.FIELDS, "overall"]
    by_name = {row["field"]: row for row in rows}
    assert by_name["phone"]["recall"] == 0
    assert by_name["email"]["f1"] is None
    assert by_name["overall"]["precision"] == 1


def test_only_what_differs_is_counted_as_such() -> None:
    cases = corpus.load()
    for one, other in zip(cases, cases[1:] + cases[:1], strict=True):
        result = score(one.expected, other.expected)
        wrong = {name for name, counts in result.fields.items() if counts.wrong or counts.missed}
        assert {each.field for each in result.differences} <= wrong
        assert score(one.expected, one.expected).overall.f1 == 1
