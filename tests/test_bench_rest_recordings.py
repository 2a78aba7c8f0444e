"""What the simulated models understand: the recordings."""

from __future__ import annotations

import audioop

import orjson
import pytest

from handlehome.bench import speech
from handlehome.bench.rest import audio, recordings
from handlehome.bench.rest.request import RESPONSES, RestRequest
from tests.test_bench_rest_audio import pcm_wav, raw_wav

SILENCE = b"\xff" * 2400


def request(text: str) -> RestRequest:
    return RestRequest(0, "POST", RESPONSES, {}, b"", 0.0, "req_0", body={"input": text})


def line(turn: str, recording_id: str) -> str:
    return orjson.dumps({"turn": turn, "text": speech.load(recording_id).text}).decode()


@pytest.mark.parametrize("recording_id", speech.ids())
def test_each_recording_is_known_within_a_turn_of_pcm(recording_id: str) -> None:
    recording = speech.load(recording_id)
    # Turn detection has cut something off both ends.
    turn = SILENCE + recording.ulaw[400:-400] + SILENCE
    wav = audio.read(pcm_wav(audioop.ulaw2lin(turn, 2)))
    assert recordings.transcribe(wav) == recording.text


def test_several_are_written_down_in_their_order() -> None:
    first, second = speech.load("caller-urgent"), speech.load("caller-leak")
    wav = audio.read(raw_wav(7, 8, first.ulaw + SILENCE + second.ulaw), mulaw=True)
    assert recordings.transcribe(wav) == f"{first.text} {second.text}"


def test_anything_else_is_nothing() -> None:
    assert recordings.transcribe(audio.read(raw_wav(1, 16, b"\1\2" * 8000))) == ""


def test_the_facts_of_the_sentences_that_were_said_are_put_together() -> None:
    call = "\n".join(
        [
            "The call began on Monday 2026-11-23 at 09:00; calendar: Mon 2026-11-23, Tue 2026-11-24.",
            line("T1", "caller-leak"),
            line("T3", "caller-urgent"),
            line("T5", "caller-address"),
            line("T6", "assistant-appointment"),
        ]
    )
    found = recordings.extract(request(call))
    assert found["customer"] == {
        "first_name": "Claire",
        "last_name": "Martin",
        "phone": "06 12 34 56 78",
        "address": {"street": "12 rue des Lilas", "city": "Lyon"},
    }
    assert (found["request"]["type"], found["request"]["urgency"]) == ("emergency", "emergency")
    assert found["appointment"] == {"date": "2026-11-23", "time": "15:00", "mode": "on_site"}
    evidence = {entry["field"]: entry["turns"] for entry in found["evidence"]}
    assert evidence == {
        "first_name": ["T1"],
        "last_name": ["T1"],
        "phone": ["T5"],
        "street": ["T5"],
        "city": ["T5"],
    }


def test_a_transcript_in_plain_text_gives_facts_without_evidence() -> None:
    found = recordings.extract(request(f"caller: {speech.load('caller-heating').text}"))
    assert found["customer"] == {"first_name": "Paul", "last_name": "Durand"}
    assert "evidence" not in found


def test_other_sentences_tell_nothing() -> None:
    assert recordings.extract(request("Bonjour, c'est Jean.\n[1]\n")) == {}
    assert recordings.FACTS["caller-leak"]["request"]["urgency"] == "normal"
