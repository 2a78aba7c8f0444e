"""What happens to a call when it is over, wired from the settings: transcript, extraction, cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from handlehome.extract import rules
from handlehome.extract.attempt import Calls, Profile
from handlehome.extract.openai_rest import OpenAIRest, SpeechHints
from handlehome.extract.prices import CURRENCY, Prices, PricesError
from handlehome.extract.processor import FINAL, TranscriptionProcessor
from handlehome.extract.schema import SchemaError, load_schema
from handlehome.relay.assistant import Assistant
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.config import Settings
from handlehome.relay.recording import Recorder
from handlehome.store.journal import Journal, JournalError
from handlehome.store.records import CallRecord, fold

__all__ = ["ProcessingError", "discard_audio", "journal_calls", "make_processor", "make_profile", "with_cost"]

FLUSH_SECONDS = 5.0


class ProcessingError(Exception):
    """EXTRACTION_SCHEMA or PRICES_FILE can't be used; `lines` says what is wrong, a line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def make_profile(settings: Settings, assistant: Assistant) -> Profile:
    """What is extracted, and how dates and numbers are understood.

    Raises:
        ProcessingError: the schema can't be used.
    """
    try:
        schema = load_schema(settings.extraction_schema)
    except SchemaError as error:
        raise ProcessingError([f"EXTRACTION_SCHEMA: {line}" for line in error.lines]) from error
    return Profile(schema, settings.phone_region, assistant.time_zone, assistant.language)


def make_processor(
    settings: Settings, assistant: Assistant, profile: Profile, calls: Calls, *, workers: int | None = None
) -> TranscriptionProcessor:
    """The processor, not yet started; without a key it goes by rules."""
    rest = None
    if settings.openai_api_key is not None:
        speech = assistant.speech_to_text
        rest = OpenAIRest(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            extraction_model=settings.openai_extraction_model,
            transcription_model=settings.openai_transcription_model,
            hints=SpeechHints(tuple(speech.languages), tuple(speech.keywords)),
        )
    return TranscriptionProcessor(calls, profile, rest, workers=workers or settings.extraction_workers)


def find_by_rules(profile: Profile) -> Callable[[CallRecord], dict[str, Any]]:
    """The extraction without a model."""

    def find(record: CallRecord) -> dict[str, Any]:
        return rules.extract(
            record, region=profile.region, time_zone=profile.time_zone, language=profile.language
        )

    return find


def journal_calls(
    journal: Journal, recorder: Recorder, profile: Profile, done: Callable[[str], object]
) -> Calls:
    """Calls as the daemon has them: read from the journal, and results written to it.

    Args:
        journal: theirs.
        recorder: has their audio.
        profile: for the rules.
        done: a call's record has changed.
    """

    def load(call_sid: str) -> CallRecord | None:
        if not journal.flush_sync(FLUSH_SECONDS):
            raise JournalError("the journal is not written")
        events = journal.events(call_sid)
        return fold(events) if events else None

    return Calls(
        load=load,
        append=journal.append,
        audio=recorder.caller_audio,
        rules=find_by_rules(profile),
        done=done,
    )


def discard_audio(files: AudioFiles) -> Callable[[CallRecord], None]:
    """Deletes the caller's audio of a saved call whose transcript is as complete as it can be."""

    def discard(record: CallRecord) -> None:
        if (record.extraction or {}).get("status") in FINAL:
            files.discard(record.call_sid)

    return discard


def with_cost(settings: Settings) -> Callable[[CallRecord], CallRecord]:
    """Adds to a record's usage what it cost; None where something has no price.

    Raises:
        ProcessingError: the price list can't be used.
    """
    try:
        prices = Prices.load(settings.prices_file)
    except PricesError as error:
        raise ProcessingError([f"PRICES_FILE: {line}" for line in error.lines]) from error

    def add(record: CallRecord) -> CallRecord:
        if not record.usage:
            return record
        usage = {**record.usage, "cost": prices.cost(record.usage), "currency": CURRENCY}
        return replace(record, usage=usage)

    return add
