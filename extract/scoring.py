"""How good extracted data is: compared with what is expected, field by field.

Pure. A field that is expected and found alike is a hit; one that is found but not expected, or not like that,
is wrong (it counts against precision); one that is expected but not found like that is missed (it counts
against recall). Two nulls count nothing. Free text (description, follow-up, summary) isn't compared: there is
no one right wording of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FIELDS", "Counts", "Difference", "Score", "score", "table", "total"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Hits and errors of one field, or of several."""

    hits: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hits + other.hits, self.wrong + other.wrong, self.missed + other.missed)

    @property
    def precision(self) -> float | None:
        """Share of what was found that is right; None when nothing was found."""
        found = self.hits + self.wrong
        return self.hits / found if found else None

    @property
    def recall(self) -> float | None:
        """Share of what was to be found that was found; None when there was nothing to find."""
        expected = self.hits + self.missed
        return self.hits / expected if expected else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two; None when there was nothing to find and nothing was found."""
        all_ = 2 * self.hits + self.wrong + self.missed
        return 2 * self.hits / all_ if all_ else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that isn't as expected."""

    field: str
    expected: Any
    got: Any


@dataclass(frozen=True, slots=True)
class Score:
    """The comparison of one data object, or of many.

    Attributes:
        fields: by the names in `FIELDS`.
        differences: what isn't as expected.
    """

    fields: Mapping[str, Counts] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    @property
    def overall(self) -> Counts:
        """All fields together, evidence apart."""
        return sum((counts for name, counts in self.fields.items() if name != "evidence"), Counts())

    def of(self, names: Iterable[str]) -> Counts:
        """Some fields together."""
        return sum((self.fields.get(name, Counts()) for name in names), Counts())


def _text(value: object) -> object:
    """Texts are alike but for case, accents, punctuation and hyphens: "Saint Malo" and "saint-malo"."""
    if not isinstance(value, str):
        return value
    plain = unicodedata.normalize("NFKD", value.casefold())
    kept = "".join(char if char.isalnum() else " " for char in plain if not unicodedata.combining(char))
    return " ".join(kept.split()) or None


def _code(value: object) -> object:
    """Postcodes are alike with or without their space."""
    return value.replace(" ", "").upper() or None if isinstance(value, str) else value


def _exact(value: object) -> object:
    return None if value == "" else value


def _place(*path: str) -> Callable[[Mapping[str, Any]], Any]:
    def get(data: Mapping[str, Any]) -> Any:
        value: Any = data
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    return get


def _phone_said(data: Mapping[str, Any]) -> Any:
    """The number, unless it was filled in from the line (`phone_source`)."""
    filled_in = _place("customer", "phone_source")(data) == "caller_id"
    return None if filled_in else _place("customer", "phone")(data)


_FIELDS: Mapping[str, tuple[Callable[[Mapping[str, Any]], Any], Callable[[object], object]]] = {
    "first_name": (_place("customer", "first_name"), _text),
    "last_name": (_place("customer", "last_name"), _text),
    "company": (_place("customer", "company"), _text),
    "phone": (_phone_said, _exact),
    "email": (_place("customer", "email"), _exact),
    "street": (_place("customer", "address", "street"), _text),
    "postcode": (_place("customer", "address", "postcode"), _code),
    "city": (_place("customer", "address", "city"), _text),
    "type": (_place("request", "type"), _exact),
    "urgency": (_place("request", "urgency"), _exact),
    "date": (_place("appointment", "date"), _exact),
    "time": (_place("appointment", "time"), _exact),
    "duration": (_place("appointment", "duration_minutes"), _exact),
    "mode": (_place("appointment", "mode"), _exact),
    "language": (_place("language"), _exact),
    "sentiment": (_place("sentiment"), _exact),
}

FIELDS: Sequence[str] = (*_FIELDS, "services", "evidence")
"""What is compared. `services` counts the services, `evidence` the customer fields that cite a turn which
shows them."""


def score(expected: Mapping[str, Any], got: Mapping[str, Any]) -> Score:
    """Compares one data object of the default schema with the expected one.

    Args:
        expected: the right data.
        got: the data to judge; fields that it lacks are null.
    """
    fields: dict[str, Counts] = {}
    differences: list[Difference] = []
    for name, (get, normal) in _FIELDS.items():
        right, found = normal(get(expected)), normal(get(got))
        if right == found:
            fields[name] = Counts(hits=int(right is not None))
        else:
            fields[name] = Counts(wrong=int(found is not None), missed=int(right is not None))
            differences.append(Difference(name, get(expected), get(got)))
    for name, compare in (("services", _services), ("evidence", _evidence)):
        fields[name], difference = compare(expected, got)
        if difference is not None:
            differences.append(difference)
    return Score(fields, tuple(differences))


def _services(expected: Mapping[str, Any], got: Mapping[str, Any]) -> tuple[Counts, Difference | None]:
    """Two names of a service are alike when they share the beginning of a word: plombier, plomberie."""
    right, found = (_place("request", "services")(data) or [] for data in (expected, got))
    hit = sum(any(_stems(one) & _stems(other) for other in found) for one in right)
    fitting = sum(any(_stems(one) & _stems(other) for other in right) for one in found)
    counts = Counts(hits=hit, wrong=len(found) - fitting, missed=len(right) - hit)
    return counts, Difference("services", right, found) if counts.wrong or counts.missed else None


def _stems(service: object) -> set[str]:
    return {word[:5] for word in str(_text(service) or "").split() if len(word) >= 3}


def _evidence(expected: Mapping[str, Any], got: Mapping[str, Any]) -> tuple[Counts, Difference | None]:
    right, found = (
        {
            entry["field"]: sorted(entry["turns"])
            for entry in data.get("evidence") or ()
            if isinstance(entry, Mapping) and "field" in entry and "turns" in entry
        }
        for data in (expected, got)
    )
    hits = sum(not set(right[name]).isdisjoint(turns) for name, turns in found.items() if name in right)
    counts = Counts(hits=hits, wrong=len(found) - hits, missed=len(right) - hits)
    return counts, Difference(
        "evidence", right, found
    ) if right.keys() & found.keys() and counts.wrong else None


def total(scores: Iterable[Score]) -> Score:
    """Many comparisons as one; differences are left with the single ones."""
    fields: dict[str, Counts] = {name: Counts() for name in FIELDS}
    for each in scores:
        for name, counts in each.fields.items():
            fields[name] = fields[name] + counts
    return Score(fields)


def table(result: Score) -> list[dict[str, Any]]:
    """One row per field and one for all, ready for a table or JSON.

    Rows hold `field`, `hits`, `wrong`, `missed`, and `precision`, `recall`, `f1` (0 to 1, or None).
    """
    rows = [*((name, result.fields.get(name, Counts())) for name in FIELDS), ("overall", result.overall)]
    return [
        {
            "field": name,
            "hits": counts.hits,
            "wrong": counts.wrong,
            "missed": counts.missed,
            "precision": counts.precision,
            "recall": counts.recall,
            "f1": counts.f1,
        }
        for name, counts in rows
    ]
