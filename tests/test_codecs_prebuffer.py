"""How long a start is held back: by itself, and in a playout whose model is slow, fast, late or stalled."""

import random
import timeit
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.codecs.prebuffer import (
    HOLD_MAX,
    HOLD_SCANT,
    ITEMS,
    LEARNT,
    MARGIN,
    SCANT,
    STALL,
    TARGET_MAX,
    Prebuffer,
)
from tests.playout_phone import NEAR, SECOND, Phone, numbered

FAST = 8.0


def speak(
    prebuffer: Prebuffer,
    items: int,
    *,
    pace: float,
    size: float = 0.1,
    deltas: int = 20,
    jitter: float = 0.0,
    stall: float = 0.0,
    seed: int = 0,
) -> None:
    """Items of equal deltas, each later by up to `jitter`, the tenth of each item by `stall`."""
    rng = random.Random(seed)
    for number in range(items):
        prebuffer.item()
        start = latest = 100.0 * (number + 1)
        for n in range(deltas):
            late = rng.uniform(0, jitter) + (stall if n >= 10 else 0.0)
            latest = max(latest, start + n * size / pace + late)
            prebuffer.delta(latest, size)
    prebuffer.item()


def first(prebuffer: Prebuffer, now: float, audio: float) -> float:
    """Begins a run with its first delta; returns how long it is held back, as things stand."""
    prebuffer.item()
    prebuffer.start(now)
    prebuffer.delta(now, audio)
    return max(prebuffer.until(audio) - now, 0.0)


# ---- the rule


@pytest.mark.parametrize(
    ("audio", "hold"), [(0.02, 0.15), (0.099, 0.127), (0.1, 0.12), (0.3, 0.06), (0.48, 0)]
)
def test_of_a_model_unknown_150_ms_of_jitter_at_one_and_a_half_times_real_time_are_expected(
    audio: float, hold: float
) -> None:
    assert first(Prebuffer(), 100.0, audio) == pytest.approx(hold, abs=1e-4)


def test_a_rush_of_audio_starts_an_unknown_model_as_soon_as_160_ms_have_come_and_a_delta() -> None:
    prebuffer = Prebuffer()
    first(prebuffer, 100.0, 0.05)
    for number in range(1, 5):
        prebuffer.delta(100.001, 0.05)
        assert (prebuffer.until(0.05 * (number + 1)) <= 100.001) == (number == 4)


def test_a_fast_and_steady_model_is_not_held_back_once_it_is_known() -> None:
    prebuffer = Prebuffer()
    speak(prebuffer, 2, pace=FAST)
    assert prebuffer.target == pytest.approx(MARGIN)
    assert first(prebuffer, 1000.0, 0.02) == 0


def test_a_steady_model_at_real_time_is_held_back_by_the_margin() -> None:
    prebuffer = Prebuffer()
    speak(prebuffer, 2, pace=1.0)
    assert prebuffer.saving == 0
    assert first(prebuffer, 1000.0, 0.1) == pytest.approx(MARGIN)


def test_the_target_is_about_twice_the_jitter_and_never_more_than_the_bound() -> None:
    for jitter in (0.02, 0.04, 0.15):
        prebuffer = Prebuffer()
        speak(prebuffer, ITEMS, pace=1.5, jitter=jitter)
        assert min(1.2 * jitter, TARGET_MAX) <= prebuffer.target <= min(2 * jitter + 2 * MARGIN, TARGET_MAX)


def test_lateness_is_seen_though_much_audio_hides_it_from_the_ear() -> None:
    """A delta that comes 100 ms late behind 400 ms of audio does no harm; behind 20 ms it would."""
    prebuffer = Prebuffer()
    speak(prebuffer, 4, pace=FAST, size=0.4, jitter=0.1)
    assert prebuffer.target > 0.1
    assert first(prebuffer, 1000.0, 0.02) > 0.05
    assert first(prebuffer, 1000.0, 0.4) == 0


def test_a_stall_inflates_nothing() -> None:
    prebuffer = Prebuffer()
    speak(prebuffer, 3, pace=FAST, stall=0.5)
    assert prebuffer.target == pytest.approx(MARGIN)


def test_one_late_delta_is_remembered_for_so_many_items() -> None:
    prebuffer = Prebuffer()
    speak(prebuffer, 2, pace=1.5)
    speak(prebuffer, 1, pace=1.5, stall=0.05)  # for once all that follows comes that late
    assert prebuffer.target > 0.08
    speak(prebuffer, ITEMS // 2, pace=1.5)
    assert prebuffer.target > 0.08
    speak(prebuffer, ITEMS // 2 + 1, pace=1.5)
    assert prebuffer.target == pytest.approx(MARGIN)


def test_a_model_that_never_ends_an_item_is_judged_by_what_it_said_of_late() -> None:
    prebuffer = Prebuffer()
    for number in range(ITEMS + 2):
        for n in range(20):
            late = 0.05 if number == 0 and n == 10 else 0.0
            prebuffer.delta(100.0 * (number + 1) + n * 0.1 + late, 0.1)
        assert prebuffer.target == pytest.approx(
            TARGET_MAX if number == 0 else 2 * 0.05 if number <= ITEMS else MARGIN, abs=0.02
        )


def test_an_answer_of_ten_minutes_does_not_add_up_the_error_of_the_pace() -> None:
    prebuffer = Prebuffer()
    speak(prebuffer, 1, pace=1.5, deltas=6000, jitter=0.02)
    assert prebuffer.target < 2 * 0.02 + 2 * MARGIN


def test_a_pace_that_changes_is_followed() -> None:
    prebuffer = Prebuffer()
    speak(prebuffer, 2, pace=FAST)
    speak(prebuffer, 3, pace=1.0)
    assert prebuffer.saving == 0
    speak(prebuffer, 3, pace=FAST)
    assert prebuffer.saving == pytest.approx(1 - 1.1 / FAST, abs=0.05)


def test_a_run_that_starts_in_the_middle_of_an_item_counts_what_was_late_before() -> None:
    """It ran dry because a delta was 70 ms late; with a target of 160 ms, 90 ms more can be expected."""
    prebuffer = Prebuffer()
    first(prebuffer, 100.0, 0.3)
    prebuffer.start(100.37)
    prebuffer.delta(100.37, 0.02)
    assert prebuffer.until(0.02) == pytest.approx(100.46)


@given(
    st.lists(st.tuples(st.floats(0, 1.0), st.floats(0.000125, 2.0), st.booleans()), min_size=1, max_size=80),
)
def test_whatever_comes_the_bounds_hold(deltas: list[tuple[float, float, bool]]) -> None:
    prebuffer = Prebuffer()
    now = 100.0
    for wait, audio, new in deltas:
        now += wait
        if new:
            prebuffer.item()
            prebuffer.start(now)
        prebuffer.delta(now, audio)
        assert 0 <= prebuffer.target <= TARGET_MAX
        assert 0 <= prebuffer.saving <= 1
    prebuffer.start(now)
    assert prebuffer.until(SCANT) <= now + HOLD_MAX
    holds = [prebuffer.until(n / 100) for n in range(1, 50)]
    assert holds == sorted(holds, reverse=True)
    assert holds[0] <= now + HOLD_SCANT


# ---- in a playout


def test_the_first_run_starts_with_what_a_fast_model_sends_in_22_ms() -> None:
    phone = Phone(frames=False)
    phone.say("item", 3.0, pace=FAST, delta=(0.02, 0.02))
    phone.run(0.018)
    assert phone.sent_total == 0
    phone.run(0.005)
    assert phone.sent_total >= 0.16 * SECOND


def test_a_start_with_little_in_hand_is_released_by_the_timer() -> None:
    phone = Phone(frames=False, wheel=0.001)
    phone.audio("item", numbered(160))
    phone.run(0.149)
    assert phone.sent_total == 0
    phone.run(0.003)
    assert phone.sent_total == 160


def test_more_audio_brings_the_timer_forward() -> None:
    phone = Phone(frames=False, wheel=0.001)
    phone.audio("item", numbered(160))
    phone.run(0.010)
    phone.audio("item", numbered(2240))
    assert phone.sent_total == 0
    assert phone.playout.due == pytest.approx(phone.now + 0.050)
    phone.run(0.052)
    assert phone.sent_total == 2400


def test_a_short_item_starts_when_it_has_ended() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(160))
    phone.done("item")
    assert phone.sent_total == 160


def test_a_stall_that_no_prebuffer_covers_does_not_delay_later_answers() -> None:
    phone = Phone(frames=False)
    answers(phone, 5, FAST)
    phone.audio("item", numbered(SECOND // 5))
    phone.run(0.2 + STALL + 0.26)
    phone.audio("item", numbered(SECOND // 5))
    phone.done("item")
    assert phone.playout.underruns == 1
    assert phone.playout.prebuffer.target == pytest.approx(MARGIN)


def answers(phone: Phone, count: int, pace: float, **model: Any) -> list[float]:
    """Lets the model answer; returns how long the start of each answer was held back."""
    holds = []
    for number in range(count):
        came = phone.now
        sent = phone.sent_total
        end = phone.say(f"{phone.now} {number}", phone.rng.uniform(1, 3), pace=pace, **model)
        while phone.sent_total == sent:
            if not phone.given or len(phone.given) == sent:
                came = phone.now
            phone.run(0.001)
        holds.append(phone.now - came)
        phone.run(end - phone.now + 3.5)
    return holds


LATE: dict[str, Any] = {"pace": 1.5, "jitter": 0.150}


@pytest.mark.parametrize(
    ("model", "hold", "most"),
    [
        pytest.param(LATE, 0.095, HOLD_SCANT, id="150 ms of jitter at 1.5"),
        pytest.param(
            {**LATE, "delta": (0.1, 0.1)}, 0.105, HOLD_MAX, id="150 ms of jitter at 1.5, 100 ms each"
        ),
        pytest.param({"pace": 1.5, "jitter": 0.020}, 0.015, HOLD_MAX, id="20 ms of jitter at 1.5"),
        pytest.param({"pace": 8.0, "jitter": 0.150}, 0.020, HOLD_SCANT, id="150 ms of jitter at 8"),
        pytest.param({"pace": 8.0}, 0.002, 0.050, id="steady at 8"),
        pytest.param({"pace": 1.0}, 0.025, HOLD_MAX, id="steady at 1"),
        pytest.param({"pace": 1.0, "jitter": 0.020}, 0.055, HOLD_MAX, id="20 ms of jitter at 1"),
    ],
)
def test_a_hundred_answers_never_run_dry(model: dict[str, Any], hold: float, most: float) -> None:
    """From the first one on; and what that costs at the start of an answer, on the average and at most."""
    for seed in range(2):
        phone = Phone(frames=False, seed=seed)
        holds = answers(phone, 100, **model)
        assert phone.playout.underruns == 0
        assert max(holds) <= most + 0.007  # the timers' coarseness
        assert sum(holds) / len(holds) < hold


def test_a_line_with_jitter_of_its_own_hardly_ever_runs_dry_either() -> None:
    phone = Phone(frames=False, delay=NEAR)
    answers(phone, 100, **LATE)
    assert phone.playout.underruns == 0
    assert len(phone.playback.gaps()) <= 3


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(160, 3200), st.one_of(st.floats(0, 0.150), st.sampled_from([0.0, 0.150]))),
        min_size=1,
        max_size=40,
    )
)
def test_no_order_of_lateness_lets_the_first_answer_run_dry(deltas: list[tuple[int, float]]) -> None:
    """Deltas of 20-400 ms, each up to 150 ms late, at 1.5 times real time: the worst case."""
    phone = Phone(frames=False, wheel=0.001)
    start = phone.now
    position = 0
    for size, late in deltas:
        phone.run(max(start + position / SECOND / 1.5 + late - phone.now, 0.0))
        assert phone.audio("item", bytes(size))
        position += size
    assert phone.playout.underruns == 0


def test_the_cost_of_a_delta(capsys: pytest.CaptureFixture[str]) -> None:
    prebuffer = Prebuffer()

    def run() -> None:
        for number in range(1000):
            prebuffer.delta(100.0 + number * 0.0199, 0.02)

    cost = min(timeit.repeat(run, number=1, repeat=9)) * 1e3
    with capsys.disabled():
        print(f"\nprebuffer: {cost:.2f} us for a delta")
    assert cost < 10
    assert prebuffer._count > LEARNT
