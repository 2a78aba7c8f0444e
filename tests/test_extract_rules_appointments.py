import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.extract.rules.appointments import find
from tests.rules_calls import dialogue

THURSDAY = dt.date(2026, 3, 12)


def slot(*lines: str, language: str = "fr") -> str | None:
    """ "2026-03-17 09:00", without the time where there is none."""
    found = find(dialogue(*lines, language=language), THURSDAY)
    return None if found is None else f"{found.day} {found.time or ''}".strip()


def test_what_the_caller_asks_for() -> None:
    assert slot("C: Vous pouvez passer mardi à neuf heures ?") == "2026-03-17 09:00"


def test_an_offer_stands_when_the_caller_agrees() -> None:
    assert slot("A: Mardi 17 à neuf heures ?", "C: Oui parfait") == "2026-03-17 09:00"
    assert slot("A: Mardi 17 à neuf heures ?", "C: Non") is None
    assert slot("A: Mardi 17 à neuf heures ?", "C: Euh") is None
    assert slot("A: Mardi 17 à neuf heures ?") is None


def test_thanks_accept_what_was_stated_but_answer_no_question() -> None:
    assert slot("A: Je vous note mardi à neuf heures.", "C: Merci, au revoir") == "2026-03-17 09:00"
    assert slot("A: Mardi à neuf heures ?", "C: Merci, au revoir") is None


def test_corrections_win() -> None:
    assert slot("A: Mercredi à 14 heures ?", "C: Oui. Ah non, plutôt jeudi.") == "2026-03-19"
    assert slot("C: mardi, pardon, mercredi à dix heures, non onze heures") == "2026-03-18 11:00"
    assert slot("A: Vendredi, non pardon, demain à dix heures ?", "C: oui") == "2026-03-13 10:00"


def test_the_same_hour_on_another_day() -> None:
    assert slot("A: Mardi à dix heures ?", "C: Plutôt jeudi, même heure") == "2026-03-19 10:00"


def test_an_hour_alone_belongs_to_the_day_that_was_spoken_of() -> None:
    assert slot("A: Mardi à 10 h ?", "C: plutôt à 15 heures") == "2026-03-17 15:00"
    assert slot("C: mardi prochain", "A: À quelle heure ? Dix heures ?", "C: Oui") == "2026-03-17 10:00"
    assert slot("C: à 15 heures") is None


def test_a_day_that_is_repeated_without_its_hour_keeps_it() -> None:
    assert (
        slot("A: Mardi à neuf heures ?", "C: Oui", "A: C'est noté, à mardi.", "C: Merci")
        == "2026-03-17 09:00"
    )


def test_a_weekday_means_the_one_that_was_offered() -> None:
    assert slot("A: Mardi 24 ou jeudi 26 mars ?", "C: jeudi") == "2026-03-26"


def test_a_choice_that_was_not_made_is_no_appointment() -> None:
    assert slot("C: Lundi ou mardi, comme vous voulez") is None
    assert slot("A: Lundi 16 ou mardi 17 ?", "C: Oui") is None


def test_an_hour_that_was_not_chosen_is_left_open() -> None:
    assert slot("A: Mardi à dix heures ou à quatorze heures ?", "C: Mardi oui") == "2026-03-17"


def test_who_calls_it_off_has_none() -> None:
    assert slot("C: Demain ?", "A: Demain à dix heures.", "C: Oui. Non, laissez tomber") is None
    assert slot("A: Mardi ?", "C: Je vais réfléchir et je vous rappelle") is None


def test_a_day_that_is_ruled_out_falls() -> None:
    assert (
        slot("A: Demain à neuf heures ?", "C: Demain je peux pas. Lundi à neuf heures ?")
        == "2026-03-16 09:00"
    )
    assert slot("C: Demain", "A: Demain c'est complet.", "C: Ah mince") is None
    assert slot("C: mardi", "A: Mardi 17.", "C: En fait mardi c'est pas possible") is None


@pytest.mark.parametrize(
    "text",
    [
        "j'ai reçu la facture du 3 avril",
        "c'est en panne depuis lundi",
        "je pars en vacances samedi",
        "vous êtes ouverts samedi ?",
        "il me le faut avant vendredi",
        "je suis libre à partir de lundi",
        "j'habite rue du 8 mai",
        "votre collègue est venu lundi",
        "rappelez-moi demain à dix heures",
        "le samedi je travaille",
        "on avait rendez-vous mardi, je voudrais le décaler",
        "pas lundi",
    ],
)
def test_days_that_are_named_for_another_reason(text: str) -> None:
    assert slot(f"C: Bonjour, {text}") is None


def test_an_appointment_is_moved() -> None:
    lines = ("C: J'ai rendez-vous le 17, je voudrais le décaler", "A: Le 24 à dix heures ?", "C: D'accord")
    assert slot(*lines) == "2026-03-24 10:00"


def test_what_is_called_off_does_not_stand_again_with_a_yes() -> None:
    assert slot("C: J'annule mon rendez-vous de jeudi", "A: Jeudi 19 est annulé.", "C: Oui merci") is None


def test_two_names_of_one_day_are_one() -> None:
    assert slot("A: Mardi en huit, le 24 mars, à 9 heures ?", "C: oui") == "2026-03-24 09:00"
    assert slot("A: Demain vendredi à 8 heures ?", "C: oui") == "2026-03-13 08:00"


def test_english() -> None:
    lines = (
        "A: Would tomorrow at ten work?",
        "C: No, I'm away tomorrow. Friday next week, same time",
        "A: Okay.",
    )
    assert slot(*lines, language="en") == "2026-03-20 10:00"


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "A: Mardi ?",
                "C: oui",
                "C: non",
                "C: plutôt jeudi",
                "A: à dix heures ?",
                "C: merci",
                "C: le 20 ou le 21",
                "C: pas mardi",
                "A: lundi ou mardi à 9 h",
                "C: 11 heures",
            ]
        ),
        max_size=12,
    )
)
def test_no_appointment_lies_in_the_past(lines: list[str]) -> None:
    found = find(dialogue(*lines), THURSDAY)
    assert found is None or found.day >= THURSDAY
