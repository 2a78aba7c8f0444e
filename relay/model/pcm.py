"""Mu-law at 8 kHz on the line, 16-bit samples at 24 kHz at the model (`AUDIO_FORMAT=pcm24k`).

All audio is base64 text on both sides. Positions and sizes keep counting in bytes of mu-law, whatever the
model hears, so that times mean the same in both formats.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from handlehome.codecs.g711 import ulaw_decode, ulaw_encode
from handlehome.codecs.payload import decode, encode
from handlehome.codecs.resample import Resampler

LINE_RATE: Final = 8000
MODEL_RATE: Final = 24_000
"""The only rate of `audio/pcm` in the Realtime API."""

_SAMPLE: Final = np.dtype("<i2")
"""`audio/pcm` is little-endian."""


class PcmTranscoder:
    """Both directions of one conversation."""

    __slots__ = ("_up", "_voices")

    def __init__(self) -> None:
        self._up = Resampler(LINE_RATE, MODEL_RATE)
        self._voices: dict[str, _Voice] = {}  # items whose audio is under way

    def uplink(self, payload: bytes) -> bytes:
        """The caller's next audio, of any length, for the model."""
        samples = self._up.process(ulaw_decode(decode(payload)))
        return encode(samples.astype(_SAMPLE, copy=False).data)

    def downlink(self, item_id: str, payload: bytes) -> tuple[bytes, int]:
        """The next audio of an item of the model's for the line.

        Returns:
            Base64 text, and the bytes of mu-law that it stands for; they may be none.
        """
        voice = self._voices.get(item_id)
        if voice is None:
            voice = self._voices[item_id] = _Voice()
        codes = voice.hear(decode(payload))
        return encode(codes), len(codes)

    def forget(self, item_id: str) -> None:
        """Nothing more comes of an item. What the filter holds of it, 1.75 ms, is not worth a late frame."""
        self._voices.pop(item_id, None)


class _Voice:
    """One item's way down; never longer than what the model sent, which is as far as it may be truncated."""

    __slots__ = ("_ahead", "_down", "_half")

    def __init__(self) -> None:
        self._down = Resampler(MODEL_RATE, LINE_RATE)
        self._ahead = round(self._down.delay * LINE_RATE)  # of the filter's delay, which is left out
        self._half = b""  # a delta may end within a sample

    def hear(self, audio: bytes) -> bytes:
        if self._half:
            audio = self._half + audio
        whole = len(audio) & ~1
        self._half = audio[whole:]
        samples = self._down.process(np.frombuffer(audio, _SAMPLE, whole // 2).astype(np.int16, copy=False))
        if self._ahead:
            skipped = min(self._ahead, len(samples))
            self._ahead -= skipped
            samples = samples[skipped:]
        return ulaw_encode(samples)
