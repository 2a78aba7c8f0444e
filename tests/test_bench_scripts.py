"""The ready-made scripts of the simulated model."""

from handlehome.bench import speech
from handlehome.bench.scripts import receptionist


def test_receptionist_greets_and_has_an_answer_to_every_turn() -> None:
    script = receptionist()
    assert script.greeting is not None
    assert script.greeting.text == speech.load("assistant-greeting").text
    assert all(answer.audio for answer in script.answers)
    assert script.answer(100).audio, "it starts over when its answers are used up"


def test_receptionist_writes_down_the_callers_recordings_in_order() -> None:
    caller = [speech.load(each).text for each in speech.ids() if speech.load(each).role == "caller"]
    assert list(receptionist().caller_texts) == caller
