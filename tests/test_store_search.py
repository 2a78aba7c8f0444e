"""Which words a call holds, and how the place is shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.store.records import CallRecord, TurnRecord
from handlehome.store.search import AFTER, BEFORE, MAX_WORD, call_words, snippet, words


def spoken(*texts: str | None, **changes: object) -> CallRecord:
    turns = tuple(TurnRecord(f"item_{number}", "caller", text) for number, text in enumerate(texts))
    return CallRecord("CA1", 0.0, turns=turns, **changes)  # type: ignore[arg-type]  # the record's own fields


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L'évier FUIT, hélas !", ["l", "evier", "fuit", "helas"]),
        ("e\u0301te\u0301", ["ete"]),
        ("Cœur d'Æther", ["coeur", "d", "aether"]),
        ("Straße", ["strasse"]),
        ("chauffe-eau_rouge", ["chauffe", "eau", "rouge"]),
        ("zoe@example.fr", ["zoe", "example", "fr"]),
        ("+33 6 12", ["33", "6", "12"]),
        ("水漏れ", ["水漏れ"]),
        ("x" * 100, ["x" * MAX_WORD]),
        (" ?! ", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text())
def test_words_are_the_same_in_every_spelling(text: str) -> None:
    assert words(text) == words(unicodedata.normalize("NFD", text))
    assert words(" ".join(words(text))) == words(text)


def test_words_of_a_call_come_from_turns_data_and_numbers() -> None:
    call = spoken(
        "Une fuite, une !",
        None,
        from_="+336",
        data={
            "summary": "Fuite",
            "list": ["évier", {"deep": "bain"}],
            "n": 3,
            "evidence": [{"turns": ["item"]}],
        },
    )
    assert call_words(call) == ["336", "bain", "evier", "fuite", "une"]
    cut_short = CallRecord("CA1", 0.0, turns=(TurnRecord("a", "assistant", None, heard_text="Bonjour"),))
    assert call_words(cut_short) == ["bonjour"]


def test_place_is_the_text_with_most_of_the_words() -> None:
    call = spoken("Une fuite.", "Ma chaudière fuit, une fuite.", "La chaudière.")
    assert snippet(call, ["chaud", "fuite"]) == "Ma chaudière fuit, une fuite."
    assert snippet(call, ["fuite"]) == "Une fuite."
    assert snippet(call, ["robinet"]) is None


def test_long_text_is_cut_between_words() -> None:
    text = "avant " * 40 + "chaudière" + " après" * 40
    shown = snippet(spoken(text), ["chaudiere"])
    assert shown is not None
    assert shown.startswith("… avant ")
    assert shown.endswith(" après …")
    assert "avant chaudière après" in shown
    assert len(shown) <= BEFORE + AFTER + 4


@given(st.text(min_size=1), st.integers(0))
def test_every_word_of_a_text_finds_it(text: str, number: int) -> None:
    there = words(text)
    if there:
        shown = snippet(spoken(text), [there[number % len(there)]])
        assert shown is not None
