"""Call records, and how they come about: the record of a call is the fold of its journal.

Pure: no I/O, no clock. The same fold makes the record of a call that is still going on, of one that has
ended, and of one that is read back after a crash, so that the three cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

__all__ = [
    "CallFold",
    "CallRecord",
    "Event",
    "ItemOrder",
    "LegRecord",
    "Role",
    "Status",
    "TurnRecord",
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
    `call_saved`        nothing: the record is in the store
    ==================  ===============================================================================

    Attributes:
        call_sid: Twilio's CallSid.
        at: when it happened, in seconds since the epoch.
        kind: one of the above. The fold passes over kinds that it does not know.
        data: what JSON can hold.
    """

    call_sid: str
    at: float
    kind: str
    data: dict[str, Any]


class ItemOrder:
    """Puts conversation items into the order of the conversation, whenever they become known.

    Each item names the item that it follows. Rules, in this order:

    - An item stands behind the one that it follows, even when that one becomes known later.
    - Items that follow the same item, and items that follow nothing or something that was never placed
      (the first item of a session, an item behind a function call that left no turn), stand by `at`:
      their own, or else the first one known among the items that follow them. Those without any stand
      behind all that were placed before them.
    - What is equal by these rules stands in the order of placement.

    An item keeps its place: the first predecessor and the first `at` that were given for it count. A
    predecessor that would close a circle counts as none.
    """

    __slots__ = ("_after", "_at", "_named")

    def __init__(self) -> None:
        self._after: dict[str, str | None] = {}
        self._at: dict[str, float] = {}
        self._named: set[str] = set()  # every predecessor that was ever named, placed or not

    def place(self, item_id: str, after: str | None, at: float | None = None) -> None:
        """Makes an item known, or more about it.

        Args:
            item_id: the item; it need not become a turn.
            after: the item that it follows (`previous_item_id`), None where there is none or it is not known.
            at: its start in call time, milliseconds; used only where the chain of items says nothing.
        """
        if self._after.get(item_id) is None:
            if after is not None and self._leads_to(item_id, after):
                after = None
            self._after[item_id] = after
            if after is not None:
                self._named.add(after)
        if at is not None:
            self._at.setdefault(item_id, at)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._after

    def __len__(self) -> int:
        return len(self._after)

    def __iter__(self) -> Iterator[str]:
        """All items in the order of the conversation; costs O(n log n)."""
        followers: dict[str | None, list[str]] = {}
        for item, after in self._after.items():
            followers.setdefault(after if after in self._after else None, []).append(item)
        waiting = self._in_time(followers.get(None, []), followers)[::-1]
        while waiting:
            item = waiting.pop()
            yield item
            waiting.extend(self._in_time(followers.get(item, []), followers)[::-1])

    def _leads_to(self, item_id: str, after: str) -> bool:
        """Whether the way back from `after` comes to the item itself."""
        if after == item_id:
            return True
        if item_id not in self._named:
            return False  # nothing follows it yet; this spares nearly every item the way back
        step: str | None = after
        while step is not None and step != item_id:
            step = self._after.get(step)
        return step is not None

    def _in_time(self, items: list[str], followers: Mapping[str | None, list[str]]) -> list[str]:
        if len(items) < 2:
            return items
        keys: dict[str, float] = {}
        latest = -math.inf
        for item in items:
            at = self._time(item, followers)
            keys[item] = latest if at is None else at
            latest = max(latest, keys[item])
        return sorted(items, key=keys.__getitem__)

    def _time(self, item: str, followers: Mapping[str | None, list[str]]) -> float | None:
        waiting = [item]
        while waiting:
            item = waiting.pop()
            if item in self._at:
                return self._at[item]
            waiting.extend(reversed(followers.get(item, [])))
        return None


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
    may yet go on. `data`, `extraction`, `usage` and `latency` are filled in by post-call processing.
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
            latency=document.get("latency"),
        )


class CallFold:
    """The fold of one call's events, one event at a time.

    Rules beyond the obvious: the first `call_started`, the first `call_ended` and the first start and end of
    a leg count; the last writing of a turn counts, in the place (see `ItemOrder`) that it had from the first.
    Turns count after `call_ended` too, since transcriptions come late. Legs that are open when the call is
    interrupted ended with the last event before it, for reason "interrupted"; those that are open when the
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
