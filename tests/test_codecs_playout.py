"""What a playout sends when, on a simulated line that knows the truth, in virtual time."""

import ast
import base64
import itertools
import timeit
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.codecs import ledger, lineclock, played, playout, prebuffer
from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.playout import SLICE_BYTES, Playout
from tests.playout_phone import FAR, NEAR, NO_DELAY, SECOND, Phone, heard, numbered, timeless

# ---- what is sent when


def test_audio_that_may_go_at_once_is_spliced_as_it_came() -> None:
    payloads = []

    class Sink:
        def media(self, payload: bytes) -> None:
            payloads.append(payload)

        def marked_media(self, payload: bytes, name: str) -> None:
            self.media(payload)
            self.mark(name)

        def mark(self, name: str) -> None:
            pass

        def clear(self) -> None:
            pass

    player = Playout(Sink(), FrameQueue(FramePool(1), SECOND))
    player.begin(0.0)
    text = base64.b64encode(numbered(4000))
    assert player.audio(1.0, "item", text, 4000)
    assert payloads[0] is text


def test_a_minute_in_one_delta_never_runs_further_ahead_than_the_lead() -> None:
    phone = Phone(frames=False)
    assert phone.audio("item", numbered(60 * SECOND))
    phone.done("item")
    while phone.playout.due is not None:
        phone.run(0.01)
        assert phone.playback.queued_bytes <= SECOND
    phone.run(2.0)
    assert phone.playback.played() == numbered(60 * SECOND)
    assert not phone.playback.gaps()
    assert timeless(phone.completed) == [heard("item", 60_000, 60_000, complete=True)]


def test_a_late_tick_catches_up_and_does_not_shift_the_schedule() -> None:
    phone = Phone(frames=False, lead=3.0)
    phone.audio("item", numbered(20 * SECOND))
    phone.run(4.0)
    ahead = phone.playback.queued_bytes
    phone.stuck_until = phone.now + 2.5
    phone.run(2.4)
    assert phone.playback.queued_bytes < SECOND
    phone.run(0.2)
    assert phone.playback.queued_bytes == pytest.approx(ahead, abs=2 * SLICE_BYTES)
    phone.run(20.0)
    assert not phone.playback.gaps()


def test_after_a_stall_of_the_model_its_audio_goes_at_once_up_to_the_lead() -> None:
    """What came late is not spread out again: the line is as far ahead as before."""
    phone = Phone(frames=False)
    phone.audio("item", numbered(SECOND))
    phone.run(2.0)
    phone.audio("item", numbered(3 * SECOND, SECOND))
    phone.run(0.13)
    assert phone.playback.queued_bytes == pytest.approx(SECOND, abs=SLICE_BYTES)
    phone.done("item")
    phone.run(4.0)
    assert phone.playback.played() == numbered(4 * SECOND)
    assert [gap.played_bytes for gap in phone.playback.gaps(within=1.2)] == [SECOND]
    assert phone.playout.underruns == 1


def test_a_deadline_is_that_of_the_schedule_however_late_the_tick_before_was() -> None:
    """Slices are due when there is room for them, counted from the start of the run."""
    phone = Phone(frames=False, wheel=0.001)
    phone.audio("item", numbered(10 * SECOND))
    first = phone.playout.due
    assert first is not None
    for late in (0.0, 0.013, 0.4, 0.0, 0.077):
        due = phone.playout.due
        assert due is not None
        slices = (due - first) * SECOND / SLICE_BYTES
        assert slices == pytest.approx(round(slices), abs=0.01)
        phone.stuck_until = due + late
        phone.run(due + late + 0.002 - phone.now)


@pytest.mark.parametrize("module", [playout, ledger, lineclock, prebuffer, played])
def test_time_and_sockets_are_the_callers(module: ModuleType) -> None:
    """No clock is read here and nothing is waited for: time is an argument."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"__future__", "collections", "dataclasses", "handlehome", "math", "typing"}


def test_a_lead_of_less_than_a_slice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.05 s is less than a slice"):
        Playout(Phone(), FrameQueue(FramePool(1), 100), lead=0.05)


@pytest.mark.parametrize("lead", [0.06, 0.1, 0.5, 10.0])
def test_any_lead_works(lead: float) -> None:
    phone = Phone(frames=False, lead=lead, wheel=0.001)
    phone.say("item", 20.0)
    phone.run(30.0)
    assert phone.playback.played_bytes == 20 * SECOND
    assert [h.complete for h in phone.completed] == [True]


def test_slices_are_multiples_of_60_ms_without_padding() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(5 * SECOND))
    phone.run(10.0)
    assert {size % SLICE_BYTES for size in phone.sizes[:-1]} == {0}
    assert sum(phone.sizes) == 5 * SECOND


def test_a_mark_follows_a_runs_first_piece_each_60_ms_and_an_items_end() -> None:
    phone = Phone(frames=False)
    phone.marks.clear()
    phone.audio("item", numbered(4000))
    for _ in range(9):
        phone.audio("item", numbered(400))
    phone.done("item")
    assert [position for _, position in phone.marks] == [4000, 4800, 5600, 6400, 7200, 7600]
    assert len({name for name, _ in phone.marks}) == 6


def test_audio_that_outgrows_the_queue_is_refused_and_nothing_of_it_kept() -> None:
    phone = Phone(frames=False, limit=2 * SECOND)
    assert phone.audio("item", numbered(2 * SECOND))
    assert not phone.audio("item", numbered(2 * SECOND))
    assert not phone.audio("other", numbered(2 * SECOND))
    phone.run(5.0)
    assert phone.playback.played() == numbered(2 * SECOND)
    assert [h.item_id for h in phone.interrupt()] == ["item"]


def test_a_refused_first_delta_leaves_nothing() -> None:
    phone = Phone(frames=False, limit=SECOND)
    assert not phone.audio("item", numbered(2 * SECOND))
    assert phone.playout.due is None
    assert phone.interrupt() == ()
    assert phone.audio("item", numbered(400))
    phone.run(1.0)
    assert phone.playback.played_bytes == 400


def test_nothing_of_an_empty_delta_is_seen() -> None:
    phone = Phone(frames=False)
    assert phone.audio("item", b"")
    phone.done("item")
    assert phone.interrupt() == ()
    assert phone.sent_total == 0


def test_a_paused_line_gets_no_audio_and_then_all_that_may_go() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(SECOND // 2))
    phone.playout.pause()
    phone.audio("item", numbered(SECOND, SECOND // 2))
    phone.done("item")
    phone.run(0.2)
    assert (phone.sent_total, phone.playout.due) == (SECOND // 2, None)
    phone.playout.resume(phone.now)
    phone._arm()
    phone.run(2.0)
    assert phone.playback.played() == numbered(SECOND * 3 // 2)
    assert not phone.playback.gaps()
    assert len(phone.completed) == 1


def test_a_pause_while_a_start_is_held_back_loses_nothing() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(160))
    phone.playout.pause()
    phone.run(0.2)
    assert (phone.sent_total, phone.playout.due) == (0, None)
    phone.playout.resume(phone.now)
    phone.run(0.2)
    assert phone.playback.played() == numbered(160)


# ---- properties

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(0, 3), st.integers(0, 5000)),
        st.tuples(st.just("audio"), st.just(0), st.sampled_from([1, 159, 160, 480, 8000, 60_000])),
        st.tuples(st.just("done"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("run"), st.integers(0, 1500), st.just(0)),
        st.tuples(st.just("clear"), st.just(0), st.just(0)),
        st.tuples(st.just("pause"), st.just(0), st.just(0)),
        st.tuples(st.just("resume"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=250, deadline=None)
@given(
    steps=STEPS,
    seed=st.integers(0, 1000),
    delay=st.sampled_from([NO_DELAY, NEAR, FAR]),
    lead=st.sampled_from([0.06, 0.3, 1.0, 4.0]),
    limit=st.sampled_from([10_000, 120 * SECOND]),
    wheel=st.sampled_from([0.001, 0.005, 0.1, 3.0]),
)
def test_no_byte_is_lost_repeated_or_too_early(
    *,
    steps: list[tuple[str, int, int]],
    seed: int,
    delay: tuple[float, float],
    lead: float,
    limit: int,
    wheel: float,
) -> None:
    """Whatever comes in whichever order; `Phone.check`, `media` and `_tick` hold the rest after each step."""
    phone = Phone(seed=seed, delay=delay, lead=lead, limit=limit, wheel=wheel)
    received: dict[str, int] = {}
    ended: list[str] = []
    generation = position = 0
    for what, number, size in steps:
        item_id = f"{generation}.{number}"
        if what == "audio" and item_id not in ended:
            if phone.audio(item_id, numbered(size, position)) and size:
                received[item_id] = received.get(item_id, 0) + size
                position += size
        elif what == "done":
            phone.done(item_id)
            if item_id in received and item_id not in ended:
                ended.append(item_id)
        elif what == "run":
            phone.run(number / 1000)
        elif what == "clear":
            complete = {h.item_id for h in phone.completed}
            told = phone.interrupt()
            assert {h.item_id for h in told} == set(received) - complete
            for item in told:
                assert 0 <= item.heard_ms <= item.sent_ms <= received[item.item_id] / 8
            generation += 1
            received.clear()
            ended.clear()
        elif what == "pause":
            phone.playout.pause()
        elif what == "resume":
            phone.playout.resume(phone.now)
            phone._arm()
        under_way = delay[1] + wheel
        ahead = phone.sent_total - phone.playback.played_bytes - phone.playback.dropped_bytes
        assert generation or ahead <= (lead + under_way) * SECOND + SLICE_BYTES
    phone.playout.resume(phone.now)
    phone._arm()
    phone.run(len(phone.given) / SECOND * (1 + wheel / lead) + 2 * wheel + 3.0)
    assert phone.sent == len(phone.given)
    assert phone.pool.in_use == 0
    assert phone.playout.due is None
    assert not phone.playout.outstanding or set(received) > set(ended)
    complete_now = [h for h in phone.completed if h.item_id in received]
    assert sorted(h.item_id for h in complete_now) == sorted(ended)
    for item in complete_now:
        assert item.complete
        assert item.heard_ms == item.sent_ms == received[item.item_id] * 1000 // SECOND


# ---- cost


def test_the_cost_of_a_delta(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, and far below the cost of a delta's message."""

    class Sink:
        name = ""

        def media(self, payload: bytes) -> None:
            pass

        def marked_media(self, payload: bytes, name: str) -> None:
            self.media(payload)
            self.mark(name)

        def mark(self, name: str) -> None:
            self.name = name

        def clear(self) -> None:
            pass

    sink = Sink()
    player = Playout(sink, FrameQueue(FramePool(1), SECOND))
    player.begin(0.0)
    payload = base64.b64encode(bytes(160))
    now = itertools.count(1.0, 0.0199)

    def run() -> None:
        name = ""
        for _ in range(500):
            at = next(now)
            player.audio(at, "item", payload, 160)
            if sink.name != name:
                name = sink.name
                player.echo(at, name)

    cost = min(timeit.repeat(run, number=1, repeat=9)) / 500 * 1e6
    with capsys.disabled():
        print(f"\nplayout: {cost:.2f} us for 20 ms of audio, marks and echoes included")
    assert cost < 30
