import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.extract.rules.numbers import number_words_split
from handlehome.extract.rules.phones import Phone, Plan, find, numbers_in
from handlehome.extract.rules.tokens import tokenize
from tests.rules_calls import dialogue

FRANCE = Plan("FR", "fr")


def all_in(text: str, plan: Plan = FRANCE) -> list[str]:
    tokens = number_words_split(tokenize(text), plan.language)
    return [phone.number for phone in numbers_in(tokens, plan)]


def found(*lines: str, region: str = "FR", caller: str | None = None) -> Phone:
    phone = find(dialogue(*lines), region, caller)
    assert phone is not None
    return phone


@pytest.mark.parametrize(
    "text",
    [
        "zéro six douze trente-quatre cinquante-six soixante-dix-huit",
        "Zéro six, douze, euh trente-quatre, cinquante-six... soixante-dix-huit.",
        "zéro six douze trente quatre cinquante six soixante dix huit",
        "06 12 trente-quatre 56 78",
        "0612345678",
        "06.12.34.56.78",
        "06-12-34-56-78",
        "zéro six un deux trois quatre cinq six sept huit",
        "+33 6 12 34 56 78",
        "plus trente-trois six douze trente-quatre cinquante-six soixante-dix-huit",
        "00 33 6 12 34 56 78",
        "+33 (0)6 12 34 56 78",
        "0 6 12 puis 34 et 56 et ensuite 78",
    ],
)
def test_one_number_said_in_many_ways(text: str) -> None:
    assert all_in(f"alors c'est le {text} voilà") == ["+33612345678"]


def test_the_reading_that_makes_a_telephone_number_is_taken() -> None:
    """ "soixante dix huit" is 78, but only 60 18 makes ten digits."""
    assert all_in("zéro six soixante dix huit vingt douze") == ["+33660182012"]
    assert all_in("zéro six soixante dix huit vingt douze trente") == ["+33678201230"]


def test_a_group_said_twice_round_a_hesitation_counts_once() -> None:
    assert all_in("zéro six, vingt et un, quarante-trois, euh, quarante-trois, soixante-cinq, vingt") == [
        "+33621436520"
    ]


@pytest.mark.parametrize(
    ("text", "region", "language", "number"),
    [
        ("zéro quatre cent septante, douze, nonante-cinq, quatre-vingt-un", "BE", "fr", "+32470129581"),
        ("zéro septante-neuf, cent vingt-trois, quarante-cinq, soixante-sept", "CH", "fr", "+41791234567"),
        ("oh seven four double zero, one two three, four five six", "GB", "en", "+447400123456"),
        ("two oh two, five five five, oh one four three", "US", "en", "+12025550143"),
    ],
)
def test_numbers_of_other_countries(text: str, region: str, language: str, number: str) -> None:
    assert all_in(text, Plan(region, language)) == [number]


@pytest.mark.parametrize(
    "text",
    [
        "facture numéro 0612345678",
        "le dossier 06 12 34 56 78",
        "j'ai payé deux mille quatre cents euros",
        "12 rue des Lilas, 75011 Paris, troisième étage",
        "en 2026 le 12 mars à 14 h 30",
        "une deux trois",
        "06 12 34",
        "99 99 99 99 99",
    ],
)
def test_other_numbers_are_no_telephones(text: str) -> None:
    assert all_in(text) == []


def test_a_postcode_behind_the_number_does_not_disturb_it() -> None:
    assert all_in("06 12 34 56 78, 75011 Paris") == ["+33612345678"]


def test_what_was_said_before_and_after_does_not_matter_to_where_it_stands() -> None:
    phone = found("A: Votre numéro ?", "C: Oui, le 06 12 34 56 78 merci")
    assert phone.turns == (1,)
    assert phone.pieces == ("06", "12", "34", "56", "78")


def test_the_later_of_two_numbers_counts() -> None:
    assert found("C: C'est le 06 12 34 56 78. Non pardon, le 06 98 76 54 32").number == "+33698765432"
    assert (
        found("C: 06 12 34 56 78", "A: Merci", "C: Finalement prenez le 06 98 76 54 32").number
        == "+33698765432"
    )


def test_a_number_that_is_offered_besides_does_not_replace_the_first() -> None:
    assert found("C: le 06 12 34 56 78 ou le 01 99 00 12 34").number == "+33612345678"
    assert found("C: 06 12 34 56 78, sinon au travail le 01 99 00 12 34").number == "+33612345678"
    assert found("C: 06 12 34 56 78, ou non, plutôt le 01 99 00 12 34").number == "+33199001234"


@pytest.mark.parametrize(
    "correction",
    [
        "Pardon, pas 34 mais 43",
        "euh non, pas trente-quatre, quarante-trois",
        "non je me suis trompé, ça finit par 43 56 78",
    ],
)
def test_a_group_is_put_right(correction: str) -> None:
    if "finit" in correction:
        assert found(f"C: 06 12 34 56 87. {correction.replace('43 56 78', '78')}").number == "+33612345678"
    else:
        assert found(f"C: 06 12 34 56 78. {correction}").number == "+33612435678"


def test_a_correction_in_the_next_turn() -> None:
    phone = found("C: 06 12 34 56 78", "A: 06 12 34 56 78 ?", "C: Non, pas 78 mais 79")
    assert phone.number == "+33612345679"
    assert phone.turns == (0, 2)


def test_a_number_in_pieces() -> None:
    phone = found(
        "C: Alors zéro deux, soixante et un",
        "A: Oui",
        "C: quatre-vingt-onze",
        "A: oui ?",
        "C: dix-sept zéro huit",
    )
    assert phone.number == "+33261911708"
    assert phone.turns == (0, 2, 4)


def test_what_the_assistant_reads_back_makes_it_surer() -> None:
    alone = found("C: c'est le 06 12 34 56 78")
    repeated = found("C: c'est le 06 12 34 56 78", "A: 06 12 34 56 78", "C: oui")
    assert alone.confidence < repeated.confidence
    assert repeated.turns == (0, 1)


def test_what_the_caller_agrees_to_replaces_what_was_understood() -> None:
    phone = found("C: 06 12 34 56 87", "A: Donc 06 12 34 56 78 ?", "C: Oui c'est ça")
    assert phone.number == "+33612345678"


@pytest.mark.parametrize("answer", ["C: Non", "C: Euh", "A: D'accord"])
def test_without_consent_it_does_not(answer: str) -> None:
    assert found("C: 06 12 34 56 87", "A: Donc 06 12 34 56 78 ?", answer).number == "+33612345687"


@pytest.mark.parametrize(
    "line",
    [
        "A: Vous pouvez aussi nous joindre au 01 99 00 12 34",
        "A: Appelez le 01 99 00 12 34",
    ],
)
def test_the_companys_own_numbers_are_not_the_callers(line: str) -> None:
    assert find(dialogue("C: Bonjour", line, "C: Oui d'accord"), "FR") is None


def test_somebody_elses_number_is_not_the_callers() -> None:
    assert find(dialogue("C: le gardien est au 06 12 34 56 78"), "FR") is None
    assert found("C: le gardien est au 06 12 34 56 78. Moi c'est le 01 99 00 12 34").number == "+33199001234"


def test_who_leaves_his_country_code_out_is_known_by_the_line() -> None:
    """In France 0470 12 95 81 would be a number of the Allier."""
    assert found("C: c'est le 0470 12 95 81", caller="+32470129581").number == "+32470129581"
    assert found("C: c'est le 0470 12 95 82", caller="+32470129581").number == "+33470129582"


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "0",
                "06",
                "12",
                "zéro",
                "six",
                "soixante",
                "quatre",
                "vingts",
                "dix",
                "pas",
                "mais",
                ",",
                "euh",
                "plus",
                "non",
            ]
        ),
        max_size=40,
    )
)
def test_whatever_is_said_gives_valid_numbers_or_none(said: list[str]) -> None:
    phone = find(dialogue("C: " + " ".join(said)), "FR")
    assert phone is None or (phone.number.startswith("+") and 0 < phone.confidence <= 1)


def test_a_storm_of_numbers_takes_little_time() -> None:
    began = time.process_time()
    all_in("zéro soixante quatre vingts " * 300)
    assert time.process_time() - began < 3
