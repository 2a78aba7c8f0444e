"""What a simulated session answers, how fast, and what goes wrong in it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response of the model.

    Attributes:
        text: Its transcript.
        audio: Its speech, mu-law 8 kHz; converted when the session asks for another format.
        think_ms: Delay between ``response.created`` and the first output, drawn from this range.
        delta_ms: Size of an audio delta in ms, drawn from this range; any whole number of samples,
            rarely a multiple of 20 ms.
        pace: Generation speed in times real time; ``math.inf`` sends everything at once, below 1 is slower
            than the ear.
        jitter_ms: Each delta is late by up to this much. Deltas keep their order; the schedule is
            absolute, so a late delta does not shift the ones after it.
        stall_chance: Probability (0-1) that a delta is late by `stall_ms` more.
        stall_ms: See `stall_chance`.
        transcript_delay_ms: How much later than their audio the transcript deltas come.
        function_call: Name and arguments (JSON text) of a call made after the speech, if there is any.
        fail: Error code with which the response fails, after the audio if there is any.
        incomplete: Reason with which the response ends as ``incomplete``, after the audio.
    """

    text: str = ""
    audio: bytes = b""
    think_ms: Range = (0, 0)
    delta_ms: Range = (20, 400)
    pace: float = 8.0
    jitter_ms: float = 0
    stall_chance: float = 0.0
    stall_ms: float = 0
    transcript_delay_ms: float = 0
    function_call: tuple[str, str] | None = None
    fail: str | None = None
    incomplete: Literal["max_output_tokens", "content_filter"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong in a session; the default is nothing.

    Attributes:
        handshake_status: The upgrade is refused with this HTTP status (401, 429, 503 ...).
        handshake_delay_s: The upgrade is answered only after so many seconds.
        expire_after_s: The session ends like one at its 60-minute limit: ``session_expired``, close 1001.
        drop_after_s: The TCP connection is aborted after so many seconds.
        drop_at: The TCP connection is aborted right behind the n-th event of a type, n counted from 1.
        close_answer: What follows the client's close frame: a close ``frame``, ``silence`` (TCP stays
            open until the client gives up) or an immediate TCP ``drop``.
        unknown_event_every: Before every n-th event comes one of a type nobody knows; 0 for never.
        unknown_fields: Every event, and the objects in it, carry fields nobody knows.
        codeless_errors: ``error`` events have neither ``code`` nor ``param`` nor ``event_id``.
    """

    handshake_status: int | None = None
    handshake_delay_s: float = 0.0
    expire_after_s: float | None = None
    drop_after_s: float | None = None
    drop_at: tuple[str, int] | None = None
    close_answer: Literal["frame", "silence", "drop"] = "frame"
    unknown_event_every: int = 0
    unknown_fields: bool = False
    codeless_errors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One session's part.

    Attributes:
        greeting: Answers the first ``response.create`` of the client; None takes the next of `answers`.
        answers: One for each other response, in order. A response beyond the last one has no output.
        repeat: Start `answers` over when they are used up.
        caller_texts: Transcripts of the caller's audio items in order; beyond the last one it is ``…``.
        transcription_ms: Delay from the commit of an item to its transcript.
        transcription_faults: Caller items, counted from 0, whose transcription ``failed`` or ``never`` comes.
        echo: One endless response that returns each append's audio at once, byte for byte; no turn detection.
        vad: ``energy`` detects speech in the audio received, with the session's parameters; ``manual`` leaves
            it to `speech_started` and `speech_stopped` (which may be mixed with ``energy`` too).
        late_deltas: Audio deltas still sent between ``speech_started`` and the cancelled ``response.done``.
        session_update_ms: Delay before ``session.updated``; audio that arrives before it is a violation.
        faults: What goes wrong.
    """

    greeting: Answer | None = None
    answers: Sequence[Answer] = ()
    repeat: bool = False
    caller_texts: Sequence[str] = ()
    transcription_ms: Range = (50, 300)
    transcription_faults: Mapping[Literal["failed", "never"], Set[int]] = field(default_factory=dict)
    echo: bool = False
    vad: Literal["energy", "manual"] = "energy"
    late_deltas: int = 1
    session_update_ms: Range = (0, 0)
    faults: Faults = field(default_factory=Faults)

    def answer(self, index: int) -> Answer:
        """The answer to response number `index` (from 0, greeting not counted)."""
        if self.answers and (self.repeat or index < len(self.answers)):
            return self.answers[index % len(self.answers)]
        return Answer()

    def caller_text(self, index: int) -> str:
        """The transcript of the caller's audio item number `index` (from 0)."""
        return self.caller_texts[index] if index < len(self.caller_texts) else "…"
