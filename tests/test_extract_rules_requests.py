import pytest

from handlehome.extract.rules.requests import kind, urgency
from tests.rules_calls import dialogue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("je voudrais un devis pour ma chaudière", "quote"),
        ("j'ai une fuite sous l'évier", "intervention"),
        ("mon radiateur ne marche plus", "intervention"),
        ("ça sent le gaz dans la cuisine", "emergency"),
        ("tout est inondé", "emergency"),
        ("je vous appelle au sujet d'une facture", "invoice"),
        ("c'est inadmissible, votre ouvrier a tout cassé", "complaint"),
        ("c'est pour prendre rendez-vous pour un entretien", "appointment"),
        ("je voudrais décaler mon rendez-vous", "appointment"),
        ("c'est juste pour un renseignement", "information"),
        ("quels sont vos tarifs ?", "information"),
        ("je me suis trompé de numéro", "other"),
        ("I'd like a quote", "quote"),
        ("there's a gas leak", "emergency"),
        ("the tap is broken", "intervention"),
        ("bonjour", None),
        ("", None),
    ],
)
def test_what_the_call_is_for(text: str, expected: str | None) -> None:
    assert kind(dialogue("A: Bonjour, un devis ?", f"C: {text}")) == expected


def test_what_is_said_first_decides() -> None:
    assert (
        kind(dialogue("C: Bonjour", "C: j'ai une fuite", "C: vous enverrez la facture à mon bureau"))
        == "intervention"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ça inonde le salon", "emergency"),
        ("c'est une urgence", "emergency"),
        ("venez le plus vite possible", "high"),
        ("c'est urgent", "high"),
        ("c'est pas urgent", None),
        ("ça fuit mais ça peut attendre", None),
        ("pas tout de suite", None),
        ("as soon as you can", "high"),
        ("un devis", None),
    ],
)
def test_how_soon_help_is_needed(text: str, expected: str | None) -> None:
    assert urgency(dialogue(f"C: {text}")) == expected


def test_who_says_that_it_can_wait_has_no_emergency() -> None:
    call = dialogue(
        "C: il y a de l'eau partout, tout est inondé", "A: Urgent ?", "C: non, ça peut attendre demain"
    )
    assert kind(call) != "emergency"
