"""Call records, and how they come about: the record of a call is the fold of its journal.

Pure: no I/O, no clock. The same fold makes the record of a call that is still going on, of one that has
ended, and of one that is read back after a crash, so that the three cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from handlehome.store.itemorder import ItemOrder

__all__ = [
    "CallFold",
    "CallRecord",
    "Event",
    "LegRecord",
    "Role",
    "Status",
    "TurnRecord",
    "amended",
    "fold",
]

Role = Literal["caller", "assistant"]
Status = Literal["live", "interrupted", "ended"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a call, as the journal keeps it.

    Kinds and their data (times in milliseconds of call time, that is since `call_started`):

    ==================  ===============================================================================
    `call_started`      `from`, `to` (E.164), `direction`, `account_sid`, `assistant` (its name)
    `leg_started`       `leg` (number from 1), `stream_sid`
    `leg_ended`         `leg`, `reason`
    `turn`              `id`, `after` (the conversation item it follows, or None), `role` ("caller" |
                        "assistant"), `text`, `start_ms`, `end_ms`, `heard_ms`, `heard_text`,
                        `interrupted`, `response_ms`. Written again, whole, whenever it changes
    `call_interrupted`  nothing: our process died under the call
    `call_resumed`      nothing: the interrupted call goes on
    `call_ended`        `reason`
    `recording`         `file` (under DATA_DIR/recordings), `channels`
    `usage`             `source` ("realtime" | "transcription" | "extraction"), `model`, and what was used up,
                        one number each: `input_text_tokens`, `seconds`, ...
    `extracted`         `data` (what was extracted, or None), `extraction` (how; see `CallRecord`)
    `call_saved`        `seq`: the record is in the store, with all events up to this sequence number
    `save_refused`      `reason`: the store will not have the record as it is
    ==================  ===============================================================================

    Attributes:
        call_sid: Twilio's CallSid.
        at: when it happened, in seconds since the epoch.
        kind: one of the above. The fold passes over kinds that it does not know.
        data: what JSON can hold.
        seq: its number in the journal, 0 where it is not from there; the same event has the same place.
    """

    call_sid: str
    at: float
    kind: str
    data: dict[str, Any]
    seq: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One speaker's utterance.

    Attributes:
        id: the conversation item.
        role: who spoke.
        text: what was said; None while (or because) there is no transcription.
        start_ms: start in call time, None when not known.
        end_ms: end in call time, None when not known.
        heard_ms: how much of the assistant's audio was played to the caller.
        heard_text: the words of it, None when not known or when all of it was heard.
        interrupted: the caller cut it short.
        response_ms: from the end of the caller's speech to the first audible sample of this answer.
    """

    id: str
    role: Role
    text: str | None = None
    start_ms: float | None = None
    end_ms: float | None = None
    heard_ms: float | None = None
    heard_text: str | None = None
    interrupted: bool = False
    response_ms: float | None = None

    def to_document(self) -> dict[str, Any]:
        """The turn as it stands in the stored record: one key per attribute."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> TurnRecord:
        """The turn of a stored record or of a `turn` event; keys that are no attributes are passed over.

        Raises:
            KeyError: `id` or `role` is missing.
        """
        return cls(
            document["id"],
            document["role"],
            **{name: document[name] for name in cls.__slots__[2:] if name in document},
        )


@dataclass(frozen=True, slots=True)
class LegRecord:
    """One media stream of a call; times in seconds since the epoch, whole milliseconds."""

    leg: int
    stream_sid: str | None
    started_at: float
    ended_at: float | None = None
    end_reason: str | None = None

    def to_document(self) -> dict[str, Any]:
        """The leg as it stands in the stored record; times in ISO 8601."""
        return {
            "leg": self.leg,
            "stream_sid": self.stream_sid,
            "started_at": _to_iso(self.started_at),
            "ended_at": _to_iso(self.ended_at),
            "end_reason": self.end_reason,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LegRecord:
        """The leg of a stored record.

        Raises:
            KeyError: `leg`, `stream_sid` or `started_at` is missing.
            ValueError: a time is not ISO 8601.
        """
        return cls(
            document["leg"],
            document["stream_sid"],
            _from_iso(document["started_at"]),
            _from_iso_or_none(document.get("ended_at")),
            document.get("end_reason"),
        )


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call; times in seconds since the epoch, whole milliseconds.

    `status` is "live" until the call has ended, "interrupted" while our process has died under it and it
    may yet go on.

    Attributes:
        data: the customer's data, as the schema of the extraction has it; None before there is any.
        extraction: how `data` came about: `status` ("waiting" from the call's end until the model answers,
            then "complete", "retrying", "stopped", "given_up" or "nothing_said"), `method` ("model", "rules"
            or None), `model`, `schema`, `attempts`, `error`, `at`. None before the call's end.
        usage: sums of what was used up, by source; None when nothing was.
        recording: the file under DATA_DIR/recordings, None when the call is not recorded.
    """

    call_sid: str
    started_at: float
    from_: str | None = None
    to: str | None = None
    direction: str | None = None
    account_sid: str | None = None
    assistant: str | None = None
    status: Status = "live"
    ended_at: float | None = None
    end_reason: str | None = None
    legs: tuple[LegRecord, ...] = ()
    turns: tuple[TurnRecord, ...] = ()
    data: dict[str, Any] | None = None
    extraction: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    recording: str | None = None
    latency: dict[str, Any] | None = None

    @property
    def duration_ms(self) -> int | None:
        """From start to end; None while the call goes on, never negative (clocks get set)."""
        if self.ended_at is None:
            return None
        return max(0, round((self.ended_at - self.started_at) * 1000))

    def to_document(self) -> dict[str, Any]:
        """The record as the store keeps it and the API serves it.

        `_id` is the CallSid. Times are ISO 8601 in UTC with milliseconds ("2030-01-31T08:15:00.250Z"): all of
        one length, so that they sort as text.
        """
        return {
            "_id": self.call_sid,
            "from": self.from_,
            "to": self.to,
            "direction": self.direction,
            "account_sid": self.account_sid,
            "assistant": self.assistant,
            "status": self.status,
            "started_at": _to_iso(self.started_at),
            "ended_at": _to_iso(self.ended_at),
            "duration_ms": self.duration_ms,
            "end_reason": self.end_reason,
            "legs": [leg.to_document() for leg in self.legs],
            "turns": [turn.to_document() for turn in self.turns],
            "data": self.data,
            "extraction": self.extraction,
            "usage": self.usage,
            "recording": self.recording,
            "latency": self.latency,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> CallRecord:
        """The record of a stored document: the inverse of `to_document`.

        Raises:
            KeyError: `_id` or `started_at` is missing.
            ValueError: a time is not ISO 8601.
        """
        return cls(
            call_sid=document["_id"],
            started_at=_from_iso(document["started_at"]),
            from_=document.get("from"),
            to=document.get("to"),
            direction=document.get("direction"),
            account_sid=document.get("account_sid"),
            assistant=document.get("assistant"),
            status=document.get("status", "live"),
            ended_at=_from_iso_or_none(document.get("ended_at")),
            end_reason=document.get("end_reason"),
            legs=tuple(map(LegRecord.from_document, document.get("legs", ()))),
            turns=tuple(map(TurnRecord.from_document, document.get("turns", ()))),
            data=document.get("data"),
            extraction=document.get("extraction"),
            usage=document.get("usage"),
            recording=document.get("recording"),
            latency=document.get("latency"),
        )


class CallFold:
    """The fold of one call's events, one event at a time.

    Rules beyond the obvious: the first `call_started`, the first `call_ended` and the first start and end of
    a leg count; the last writing of a turn counts, in the place (see `ItemOrder`) that it had from the first.
    Turns, extractions and usage count after `call_ended` too, since they come late; the last extraction
    counts. Usage is summed by source, and apart for a further model of one. Legs that are open when the call
    is interrupted ended with the last event before it, for reason "interrupted"; those that are open when the
    call ends, end with it.
    """

    def __init__(self, call_sid: str) -> None:
        self._call_sid = call_sid
        self._record: CallRecord | None = None
        self._began = False
        self._last_at = 0.0
        self._legs: dict[int, LegRecord] = {}
        self._turns: dict[str, TurnRecord] = {}
        self._order = ItemOrder()

    def apply(self, event: Event) -> None:
        """Takes the next event.

        Raises:
            ValueError: the event is another call's.
            KeyError: the event's data lacks what identifies it (`id` and `role`, `leg`).
        """
        if event.call_sid != self._call_sid:
            raise ValueError(f"an event of {event.call_sid} in the fold of {self._call_sid}")
        at, data = round(event.at, 3), event.data
        record = self._record or CallRecord(self._call_sid, at)
        match event.kind, record.status:
            case "call_started", _ if not self._began:
                self._began = True
                record = replace(
                    record,
                    started_at=at,
                    from_=data.get("from"),
                    to=data.get("to"),
                    direction=data.get("direction"),
                    account_sid=data.get("account_sid"),
                    assistant=data.get("assistant"),
                )
            case "leg_started", _:
                self._legs.setdefault(data["leg"], LegRecord(data["leg"], data.get("stream_sid"), at))
            case "leg_ended", _:
                self._end_legs([data["leg"]], at, data.get("reason"))
            case "turn", _ if isinstance(data.get("id"), str):
                turn = TurnRecord.from_document(data)
                after = data.get("after")
                self._turns[turn.id] = turn
                self._order.place(turn.id, after if isinstance(after, str) else None, turn.start_ms)
            case "call_interrupted", "live":
                self._end_legs(self._legs, self._last_at, "interrupted")
                record = replace(record, status="interrupted")
            case "call_resumed", "interrupted":
                record = replace(record, status="live")
            case "call_ended", "live" | "interrupted":
                self._end_legs(self._legs, at, data.get("reason"))
                record = replace(record, status="ended", ended_at=at, end_reason=data.get("reason"))
                if record.extraction is None:
                    record = replace(record, extraction={**_WAITING})
            case "extracted", _:
                record = replace(record, data=data.get("data"), extraction=data.get("extraction"))
            case "usage", _ if isinstance(data.get("source"), str):
                record = replace(record, usage=_with_usage(record.usage, data))
            case "recording", _:
                record = replace(record, recording=data.get("file"))
        self._record, self._last_at = record, at

    def record(self) -> CallRecord:
        """The record so far.

        Raises:
            ValueError: there was no event.
        """
        if self._record is None:
            raise ValueError(f"no events of {self._call_sid}")
        return replace(
            self._record,
            legs=tuple(leg for _, leg in sorted(self._legs.items())),
            turns=tuple(self._turns[item] for item in self._order),
        )

    def _end_legs(self, legs: Iterable[int], at: float, reason: str | None) -> None:
        """Ends those of the legs that are known and open."""
        for number in legs:
            leg = self._legs.get(number)
            if leg is not None and leg.ended_at is None:
                self._legs[number] = replace(leg, ended_at=at, end_reason=reason)


_WAITING: dict[str, Any] = {
    "status": "waiting",
    "method": None,
    "model": None,
    "schema": None,
    "attempts": 0,
    "error": None,
    "at": None,
}


def _with_usage(usage: dict[str, Any] | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """The sums with one `usage` event more."""
    source, model = data["source"], data.get("model")
    if usage and source in usage and usage[source]["model"] != model:
        source = f"{source}/{model}"  # what another model used has another price
    sums = dict((usage or {}).get(source, {}))
    for name, value in data.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            sums[name] = round(sums.get(name, 0) + value, 6)
    return {**(usage or {}), source: {**sums, "model": model}}


def amended(record: CallRecord, kind: str, data: Mapping[str, Any]) -> CallRecord:
    """A stored record with a result of later processing (`turn`, `usage`, `extracted`), its events gone.

    Raises:
        KeyError: the data of a turn lack `id` or `role`.
    """
    match kind:
        case "turn":
            turn = TurnRecord.from_document(data)
            turns = (turn if each.id == turn.id else each for each in record.turns)
            return replace(record, turns=tuple(turns))
        case "usage" if isinstance(data.get("source"), str):
            return replace(record, usage=_with_usage(record.usage, data))
        case "extracted":
            return replace(record, data=data.get("data"), extraction=data.get("extraction"))
        case _:
            return record


def fold(events: Iterable[Event]) -> CallRecord:
    """The record of the call that these events, in the order of the journal, are all of.

    Raises:
        ValueError: there are none, or they are of more than one call.
        KeyError: see `CallFold.apply`.
    """
    call: CallFold | None = None
    for event in events:
        if call is None:
            call = CallFold(event.call_sid)
        call.apply(event)
    if call is None:
        raise ValueError("no events, no record")
    return call.record()


def _to_iso(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _from_iso(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), 3)


def _from_iso_or_none(text: str | None) -> float | None:
    return None if text is None else _from_iso(text)
