"""What was played when: the log by itself, and a playout's against a line that knows the truth."""

import bisect
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.codecs.played import STRETCHES, TOLERANCE, Played, PlayedLog
from handlehome.relay.call.tape import BEHIND_SECONDS
from tests.playout_phone import FAR, NEAR, NO_DELAY, SECOND, Phone, numbered

FOREVER = math.inf


def added(
    log: PlayedLog, start: int, size: int, at: float, *, spread: float = 0.0, joined: bool = False
) -> None:
    """Adds bytes whose first one was audible at `at`, known to within `spread`."""
    end = at + size / SECOND
    log.add(start, start + size, end - spread / 2, end + spread / 2, joined=joined)


# ---- the log


def test_an_empty_log_tells_nothing() -> None:
    assert PlayedLog().read(FOREVER, ()) == []


def test_what_is_read_ends_where_it_was_asked_for_and_goes_on_there() -> None:
    log = PlayedLog()
    added(log, 0, 8000, 100.0)
    assert log.read(99.9, ()) == []
    assert log.read(100.25, ()) == [Played(100.0, 0, 2000)]
    assert log.read(100.25, ()) == []
    assert log.read(FOREVER, ()) == [Played(100.25, 2000, 6000)]
    assert log.read(FOREVER, ()) == []


def test_a_gap_is_a_gap_in_time() -> None:
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    added(log, 800, 800, 100.5)
    assert log.read(FOREVER, ()) == [Played(100.0, 0, 800), Played(100.5, 800, 800)]


def test_a_stretch_is_moved_as_it_gets_known_better() -> None:
    log = PlayedLog()
    added(log, 0, 800, 100.010, spread=0.020)
    added(log, 800, 800, 100.103, spread=0.004, joined=True)
    assert log.read(FOREVER, ()) == [Played(pytest.approx(100.003), 0, 1600)]  # type: ignore[list-item]


@pytest.mark.parametrize("moved", [-0.050, -0.005, 0.005])
def test_what_was_read_is_not_moved_and_its_stretch_goes_on_without_a_seam(moved: float) -> None:
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    assert log.read(FOREVER, ()) == [Played(100.0, 0, 800)]
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    assert log.read(100.05, ()) == [Played(100.0, 0, 400)]
    added(log, 800, 800, 100.1 + moved, joined=True)
    assert log.read(200.0, ()) == [Played(100.05, 400, 1200)]


def test_a_stretch_that_comes_to_lie_much_later_shows_a_gap() -> None:
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    log.read(100.05, ())
    added(log, 800, 800, 100.1 + 2 * TOLERANCE, joined=True)
    assert log.read(200.0, ()) == [Played(pytest.approx(100.05 + 2 * TOLERANCE), 400, 1200)]  # type: ignore[list-item]


def test_a_gap_too_small_to_be_sure_of_is_none() -> None:
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    added(log, 800, 800, 100.1 + TOLERANCE / 2)
    assert log.read(FOREVER, ()) == [Played(100.0, 0, 1600)]


def test_nothing_begins_before_what_was_read() -> None:
    """The line was thought to be silent until then: what is not corrected can't be overlaid either."""
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    log.read(101.0, ())
    added(log, 800, 800, 100.9)
    assert log.read(200.0, ()) == [Played(101.0, 800, 800)]


def test_what_is_expected_is_told_too_and_not_again_when_it_is_proven() -> None:
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    ahead = [(100.1, 800, 800), (100.5, 1600, 800)]
    assert log.read(100.55, ahead) == [Played(100.0, 0, 1600), Played(100.5, 1600, 400)]
    added(log, 800, 800, 100.1, joined=True)
    added(log, 1600, 800, 100.5)
    assert log.read(200.0, ()) == [Played(100.55, 2000, 400)]


def test_positions_that_were_cleared_are_skipped() -> None:
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    log.cut(100.1, 5000)
    added(log, 5000, 800, 102.0, joined=True)
    assert log.read(FOREVER, ()) == [Played(100.0, 0, 800), Played(102.0, 5000, 800)]


@pytest.mark.parametrize(("acted", "size"), [(100.05, 400), (100.13, 1040), (100.9, 1200)])
def test_a_cut_is_corrected_when_its_time_becomes_known(acted: float, size: int) -> None:
    """It was thought to act at 100.1, with 50 ms still to be played."""
    log = PlayedLog()
    added(log, 0, 800, 100.0)
    log.cut(100.1, 1200)
    log.cut_at(acted)
    log.cut_at(200.0)
    [played] = log.read(FOREVER, ())
    assert played.size == pytest.approx(size, abs=1)


def test_a_cut_of_a_line_that_was_silent_already_changes_nothing() -> None:
    log = PlayedLog()
    log.cut(99.0, 0)
    log.cut_at(99.0)
    added(log, 0, 800, 100.0)
    log.cut(100.3, 1600)
    log.cut_at(100.35)
    assert log.read(FOREVER, ()) == [Played(100.0, 0, 800)]


def test_a_log_that_nobody_reads_is_bounded() -> None:
    log = PlayedLog()
    for number in range(2 * STRETCHES):
        added(log, 800 * number, 800, 100.0 + number)
    told = log.read(FOREVER, ())
    assert len(told) == STRETCHES
    assert told[-1].start == 800 * (2 * STRETCHES - 1)


# ---- a playout's


Told = tuple[Played, float]
"""What was told, and what line time was ahead of the simulated line's then."""


def chat(
    phone: Phone, seconds: float, *, behind: float = BEHIND_SECONDS, cuts: float = 0.5, **model: Any
) -> list[Told]:
    """A conversation in which half of the answers are interrupted, read twice a second until its end."""
    told: list[Told] = []

    def read(until: float) -> None:
        ahead = line_time(phone)
        told.extend((played, ahead) for played in phone.playout.played(until))

    def read_on() -> None:
        read(phone.now - behind)
        phone.at(phone.now + 0.5, read_on)

    phone.at(phone.now, read_on)
    rng = random.Random(str(seconds))
    end = phone.now + seconds
    number = 0
    while phone.now < end:
        number += 1
        last = phone.say(f"item {number}", rng.uniform(2, 9), **model)
        if rng.random() < cuts:
            phone.run(rng.uniform(0.5, 4.0))
            phone.interrupt()
        else:
            phone.run(last - phone.now + 0.2)
            while phone.playback.queued_bytes or phone.queue:
                phone.run(0.1)
        phone.run(rng.uniform(0.05, 1.5))
    phone.run(2.0)
    phone.playout.stop(phone.now)
    read(FOREVER)
    return told


def assert_in_order(told: list[Played]) -> None:
    at, position = -FOREVER, 0
    for played in told:
        assert played.at >= at - 1e-6
        assert played.start >= position
        assert played.size > 0
        at, position = played.at + played.size / SECOND, played.start + played.size


def line_time(phone: Phone) -> float:
    """What line time is ahead of the simulated line's: the shortest way back, as the clock has learnt it."""
    clock = phone.playout.clock
    sent = phone.began + (round(clock._stamp / 0.020) + 1) * phone.period
    return clock._offset + clock._stamp - sent


def errors(phone: Phone, told: list[Told]) -> tuple[list[float], int, int]:
    """Of each 10 ms told: how many ms it is off; bytes told that weren't played; bytes not told."""
    truth: list[tuple[int, float, int]] = []  # position in the stream, time, bytes
    cuts = [(cut.played_bytes, cut.dropped_bytes) for cut in phone.playback.cuts]
    played = dropped = 0
    for segment in phone.playback.segments():
        while cuts and cuts[0][0] <= played:
            dropped += cuts.pop(0)[1]
        truth.append((played + dropped, segment.at, len(segment.ulaw)))
        played += len(segment.ulaw)
    starts = [start for start, _, _ in truth]
    off = []
    wrong = right = 0
    for (at, first, count), ahead in told:
        for position in range(first, first + count, 80):
            start, true_at, size = truth[bisect.bisect_right(starts, position) - 1]
            here = min(80, first + count - position)
            if position >= start + size:
                wrong += here
                continue
            right += here
            expected = true_at + (position - start) / SECOND + ahead
            off.append(1000 * (at + (position - first) / SECOND - expected))
    return off, wrong, played - right


@pytest.mark.parametrize(
    ("delay", "model", "most"),
    [
        pytest.param(NEAR, {}, 0.01, id="fast"),
        pytest.param(NEAR, {"pace": 1.5, "jitter": 0.15}, 0.01, id="late"),
        pytest.param(NEAR, {"pace": 0.8, "delta": (0.06, 0.3), "stall": 0.1}, 0.03, id="with gaps"),
        pytest.param(NEAR, {"delta": (0.4, 1.0)}, 0.05, id="large deltas"),
        pytest.param(FAR, {}, 0.10, id="50-300 ms"),
        pytest.param(NO_DELAY, {}, 0.0, id="no delay"),
    ],
)
def test_what_was_played_when_is_told_within_20_ms(
    delay: tuple[float, float], model: dict[str, Any], most: float
) -> None:
    """All but the share `most` of it, when the recorder asks; each interruption included."""
    phone = Phone(delay=delay, recorded=True)
    phone.run(0.3)
    told = chat(phone, 240.0, **model)
    assert_in_order([played for played, _ in told])
    off, wrong, missing = errors(phone, told)
    assert sum(abs(error) > 20 for error in off) <= most * len(off)
    assert wrong < 0.005 * phone.sent_total
    assert missing < 0.005 * phone.sent_total


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_a_clock_that_drifts_for_an_hour_stays_within_20_ms(drift: float) -> None:
    phone = Phone(delay=NEAR, drift=drift, recorded=True)
    phone.run(0.3)
    chat(phone, 30.0)
    phone.run(3600.0)
    told = chat(phone, 60.0)
    late = [(played, ahead) for played, ahead in told if played.at > phone.began + 3600]
    assert_in_order([played for played, _ in late])
    assert len(late) > 5
    off, _, _ = errors(phone, late)
    assert sum(abs(error) > 20 for error in off) <= 0.001 * len(off)


def test_without_marks_the_clock_tells_what_was_played() -> None:
    phone = Phone(delay=NEAR, lose=1.0, recorded=True)
    phone.run(0.3)
    told = chat(phone, 120.0)
    assert_in_order([played for played, _ in told])
    off, _, missing = errors(phone, told)
    assert sorted(map(abs, off))[int(0.95 * len(off))] < 100
    assert missing < 0.03 * phone.sent_total


def test_what_was_played_before_a_stop_is_told_after_it() -> None:
    phone = Phone(recorded=True)
    phone.run(0.3)
    start = phone.now
    phone.audio("item", numbered(2 * SECOND))
    phone.run(1.0)
    phone.playout.stop(phone.now)
    [played] = phone.playout.played(FOREVER)
    assert (played.at, played.start) == (pytest.approx(start, abs=0.02), 0)
    assert played.size == pytest.approx(SECOND, abs=160)
    assert phone.playout.played(FOREVER) == []


def test_who_did_not_want_to_know_is_told_so() -> None:
    with pytest.raises(RuntimeError, match="nobody wants to know"):
        Phone().playout.played(FOREVER)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("audio"), st.integers(1, 12_000)),
            st.tuples(st.just("run"), st.integers(0, 1500)),
            st.tuples(st.just("read"), st.integers(-300, 2000)),
            st.tuples(st.just("clear"), st.just(0)),
        ),
        max_size=40,
    ),
    seed=st.integers(0, 1000),
    delay=st.sampled_from([NO_DELAY, NEAR, FAR]),
    lose=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_whatever_happens_it_is_told_in_order_once_and_never_before_the_last_reading(
    *, steps: list[tuple[str, int]], seed: int, delay: tuple[float, float], lose: float
) -> None:
    phone = Phone(seed=seed, delay=delay, lose=lose, recorded=True)
    told: list[Played] = []
    read = -FOREVER
    for number, (what, value) in enumerate(steps):
        if what == "audio":
            phone.audio(f"item {number}", numbered(value))
            phone.done(f"item {number}")
        elif what == "run":
            phone.run(value / 1000)
        elif what == "clear":
            phone.interrupt()
        else:
            now = phone.playout.played(phone.now - value / 1000)
            assert all(played.at >= read - 3 / SECOND for played in now)
            read = max(read, phone.now - value / 1000)
            assert all(played.at + played.size / SECOND <= read + 1e-6 for played in now)
            told += now
    phone.run(5.0)
    told += phone.playout.played(FOREVER)
    assert_in_order(told)
    assert sum(played.size for played in told) <= phone.sent_total
    if not phone.cuts and not phone.queue:
        assert sum(played.size for played in told) == phone.sent_total
