import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.extract.rules.numbers import in_figures, number_words_split, readings
from handlehome.extract.rules.tokens import tokenize

FRENCH_PAIRS = {
    0: "zéro", 1: "un", 7: "sept", 16: "seize", 17: "dix-sept", 21: "vingt et un", 22: "vingt-deux",
    60: "soixante", 70: "soixante-dix", 71: "soixante et onze", 75: "soixante-quinze", 80: "quatre-vingts",
    81: "quatre-vingt-un", 91: "quatre-vingt-onze", 97: "quatre vingt dix sept", 99: "quatre-vingt-dix-neuf",
}  # fmt: skip


def first(text: str, language: str = "fr") -> str:
    return readings(tokenize(text), 0, language)[0][0]


@pytest.mark.parametrize(("value", "text"), FRENCH_PAIRS.items())
def test_french_numbers_below_a_hundred(value: int, text: str) -> None:
    assert first(text) == str(value)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("septante-neuf", "79"),
        ("huitante", "80"),
        ("octante-deux", "82"),
        ("nonante et un", "91"),
        ("cent vingt-trois", "123"),
        ("trente-cinq mille deux cents", "35200"),
        ("double zéro", "00"),
        ("deux fois le sept", "77"),
        ("triple 4", "444"),
        ("007", "007"),
        ("33 mille", "33000"),
        ("31 mille deux cents", "31200"),
    ],
)
def test_other_ways_to_say_numbers(text: str, digits: str) -> None:
    assert first(text) == digits


@pytest.mark.parametrize(
    ("text", "digits"), [("oh", "0"), ("double oh", "00"), ("nine hundred", "900"), ("triple seven", "777")]
)
def test_english_numbers(text: str, digits: str) -> None:
    assert first(text, "en") == digits


def test_an_ambiguous_group_has_all_its_readings_longest_first() -> None:
    """ "soixante dix huit" is 78, or 70 8, or 60 18."""
    tokens = tokenize("soixante dix huit")
    assert readings(tokens, 0, "fr") == [("78", 3), ("70", 2), ("60", 1)]
    assert readings(tokens, 1, "fr") == [("18", 3), ("10", 2)]


def test_the_plural_of_vingt_belongs_to_quatre() -> None:
    tokens = tokenize("soixante quatre vingts")
    assert readings(tokens, 0, "fr") == [("60", 1)]
    assert readings(tokens, 1, "fr") == [("80", 3)]
    assert readings(tokens, 2, "fr") == []


@pytest.mark.parametrize("text", ["bonjour", "et onze", "double appel", ",", "fois"])
def test_what_is_no_number_has_no_reading(text: str) -> None:
    assert readings(tokenize(text), 0, "fr") == []


def test_a_hyphen_between_two_numbers_is_taken_apart_and_none_within_one() -> None:
    tokens = number_words_split(tokenize("zéro-six dix-sept peut-être"), "fr")
    assert [token.text for token in tokens] == ["zéro", "six", "dix-sept", "peut-être"]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Le trois décembre à quatorze heures trente", "fr", "le 3 decembre a 14 heures 30"),
        ("à 14:30, le 03/12/2026", "fr", "a 14:30 , le 03/12/2026"),
        ("le 2026-03-12", "fr", "le 2026-03-12"),
        ("c'est aujourd'hui", "fr", "c'est aujourd'hui"),
        ("on the twenty-third at half past two", "en", "on the 20 third at half past 2"),
    ],
)
def test_text_in_figures(text: str, language: str, expected: str) -> None:
    assert in_figures(tokenize(text), language) == expected


@given(
    st.lists(
        st.sampled_from(
            ["zéro", "deux", "vingt", "quatre", "et", "un", "mille", "double", "fois", "12", ",", "rue"]
        )
    )
)
def test_every_reading_moves_on_and_is_digits(said: list[str]) -> None:
    tokens = tokenize(" ".join(said))
    for at in range(len(tokens)):
        for digits, stop in readings(tokens, at, "fr"):
            assert digits.isdecimal()
            assert at < stop <= len(tokens)
