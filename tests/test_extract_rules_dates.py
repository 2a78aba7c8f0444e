import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.extract.rules.dates import days_in
from handlehome.extract.rules.numbers import in_figures
from handlehome.extract.rules.tokens import tokenize

THURSDAY = dt.date(2026, 3, 12)


def days(text: str, today: dt.date = THURSDAY, language: str = "fr", region: str = "FR") -> list[str | None]:
    found = days_in(in_figures(tokenize(text), language), today, language, region)
    return [mention.day.isoformat() if mention.day else None for mention in found]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("aujourd'hui", "2026-03-12"),
        ("cet après-midi", "2026-03-12"),
        ("demain matin", "2026-03-13"),
        ("après-demain à 14 h 30", "2026-03-14"),
        ("mardi", "2026-03-17"),
        ("mardi prochain", "2026-03-17"),
        ("ce vendredi", "2026-03-13"),
        ("jeudi", "2026-03-19"),
        ("vendredi prochain", "2026-03-20"),
        ("samedi prochain", "2026-03-14"),
        ("jeudi de la semaine prochaine", "2026-03-19"),
        ("la semaine prochaine jeudi", "2026-03-19"),
        ("la semaine prochaine, plutôt le lundi", "2026-03-16"),
        ("mardi en huit", "2026-03-24"),
        ("mardi en quinze", "2026-03-31"),
        ("dans huit jours", "2026-03-19"),
        ("dans quinze jours", "2026-03-26"),
        ("dans trois jours", "2026-03-15"),
        ("dans deux semaines", "2026-03-26"),
        ("dans une quinzaine", "2026-03-26"),
        ("le 3 décembre", "2026-12-03"),
        ("le trois décembre deux mille vingt-six", "2026-12-03"),
        ("le premier avril", "2026-04-01"),
        ("le 1er avril", "2026-04-01"),
        ("le 5 janvier", "2027-01-05"),
        ("mardi 17", "2026-03-17"),
        ("mardi dix-sept à neuf heures", "2026-03-17"),
        ("le mercredi 1er", "2026-04-01"),
        ("le 15", "2026-03-15"),
        ("le 10", "2026-04-10"),
        ("le 31 vers midi", "2026-03-31"),
        ("03/04", "2026-04-03"),
        ("03/04/27", "2027-04-03"),
        ("2026-05-01", "2026-05-01"),
        ("le 29 février", "2028-02-29"),
    ],
)
def test_french_days(text: str, day: str) -> None:
    assert days(f"je voudrais {text}") == [day]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("tomorrow at nine", "2026-03-13"),
        ("the day after tomorrow", "2026-03-14"),
        ("on Tuesday", "2026-03-17"),
        ("next Friday", "2026-03-20"),
        ("this Friday", "2026-03-13"),
        ("Monday next week", "2026-03-16"),
        ("a week on Tuesday", "2026-03-24"),
        ("in two days", "2026-03-14"),
        ("in a fortnight", "2026-03-26"),
        ("the third of December", "2026-12-03"),
        ("the twenty-third of March", "2026-03-23"),
        ("March 23rd, 2027", "2027-03-23"),
        ("May second", "2026-05-02"),
        ("the 20th", "2026-03-20"),
        ("Monday the 23rd", "2026-03-23"),
    ],
)
def test_english_days(text: str, day: str) -> None:
    assert days(f"could you come {text}", language="en") == [day]


@pytest.mark.parametrize(
    "text",
    [
        "mardi dernier",
        "hier soir",
        "avant-hier",
        "il y a deux jours",
        "le 27 février",
        "le 31 juin",
        "lundi passé",
    ],
)
def test_days_that_are_past_or_none(text: str) -> None:
    assert set(days(text)) <= {None}


@pytest.mark.parametrize(
    "text",
    [
        "début mars",
        "la semaine prochaine",
        "le 15 rue Hoche",
        "le 06 12 34 56 78",
        "à 14 heures",
        "le premier étage",
        "le 2 pièces",
        "un jour dans la semaine",
        "dans une heure",
    ],
)
def test_what_names_no_day(text: str) -> None:
    assert days(text) == []


def test_a_weekday_before_an_hour_is_not_a_day_of_the_month() -> None:
    assert days("jeudi 14 heures") == ["2026-03-19"]
    assert days("lundi 8 h 30") == ["2026-03-16"]


def test_a_weekday_and_a_number_that_do_not_go_together_are_no_day() -> None:
    """Tuesday is the 17th; the next Tuesday the 18th comes in months: the weekday alone is left."""
    assert days("mardi 18") == ["2026-03-17"]


def test_next_monday_said_on_a_sunday_is_not_tomorrow() -> None:
    sunday = dt.date(2026, 5, 10)
    assert days("lundi prochain", sunday) == ["2026-05-18"]
    assert days("lundi", sunday) == ["2026-05-11"]


def test_the_ends_of_months_and_years() -> None:
    assert days("après-demain", dt.date(2026, 12, 30)) == ["2027-01-01"]
    assert days("demain", dt.date(2028, 2, 28)) == ["2028-02-29"]
    assert days("le 31", dt.date(2026, 4, 30)) == ["2026-05-31"]
    assert days("samedi 2", dt.date(2026, 12, 30)) == ["2027-01-02"]


def test_americans_write_the_month_first() -> None:
    assert days("04/03", language="en", region="US") == ["2026-04-03"]


def test_several_days_in_order() -> None:
    assert days("lundi ou le 20 mars, sinon demain") == ["2026-03-16", "2026-03-20", "2026-03-13"]


@given(st.dates(dt.date(2020, 1, 1), dt.date(2040, 12, 31)), st.integers(0, 6))
def test_a_weekday_is_the_next_one_in_the_week_to_come(today: dt.date, weekday: int) -> None:
    name = ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche")[weekday]
    (mention,) = days_in(name, today, "fr")
    assert mention.day is not None
    assert mention.day.weekday() == weekday
    assert 1 <= (mention.day - today).days <= 7


@given(st.text(alphabet="0123456789 /-:lemardijanvier'prochain", max_size=60), st.sampled_from(["fr", "en"]))
def test_any_text_gives_days_that_do_not_overlap(text: str, language: str) -> None:
    found = days_in(text, THURSDAY, language)
    assert all(first.end <= second.start for first, second in pairwise(found))
    assert all(mention.day is None or mention.day >= THURSDAY for mention in found)
