"""What is said in the demonstration call: by the simulated model, by the caller, and when he cuts in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handlehome.bench import speech
from handlehome.bench.phone import PhoneCall
from handlehome.bench.playback import BYTES_PER_SECOND
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.speech import Recording

PAUSE_SECONDS = 0.2
"""What the caller leaves between the assistant's last word and his first."""

ANSWER_SECONDS = 20.0
"""An answer that has not been heard by then does not come."""


@dataclass(frozen=True, slots=True)
class Line:
    """One speaker's part.

    Attributes:
        recording: What is said, and by whom.
        cut_after: Seconds of an assistant's line that the caller lets pass before he says his next one.
    """

    recording: Recording
    cut_after: float | None = None

    @property
    def role(self) -> speech.Role:
        return self.recording.role

    @property
    def text(self) -> str:
        return self.recording.text


def conversation() -> tuple[Line, ...]:
    """The demonstration: a greeting, an exchange with an interruption, a second exchange, a goodbye."""
    cuts = {"assistant-advice": 1.7}
    said = (
        "assistant-greeting",
        "caller-leak",
        "assistant-advice",
        "caller-urgent",
        "assistant-urgent",
        "caller-address",
        "assistant-appointment",
        "caller-confirm",
        "assistant-goodbye",
    )
    return tuple(Line(speech.load(recording_id), cuts.get(recording_id)) for recording_id in said)


def seconds(lines: Sequence[Line]) -> float:
    """About how long a conversation takes: the speech, and what lies between question and answer."""
    spoken = sum(line.cut_after or line.recording.duration_ms / 1000 for line in lines)
    return spoken + len(lines) * 0.35


def model_script(lines: Sequence[Line]) -> Script:
    """The model's part: it speaks faster than the ear hears, and hangs up behind its last answer.

    An answer that will be interrupted is generated fastest, so that all of it exists before the caller has
    heard a quarter: as with the real model, only the relay can know how much that was.
    """
    answers = [
        Answer(
            text=line.text,
            audio=line.recording.ulaw,
            think_ms=(100, 150),
            delta_ms=(60, 160),
            pace=8.0 if line.cut_after else 3.0,
            function_call=("end_call", "{}") if line is lines[-1] else None,
        )
        for line in lines
        if line.role == "assistant"
    ]
    return Script(
        greeting=answers[0],
        answers=answers[1:],
        caller_texts=[line.text for line in lines if line.role == "caller"],
        transcription_ms=(50, 150),
    )


def talkative_script() -> Script:
    """A model that answers at length, as often as it is interrupted; by hand it is told when that is."""
    recording = speech.load("assistant-advice")
    answer = Answer(text=recording.text, audio=recording.ulaw, delta_ms=(60, 160))
    return Script(greeting=answer, answers=[answer], repeat=True, vad="manual")


async def converse(call: PhoneCall, lines: Sequence[Line]) -> None:
    """The caller's part of a call whose stream is open, up to the end of the stream.

    Args:
        call: The call.
        lines: Begin and end with a line of the assistant's.

    Raises:
        CallOverError: The call ended too early.
        TimeoutError: An answer, or the end, did not come.
    """
    for line in lines[:-1]:
        if line.role == "caller":
            await call.say(line.recording.ulaw)
        elif line.cut_after is not None:
            await call.wait_heard(call.heard_bytes + round(line.cut_after * BYTES_PER_SECOND), ANSWER_SECONDS)
        else:
            await call.wait_answer(PAUSE_SECONDS, ANSWER_SECONDS)
    await call.wait_stream_end(ANSWER_SECONDS)
    await call.ended()
