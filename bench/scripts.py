"""Ready-made parts for the simulated model, from the recordings."""

from __future__ import annotations

from handlehome.bench import speech
from handlehome.bench.realtime.script import Answer, Script


def receptionist() -> Script:
    """Greets, and answers each of the caller's turns with the next of the assistant's recordings.

    What it writes down of the caller are the caller's recordings in the same order, whatever was said: it
    detects speech, but understands none.
    """
    recordings = [speech.load(recording_id) for recording_id in speech.ids()]
    answers = [
        Answer(text=recording.text, audio=recording.ulaw, think_ms=(250, 450))
        for recording in recordings
        if recording.role == "assistant"
    ]
    return Script(
        greeting=answers[0],
        answers=answers[1:],
        repeat=True,
        caller_texts=[recording.text for recording in recordings if recording.role == "caller"],
    )
