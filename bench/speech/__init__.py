"""The speech recordings: French sentences of a caller and of a home-services company's assistant.

`recordings.toml` lists them, `make.sh` makes them again, README.md tells their source.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from handlehome.codecs import wav

Role = Literal["caller", "assistant"]


@dataclass(frozen=True)
class Recording:
    """One spoken sentence."""

    id: str
    role: Role
    text: str
    """Word for word what is said, in French."""
    ulaw: bytes
    """Mu-law, 8 kHz, mono."""

    @property
    def duration_ms(self) -> float:
        return len(self.ulaw) * 1000 / wav.SAMPLE_RATE


@functools.cache
def _listed() -> dict[str, tuple[Role, str]]:
    text = resources.files(__name__).joinpath("recordings.toml").read_text("utf-8")
    return {entry["id"]: (entry["role"], entry["text"]) for entry in tomllib.loads(text)["recording"]}


def ids() -> list[str]:
    """The ids of all recordings, in the order of the demonstration call."""
    return list(_listed())


@functools.cache
def load(recording_id: str) -> Recording:
    """Returns a recording.

    Raises:
        KeyError: There is none of this id.
    """
    if recording_id not in _listed():
        raise KeyError(f"no recording {recording_id!r}; there are {', '.join(ids())}")
    role, text = _listed()[recording_id]
    data = resources.files(__name__).joinpath(f"{recording_id}.wav").read_bytes()
    return Recording(recording_id, role, text, wav.read_line(data))
