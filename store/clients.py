"""Clients: the people who call, and how what is known of one follows from the stored calls.

Pure. A client is nothing but a digest of the calls that are in the store: whoever changes the calls of a
number (saves one, again or anew, deletes one, drops old ones) works the digest out once more. So a call that
is saved twice counts once, and what only an erased call has said is known no longer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from handlehome.store.records import CallRecord

__all__ = [
    "CONTACT_FIELDS",
    "ClientRecord",
    "client_of",
    "contact",
    "customer_phone",
    "latest",
    "party",
    "request_type",
]

CONTACT_FIELDS: Final = ("first_name", "last_name", "company", "email", "address")
ADDRESS_PARTS: Final = ("street", "postcode", "city")

_E164: Final = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)
# What Twilio may give for a hidden caller: a word as it is spelled on a telephone's keys.
_HIDDEN: Final = {
    "+266696687",  # ANONYMOUS
    "+2562533",  # BLOCKED
    "+7378742833",  # RESTRICTED
    "+86282452253",  # UNAVAILABLE
    "+8656696",  # UNKNOWN
}


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """What is known of the person behind a phone number; times in seconds since the epoch.

    Attributes:
        phone: E.164.
        first_seen: start of the first call.
        last_seen: start of the last call.
        calls: how many calls are in the store.
        last_call: CallSid of the last call.
        first_name: of this and the following, the latest that any of the calls gave.
        last_name: see above.
        company: see above.
        email: see above.
        address: `street`, `postcode` and `city`, each of which may be None; all three are of one call.
    """

    phone: str
    first_seen: float
    last_seen: float
    calls: int
    last_call: str
    first_name: str | None = None
    last_name: str | None = None
    company: str | None = None
    email: str | None = None
    address: dict[str, str | None] | None = None

    def to_document(self) -> dict[str, Any]:
        """The client as the API serves it: `_id` is the phone number, times are those of a `CallRecord`."""
        document = {name: getattr(self, name) for name in self.__slots__ if name != "phone"}
        return {
            "_id": self.phone,
            **document,
            "first_seen": _to_iso(self.first_seen),
            "last_seen": _to_iso(self.last_seen),
        }


def party(record: CallRecord) -> str | None:
    """Who is at the other end of the call, as Twilio gives it: a number, a SIP URI, `anonymous`."""
    outbound = record.direction is not None and record.direction.startswith("outbound")
    return record.to if outbound else record.from_


def customer_phone(record: CallRecord) -> str | None:
    """The customer's number that was extracted, whatever it looks like."""
    return _text(_member(record.data, "customer").get("phone"))


def client_of(record: CallRecord) -> str | None:
    """The number whose client this call belongs to, E.164; None when there is none.

    It is the number at the other end; for a hidden one, or a SIP address, the number that was extracted.
    """
    return _number(party(record)) or _number(customer_phone(record))


def request_type(record: CallRecord) -> str | None:
    """What the caller wanted, where the built-in schema has it."""
    return _text(_member(record.data, "request").get("type"))


def contact(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a call's extracted data say of the client: those of `CONTACT_FIELDS` that are known.

    Data of another schema than the built-in one may lack all of it, or hold something else in its place.
    """
    customer = _member(data, "customer")
    known: dict[str, Any] = {
        name: customer[name] for name in CONTACT_FIELDS[:-1] if _text(customer.get(name)) is not None
    }
    address = _member(customer, "address")
    parts = {name: _text(address.get(name)) for name in ADDRESS_PARTS}
    if any(parts.values()):
        known["address"] = parts
    return known


def latest(contacts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Each field's latest value, from contacts of the latest call first; reads no further than it must."""
    known: dict[str, Any] = {}
    for one in contacts:
        for name in one.keys() - known.keys():
            known[name] = one[name]
        if len(known) == len(CONTACT_FIELDS):
            break
    return known


def _member(data: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    member = data.get(name) if isinstance(data, Mapping) else None
    return member if isinstance(member, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _number(text: str | None) -> str | None:
    return text if text is not None and _E164.fullmatch(text) and text not in _HIDDEN else None


def _to_iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
