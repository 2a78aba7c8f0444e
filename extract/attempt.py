"""One attempt at one call: what is asked, and what is kept when an answer fails to come.

No threads, clock or timers: `TranscriptionProcessor` decides when there is another attempt.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar, TypeVarTuple
from zoneinfo import ZoneInfo

from loguru import logger

from handlehome.extract import normalise, speech
from handlehome.extract.backlog import Job, Service
from handlehome.extract.openai_rest import OpenAIRest, RequestFailed
from handlehome.extract.prompt import make_prompt
from handlehome.extract.retries import Failure, Fault
from handlehome.extract.schema import AnswerSchema
from handlehome.extract.usage import Counts
from handlehome.store.clients import party
from handlehome.store.records import CallRecord

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

__all__ = ["Attempt", "Calls", "Found", "Gate", "Profile"]


@dataclass(frozen=True, slots=True)
class Calls:
    """Where calls come from and results go, called in threads of the processor. All may block; `append` holds
    up all other results meanwhile.

    When the processor has been closed, nothing is appended any more, and no `done` begins. Only a `done` that
    a worker was in the midst of, which `close` didn't wait for long enough, may still end later.

    Attributes:
        load: the record of a call, with all that was appended; None when there is no such call.
        append: journals an event (call SID, kind, data); False when it was not taken.
        audio: mu-law, 8 kHz, of what the caller said (call SID, start and end in milliseconds of call
            time), as much of it as there is; None when there is none. An `OSError` (`TimeoutError` too) means
            that it can't be read now: that is tried again.
        rules: data of the default schema, found without a model.
        done: the call has new events: its record is to be saved again.
    """

    load: Callable[[str], CallRecord | None]
    append: Callable[[str, str, dict[str, Any]], bool]
    audio: Callable[[str, float, float], bytes | None]
    rules: Callable[[CallRecord], dict[str, Any]]
    done: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Profile:
    """The assistant's side of an extraction.

    Attributes:
        schema: what is extracted.
        region: whose national telephone numbers are understood (ISO 3166-1 alpha-2).
        time_zone: IANA name.
        language: ISO 639-1.
    """

    schema: AnswerSchema
    region: str = "FR"
    time_zone: str = "Europe/Paris"
    language: str = "fr"


class Gate(Protocol):
    """The circuits of the services, as one attempt sees them."""

    def blocked(self, service: Service) -> Failure | None:
        """Why the service may not be asked now, None if it may."""

    def answered(self, service: Service, failure: Failure | None) -> None:
        """Takes notice of a request's end; None is success."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an attempt found.

    Attributes:
        data: the extracted data; None when there is none.
        method: how it was found.
        model: by which model.
        schema: the name of the schema that it has.
        failure: what failed; None when nothing is left to do.
        service: whose failure that is.
        nothing_said: the caller said nothing.
    """

    data: dict[str, Any] | None
    method: Literal["model", "rules"] | None
    model: str | None
    schema: str
    failure: Failure | None = None
    service: Service | None = None
    nothing_said: bool = False

    @property
    def is_of_all_text(self) -> bool:
        """Whether the model has seen every turn that has a text; only turns without one may be missing."""
        return self.method == "model" and self.service != "extraction"


class Attempt:
    """One attempt; `run` once.

    Attributes:
        asked: a request was made.
        news: an event was journaled.
    """

    def __init__(self, job: Job, calls: Calls, profile: Profile, rest: OpenAIRest | None, gate: Gate) -> None:
        """Args:
        job: what earlier attempts of this process remember; brought up to date.
        calls: where results go. What its functions raise comes out of `run`.
        profile: the assistant's side.
        rest: the API, None without a key.
        gate: whether it may be asked.
        """
        self.asked = self.news = False
        self._job, self._calls, self._profile, self._rest, self._gate = job, calls, profile, rest, gate
        self._log = logger.bind(call_sid=job.call_sid)

    def run(self, record: CallRecord) -> Found:
        """Completes the transcript as far as possible, and extracts the data."""
        record, missing = (record, None) if self._rest is None else self._complete(record, self._rest)
        said = any(turn.role == "caller" and turn.text and turn.text.strip() for turn in record.turns)
        if not said and missing is None and (self._rest is not None or not speech.gaps(record)):
            return Found(None, None, None, self._profile.schema.name, nothing_said=True)
        if self._rest is None:
            return self.without_model(record)
        if not said:
            return replace(self.without_model(record), failure=missing, service="transcription")
        found = self._kept(record) if self._job.extracted else self._ask_model(record, self._rest)
        if found.failure is None and missing is not None:
            found = replace(found, failure=missing, service="transcription")
        return found

    # The transcript

    def _complete(self, record: CallRecord, rest: OpenAIRest) -> tuple[CallRecord, Failure | None]:
        """The record with what could be transcribed, and why some could not, which may change."""
        for gap in speech.gaps(record, self._job.unheard):
            try:
                mulaw = self._calls.audio(self._job.call_sid, gap.start_ms, gap.end_ms)
            except OSError as error:  # the disk's trouble, not the service's: its circuit isn't concerned
                return record, _unreadable(error)
            if mulaw is None or not speech.is_audible(mulaw):
                self._job.unheard.add(gap.turn.id)
                continue
            try:
                text = self._transcribe(mulaw, rest)
            except RequestFailed as error:
                if error.failure.fault is not Fault.CALL:
                    return record, error.failure
                self._log.warning("A turn can't be transcribed: {}", error)
                text = ""
            if not text:
                self._job.unheard.add(gap.turn.id)
                continue
            turn = replace(gap.turn, text=text)
            self._append("turn", turn.to_document())
            record = replace(
                record, turns=tuple(turn if each.id == turn.id else each for each in record.turns)
            )
            self._job.extracted = False
        return record, None

    def _transcribe(self, mulaw: bytes, rest: OpenAIRest) -> str:
        texts: list[str] = []
        for wav in speech.pieces(mulaw):
            texts.append(self._request("transcription", rest.transcription_model, rest.transcribe, wav))
        return " ".join(filter(None, texts))

    # The data

    def _ask_model(self, record: CallRecord, rest: OpenAIRest) -> Found:
        profile = self._profile
        prompt = make_prompt(record, time_zone=profile.time_zone, language=profile.language)
        try:
            data = self._request("extraction", rest.extraction_model, rest.extract, prompt, profile.schema)
        except RequestFailed as error:
            return replace(self.without_model(record), failure=error.failure, service="extraction")
        if profile.schema.is_default:
            data = self._normalised(record, data)
        return Found(data, "model", rest.extraction_model, profile.schema.name)

    def without_model(self, record: CallRecord) -> Found:
        """What the model found earlier, else what rules find; asks nothing."""
        earlier = record.extraction or {}
        if earlier.get("method") == "model" and record.data is not None:
            return self._kept(record)
        name = self._profile.schema.name
        if not self._profile.schema.is_default:
            return Found(None, None, None, name)
        try:
            data = self._normalised(record, self._calls.rules(record))
        except Exception as error:  # rules read what anybody may say; their bug must not cost the call
            self._log.opt(exception=error).error("The rules fail on this call")
            return Found(None, None, None, name)
        return Found(data, "rules", None, name)

    def _kept(self, record: CallRecord) -> Found:
        earlier = record.extraction or {}
        return Found(
            record.data, "model", earlier.get("model"), earlier.get("schema", self._profile.schema.name)
        )

    def _normalised(self, record: CallRecord, data: dict[str, Any]) -> dict[str, Any]:
        on = dt.datetime.fromtimestamp(record.started_at, ZoneInfo(self._profile.time_zone)).date()
        return normalise.data(data, region=self._profile.region, caller=party(record), on=on)

    # Requests and events

    def _request(
        self, service: Service, model: str, request: Callable[[*Ts], tuple[T, Counts]], *arguments: *Ts
    ) -> T:
        blocked = self._gate.blocked(service)
        if blocked is not None:
            raise RequestFailed(blocked)
        self.asked = True
        try:
            result, usage = request(*arguments)
        except RequestFailed as error:
            self._gate.answered(service, error.failure)
            self._count(service, model, error.usage)
            raise
        self._gate.answered(service, None)
        self._count(service, model, usage)
        return result

    def _count(self, service: Service, model: str, usage: Counts) -> None:
        if usage:
            self._append("usage", {"source": service, "model": model, **usage})

    def _append(self, kind: str, data: dict[str, Any]) -> None:
        self._calls.append(self._job.call_sid, kind, data)
        self.news = True


def _unreadable(error: OSError) -> Failure:
    reason = error.strerror or str(error) or type(error).__name__
    return Failure(Fault.SERVICE, f"the audio can't be read: {reason}")
