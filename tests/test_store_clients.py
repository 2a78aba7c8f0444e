"""What is known of a client, and from which calls."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.store.clients import (
    CONTACT_FIELDS,
    ClientRecord,
    client_of,
    contact,
    customer_phone,
    latest,
    party,
    request_type,
)
from handlehome.store.records import CallRecord

CALLER, COMPANY = "+33612345678", "+33123456789"


def record(**changes: Any) -> CallRecord:
    return CallRecord("CA1", 0.0, **{"from_": CALLER, "to": COMPANY, "direction": "inbound", **changes})


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("inbound", CALLER),
        ("outbound-api", COMPANY),
        ("outbound-dial", COMPANY),
        (None, CALLER),
        ("", CALLER),
    ],
)
def test_other_end_of_a_call(direction: str | None, expected: str) -> None:
    assert party(record(direction=direction)) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (CALLER, CALLER),
        ("+15005550006", "+15005550006"),
        ("+266696687", None),
        ("+7378742833", None),
        ("anonymous", None),
        ("client:lea", None),
        ("sip:+33612345678@example.fr", None),
        ("0612345678", None),
        ("+0612345678", None),
        ("+33612345678\n", None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_whole_number_makes_a_client(number: str | None, expected: str | None) -> None:
    assert client_of(record(from_=number)) == expected
    assert client_of(record(from_=number, data={"customer": {"phone": COMPANY}})) == (expected or COMPANY)


def test_contact_holds_what_is_known() -> None:
    data = {
        "customer": {
            "first_name": "Zoé",
            "last_name": None,
            "email": "",
            "phone": CALLER,
            "address": {"street": None, "postcode": "69003", "country": "France"},
        }
    }
    address = {"street": None, "postcode": "69003", "city": None}
    assert contact(data) == {"first_name": "Zoé", "address": address}
    assert contact({"customer": {"address": {"street": None}}}) == {}
    assert customer_phone(record(data=data)) == CALLER


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["customer", "request", "type", "phone", "address", "city", *CONTACT_FIELDS]),
            inner,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["customer", "request"]), anything))
def test_data_of_any_shape_are_taken(data: dict[str, Any]) -> None:
    call = record(data=data)
    known = contact(data)
    assert known.keys() <= set(CONTACT_FIELDS)
    assert all(isinstance(known[name], str) for name in known.keys() - {"address"})
    assert all(isinstance(value, str | None) for value in (request_type(call), customer_phone(call)))
    assert client_of(call) == CALLER


@given(st.lists(st.dictionaries(st.sampled_from(CONTACT_FIELDS), st.integers()), max_size=6))
def test_latest_value_of_each_field_wins(contacts: list[dict[str, int]]) -> None:
    expected: dict[str, int] = {}
    for one in reversed(contacts):
        expected.update(one)
    assert latest(contacts) == expected


def test_nothing_is_read_when_all_is_known() -> None:
    whole = dict.fromkeys(CONTACT_FIELDS, "known")

    def contacts() -> Any:
        yield whole
        raise AssertionError("read too far")

    assert latest(contacts()) == whole


def test_client_as_the_api_serves_it() -> None:
    client = ClientRecord(CALLER, 0.25, 1_900_000_000.0, 2, "CA2", email="zoe@example.fr")
    assert client.to_document() == {
        "_id": CALLER,
        "first_seen": "1970-01-01T00:00:00.250Z",
        "last_seen": "2030-03-17T17:46:40.000Z",
        "calls": 2,
        "last_call": "CA2",
        "first_name": None,
        "last_name": None,
        "company": None,
        "email": "zoe@example.fr",
        "address": None,
    }
