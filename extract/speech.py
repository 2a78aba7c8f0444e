"""Turns that have no text yet: which ones, and their audio as files that the API takes. Pure."""

from __future__ import annotations

import audioop
import io
import wave
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from handlehome.store.records import CallRecord, TurnRecord

__all__ = ["Gap", "gaps", "is_audible", "pieces", "seconds_of"]

SAMPLE_RATE: Final = 8000  # Hz, of the telephone; one byte of mu-law per sample
PADDING_MS: Final = 200.0
"""Added on both sides of a turn, since the detected start cuts off soft first sounds."""
MIN_MS: Final = 100.0
"""Shorter audio holds no word; the API refuses it."""
MAX_PIECE_SAMPLES: Final = 12_000_000
"""Samples per file: 24 MB of PCM16, 25 minutes; the API takes 25 MB."""
_AUDIBLE: Final = 256
"""Loudest sample (of 32768) below which a line carries noise only: -42 dBFS."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A caller's turn without text, and where its audio is: milliseconds of call time, with padding."""

    turn: TurnRecord
    start_ms: float
    end_ms: float


def gaps(record: CallRecord, unheard: Collection[str] = ()) -> list[Gap]:
    """The caller's turns that have no text and could have one.

    A turn whose end is not known (the caller was still speaking when the line went) lasts until the caller's
    next turn, or until the call's end.

    Args:
        record: the call, ended.
        unheard: turns that are known to give nothing.
    """
    found: list[Gap] = []
    callers = [turn for turn in record.turns if turn.role == "caller"]
    for turn in callers:
        if turn.text is not None or turn.start_ms is None or turn.id in unheard:
            continue
        end = turn.end_ms
        if end is None:
            later = [each.start_ms for each in callers if (each.start_ms or 0.0) > turn.start_ms]
            end = min((start for start in later if start is not None), default=record.duration_ms)
        if end is not None and end - turn.start_ms >= MIN_MS:
            found.append(Gap(turn, max(0.0, turn.start_ms - PADDING_MS), end + PADDING_MS))
    return found


def is_audible(mulaw: bytes) -> bool:
    """Whether there is anything to transcribe. Speech models make up words for silence."""
    if len(mulaw) < MIN_MS * SAMPLE_RATE / 1000:
        return False
    return any(audioop.max(pcm, 2) >= _AUDIBLE for pcm in _decoded(mulaw, SAMPLE_RATE * 60))


def pieces(mulaw: bytes) -> Iterator[bytes]:
    """WAV files (PCM16, mono, 8 kHz) of the audio, in order, each small enough for the API.

    PCM16, because it isn't known whether the API takes mu-law in WAV.
    """
    for pcm in _decoded(mulaw, MAX_PIECE_SAMPLES):
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(SAMPLE_RATE)
            writer.writeframes(pcm)
        yield file.getvalue()


def seconds_of(wav: bytes) -> float:
    """The length of one of `pieces`, in seconds."""
    with wave.open(io.BytesIO(wav)) as reader:
        frames: int = reader.getnframes()
        return frames / SAMPLE_RATE


def _decoded(mulaw: bytes, samples: int) -> Iterator[bytes]:
    for at in range(0, len(mulaw), samples):
        yield audioop.ulaw2lin(mulaw[at : at + samples], 2)
