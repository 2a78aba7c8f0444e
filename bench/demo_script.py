"""What is said in the demonstration call: by the simulated model, by the caller, and when she cuts in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlehome.bench import speech
from handlehome.bench.phone import PhoneCall
from handlehome.bench.playback import BYTES_PER_SECOND
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.speech import Recording

PAUSE_SECONDS = 0.2
"""What the caller leaves between the assistant's last word and her first."""

ANSWER_SECONDS = 20.0
"""An answer that has not been heard by then does not come."""

CALLER_NUMBER = "+33465710042"
"""Not the one that is said in the call. A number for fiction (ARCEP, decision 2018-0881)."""

CUSTOMER: Mapping[str, Mapping[str, str]] = {
    "caller-leak": {"first_name": "Claire", "last_name": "Martin"},
    "caller-address": {"phone": "+33612345678", "street": "12 rue des Lilas", "city": "Lyon"},
    "caller-heating": {"first_name": "Paul", "last_name": "Durand"},
}
"""By recording: what a person who listens to it knows of the customer. What an extraction should come to."""

APPOINTMENTS: Mapping[str, str] = {"assistant-appointment": "15:00"}
"""By recording: the time of an appointment on the day of the call."""


@dataclass(frozen=True, slots=True)
class Line:
    """One speaker's part.

    Attributes:
        recording: What is said, and by whom.
        cut_after: Seconds of an assistant's line that the caller lets pass before she says her next one.
        untranscribed: The model's live transcription of a caller's line fails.
    """

    recording: Recording
    cut_after: float | None = None
    untranscribed: bool = False

    @property
    def role(self) -> speech.Role:
        return self.recording.role

    @property
    def text(self) -> str:
        return self.recording.text


def conversation() -> tuple[Line, ...]:
    """The demonstration: a greeting, an exchange with an interruption, a second exchange, a goodbye.

    The live transcription of the one turn fails that says where the customer lives.
    """
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
    return tuple(
        Line(speech.load(recording_id), cuts.get(recording_id), recording_id == "caller-address")
        for recording_id in said
    )


def customer(lines: Sequence[Line]) -> dict[str, tuple[str, int]]:
    """What is said of the customer: by field its value, and the number of the turn (from 1) that tells it."""
    return {
        name: (value, number)
        for number, line in enumerate(lines, 1)
        for name, value in CUSTOMER.get(line.recording.id, {}).items()
    }


def appointment(lines: Sequence[Line]) -> str | None:
    """The time of the appointment, which is on the day of the call; None: none is made."""
    return next(
        (APPOINTMENTS[line.recording.id] for line in lines if line.recording.id in APPOINTMENTS), None
    )


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
    callers = [line for line in lines if line.role == "caller"]
    return Script(
        greeting=answers[0],
        answers=answers[1:],
        caller_texts=[line.text for line in callers],
        transcription_ms=(50, 150),
        transcription_faults={"failed": {at for at, line in enumerate(callers) if line.untranscribed}},
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
