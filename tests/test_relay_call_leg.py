"""One media stream of a call, on a simulated line in virtual time."""

import base64

import pytest

from handlehome.codecs.framepool import FramePool
from handlehome.codecs.playout import Heard
from handlehome.relay.call.leg import ANSWER_BYTES, Leg
from handlehome.relay.wheel import TimerWheel
from tests.relay_call_doubles import (
    audio,
    calm,  # noqa: F401 - an autouse fixture
    stream_sid,
)
from tests.virtual_time import VirtualClock


class Ear:
    """Twilio's end: plays in virtual time, sends marks back, keeps what it got."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.got = bytearray()
        self.sent: list[tuple[float, int]] = []
        self.clears = 0
        self.leg: Leg | None = None
        self.play_end = 0.0
        self.most_ahead = 0.0

    def media(self, payload: bytes) -> None:
        ulaw = base64.b64decode(payload, validate=True)
        self.got += ulaw
        self.sent.append((self.clock.now, len(ulaw)))
        self.play_end = max(self.play_end, self.clock.now) + len(ulaw) / 8000
        self.most_ahead = max(self.most_ahead, self.play_end - self.clock.now)

    def marked_media(self, payload: bytes, name: str) -> None:
        self.media(payload)
        self.mark(name)

    def mark(self, name: str) -> None:
        self.clock.call_at(max(self.play_end, self.clock.now), self._echo, name)

    def _echo(self, name: str) -> None:
        if self.leg is not None:
            self.leg.mark(name)

    def clear(self) -> None:
        self.clears += 1
        self.play_end = self.clock.now

    def close(self, code: int, reason: str) -> None:
        """Nothing to free."""


class Desk:
    """A leg, its line, and what it told."""

    def __init__(self, lead: float = 1.0, blocks: int = 2000, *, in_order: bool = False) -> None:
        self.clock = VirtualClock()
        self.wheel = TimerWheel(self.clock)
        self.pool = FramePool(blocks)
        self.ear = Ear(self.clock)
        self.heard: list[Heard] = []
        self.caller = bytearray()
        self.leg = Leg(
            1,
            stream_sid(),
            self.ear,
            hear=lambda payload, size: self.caller.extend(base64.b64decode(payload)),
            played=self.heard.extend,
            pool=self.pool,
            wheel=self.wheel,
            clock=self.clock.time,
            lead=lead,
            in_order=in_order,
        )
        self.ear.leg = self.leg
        self._stamp = 0

    def run(self, seconds: float) -> None:
        """Time passes, with a frame of the caller's every 20 ms."""
        for _ in range(round(seconds * 50)):
            self.clock.advance(0.02)
            self._stamp += 20
            self.leg.frame(self._stamp // 20, self._stamp, *audio(20, 0x11))

    def assert_all_is_free(self) -> None:
        assert self.wheel.pending == 0
        assert self.pool.in_use == 0


SPEECH = bytes(range(256)) * 200  # 6.4 s


def say(desk: Desk, item: str = "a", ulaw: bytes = SPEECH, delta: int = 3217) -> None:
    for start in range(0, len(ulaw), delta):
        piece = ulaw[start : start + delta]
        assert desk.leg.audio(item, base64.b64encode(piece), len(piece))
    desk.leg.item_done(item)


def test_the_callers_frames_go_up_as_they_are() -> None:
    desk = Desk()
    desk.run(0.2)
    assert bytes(desk.caller) == b"\x11" * 1600


@pytest.mark.parametrize("lead", [0.2, 1.0, 5.0])
def test_an_answer_reaches_the_line_whole_in_order_and_never_too_far_ahead(lead: float) -> None:
    desk = Desk(lead=lead)
    say(desk)
    desk.run(8.0)
    assert bytes(desk.ear.got) == SPEECH
    assert desk.ear.most_ahead <= lead + 0.001
    assert [(item.item_id, item.heard_ms, item.complete) for item in desk.heard] == [("a", 6400, True)]
    desk.assert_all_is_free()


def test_no_gap_is_heard_though_the_lead_is_short() -> None:
    desk = Desk(lead=0.2)
    say(desk)
    begin = desk.clock.now
    desk.run(8.0)
    assert desk.ear.play_end - begin == pytest.approx(6.4, abs=0.01)


def test_a_loop_that_was_held_up_catches_up() -> None:
    """The schedule is absolute: a pause shorter than the lead is not heard."""
    desk = Desk(lead=1.0)
    say(desk)
    begin = desk.clock.now
    desk.run(1.0)
    desk.clock.now += 0.9
    desk.run(7.0)
    assert bytes(desk.ear.got) == SPEECH
    assert desk.ear.play_end - begin == pytest.approx(6.4, abs=0.01)


def test_clear_stops_at_once_and_leaves_no_timer_and_no_block() -> None:
    desk = Desk()
    say(desk)
    desk.run(2.0)
    assert desk.pool.in_use > 0
    (heard,) = desk.leg.clear()
    assert desk.ear.clears == 1
    assert heard.heard_ms == pytest.approx(2000, abs=40)
    assert heard.heard_ms <= heard.sent_ms
    count = len(desk.ear.got)
    desk.run(3.0)
    assert len(desk.ear.got) == count
    desk.assert_all_is_free()


def test_a_line_whose_socket_is_full_gets_nothing_until_it_has_room() -> None:
    desk = Desk()
    say(desk)
    desk.run(0.5)
    desk.leg.writing_paused()
    count = len(desk.ear.got)
    desk.run(2.0)
    assert len(desk.ear.got) == count
    desk.leg.writing_resumed()
    assert len(desk.ear.got) > count
    desk.run(8.0)
    assert bytes(desk.ear.got) == SPEECH
    desk.assert_all_is_free()


def test_clear_while_paused_forgets_what_waits() -> None:
    desk = Desk()
    desk.leg.writing_paused()
    say(desk)
    assert desk.leg.clear()[0].heard_ms == 0
    desk.leg.writing_resumed()
    desk.run(1.0)
    assert desk.ear.got == b""
    desk.assert_all_is_free()


def test_the_end_frees_everything_and_tells_what_was_heard() -> None:
    desk = Desk()
    say(desk)
    desk.run(1.0)
    (heard,) = desk.leg.end()
    assert heard.heard_ms == pytest.approx(1000, abs=40)
    assert not heard.complete
    assert desk.ear.clears == 0
    desk.assert_all_is_free()


def test_the_end_of_a_silent_leg_has_nothing_to_tell() -> None:
    desk = Desk()
    desk.run(1.0)
    assert desk.leg.end() == ()
    desk.assert_all_is_free()


def test_an_answer_over_two_minutes_is_not_taken() -> None:
    desk = Desk()
    piece = bytes(80_000)
    taken = 0
    while desk.leg.audio("a", base64.b64encode(piece), len(piece)):
        taken += len(piece)
    assert ANSWER_BYTES - len(piece) < taken <= ANSWER_BYTES + len(piece)
    desk.leg.end()
    desk.assert_all_is_free()


def test_an_exhausted_pool_refuses_audio_and_breaks_nothing() -> None:
    desk = Desk(blocks=1)
    desk.leg.audio("a", *audio(1000))
    assert not desk.leg.audio("a", *audio(5000))
    desk.leg.item_done("a")
    desk.run(2.0)
    assert desk.heard[0].heard_ms == 1000
    desk.assert_all_is_free()


def test_items_are_told_in_the_order_in_which_they_were_heard() -> None:
    desk = Desk()
    for item in ("a", "b", "c"):
        say(desk, item, SPEECH[:4000])
    desk.run(3.0)
    assert [item.item_id for item in desk.heard] == ["a", "b", "c"]
    assert all(item.complete for item in desk.heard)


def test_where_audio_is_decoded_frames_are_put_in_order_and_gaps_are_filled() -> None:
    desk = Desk(in_order=True)
    frames = [audio(20, 0x10 + number) for number in range(10)]
    for number in (0, 2, 1, 3, 3, 5, 6, 7, 8, 9):  # the fifth is lost
        desk.leg.frame(number + 1, number * 20, *frames[number])
    heard = bytes(desk.caller)
    assert len(heard) == 1600
    assert heard[: 4 * 160] == b"".join(base64.b64decode(payload) for payload, _ in frames[:4])
    assert heard[5 * 160 :] == b"".join(base64.b64decode(payload) for payload, _ in frames[5:])


def test_frames_that_wait_for_a_lost_one_are_heard_at_the_end() -> None:
    desk = Desk(in_order=True)
    desk.leg.frame(1, 0, *audio(20, 0x11))
    desk.leg.frame(3, 40, *audio(20, 0x13))
    assert len(desk.caller) == 160
    desk.leg.end()
    assert len(desk.caller) == 480
    assert desk.caller.endswith(b"\x13" * 160)
