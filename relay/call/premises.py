"""What a call is given: who calls whom, what an earlier process knew of it, and what all calls share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from handlehome.codecs.framepool import FramePool
from handlehome.relay.model.interface import Listener, Model
from handlehome.relay.recording import Recording
from handlehome.relay.wheel import TimerWheel


class Write(Protocol):
    """The journal, bound to nothing."""

    def __call__(self, call_sid: str, kind: str, data: dict[str, Any], /) -> object: ...


@dataclass(frozen=True, slots=True)
class Party:
    """Who calls whom, as the webhook said."""

    call_sid: str
    account_sid: str
    from_: str
    to: str
    direction: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """What is known of a call in whose midst an earlier process died.

    Attributes:
        legs: how many streams it had.
        began: loop time at which it began, before this process.
    """

    legs: int
    began: float


@dataclass(frozen=True, slots=True)
class Premises:
    """What all calls share.

    Attributes:
        open_model: opens a model's session for a caller's number; it tells the listener.
        write: the journal.
        greeting: instructions for the first words.
        resume: instructions for the first words on a leg that takes up an interrupted conversation.
        assistant: the assistant's name.
        padding_ms: how much earlier than speech the model says it started, and
        silence_ms: how much later than speech it says it stopped (its voice-activity detection's settings).
        in_order: the model's audio is decoded on its way, and must not have gaps.
        record: begins to record a call (see `Recorder.open`); None: no audio is kept.
    """

    open_model: Callable[[Listener, Party], Model]
    write: Write
    pool: FramePool
    wheel: TimerWheel
    clock: Callable[[], float]
    greeting: str
    assistant: str
    lead: float
    max_seconds: float
    resume_seconds: float
    resume: str | None = None
    server_interrupts: bool = True
    padding_ms: int = 0
    silence_ms: int = 0
    in_order: bool = False
    record: Callable[[str, float], Recording] | None = None
