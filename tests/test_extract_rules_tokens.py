import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.extract.rules.tokens import fold, tokenize, words


def test_folding_takes_case_accents_and_ligatures_away() -> None:
    assert fold("À Hélène’s Œuvre, FÉVRIER") == "a helene's oeuvre, fevrier"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C'est l'entrée d’aujourd'hui", ["C'", "est", "l'", "entrée", "d’", "aujourd'hui"]),
        ("it's o'clock, I don't", ["it's", "o'clock", ",", "I", "don't"]),
        ("rendez-vous le 06.12", ["rendez-vous", "le", "06", ".", "12"]),
        ("14h30 à 3ème", ["14", "h", "30", "à", "3", "ème"]),
        ("jean_d@x.fr", ["jean", "_", "d", "@", "x", ".", "fr"]),
        ("", []),
    ],
)
def test_words_numbers_and_signs(text: str, expected: list[str]) -> None:
    assert [token.text for token in tokenize(text)] == expected


@given(st.text(max_size=200))
def test_tokens_are_all_of_the_text_but_white_space(text: str) -> None:
    tokens = tokenize(text)
    assert all(text[token.start : token.end] == token.text for token in tokens)
    assert "".join(token.text for token in tokens) == "".join(text.split())


def test_the_parts_of_a_hyphenated_word_know_their_places() -> None:
    (token,) = tokenize("W-O-J")
    assert [(part.text, part.start, part.end) for part in token.parts()] == [
        ("W", 0, 1),
        ("O", 2, 3),
        ("J", 4, 5),
    ]


def test_a_list_of_words() -> None:
    assert words("a  b\nc") == {"a", "b", "c"}
