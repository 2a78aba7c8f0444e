"""What a call needs of a model, and what a model tells its call.

A second protocol (GPT-Live) exists beside Realtime; a call knows neither, only these two.
Times are loop time in seconds; audio is mu-law, 8 kHz, as base64 text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol


class ModelLost(StrEnum):
    """Why a model can't be had, or no longer."""

    REFUSED = "model_refused"
    UNREACHABLE = "model_unreachable"
    NOT_READY = "model_not_ready"
    DROPPED = "model_dropped"
    SILENT = "model_silent"
    EXPIRED = "model_expired"
    FAILING = "model_failing"


class Listener(Protocol):
    """The call, as its model sees it; all methods are called on the loop, in the order of events."""

    def model_ready(self) -> None:
        """The session is configured: audio flows, answers can be asked for."""

    def model_lost(self, reason: ModelLost, detail: str) -> None:
        """The model is gone; nothing more comes of it."""

    def caller_started(self, item_id: str, start_ms: int) -> None:
        """The caller began to speak, `start_ms` into the audio that the model has got."""

    def caller_stopped(self, item_id: str, end_ms: int) -> None:
        """The caller fell silent, `end_ms` into the audio that the model has got."""

    def item_placed(self, item_id: str, after: str | None, role: str | None) -> None:
        """An item stands in the conversation behind `after`; `role` is None where nobody speaks."""

    def caller_said(self, item_id: str, text: str | None) -> None:
        """The transcript of a caller's item; None: it could not be had."""

    def assistant_audio(self, response_id: str, item_id: str, payload: bytes, size: int) -> None:
        """Audio of the assistant's item, as base64 text that stands for `size` bytes."""

    def assistant_audio_done(self, item_id: str) -> None:
        """No more audio of that item will come."""

    def assistant_said(self, item_id: str, text: str, *, final: bool) -> None:
        """A piece of what the assistant says, or (`final`) all of it."""

    def response_done(self, response_id: str, status: str, detail: str | None) -> None:
        """A response has ended: completed, cancelled, incomplete or failed."""

    def used(self, source: str, model: str, counts: Mapping[str, float]) -> None:
        """Something was used up that has a price: `source` is "realtime" or "transcription"."""

    def tool_called(self, call_id: str, name: str, arguments: str) -> None:
        """The model wants a function to be run; `arguments` is JSON text of the model's making."""


class Model(Protocol):
    """A speech model in one conversation."""

    @property
    def ready(self) -> bool:
        """Whether the session is configured."""
        ...

    @property
    def active_response(self) -> str | None:
        """Id of the response in progress."""
        ...

    @property
    def heard_bytes(self) -> int:
        """Bytes of the caller's audio that the model has got or that wait for it; not what was dropped."""
        ...

    def hear(self, payload: bytes, size: int) -> None:
        """Takes the caller's audio, base64 text that stands for `size` bytes, and keeps it until ready."""

    def answer(self, purpose: str, instructions: str | None = None) -> None:
        """Asks the model to speak, as soon as it may."""

    def cut(self, item_id: str, heard_ms: int) -> None:
        """Tells the model that only this much of its item was heard."""

    def commit(self) -> None:
        """Ends the caller's turn here, in mid-word: the line is gone, what was said counts."""

    def cancel(self, response_id: str) -> None:
        """Stops a response in progress."""

    def tool_result(self, call_id: str, output: dict[str, Any]) -> None:
        """Hands in what a function returned."""

    def close(self) -> None:
        """Ends the conversation; nothing is told of it to the listener."""
