"""What a call cost: the counts of `record.usage`, priced from a table of the models' prices.

The table is a TOML file, one table per model:

    ["gpt-realtime-2.1-mini"]          # US dollars per million tokens
    audio = { input = 10.00, cached = 0.30, output = 20.00 }
    text = { input = 0.60, cached = 0.06, output = 2.40 }

    ["gpt-transcribe"]                 # or per minute of audio
    minute = 0.0045

A cost is right or unknown: whatever was counted and has no price makes the whole call's cost None, and
`Prices.missing` says what it was.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = ["CURRENCY", "Prices", "PricesError"]

CURRENCY = "USD"

_BUILT_IN = "prices.toml"
_KINDS = ("text", "audio")
_MODEL_KEYS = (*_KINDS, "minute")
_KIND_KEYS = {"text": ("input", "cached", "cache_write", "output"), "audio": ("input", "cached", "output")}
_PER_TOKENS = 1_000_000
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")

# What one unit of each count costs, in dollars.
_Rates = Mapping[str, float]


class PricesError(Exception):
    """A price table can't be used.

    Attributes:
        lines: One line per problem: `file: [model] key: problem`.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Prices:
    """A table of prices, checked. Immutable; one instance serves all calls."""

    def __init__(self, table: Mapping[str, Any], *, label: str = "prices") -> None:
        """Args:
            table: As in the file, a table per model.
            label: What the table is called in error lines.

        Raises:
            PricesError: A key is unknown, a price is negative or no number; all of it is listed.
        """
        lines: list[str] = []
        self._rates: dict[str, _Rates] = {
            model: _rates_of(entry, f"{label}: [{model}]", lines) for model, entry in table.items()
        }
        if lines:
            raise PricesError(lines)

    @classmethod
    def load(cls, path: Path | None = None) -> Prices:
        """Reads the built-in table, and over it that of a user.

        Args:
            path: TOML file whose models count before the built-in ones, each as a whole; None: no such file.

        Raises:
            PricesError: The file can't be read, is no TOML, or says something wrong.
        """
        built_in = cls(tomllib.loads((resources.files(__package__) / _BUILT_IN).read_text("utf-8")))
        if path is None:
            return built_in
        try:
            table = tomllib.loads(path.expanduser().read_bytes().decode("utf-8-sig"))
        except tomllib.TOMLDecodeError as error:
            raise PricesError([f"{path}: {error}"]) from None
        except UnicodeDecodeError as error:
            raise PricesError([f"{path}: is not UTF-8 (byte {error.start})"]) from None
        except OSError as error:
            raise PricesError([f"{path}: cannot be read: {error.strerror}"]) from None
        prices = cls(table, label=str(path))
        prices._rates = {**built_in._rates, **prices._rates}
        return prices

    def __contains__(self, model: object) -> bool:
        """Whether the model has any price."""
        return isinstance(model, str) and self._of(model) is not None

    def cost(self, usage: Mapping[str, Any]) -> float | None:
        """What the usage of a call cost.

        Args:
            usage: `record.usage`: for each source its `model` and counts (see `handlehome.extract.usage`).
                What is no table (`cost`, `currency`) is passed over.

        Returns:
            US dollars, rounded to millionths; None when something has no price. Nothing used costs 0.
        """
        total = 0.0
        for counts in _sources(usage):
            for units, rate in self._items(counts).values():
                if rate is None:
                    return None
                total += units * rate
        return round(total, 6)

    def missing(self, usage: Mapping[str, Any]) -> list[str]:
        """What makes the cost of this usage None.

        Returns:
            `model` for a model without any price, `model: count` for a count of it without one.
        """
        lacking: list[str] = []
        for counts in _sources(usage):
            model = str(counts.get("model"))
            names = [name for name, (_, rate) in self._items(counts).items() if rate is None]
            lacking += [f"{model}: {name}" for name in names] if model in self else [model] * bool(names)
        return list(dict.fromkeys(lacking))

    def _items(self, counts: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
        """What is to be paid: units and dollars per unit (None: no price) by count."""
        billed = _billed(counts)
        rates = self._of(str(counts.get("model")))
        if rates is None:
            return {name: (units, None) for name, units in billed.items()}
        if "seconds" in rates:
            # A model priced by the minute may report tokens, but then the seconds have to be there too.
            units = billed.get("seconds", 0.0)
            return {"seconds": (units, rates["seconds"] if units else None)} if billed else {}
        tokens = {name: units for name, units in billed.items() if name != "seconds"}
        if billed and not tokens:
            return {"seconds": (billed["seconds"], None)}
        return {name: (units, rates.get(name)) for name, units in tokens.items()}

    def _of(self, model: str) -> _Rates | None:
        """The model's rates; a dated snapshot without an entry of its own costs what its model costs."""
        return self._rates.get(model) or self._rates.get(_DATED.sub("", model))


def _sources(usage: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (counts for counts in usage.values() if isinstance(counts, Mapping))


def _billed(counts: Mapping[str, Any]) -> dict[str, float]:
    """The counts that are not 0, each token in one of them only."""
    billed = {
        name: value
        for name, value in counts.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    }
    # The API counts cached tokens, and those written to the cache, as input too.
    for part, whole in (
        ("cached_text_tokens", "input_text_tokens"),
        ("cache_write_tokens", "input_text_tokens"),
        ("cached_audio_tokens", "input_audio_tokens"),
    ):
        rest = billed.get(whole, 0) - billed.get(part, 0)
        # Below 0 the counts contradict each other: it stays, and nothing of that name has a price.
        if part in billed:
            billed.pop(whole, None)
            if rest:
                billed[whole if rest > 0 else f"{part} beyond {whole}"] = rest
    return billed


def _rates_of(entry: object, where: str, lines: list[str]) -> _Rates:
    """A model's rates; appends a line for each problem."""
    if not isinstance(entry, dict):
        lines.append(f"{where}: expected a table with text, audio or minute")
        return {}
    rates: dict[str, float] = {}
    before = len(lines)
    for key, value in entry.items():
        if key == "minute":
            rates["seconds"] = _dollars(value, f"{where} minute", lines) / 60
        elif key not in _KINDS:
            lines.append(f"{where} {key}: unknown key{_hint(key, _MODEL_KEYS)}")
        elif not isinstance(value, dict):
            lines.append(f"{where} {key}: expected a table, {{ input = ..., output = ... }}")
        else:
            for name, price in value.items():
                if name not in _KIND_KEYS[key]:
                    lines.append(f"{where} {key}.{name}: unknown key{_hint(name, _KIND_KEYS[key])}")
                    continue
                count = "cache_write_tokens" if name == "cache_write" else f"{name}_{key}_tokens"
                rates[count] = _dollars(price, f"{where} {key}.{name}", lines) / _PER_TOKENS
    if not rates and len(lines) == before:
        lines.append(f"{where}: has no price")
    if "minute" in entry and len(entry) > 1:
        lines.append(f"{where} minute: a model is priced by the minute or by tokens, not both")
    return rates


def _dollars(value: object, where: str, lines: list[str]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        lines.append(f"{where}: {value!r} is not a number")
    elif value < 0:
        lines.append(f"{where}: {value!r} is negative")
    else:
        return float(value)
    return 0.0


def _hint(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; expected {', '.join(known)}"
