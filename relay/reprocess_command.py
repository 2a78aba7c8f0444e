"""The command `reprocess`. It works beside a running daemon."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from handlehome.relay.assistant import AssistantError, load_assistant
from handlehome.relay.config import Settings
from handlehome.relay.export import stored_calls
from handlehome.relay.keeping import open_keepers
from handlehome.relay.processing import ProcessingError, make_processor, make_profile, with_cost
from handlehome.relay.records_commands import FAILED, OK, WRONG, calls_of_days, complain, stderr
from handlehome.relay.reprocess import Outcome, StoredCalls, reprocess
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
            with _progress() as progress:
                task = progress.add_task("Extracting", total=len(set(call_sids)))

                def told(outcome: Outcome) -> None:
                    progress.advance(task)
                    error = f": {outcome.error}" if outcome.error else ""
                    progress.console.print(f"{outcome.call_sid}  {outcome.status}{error}", markup=False)

                outcomes = reprocess(
                    call_sids,
                    calls,
                    profile,
                    partial(make_processor, settings, assistant, profile),
                    told=told,
                )
    except (StoreError, OSError) as error:
        return complain(FAILED, str(error))
    left = [outcome for outcome in outcomes if not outcome.ok]
    stderr.print(f"{len(outcomes) - len(left)} of {len(outcomes)} calls extracted")
    return FAILED if left else OK


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )
