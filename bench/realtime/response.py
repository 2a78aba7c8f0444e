"""One response under way: the plan of its deltas in time, and what has become of it."""

import audioop
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from handlehome.bench.realtime.checks import Json
from handlehome.bench.realtime.script import Answer

Status = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A delta to come: audio (bytes, in the output format) or text, `at_s` s after the first output."""

    at_s: float
    data: bytes | str


def convert(ulaw: bytes, audio_type: str) -> bytes:
    """Mu-law 8 kHz in another format of the API; pcm is 16-bit little-endian at 24 kHz, resampled."""
    if audio_type == "audio/pcmu":
        return ulaw
    linear = audioop.ulaw2lin(ulaw, 2)
    if audio_type == "audio/pcma":
        return audioop.lin2alaw(linear, 2)
    return audioop.ratecv(linear, 2, 1, 8000, 24000, None)[0]


def plan(answer: Answer, audio_type: str | None, rng: random.Random) -> deque[Piece]:
    """Draws the schedule of an answer's deltas.

    Args:
        answer: What to say and how.
        audio_type: Format of the audio; None for a response in text.
        rng: Where sizes, jitter and stalls come from.

    Returns:
        The deltas in the order in which they are to be sent; audio deltas together are the whole audio, text
        deltas the whole text.
    """
    words = [word + " " for word in answer.text.split(" ")]
    words[-1] = words[-1][:-1]
    if not answer.text:
        words = []
    if audio_type is None or not answer.audio:
        return deque(Piece(index * 0.02, word) for index, word in enumerate(words))
    audio = convert(answer.audio, audio_type)
    per_ms, sample = (48, 2) if audio_type == "audio/pcm" else (8, 1)
    pieces: list[Piece] = []
    offset, latest = 0, 0.0
    shown = 0
    while offset < len(audio):
        size = max(sample, int(rng.uniform(*answer.delta_ms) * per_ms) // sample * sample)
        due = offset / per_ms / 1000 / answer.pace + rng.uniform(0, answer.jitter_ms) / 1000
        if answer.stall_chance and rng.random() < answer.stall_chance:
            due += answer.stall_ms / 1000
        latest = max(latest, due)
        chunk = audio[offset : offset + size]
        offset += size
        # The transcript runs just ahead of its audio, by its share of the whole.
        upto = -(-len(words) * min(offset, len(audio)) // len(audio))
        text_at = latest + answer.transcript_delay_ms / 1000
        pieces.extend(Piece(text_at, word) for word in words[shown:upto])
        shown = upto
        pieces.append(Piece(latest, chunk))
    # Stable: pieces due at the same moment stay interleaved as they were made.
    return deque(sorted(pieces, key=lambda piece: piece.at_s))


@dataclass(slots=True)
class Response:
    """A response from ``response.created`` to ``response.done``.

    Attributes:
        response_id: ``resp_...``.
        answer: What it says.
        request: ``response`` of the client's ``response.create``, {} for one made by turn detection.
        modality: ``audio`` or ``text``.
        out_of_band: Made with ``conversation: none``; its items belong to no conversation.
        pieces: Deltas not sent yet.
        bytes_per_ms: Of its audio; 8 or 48.
        started_at: When its first output was due; the deltas' times count from there.
        spoken_at: When its first audio delta was sent.
        message: The assistant message, once it exists.
        said: Text sent so far.
        audio_bytes: Audio sent so far.
        output: Its finished items.
        status: As in the API.
        reason: Why it is being cancelled.
        late: Audio deltas still to be sent before the cancellation is told.
        timer: Number of its next step; a step of another number is out of date.
    """

    response_id: str
    answer: Answer
    request: Json
    modality: str
    out_of_band: bool
    pieces: deque[Piece]
    bytes_per_ms: int = 8
    started_at: float = 0.0
    spoken_at: float | None = None
    message: Json | None = None
    said: str = ""
    audio_bytes: int = 0
    output: list[Json] = field(default_factory=list)
    status: Status = "in_progress"
    reason: str | None = None
    late: int = 0
    timer: int = 0

    def body(
        self, session: Json, conversation_id: str, usage: Json | None, error: Json | None = None
    ) -> Json:
        """The ``response`` object of ``response.created`` and ``response.done``."""
        details: Json | None = None
        if self.status in ("cancelled", "incomplete"):
            details = {"type": self.status, "reason": self.reason}
        elif self.status == "failed":
            details = {"type": "failed", "error": error}
        output = {**session["audio"]["output"], **self.request.get("audio", {}).get("output", {})}
        voice = output["voice"]
        return {
            "object": "realtime.response",
            "id": self.response_id,
            "status": self.status,
            "status_details": details,
            "output": self.output,
            "conversation_id": None if self.out_of_band else conversation_id,
            "output_modalities": [self.modality],
            "max_output_tokens": self.request.get("max_output_tokens", session["max_output_tokens"]),
            "audio": {
                "output": {
                    "format": output["format"],
                    "voice": voice if isinstance(voice, str) else voice["id"],
                }
            },
            "usage": usage,
            "metadata": self.request.get("metadata"),
        }

    def message_body(self, status: str) -> Json:
        """The assistant message with what has been said so far."""
        if self.message is None:
            raise ValueError("the response has no message")
        kind, name = ("output_audio", "transcript") if self.modality == "audio" else ("output_text", "text")
        return {**self.message, "status": status, "content": [{"type": kind, name: self.said}]}
