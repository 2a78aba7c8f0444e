"""Our resampler and the ones that people use otherwise, each as a stream of the same kind.

scipy and soxr are development tools: they are imported here only when they are asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from handlehome.bench import filters
from handlehome.codecs.resample import Resampler, impulse_response

Samples = NDArray[np.int16]

OURS: Final = "ours"

OTHERS: Final = ("scipy.signal", "soxr")
"""Modules that have resamplers."""


def optional(name: str) -> Any:
    """The module, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def subjects(source: int, target: int, packages: dict[str, Any]) -> list[filters.Subject]:
    """Our resampler and what there is beside it.

    Args:
        source: Hz.
        target: Hz.
        packages: Those of OTHERS that could be imported, by name.
    """
    ours = filters.Subject(OURS, source, target, lambda: Resampler(source, target))
    found = [ours]
    if signal := packages.get("scipy.signal"):
        up, down = max(target // source, 1), max(source // target, 1)
        taps = (impulse_response(max(up, down)) / down).astype(np.float32)
        functions: dict[str, Callable[[NDArray[np.float32]], Any]] = {
            "upfirdn": lambda samples: signal.upfirdn(taps, samples, up, down),
            "resample_poly": lambda samples: signal.resample_poly(samples, up, down),
        }
        found += [
            replace(ours, name=name, make=partial(_AtOnce, function), streams=False)
            for name, function in functions.items()
        ]
    if soxr := packages.get("soxr"):
        found += [
            replace(
                ours,
                name=f"soxr {quality}",
                make=partial(_SoxrStream, soxr, source, target, quality),
            )
            for quality in ("QQ", "LQ", "HQ", "VHQ")
        ]
    return found


class _AtOnce:
    """A function of the whole signal, as a stream that holds everything back."""

    def __init__(self, function: Callable[[NDArray[np.float32]], Any]) -> None:
        self._function = function
        self._parts: list[Samples] = []

    def process(self, samples: Samples, /) -> Samples:
        self._parts.append(samples)
        return np.empty(0, np.int16)

    def flush(self) -> Samples:
        whole = np.concatenate(self._parts).astype(np.float32)
        self._parts.clear()
        out: Samples = np.clip(np.rint(self._function(whole)), -32768, 32767).astype(np.int16)
        return out


class _SoxrStream:
    def __init__(self, soxr: Any, source: int, target: int, quality: str) -> None:
        self._stream = soxr.ResampleStream(source, target, 1, dtype="int16", quality=quality)

    def process(self, samples: Samples, /) -> Samples:
        out: Samples = self._stream.resample_chunk(samples)
        return out

    def flush(self) -> Samples:
        out: Samples = self._stream.resample_chunk(np.empty(0, np.int16), last=True)
        return out
