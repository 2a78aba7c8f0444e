"""Voice activity detection by energy, with the parameters of ``turn_detection``."""

import audioop
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from handlehome.bench.realtime.checks import Json

FRAME_MS = 20
ONSET_FRAMES = 2
"""Loud frames in a row that make speech; one alone is a click."""

# How long a pause ends a turn in semantic_vad, where the real server judges the words: ours to choose, well
# below its documented longest waits of 8, 4 and 2 s.
_SEMANTIC_SILENCE_MS = {"low": 1200, "medium": 800, "auto": 800, "high": 500}


class Change(NamedTuple):
    """Speech began or ended at `ms` of the audio written to the input buffer."""

    kind: Literal["started", "stopped"]
    ms: int


class EnergyVad:
    """Finds speech in linear 16-bit audio.

    A frame of 20 ms is loud when its RMS level exceeds -60 dBFS + 40 dB x threshold: the default of 0.5 is
    -40 dBFS, above the noise of a phone line and 20 dB below speech; 1.0 is a shout.

    Args:
        turn_detection: ``session.audio.input.turn_detection``, complete.
        sample_rate: 8000 or 24000 Hz.
    """

    def __init__(self, turn_detection: Json, sample_rate: int) -> None:
        threshold: float = turn_detection.get("threshold", 0.5)
        self._loud = 32768 * math.pow(10, (-60 + 40 * threshold) / 20)
        self._prefix_ms: int = turn_detection.get("prefix_padding_ms", 300)
        self._silence_ms: int = turn_detection.get("silence_duration_ms", 0)
        if turn_detection["type"] == "semantic_vad":
            self._silence_ms = _SEMANTIC_SILENCE_MS[turn_detection["eagerness"]]
        self._frame_bytes = sample_rate * 2 * FRAME_MS // 1000
        self._rest = b""
        self._loud_frames = 0
        self._quiet_ms = 0
        self.speaking = False

    def start_ms(self, at_ms: float) -> int:
        """``audio_start_ms`` of speech whose first sample is at `at_ms`: with the prefix, not below 0."""
        return max(0, int(at_ms) - self._prefix_ms)

    def force(self, *, speaking: bool) -> None:
        """Makes speech begin or end by decision of somebody else."""
        self.speaking = speaking
        self._loud_frames = 0
        self._quiet_ms = 0

    def feed(self, audio: bytes, end_ms: float) -> Iterator[Change]:
        """Listens to audio.

        Args:
            audio: Linear 16-bit samples in the machine's byte order, any length.
            end_ms: Position of its end in the session's input audio.

        Yields:
            What changed, in order.
        """
        data = self._rest + audio if self._rest else audio
        size = self._frame_bytes
        frames = len(data) // size
        end = end_ms - (len(data) - frames * size) * FRAME_MS / size
        self._rest = data[frames * size :]
        for index in range(frames):
            at_ms = end - (frames - index - 1) * FRAME_MS
            change = self._frame(audioop.rms(data[index * size : (index + 1) * size], 2), at_ms)
            if change:
                yield change

    def _frame(self, level: float, end_ms: float) -> Change | None:
        if level > self._loud:
            self._quiet_ms = 0
            self._loud_frames += 1
            if not self.speaking and self._loud_frames >= ONSET_FRAMES:
                self.speaking = True
                return Change("started", self.start_ms(end_ms - ONSET_FRAMES * FRAME_MS))
            return None
        self._loud_frames = 0
        if self.speaking:
            self._quiet_ms += FRAME_MS
            if self._quiet_ms >= self._silence_ms:
                self.speaking = False
                self._quiet_ms = 0
                return Change("stopped", int(end_ms))
        return None
