import pytest

from handlehome.extract.rules.owners import is_own
from handlehome.extract.rules.tokens import tokenize


def own(text: str, asks: str = "") -> bool:
    """Whether the N in a text is the caller's own."""
    tokens = tokenize(text)
    at = next(index for index, token in enumerate(tokens) if token.text == "N")
    return is_own(tokens, at, at + 1, 0, asks)


@pytest.mark.parametrize(
    "text",
    [
        "N",
        "c'est le N",
        "mon numéro c'est N",
        "celui de mon mari, non, prenez plutôt le mien, N",
        "Le gardien a les clés. Moi c'est N",
        "ma femme est là mais vous pouvez me joindre au N",
        "my wife is in, my number is N",
    ],
)
def test_the_callers_own(text: str) -> None:
    assert own(text)


@pytest.mark.parametrize(
    "text",
    [
        "le numéro du gardien c'est N",
        "mon mari est au N",
        "celui de mon fils c'est N",
        "N, c'est celui de ma voisine",
        "her number is N",
        "je voulais faire le N",
        "my landlord's number, it's the landlord who pays, is N",
    ],
)
def test_somebody_elses(text: str) -> None:
    assert not own(text)


def test_the_answer_belongs_to_whom_the_question_named() -> None:
    assert not own("c'est le N", "et le numero du gardien ?")
    assert own("c'est le N", "votre numero, ou celui de votre mari ?")
    assert own("moi c'est N", "et le numero du gardien ?")
