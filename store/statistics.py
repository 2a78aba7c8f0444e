"""Figures over many calls: when they come, what they are about, how long they take, how they end.

Pure. A store counts its calls in groups of equals, which is quick where they lie; what depends on a time
zone, which a store need not know, is worked out here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from typing import Any, Final, NamedTuple

__all__ = ["SLICE_MS", "CallStatistics", "Group", "summed_up"]

SLICE_MS: Final = 900_000
"""Calls are grouped by the quarter of an hour of their start: every time zone's hours are made of these."""

NOT_KNOWN: Final = "unknown"


class Group(NamedTuple):
    """Calls that start within the same slice and are alike in the rest.

    Attributes:
        start_ms: the slice's beginning, milliseconds since the epoch, a multiple of `SLICE_MS`.
        request_type: see `CallQuery`, as the following three.
        status: "live", "interrupted" or "ended".
        end_reason: None while the call goes on.
        workflow: the operator's status.
        calls: how many they are.
        timed: how many of them have a duration.
        total_ms: the sum of the durations.
        longest_ms: the longest one; None when there is none.
    """

    start_ms: int
    request_type: str | None
    status: str
    end_reason: str | None
    workflow: str
    calls: int
    timed: int
    total_ms: int
    longest_ms: int | None


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """Figures over the calls of a span of time.

    Attributes:
        calls: how many.
        by_day: calls by the day of their start ("2030-01-31") in the zone; days without are absent.
        by_hour: calls by the hour of the day, 24 of them, in the zone.
        by_request_type: calls by what was wanted; "unknown" where that is not known, here and below.
        by_status: calls by "live", "interrupted", "ended".
        by_end_reason: calls by how they ended; those that have not are not in it.
        by_workflow: calls by the operator's status.
        total_ms: the ended calls' durations together.
        mean_ms: the mean duration; None when no call has ended.
        longest_ms: the longest duration; None when no call has ended.
    """

    calls: int
    by_day: dict[str, int]
    by_hour: tuple[int, ...]
    by_request_type: dict[str, int]
    by_status: dict[str, int]
    by_end_reason: dict[str, int]
    by_workflow: dict[str, int]
    total_ms: int
    mean_ms: float | None
    longest_ms: int | None

    def to_document(self) -> dict[str, Any]:
        """The figures as the API serves them: one key per attribute."""
        return asdict(self)


def summed_up(groups: Iterable[Group], zone: tzinfo) -> CallStatistics:
    """The figures of all the groups' calls together.

    Args:
        groups: in any order.
        zone: where the days and hours are those of the clock on the wall.
    """
    days: Counter[str] = Counter()
    hours: Counter[int] = Counter()
    types: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    workflows: Counter[str] = Counter()
    calls = timed = total = 0
    longest: int | None = None
    for group in groups:
        local = datetime.fromtimestamp(group.start_ms / 1000, zone)
        days[local.date().isoformat()] += group.calls
        hours[local.hour] += group.calls
        types[group.request_type or NOT_KNOWN] += group.calls
        statuses[group.status] += group.calls
        if group.status == "ended":
            reasons[group.end_reason or NOT_KNOWN] += group.calls
        workflows[group.workflow] += group.calls
        calls += group.calls
        timed += group.timed
        total += group.total_ms
        if group.longest_ms is not None:
            longest = max(longest or 0, group.longest_ms)
    return CallStatistics(
        calls=calls,
        by_day=dict(sorted(days.items())),
        by_hour=tuple(hours[hour] for hour in range(24)),
        by_request_type=_most_first(types),
        by_status=_most_first(statuses),
        by_end_reason=_most_first(reasons),
        by_workflow=_most_first(workflows),
        total_ms=total,
        mean_ms=total / timed if timed else None,
        longest_ms=longest,
    )


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
