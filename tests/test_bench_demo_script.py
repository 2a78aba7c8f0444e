"""The demonstration's conversation."""

from itertools import pairwise

from handlehome.bench import demo_script


def test_the_conversation_is_a_greeting_two_exchanges_an_interruption_and_a_goodbye() -> None:
    lines = demo_script.conversation()
    assert lines[0].role == lines[-1].role == "assistant"
    assert all(one.role != other.role for one, other in pairwise(lines))
    assert [line.recording.id for line in lines if line.cut_after] == ["assistant-advice"]
    assert 25 < demo_script.seconds(lines) < 36


def test_the_model_says_the_assistants_lines_and_hangs_up_behind_the_last() -> None:
    lines = demo_script.conversation()
    script = demo_script.model_script(lines)
    assert script.greeting is not None
    answers = [script.greeting, *script.answers]
    assert [(answer.text, answer.audio) for answer in answers] == [
        (line.text, line.recording.ulaw) for line in lines if line.role == "assistant"
    ]
    assert [answer.function_call for answer in answers] == [None] * 4 + [("end_call", "{}")]
    assert list(script.caller_texts) == [line.text for line in lines if line.role == "caller"]
    assert dict(script.transcription_faults) == {"failed": {2}}


def test_what_is_said_of_the_customer_comes_from_the_callers_own_words() -> None:
    lines = demo_script.conversation()
    told = demo_script.customer(lines)
    assert told["last_name"] == ("Martin", 2)
    assert told["phone"] == ("+33612345678", 6)
    assert told["phone"][0] != demo_script.CALLER_NUMBER
    for name, (value, number) in told.items():
        assert lines[number - 1].role == "caller"
        assert name == "phone" or value.split()[-1] in lines[number - 1].text
    assert lines[told["city"][1] - 1].untranscribed
    assert demo_script.appointment(lines) == "15:00"
    assert demo_script.appointment(lines[:5]) is None
