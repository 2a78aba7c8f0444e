"""Values in their one form, and nothing invented."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.extract import normalise
from handlehome.extract.schema import CUSTOMER_FIELDS

CALLER = "+33612345678"
DAY = dt.date(2026, 11, 24)


@pytest.mark.parametrize(
    ("said", "region", "number"),
    [
        ("06 12 34 56 78", "FR", "+33612345678"),
        ("06.12.34.56.78", "FR", "+33612345678"),
        ("+33 (0)6 12 34 56 78", "FR", "+33612345678"),
        ("0033612345678", "FR", "+33612345678"),
        ("+32 470 12 95 81", "FR", "+32470129581"),
        ("020 7946 0018", "GB", "+442079460018"),
        ("(202) 555-0143", "US", "+12025550143"),
        ("06 39 98 05 81", "FR", "+33639980581"),  # reserved for fiction
        ("07700 900461", "GB", "+447700900461"),  # likewise
        ("06 12 34 56", "FR", None),
        ("112", "FR", None),
        ("3949", "FR", None),
        ("+266696687", "FR", None),  # Twilio: anonymous
        ("anonymous", "FR", None),
        ("sip:anna@example.com", "FR", None),
        ("1" * 300, "FR", None),
        ("", "FR", None),
        (None, "FR", None),
    ],
)
def test_phone(said: str | None, region: str, number: str | None) -> None:
    assert normalise.phone(said, region) == number


@pytest.mark.parametrize(
    ("said", "address"),
    [
        (" Jean.Dupont@Gmail.COM ", "jean.dupont@gmail.com"),
        ("a@example.fr", "a@example.fr"),
        ("jean dupont@gmail.com", None),
        ("jean@entreprise", None),
        ("jean.dupont", None),
        ("x" * 400 + "@a.fr", None),
        (None, None),
    ],
)
def test_email(said: str | None, address: str | None) -> None:
    assert normalise.email(said) == address


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("2026-11-24", "2026-11-24"),
        ("2026-11-24T10:00:00+01:00", "2026-11-24"),
        ("20261124", "2026-11-24"),
        ("2026-02-30", None),
        ("24/11/2026", None),
        ("mardi", None),
        ("", None),
        (None, None),
    ],
)
def test_date(said: str | None, day: str | None) -> None:
    assert normalise.date(said) == day


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("10:00", "10:00"),
        ("9:05", "09:05"),
        ("09:05:30", "09:05"),
        ("9h30", "09:30"),
        ("14 h", "14:00"),
        ("00:00", "00:00"),
        ("24:00", None),
        ("10:61", None),
        ("10", None),
        ("morning", None),
        (None, None),
    ],
)
def test_time(said: str | None, time: str | None) -> None:
    assert normalise.time(said) == time


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("  Jean \n Paul ", "Jean Paul"),
        ("Jean\x00Paul\x1b", "Jean Paul"),
        ("Unknown", None),
        ("non précisé.", None),
        ("", None),
        (5, None),
        ("x" * 201, None),
        ("Null", None),
        ("Nullin", "Nullin"),
    ],
)
def test_text(said: object, kept: str | None) -> None:
    assert normalise.text(said) == kept


def test_a_long_description_is_cut_rather_than_lost() -> None:
    cut = normalise.text("x " * 3000, 100, cut=True)
    assert cut is not None
    assert len(cut) <= 100
    assert cut.endswith("…")


def data(*, caller: str | None = CALLER, on: dt.date | None = DAY, **given: Any) -> dict[str, Any]:
    return normalise.data(given, region="FR", caller=caller, on=on)


def test_nothing_known_is_the_whole_shape_with_nothing_in_it() -> None:
    assert data(caller=None) == {
        "customer": {
            "first_name": None,
            "last_name": None,
            "phone": None,
            "phone_source": None,
            "email": None,
            "address": {"street": None, "postcode": None, "city": None},
            "company": None,
        },
        "request": {"type": None, "services": [], "description": None, "urgency": None},
        "appointment": {"date": None, "time": None, "duration_minutes": None, "mode": None},
        "follow_up": None,
        "summary": None,
        "language": None,
        "sentiment": None,
        "evidence": [],
    }


@pytest.mark.parametrize(
    ("said", "caller", "phone", "source"),
    [
        ("07 56 12 34 56", CALLER, "+33756123456", "said"),
        (None, CALLER, CALLER, "caller_id"),
        ("not a number", CALLER, CALLER, "caller_id"),
        (None, "anonymous", None, None),
        (None, "+266696687", None, None),
        ("07 56 12 34 56", None, "+33756123456", "said"),
    ],
)
def test_the_number_that_called_fills_in_and_is_marked(
    said: str | None, caller: str | None, phone: str | None, source: str | None
) -> None:
    customer = data(caller=caller, customer={"phone": said})["customer"]
    assert (customer["phone"], customer["phone_source"]) == (phone, source)


@pytest.mark.parametrize(
    ("day", "kept"),
    [
        ("2026-11-25", True),
        ("2026-11-10", True),
        ("2028-11-20", True),
        ("2026-10-01", False),
        ("2030-01-01", False),
        ("0001-01-01", False),
    ],
)
def test_an_appointment_lies_near_the_call(day: str, kept: bool) -> None:
    assert (data(appointment={"date": day})["appointment"]["date"] is not None) is kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("7 5 0 1 1", "75011"),
        ("59 800", "59800"),
        ("sw1a 1aa", "SW1A 1AA"),
        ("SE15 3PX", "SE15 3PX"),
        ("5.9.8.0.0", "59800"),
        ("Lille", None),
        ("75", None),
    ],
)
def test_postcode(said: str, kept: str | None) -> None:
    assert data(customer={"address": {"postcode": said}})["customer"]["address"]["postcode"] == kept


@pytest.mark.parametrize(
    ("said", "kept"), [("fr", "fr"), ("FR", "fr"), ("en-GB", "en"), ("français", None), (None, None)]
)
def test_language(said: str | None, kept: str | None) -> None:
    assert data(language=said)["language"] == kept


@pytest.mark.parametrize(("said", "kept"), [(60, 60), (90.0, 90), (0, None), (10**9, None), (True, None)])
def test_duration(said: object, kept: int | None) -> None:
    assert data(appointment={"duration_minutes": said})["appointment"]["duration_minutes"] == kept


def test_what_is_none_of_the_choices_is_none() -> None:
    made = data(request={"type": "gift", "urgency": "high"}, sentiment=[], appointment={"mode": "on_site"})
    assert (made["request"]["type"], made["request"]["urgency"]) == (None, "high")
    assert (made["sentiment"], made["appointment"]["mode"]) == (None, "on_site")


def test_services_are_named_once() -> None:
    assert data(request={"services": ["plomberie", " plomberie", "", None, 3]})["request"]["services"] == [
        "plomberie"
    ]


def test_evidence_stands_only_for_fields_that_were_said() -> None:
    evidence = [
        {"field": "last_name", "turns": ["a", "a", 3], "confidence": 1.7},
        {"field": "last_name", "turns": ["b"], "confidence": 0.5},
        {"field": "city", "turns": ["a"], "confidence": float("nan")},
        {"field": "email", "turns": ["a"], "confidence": 1},
        {"field": "phone", "turns": ["a"], "confidence": 1},
        {"field": "first_name", "turns": [], "confidence": 1},
        {"field": "shoe size", "turns": ["a"], "confidence": 1},
        {"field": None},
        "nonsense",
    ]
    customer = {"first_name": "Jean", "last_name": "Dupont", "address": {"city": "Lille"}}
    assert data(customer=customer, evidence=evidence)["evidence"] == [
        {"field": "last_name", "turns": ["a"], "confidence": 1.0},
        {"field": "city", "turns": ["a"], "confidence": 0.0},
    ]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
named = st.fixed_dictionaries(
    {},
    optional={
        "customer": st.fixed_dictionaries(
            {}, optional=dict.fromkeys([*CUSTOMER_FIELDS, "phone_source", "address"], json)
        )
        | json,
        "request": st.fixed_dictionaries({}, optional=dict.fromkeys(["type", "services", "urgency"], json))
        | json,
        "appointment": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(["date", "time", "duration_minutes"], json)
        )
        | json,
        "summary": json,
        "language": json,
        "evidence": st.lists(
            st.fixed_dictionaries(
                {"field": st.sampled_from(CUSTOMER_FIELDS), "turns": json, "confidence": json}
            ),
            max_size=3,
        )
        | json,
    },
)


@given(named, st.none() | st.text() | st.just(CALLER))
def test_whatever_comes_the_shape_stays_and_twice_is_once(
    given_data: dict[str, Any], caller: str | None
) -> None:
    once = normalise.data(given_data, region="FR", caller=caller, on=DAY)
    assert once.keys() == data().keys()
    assert once["customer"].keys() == data()["customer"].keys()
    assert normalise.data(once, region="FR", caller=caller, on=DAY) == once
