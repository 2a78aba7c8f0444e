"""Items, what was heard of them, and what a clear does."""

from typing import Any

import pytest

from tests.playout_phone import NEAR, SECOND, Phone, heard, numbered, timeless

# ---- items and what was heard


def test_items_are_complete_in_order_and_once() -> None:
    phone = Phone(delay=NEAR)
    for number in range(5):
        phone.audio(f"item {number}", numbered(1000 * (number + 1)))
        phone.done(f"item {number}")
        phone.done(f"item {number}")
    phone.done("unknown")
    phone.run(5.0)
    assert timeless(phone.completed) == [
        heard(f"item {n}", 125 * (n + 1), 125 * (n + 1), complete=True) for n in range(5)
    ]
    assert not phone.playout.outstanding
    assert phone.interrupt() == ()


def test_an_item_that_ends_after_it_was_heard_is_complete_at_once() -> None:
    phone = Phone()
    phone.audio("item", numbered(800))
    phone.run(1.0)
    assert phone.completed == []
    phone.done("item")
    assert timeless(phone.completed) == [heard("item", 100, 100, complete=True)]


def test_an_item_that_never_ends_does_not_keep_the_next_one_from_being_complete() -> None:
    phone = Phone()
    phone.audio("broken", numbered(800))
    phone.audio("good", numbered(800))
    phone.done("good")
    phone.run(1.0)
    assert timeless(phone.completed) == [heard("good", 100, 100, complete=True)]
    assert timeless(phone.interrupt()) == [heard("broken", 100, 100, complete=False)]


def test_interleaved_items_are_added_up() -> None:
    phone = Phone()
    for _ in range(3):
        phone.audio("one", numbered(800))
        phone.audio("two", numbered(1600))
    phone.done("one")
    phone.done("two")
    phone.run(2.0)
    assert timeless(phone.completed) == [
        heard("one", 300, 300, complete=True),
        heard("two", 600, 600, complete=True),
    ]


def test_audio_behind_an_items_end_still_belongs_to_it() -> None:
    phone = Phone()
    phone.audio("item", numbered(8000))
    phone.done("item")
    phone.audio("item", numbered(800))
    phone.run(2.0)
    assert timeless(phone.completed) == [heard("item", 1100, 1100, complete=True)]
    phone.audio("item", numbered(800))
    phone.run(2.0)
    assert phone.playback.played_bytes == 9600
    assert timeless(phone.interrupt()) == [heard("item", 100, 100, complete=False)]


def test_when_the_first_sample_is_audible() -> None:
    """Known before it is, and exactly afterwards; an item behind another one waits for its end."""
    phone = Phone()
    phone.run(1.0)
    start = phone.now
    phone.audio("one", numbered(4000))
    phone.audio("two", numbered(4000))
    one, two = phone.playout.first_heard("one"), phone.playout.first_heard("two")
    assert one == pytest.approx(start, abs=0.011)
    assert two == pytest.approx(start + 0.5, abs=0.011)
    assert phone.playout.first_heard("three") is None
    phone.run(0.8)
    assert phone.playout.first_heard("two") == pytest.approx(start + 0.5, abs=0.011)
    since = phone.interrupt()[0].since
    assert since is not None
    assert since == pytest.approx(start, abs=0.011)


# ---- what was heard so far


def test_what_is_heard_goes_on_between_marks() -> None:
    phone = Phone()
    phone.run(1.0)
    phone.audio("one", numbered(4000))
    phone.audio("two", numbered(2 * SECOND))
    assert phone.playout.heard(phone.now)[0].heard_ms == 0
    phone.run(0.333)
    one, two = phone.playout.heard(phone.now)
    assert (one.heard_ms, one.sent_ms, one.received_ms) == (pytest.approx(333, abs=15), 500, 500)
    assert one.since is not None
    assert (two.heard_ms, two.since, two.received_ms) == (0, None, 2000)
    assert two.sent_ms < 1500
    phone.run(0.433)
    [two] = phone.playout.heard(phone.now)[-1:]
    assert two.heard_ms == pytest.approx(266, abs=15)
    assert phone.playout.heard(phone.now) == phone.playout.heard(phone.now)


def test_what_was_heard_to_its_end_or_cleared_is_told_no_more() -> None:
    phone = Phone()
    phone.audio("heard", numbered(4000))
    phone.done("heard")
    phone.audio("cut", numbered(2 * SECOND))
    phone.run(1.0)
    [cut] = phone.playout.heard(phone.now)
    assert (cut.item_id, cut.cleared_ms) == ("cut", 0)
    [told] = phone.interrupt()
    assert told.heard_ms == pytest.approx(500, abs=15)
    assert told.cleared_ms == told.sent_ms - told.heard_ms > 500
    assert told.received_ms == 2000
    assert phone.playout.heard(phone.now) == ()


@pytest.mark.parametrize(
    "model", [{}, {"pace": 0.77, "delta": (0.06, 0.3), "stall": 0.1}], ids=["fast", "slow and stalling"]
)
def test_what_is_heard_at_any_moment_is_known_to_a_frame_or_two(model: dict[str, Any]) -> None:
    phone = Phone(delay=NEAR)
    phone.run(1.0)
    errors = []
    for number in range(20):
        phone.say(f"item {number}", 4.0, **model)
        before = phone.playback.played_at(phone.now)
        for _ in range(40):
            phone.run(0.1)
            told = [item for item in phone.playout.heard(phone.now) if item.item_id == f"item {number}"]
            # Line time is the line's time and the shortest way back.
            truth = phone.playback.played_at(phone.now) - before
            if told and truth < 4 * SECOND - 1:
                errors.append(abs(told[0].heard_ms + 1000 * NEAR[0] - truth / 8))
        phone.run(6.0)
        phone.interrupt()
        phone.run(0.5)
    assert len(errors) > 500
    assert sorted(errors)[int(0.95 * len(errors))] < 40


# ---- clear


def test_clear_with_nothing_playing_sends_nothing() -> None:
    phone = Phone(frames=False)
    phone.run(0.1)
    marks = len(phone.marks)
    assert phone.interrupt() == ()
    phone.run(0.1)
    assert (phone.cuts, len(phone.marks)) == ([], marks)


def test_clear_of_audio_that_was_never_sent() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(160))
    assert timeless(phone.interrupt()) == [heard("item", 0, 0, complete=False)]
    phone.run(1.0)
    assert phone.playback.played_bytes == 0
    assert phone.playout.due is None


def test_clear_in_a_stall_tells_that_all_was_heard_but_not_the_end() -> None:
    phone = Phone()
    phone.audio("item", numbered(800))
    phone.run(1.0)
    assert not phone.playout.outstanding
    assert timeless(phone.interrupt()) == [heard("item", 100, 100, complete=False)]
    phone.run(0.1)
    assert len(phone.cuts) == 1


def test_the_second_of_two_clears_has_nothing_to_do() -> None:
    phone = Phone(frames=False, delay=NEAR)
    phone.audio("item", numbered(5 * SECOND))
    phone.run(1.0)
    assert len(phone.interrupt()) == 1
    assert phone.interrupt() == ()
    phone.run(1.0)
    assert len(phone.cuts) == 1


def test_audio_right_behind_a_clear_is_played_from_its_beginning() -> None:
    phone = Phone(delay=NEAR)
    phone.audio("old", numbered(5 * SECOND))
    phone.run(1.0)
    phone.interrupt()
    played = phone.playback.played_at(phone.now)
    phone.audio("new", numbered(SECOND, 7))
    phone.done("new")
    phone.run(2.0)
    cut = phone.cuts[0]
    assert cut.played_bytes >= played
    assert phone.playback.played()[cut.played_bytes :] == numbered(SECOND, 7)
    assert timeless(phone.completed) == [heard("new", 1000, 1000, complete=True)]


def test_marks_that_clear_returns_prove_nothing() -> None:
    phone = Phone(delay=NEAR)
    phone.audio("old", numbered(5 * SECOND))
    phone.done("old")
    phone.run(0.5)
    stale = [name for name, _ in phone.marks]
    phone.interrupt()
    phone.audio("new", numbered(5 * SECOND))
    phone.done("new")
    for name in stale:
        assert phone.playout.echo(phone.now, name) == ()
    phone.run(1.0)
    assert phone.completed == []
    [told] = phone.interrupt()
    assert told.item_id == "new"
    assert told.heard_ms == pytest.approx(1000, abs=100)


def test_foreign_and_repeated_marks_are_ignored() -> None:
    phone = Phone()
    phone.audio("item", numbered(SECOND))
    phone.done("item")
    for name in ("", "mark", "999", "-1", "1.0", "é"):
        assert phone.playout.echo(phone.now, name) == ()
    phone.run(2.0)
    assert len(phone.completed) == 1
    for name, _ in phone.marks:
        assert phone.playout.echo(phone.now, name) == ()


def test_the_end_of_the_line_says_what_was_heard_and_sends_nothing() -> None:
    phone = Phone()
    phone.audio("item", numbered(5 * SECOND))
    phone.run(1.0)
    sent, marks = phone.sent_total, len(phone.marks)
    [told] = phone.playout.stop(phone.now)
    assert told.heard_ms == pytest.approx(1000, abs=15)
    assert (phone.sent_total, len(phone.marks), phone.pool.in_use, phone.playout.due) == (
        sent,
        marks,
        0,
        None,
    )
    assert phone.playout.stop(phone.now) == ()


def test_an_hour_without_a_mark_is_counted_by_the_clock_and_bounded() -> None:
    phone = Phone(lose=1.0, frames=False)
    for number in range(360):
        phone.audio(f"item {number}", bytes(9 * SECOND))
        phone.done(f"item {number}")
        phone.run(10.0)
        assert len(phone.playout._marks) < 400
        assert len(phone.playout._ledger._pieces) < 400
    assert len(phone.completed) >= 355


def test_a_line_that_falls_silent_for_seconds_and_then_bursts() -> None:
    """What comes late comes in order, so that the time of each mark is still known."""
    phone = Phone(delay=NEAR)
    phone.audio("item", numbered(30 * SECOND))
    phone.run(5.0)
    phone.up.latest = phone.now + 3.0
    phone.run(3.5)
    [told] = phone.interrupt()
    phone.run(0.5)
    assert told.heard_ms == pytest.approx(phone.cuts[0].played_bytes / 8, abs=75)


@pytest.mark.parametrize("jump_ms", [-3_600_000, -1000, 1000, 3_600_000])
def test_timestamps_that_jump_do_no_lasting_harm(jump_ms: int) -> None:
    phone = Phone(delay=NEAR, stamps=lambda ms: ms + 10_000_000 + (jump_ms if ms > 5000 else 0))
    phone.run(2.0)
    phone.audio("item", numbered(30 * SECOND))
    phone.run(6.0)
    [told] = phone.interrupt()
    phone.run(0.5)
    assert told.heard_ms == pytest.approx(phone.cuts[0].played_bytes / 8, abs=75)
