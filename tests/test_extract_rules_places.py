import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.extract.rules.numbers import number_words_split
from handlehome.extract.rules.places import find, places_in
from handlehome.extract.rules.tokens import tokenize
from tests.rules_calls import dialogue


def all_in(text: str, region: str = "FR", *, asked: bool = False) -> list[tuple[str, str | None]]:
    language = "en" if region in {"US", "GB"} else "fr"
    tokens = number_words_split(tokenize(text), language)
    return [(place.postcode, place.city) for place in places_in(tokens, region, language, asked=asked)]


@pytest.mark.parametrize(
    ("text", "postcode", "city"),
    [
        ("12 rue des Lilas, 75011 Paris", "75011", "Paris"),
        ("au 3 avenue Jean Jaurès, 69 003 Lyon.", "69003", "Lyon"),
        ("à Dijon. 21000.", "21000", "Dijon"),
        ("à Nantes, code postal quarante-quatre mille trois cents", "44300", "Nantes"),
        ("soixante-quinze mille onze Paris", "75011", "Paris"),
        ("soixante-quinze zéro onze Paris", "75011", "Paris"),
        ("zéro cinq mille cent Briançon", "05100", "Briançon"),
        ("9 place du Marché, Créteil, 94000", "94000", "Créteil"),
        ("13100 Aix en Provence, au centre", "13100", "Aix en Provence"),
        ("59650 Villeneuve d'Ascq", "59650", "Villeneuve d'Ascq"),
        ("17000 La Rochelle", "17000", "La Rochelle"),
        ("cinq quatre zéro zéro zéro, c'est Nancy", "54000", "Nancy"),
        ("rue de Toulouse, au 16, 35400", "35400", None),
        ("18 rue Pasteur, 59800", "59800", None),
        ("mon code postal c'est 33000", "33000", None),
        ("97400 Saint-Denis", "97400", "Saint-Denis"),
        ("c'est au 30 rue de la liberté à strasbourg soixante-sept mille", "67000", "Strasbourg"),
        ("8 rue basse 34000 montpellier", "34000", "Montpellier"),
    ],
)
def test_french_postcodes(text: str, postcode: str, city: str | None) -> None:
    assert all_in(text) == [(postcode, city)]


@pytest.mark.parametrize(
    "text",
    [
        "j'ai payé 12000 euros Madame",
        "la facture numéro 75011 Monsieur",
        "c'est 75011",
        "99000 Paris",
        "00100 Rome",
        "le 06 12 34 56 78 Paris",
        "il y a 45000 personnes",
        "en 2026 Paris",
    ],
)
def test_other_numbers_are_no_postcodes(text: str) -> None:
    assert all_in(text) == []


def test_the_bare_number_will_do_when_it_was_asked_for() -> None:
    assert all_in("trente mille", asked=True) == [("30000", None)]


@pytest.mark.parametrize(
    ("text", "region", "postcode", "city"),
    [
        ("à 5000 Namur", "BE", "5000", "Namur"),
        ("mille Bruxelles", "BE", "1000", "Bruxelles"),
        ("avenue de la Gare 12, 1003 Lausanne", "CH", "1003", "Lausanne"),
        ("14 Albert Road, London, SE15 3PX", "GB", "SE15 3PX", "London"),
        ("9 Castle Street, Cambridge, C B three, zero A H", "GB", "CB3 0AH", "Cambridge"),
        ("it's M1 1AE", "GB", "M1 1AE", None),
        ("in Washington, zip code 20001", "US", "20001", "Washington"),
        ("1200 Maple Street, Springfield, Virginia, 22150", "US", "22150", "Springfield"),
        ("15 rue des Filaos, Saint-Denis, 97400", "RE", "97400", "Saint-Denis"),
    ],
)
def test_other_countries(text: str, region: str, postcode: str, city: str | None) -> None:
    assert all_in(text, region) == [(postcode, city)]


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("en 2026, Namur", "BE"),
        ("rue du 8 mai 1945", "BE"),
        ("1200 Maple Street", "US"),
        ("75011 Paris", "DE"),
    ],
)
def test_no_postcodes_of_other_countries(text: str, region: str) -> None:
    assert all_in(text, region) == []


def test_the_later_postcode_counts_and_the_town_stays_with_its_own() -> None:
    place = find(dialogue("C: à Dijon, 21000", "A: 21000 ?", "C: euh non, code postal 21300"), "FR")
    assert place is not None
    assert (place.postcode, place.city) == ("21300", None)
    place = find(dialogue("C: à Dijon, 21000", "A: Code postal ?", "C: 21000"), "FR")
    assert place is not None
    assert (place.postcode, place.city) == ("21000", "Dijon")


def test_what_the_assistant_repeats_is_surer_and_what_he_says_alone_is_nothing() -> None:
    said, repeated = dialogue("C: 44300 Nantes"), dialogue("C: 44300 Nantes", "A: 44300, bien")
    first, second = find(said, "FR"), find(repeated, "FR")
    assert first is not None
    assert second is not None
    assert first.confidence < second.confidence
    assert find(dialogue("C: Bonjour", "A: Nous sommes au 44300 Nantes", "C: Oui"), "FR") is None


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "75011",
                "Paris",
                "à",
                "rue",
                ",",
                ".",
                "mille",
                "soixante-quinze",
                "code",
                "postal",
                "de",
                "S",
                "E",
                "1",
            ]
        ),
        max_size=30,
    )
)
def test_whatever_is_said_gives_postcodes_of_the_country(said: list[str]) -> None:
    assert all(len(code) == 5 for code, _ in all_in(" ".join(said)))
    all_in(" ".join(said), "GB")
