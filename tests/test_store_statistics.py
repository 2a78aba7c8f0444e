"""Figures over calls, in a time zone."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from handlehome.store.statistics import SLICE_MS, Group, summed_up

PARIS = ZoneInfo("Europe/Paris")


def group(at: datetime, *, calls: int = 1, total_ms: int = 1000, status: str = "ended") -> Group:
    start = int(at.timestamp() * 1000) // SLICE_MS * SLICE_MS
    return Group(start, "quote", status, "goodbye", "new", calls, calls, total_ms, total_ms)


def test_nothing() -> None:
    figures = summed_up([], UTC)
    assert (figures.calls, figures.total_ms, figures.mean_ms, figures.longest_ms) == (0, 0, None, None)
    assert figures.by_hour == (0,) * 24
    assert figures.to_document()["by_day"] == {}


def test_days_and_hours_are_those_of_the_zone() -> None:
    late = group(datetime(2030, 1, 31, 23, 20, tzinfo=UTC))
    assert summed_up([late], UTC).by_day == {"2030-01-31": 1}
    assert summed_up([late], PARIS).by_day == {"2030-02-01": 1}
    assert summed_up([late], PARIS).by_hour[0] == 1
    assert summed_up([late], timezone(timedelta(hours=5, minutes=45))).by_hour[5] == 1


def test_hour_that_comes_twice_is_one_hour_of_the_day() -> None:
    """The clock goes back on 2030-10-27: 00:30 and 01:30 UTC are both 2:30 in Paris."""
    both = [group(datetime(2030, 10, 27, hour, 30, tzinfo=UTC)) for hour in (0, 1)]
    assert summed_up(both, PARIS).by_hour[2] == 2


def test_what_is_not_known_is_counted_as_such() -> None:
    at = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1000)
    figures = summed_up(
        [
            Group(at, None, "ended", None, "new", 2, 0, 0, None),
            Group(at, "quote", "live", None, "done", 3, 0, 0, None),
        ],
        UTC,
    )
    assert figures.by_request_type == {"quote": 3, "unknown": 2}
    assert figures.by_end_reason == {"unknown": 2}
    assert list(figures.by_status.items()) == [("live", 3), ("ended", 2)]
    assert figures.by_workflow == {"done": 3, "new": 2}
    assert figures.mean_ms is None


@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),
            st.integers(1, 50),
            st.integers(0, 10**6),
        )
    )
)
def test_every_call_is_counted_once_in_each_figure(groups: list[tuple[datetime, int, int]]) -> None:
    made = [group(at.replace(tzinfo=UTC), calls=calls, total_ms=total) for at, calls, total in groups]
    figures = summed_up(made, PARIS)
    calls = sum(calls for _, calls, _ in groups)
    assert figures.calls == calls
    for counts in (figures.by_day, figures.by_request_type, figures.by_status, figures.by_workflow):
        assert sum(counts.values()) == calls
    assert sum(figures.by_hour) == calls
    assert figures.total_ms == sum(total for _, _, total in groups)
    assert list(figures.by_day) == sorted(figures.by_day)
