"""The commands over what is stored: `export` and `erase`. They work beside a running daemon."""

from __future__ import annotations

import contextlib
import sys
from datetime import date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import phonenumbers
from rich.console import Console

from handlehome.relay.assistant import AssistantError, load_assistant
from handlehome.relay.config import Settings
from handlehome.relay.erasure import ErasedNumber, LiveCall, calls_of, erase_number
from handlehome.relay.export import ExportFormat, export, stored_calls
from handlehome.relay.keeping import open_keepers
from handlehome.store.calls import CallQuery
from handlehome.store.datadir import StoreError

__all__ = ["FAILED", "OK", "WRONG", "calls_of_days", "complain", "run_erase", "run_export", "stderr"]

OK, FAILED, WRONG = 0, 1, 2
"""Exit statuses: done; something is left to do or in the way; the command or a setting is wrong."""

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(status: int, *lines: str) -> int:
    for line in lines:
        stderr.print(f"handlehome: {line}", markup=False)
    return status


def calls_of_days(settings: Settings, since: date | None, until: date | None) -> CallQuery:
    """The calls of some days, in the assistant's time zone; `until` is the last day."""
    zone = ZoneInfo(load_assistant(settings.assistant_file).time_zone)

    def at(day: date, moment: time) -> float:
        return datetime.combine(day, moment, zone).timestamp()

    return CallQuery(
        since=None if since is None else at(since, time.min),
        until=None if until is None else at(until, time.max),
    )


def run_export(
    settings: Settings, what: ExportFormat, since: date | None, until: date | None, output: Path | None
) -> int:
    """Writes stored calls to a file or standard output; gives the exit status."""
    try:
        with open_keepers(settings) as keepers, contextlib.ExitStack() as stack:
            calls = stored_calls(keepers.store, calls_of_days(settings, since, until))
            if output is None:
                count = export(calls, what, sys.stdout)
            else:
                # Transcripts are personal data: not for everyone.
                output.touch(mode=0o600)
                count = export(
                    calls, what, stack.enter_context(output.open("w", encoding="utf-8", newline=""))
                )
    except (StoreError, OSError, AssistantError) as error:
        return complain(FAILED, str(error))
    stderr.print(f"{count} calls exported" + (f" to {output}" if output else ""))
    return OK


def run_erase(settings: Settings, number: str, *, confirmed: bool) -> int:
    """Erases everything of a phone number; gives the exit status."""
    try:
        phone = _e164(number, settings.phone_region)
    except ValueError as error:
        return complain(WRONG, str(error))
    try:
        with open_keepers(settings) as keepers:
            known = calls_of(phone, keepers)
            if not confirmed:
                stderr.print(
                    f"Everything of {phone} is going to be erased for good: {len(known)} calls with their "
                    "transcripts, data, recordings and log lines.\nRun again with --yes to do it."
                )
                return FAILED
            report = erase_number(phone, keepers)
    except LiveCall as error:
        return complain(FAILED, str(error))
    except (StoreError, OSError) as error:
        return complain(FAILED, f"{error}: run it again when that is repaired")
    _show(phone, report)
    return OK


def _show(phone: str, report: ErasedNumber) -> None:
    console = Console(highlight=False)
    console.print(f"Erased of {phone}:")
    for what, count in (
        ("calls", len(report.calls)),
        ("stored records", report.records),
        ("clients", report.clients),
        ("journal events", report.events),
        ("audio files", len(report.files)),
        ("log lines", report.log_lines),
    ):
        console.print(f"  {count:6d} {what}")
    for call_sid in report.calls:
        console.print(f"  {call_sid}")


def _e164(number: str, region: str) -> str:
    """The number in E.164.

    Raises:
        ValueError: it is none.
    """
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException as error:
        raise ValueError(f"{number!r} is no phone number; expected one like +33612345678") from error
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
