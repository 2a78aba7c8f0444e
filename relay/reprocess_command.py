"""The command `reprocess`. It works beside a running daemon."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from handlehome.extract.processor import Outcome
from handlehome.relay.assistant import AssistantError, load_assistant
from handlehome.relay.config import Settings
from handlehome.relay.export import stored_calls
from handlehome.relay.keeping import open_keepers
from handlehome.relay.processing import ProcessingError, make_processor, make_profile, with_cost
from handlehome.relay.records_commands import FAILED, OK, WRONG, calls_of_days, complain, stderr
from handlehome.relay.reprocess import StoredCalls, reprocess
from handlehome.store.datadir import StoreError

__all__ = ["run_reprocess"]


def run_reprocess(settings: Settings, call_sids: Sequence[str], since: date | None) -> int:
    """Extracts the data of stored calls anew; gives the exit status."""
    if bool(call_sids) == (since is not None):
        return complain(WRONG, "name calls, or give --since, not both")
    try:
        assistant = load_assistant(settings.assistant_file)
        profile, complete = make_profile(settings, assistant), with_cost(settings)
    except (AssistantError, ProcessingError) as error:
        return complain(WRONG, *error.lines)
    try:
        with open_keepers(settings) as keepers:
            if since is not None:
                found = stored_calls(keepers.store, calls_of_days(settings, since, None))
                call_sids = [call.record.call_sid for call in found if call.record.ended_at is not None]
            calls = StoredCalls(keepers.journal, keepers.store, keepers.files, complete)
            processor = make_processor(settings, assistant, profile, calls.calls(profile))
            try:
                done = failed = 0
                with _progress() as progress:
                    task = progress.add_task("Extracting", total=len(set(call_sids)))
                    for outcome in reprocess(call_sids, processor, workers=settings.extraction_workers):
                        progress.advance(task)
                        progress.console.print(_line(outcome), markup=False)
                        done += 1
                        failed += not outcome.ok
            finally:
                processor.close()
    except (StoreError, OSError) as error:
        return complain(FAILED, str(error))
    stderr.print(f"{done - failed} of {done} calls extracted")
    return FAILED if failed else OK


def _line(outcome: Outcome) -> str:
    failure = "" if outcome.ok else f" (still {outcome.status or 'unknown'})"
    return f"{outcome.call_sid}  {outcome.error or outcome.status}{failure}"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )
