"""Which answer and which transcript is whose."""

from handlehome.bench.realtime.script import Answer, Script

ONE, TWO = Answer(text="one"), Answer(text="two")


def test_answers_are_used_up_in_order() -> None:
    script = Script(answers=[ONE, TWO])
    assert [script.answer(index) for index in range(3)] == [ONE, TWO, Answer()]


def test_answers_start_over_when_they_repeat() -> None:
    script = Script(answers=[ONE, TWO], repeat=True)
    assert [script.answer(index).text for index in range(4)] == ["one", "two", "one", "two"]


def test_a_caller_item_beyond_the_texts_is_an_ellipsis() -> None:
    script = Script(caller_texts=["Bonjour."])
    assert [script.caller_text(0), script.caller_text(1)] == ["Bonjour.", "…"]
