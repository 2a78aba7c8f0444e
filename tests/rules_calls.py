"""Calls for the tests of the rules, written as lines: "A: ..." the assistant's, "C: ..." the caller's."""

from datetime import datetime

from handlehome.extract.rules.dialogue import Dialogue
from handlehome.store.records import CallRecord, TurnRecord


def record(*lines: str, caller: str | None = None, at: str = "2026-03-12T09:14:00+01:00") -> CallRecord:
    """A call of 12 March 2026, a Thursday, unless said otherwise; its turns are T1, T2, ..."""
    turns = tuple(
        TurnRecord(f"T{number}", "assistant" if line.startswith("A:") else "caller", line[2:].strip() or None)
        for number, line in enumerate(lines, 1)
    )
    return CallRecord("CA1", datetime.fromisoformat(at).timestamp(), from_=caller, turns=turns)


def dialogue(*lines: str, language: str = "fr") -> Dialogue:
    return Dialogue(record(*lines), language)
