import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.extract.rules.emails import Email, addresses_in, find
from handlehome.extract.rules.tokens import tokenize
from tests.rules_calls import dialogue


def all_in(text: str, language: str = "fr") -> list[str]:
    return [email.address for email in addresses_in(tokenize(text), language)]


def found(*lines: str, language: str = "fr") -> Email:
    email = find(dialogue(*lines, language=language))
    assert email is not None
    return email


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("jean point dupont arobase gmail point com", "jean.dupont@gmail.com"),
        ("Jean.Dupont@gmail.com", "jean.dupont@gmail.com"),
        ("jean.dupont arobase gmail.com", "jean.dupont@gmail.com"),
        ("jean point, euh, dupont arobase gmail, point com", "jean.dupont@gmail.com"),
        ("jean tiret du bas dupont a robase orange point fr", "jean_dupont@orange.fr"),
        ("jean tiret dupont arrobase la poste point net", "jean-dupont@laposte.net"),
        ("jean tiret du six dupont arobase sfr point fr", "jean-dupont@sfr.fr"),
        ("j point d arobase g mail point com", "j.d@gmail.com"),
        ("d u p o n t arobase free point f r", "dupont@free.fr"),
        ("D-U-P-O-N-T arobase free point fr", "dupont@free.fr"),
        ("dupont d u p o n d arobase free point fr", "dupond@free.fr"),
        ("b comme Bernard p comme Paul arobase free point fr", "bp@free.fr"),
        ("durand deux r arobase free point fr", "durrand@free.fr"),
        ("lippi deux p arobase free point fr", "lippi@free.fr"),
        ("jeanne d'arc 1431 arobase free point fr", "jeannedarc1431@free.fr"),
        ("l e deux n arobase free point fr", "lenn@free.fr"),
        ("dupont soixante-quinze arobase free point fr", "dupont75@free.fr"),
        ("dupont 2 0 2 6 arobase free point fr", "dupont2026@free.fr"),
        ("jean dupont tout attaché arobase free point fr", "jeandupont@free.fr"),
        ("hélène point françois arobase free point fr", "helene.francois@free.fr"),
        ("contact arobase mon tiret entreprise point co point uk", "contact@mon-entreprise.co.uk"),
        ("jean point de la tour arobase free point fr", "jean.delatour@free.fr"),
        ("durand chez gmail point com", "durand@gmail.com"),
        ("proton arobase proton mail point com", "proton@protonmail.com"),
    ],
)  # fmt: skip
def test_ways_to_say_an_address(said: str, address: str) -> None:
    assert all_in(f"alors mon adresse mail c'est {said}") == [address]
    assert all_in(f"Oui, {said}.") == [address]


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("john dot smith at example dot com", "john.smith@example.com"),
        ("j underscore smith nine at outlook dot co dot uk", "j_smith9@outlook.co.uk"),
        ("smith, all lower case, at example dot org", "smith@example.org"),
        ("jane hyphen doe at sign example dot org", "jane-doe@example.org"),
    ],
)
def test_ways_to_say_an_address_in_english(said: str, address: str) -> None:
    assert all_in(f"sure, it's {said}", "en") == [address]


@pytest.mark.parametrize(
    "text",
    [
        "je suis chez Gmail depuis un point de vue technique",
        "arobase",
        "jean arobase gmail",
        "arobase gmail point com",
        "on se voit à Paris point final",
        "meet me at noon dot",
        "vous pouvez envoyer tout cela directement martin durand paul arobase free",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert all_in(text) == []
    assert all_in(text, "en") == []


def test_what_might_be_part_of_the_sentence_is_not_guessed() -> None:
    assert all_in("envoyez tout chez la famille nombreuse martin jean arobase free point fr") in (
        [],
        ["jean@free.fr"],
    )


def test_a_beginning_that_is_not_plain_is_unsure() -> None:
    (unsure,) = addresses_in(tokenize("c'est marie claire arobase free point fr"), "fr")
    (sure,) = addresses_in(tokenize("c'est marie point claire arobase free point fr"), "fr")
    assert unsure.confidence < sure.confidence


def test_the_later_of_two_addresses_counts() -> None:
    said = "jean arobase free point fr, non pardon, jean arobase sfr point fr"
    assert found(f"C: {said}").address == "jean@sfr.fr"


def test_a_spelling_behind_it_puts_it_right() -> None:
    email = found("C: p point lefevre arobase free point fr", "A: Lefèvre ?", "C: avec un b, L E F E B V R E")
    assert email.address == "p.lefebvre@free.fr"
    assert email.turns == (0, 2)


def test_a_spelling_of_something_else_changes_nothing() -> None:
    assert found("C: p point lefevre arobase free point fr, à Metz, M E T Z").address == "p.lefevre@free.fr"


def test_what_the_assistant_reads_back_counts_when_the_caller_agrees() -> None:
    lines = ("C: c'est jean arobase fri point fr", "A: jean@free.fr, c'est bien ça ?")
    assert found(*lines, "C: Oui").address == "jean@free.fr"
    assert found(*lines, "C: Non").address == "jean@fri.fr"
    alone, agreed = (
        found("C: a arobase free point fr"),
        found("C: a arobase free point fr", "A: a@free.fr", "C: oui"),
    )
    assert alone.confidence < agreed.confidence


def test_the_companys_own_address_is_not_the_callers() -> None:
    assert find(dialogue("C: Bonjour", "A: Écrivez à contact@exemple.fr", "C: D'accord")) is None


def test_somebody_elses_address_is_not_the_callers() -> None:
    assert find(dialogue("C: le mail de mon propriétaire c'est blanc arobase free point fr")) is None


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                "jean",
                "arobase",
                "point",
                "tiret",
                "du",
                "bas",
                "fr",
                ",",
                "euh",
                "deux",
                "l'",
                "@",
                ".",
                "c'est",
                "free",
            ]
        ),
        max_size=40,
    )
)
def test_whatever_is_said_gives_addresses_or_none(said: list[str]) -> None:
    email = find(dialogue("C: " + " ".join(said)))
    assert email is None or email.address.count("@") == 1
