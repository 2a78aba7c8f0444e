import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.extract.rules.numbers import in_figures
from handlehome.extract.rules.times import times_in
from handlehome.extract.rules.tokens import tokenize


def times(text: str, language: str = "fr") -> list[str]:
    return [mention.time for mention in times_in(in_figures(tokenize(text), language), language)]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("à 14 h 30", "14:30"),
        ("à 14h30", "14:30"),
        ("à 14:30", "14:30"),
        ("quatorze heures trente", "14:30"),
        ("neuf heures et demie", "09:30"),
        ("neuf heures et quart", "09:15"),
        ("dix heures moins le quart", "09:45"),
        ("dix heures moins dix", "09:50"),
        ("midi", "12:00"),
        ("midi et demi", "12:30"),
        ("minuit", "00:00"),
        ("deux heures de l'après-midi", "14:00"),
        ("à trois heures", "15:00"),
        ("six heures du matin", "06:00"),
        ("huit heures du soir", "20:00"),
        ("demain matin à six heures", "06:00"),
        ("l'après-midi vers quatre heures", "16:00"),
        ("entre 13 et 15 heures", "13:00"),
        ("entre 8 heures et 10 heures", "08:00"),
        ("de neuf heures à treize heures", "09:00"),
        ("après 17 heures", "17:00"),
        ("à une heure", "13:00"),
    ],
)
def test_french_times(text: str, time: str) -> None:
    assert times(f"disons {text}") == [time]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("half past two", "14:30"),
        ("quarter to nine", "08:45"),
        ("ten past nine", "09:10"),
        ("twenty to four", "15:40"),
        ("two thirty pm", "14:30"),
        ("2:30 p.m.", "14:30"),
        ("9 a.m.", "09:00"),
        ("12 am", "00:00"),
        ("at ten", "10:00"),
        ("at ten thirty", "10:30"),
        ("nine o'clock", "09:00"),
        ("at noon", "12:00"),
        ("at eight in the evening", "20:00"),
    ],
)
def test_english_times(text: str, time: str) -> None:
    assert times(f"let's say {text}", "en") == [time]


@pytest.mark.parametrize(
    "text",
    [
        "dans deux heures",
        "depuis trois heures",
        "pendant 2 heures",
        "avant 18 heures",
        "sous 48 heures",
        "il y a deux heures",
        "ça prend deux heures",
        "deux heures de travail",
        "24 heures sur 24",
        "14 rue Hoche",
        "quatre-vingts euros",
    ],
)
def test_lengths_limits_and_other_numbers_are_no_times(text: str) -> None:
    assert times(text) == []


@pytest.mark.parametrize(
    "text", ["within two hours", "for 2 hours", "before 5 pm", "at 14 Albert Road", "it takes 2 hours"]
)
def test_english_lengths_and_limits_are_no_times(text: str) -> None:
    assert times(text, "en") == []


@given(st.text(alphabet="0123456789 h:etmoinsquarpamidi.'", max_size=60), st.sampled_from(["fr", "en"]))
def test_any_text_gives_times_of_day(text: str, language: str) -> None:
    for mention in times_in(text, language):
        hour, minute = map(int, mention.time.split(":"))
        assert 0 <= hour < 24
        assert 0 <= minute < 60
