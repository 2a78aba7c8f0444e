"""The taps of one leg: what goes to the line and what was played of it, on its way to the recorder."""

import base64
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.codecs import wav
from handlehome.codecs.framepool import FramePool
from handlehome.codecs.played import Played
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.call.leg import Leg
from handlehome.relay.call.life import Event
from handlehome.relay.call.tape import BEHIND_SECONDS, REPORT_SECONDS, Tape
from handlehome.relay.phone.handler import StreamEnd
from handlehome.relay.recording import CYCLE_SECONDS, Recorder, Recording
from handlehome.relay.wheel import TimerWheel
from tests.relay_call_doubles import House, audio, live, stream_sid
from tests.virtual_time import VirtualClock, VirtualHandle

CALL = "CA" + "1" * 32


class Log:
    """A line that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def media(self, payload: bytes) -> None:
        self.told.append(("media", payload))

    def mark(self, name: str) -> None:
        self.told.append(("mark", name))

    def marked_media(self, payload: bytes, name: str) -> None:
        self.told.append(("marked", payload, name))

    def clear(self) -> None:
        self.told.append(("clear",))


class Room:
    """A tape in virtual time, on a recording whose inbox nobody empties."""

    def __init__(self, *, both: bool = True) -> None:
        self.clock = VirtualClock()
        self.wheel = TimerWheel(self.clock)
        self.recording = Recording(CALL, self.clock.now, Path("unused"), both=both)
        self.tape = Tape(self.recording, self.wheel, self.clock.time)
        self.line = Log()

    @property
    def sounds(self) -> list[object]:
        """What waits of the assistant's; None: a leg begins or ends."""
        return list(self.recording._writer.sounds)


def test_everything_passes_and_audio_is_kept_by_its_position() -> None:
    room = Room()
    line = room.tape.over(room.line)
    line.media(b"YWJj")
    line.mark("1")
    line.marked_media(b"YQ==", "2")
    line.clear()
    line.media(b"YWI=")
    line.media(b"YWJj")
    assert room.line.told == [
        ("media", b"YWJj"),
        ("mark", "1"),
        ("marked", b"YQ==", "2"),
        ("clear",),
        ("media", b"YWI="),
        ("media", b"YWJj"),
    ]
    kept = [(0, b"YWJj"), (3, b"YQ=="), (4, b"YWI="), (6, b"YWJj")]
    assert room.sounds == [None, *kept]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_positions_are_those_of_the_decoded_audio(pieces: list[bytes]) -> None:
    room = Room()
    line = room.tape.over(room.line)
    for piece in pieces:
        line.media(base64.b64encode(piece))
    starts = [entry[0] for entry in room.sounds if isinstance(entry, tuple)]
    assert starts == [sum(map(len, pieces[:index])) for index in range(len(pieces))]


def test_where_only_the_caller_is_kept_nothing_else_is_touched() -> None:
    room = Room(both=False)
    assert room.tape.over(room.line) is room.line
    assert not room.tape.both
    room.tape.frame(room.clock.now, 1, 0, b"YWJj")
    room.tape.end()
    assert room.sounds == [None, None]
    assert [payload for *_, payload in room.recording._writer.frames] == [b"", b"YWJj", b""]


def test_what_was_played_is_asked_for_ten_times_a_second_and_at_the_end() -> None:
    room = Room()
    asked: list[float] = []

    def played(now: float) -> list[Played]:
        asked.append(now)
        return [Played(now, 160 * len(asked), 160)] if len(asked) % 2 else []

    room.tape.start(played)
    began = room.clock.now
    room.clock.advance(0.45)
    due = [began + n * REPORT_SECONDS - BEHIND_SECONDS for n in range(1, 5)]
    assert asked == pytest.approx(due, abs=0.01)
    room.tape.end()
    assert asked[-1] == math.inf
    assert room.wheel.pending == 0
    assert [type(entry) for entry in room.sounds] == [type(None), list, list, list, type(None)]


def test_what_was_heard_is_on_disk_within_a_second() -> None:
    assert BEHIND_SECONDS + REPORT_SECONDS + CYCLE_SECONDS <= 1.0 + 1e-9


# ---- on a leg


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(AudioFiles(tmp_path), both=True)
    yield recorder
    assert recorder.close()


def test_a_leg_records_what_was_heard_of_an_interrupted_answer(recorder: Recorder) -> None:
    clock = VirtualClock()
    wheel = TimerWheel(clock)
    recording = recorder.open(CALL, clock.now)
    began = clock.now
    clock.advance(1.0)

    class Ear(Log):
        """Plays in virtual time."""

        def __init__(self) -> None:
            super().__init__()
            self.play_end = 0.0
            self.marks: dict[str, VirtualHandle] = {}

        def media(self, payload: bytes) -> None:
            self.play_end = max(self.play_end, clock.now) + len(base64.b64decode(payload)) / 8000

        def marked_media(self, payload: bytes, name: str) -> None:
            self.media(payload)
            self.mark(name)

        def mark(self, name: str) -> None:
            self.marks[name] = clock.call_at(max(self.play_end, clock.now), self.echo, name)

        def echo(self, name: str) -> None:
            del self.marks[name]
            leg.mark(name)

        def clear(self) -> None:
            self.play_end = clock.now
            for name, handle in list(self.marks.items()):
                handle.cancel()
                self.marks[name] = clock.call_soon(self.echo, name)

        def close(self, code: int, reason: str) -> None:
            """Nothing to free."""

    leg = Leg(
        1,
        stream_sid(),
        Ear(),
        hear=lambda payload, size: None,
        played=lambda heard: None,
        pool=FramePool(1000),
        wheel=wheel,
        clock=clock.time,
        lead=1.0,
        tape=Tape(recording, wheel, clock.time),
    )

    def run(seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            clock.advance(0.020)
            number = round((clock.now - leg.started) / 0.020)
            leg.frame(number, number * 20 - 20, *audio(20, 0x21))

    run(0.5)
    leg.audio("a", *audio(3000, 0x31))
    leg.item_done("a")
    run(1.0)
    leg.clear()
    run(0.5)
    leg.audio("b", *audio(500, 0x32))
    leg.item_done("b")
    run(1.0)
    leg.end()
    recording.close(clock.now)
    assert recorder.flush()
    left, right = wav.read(recorder.files.recording_path(CALL).read_bytes()).channels
    assert wheel.pending == 0
    assert len(left) == pytest.approx((clock.now - began) * 8000, abs=1)
    assert left == b"\xff" * 8000 + b"\x21" * 24_000
    for value, start, length in ((0x31, 1.5, 1.0), (0x32, 3.0, 0.5)):
        assert right.index(value) == pytest.approx(start * 8000, abs=160)
        assert right.count(value) == pytest.approx(length * 8000, abs=160)
    assert set(right) == {0xFF, 0x31, 0x32}


# ---- on a call


def test_all_legs_of_a_call_are_one_recording() -> None:
    house = House()
    recordings: list[Recording] = []

    def record(call_sid: str, began: float) -> Recording:
        recordings.append(Recording(call_sid, began, Path("recordings") / f"{call_sid}.wav", both=True))
        return recordings[-1]

    house.premises = replace(house.premises, record=record)
    call = house.call()
    assert not recordings, "there is nothing to record yet"
    for number in (1, 2):
        line = house.line(call, number)
        line.speak(200)
        assert line.leg is not None
        line.leg.stream_ended(StreamEnd.DROPPED, "gone")
        house.clock.advance(5.0)
    call.happened(Event.STATUS_TERMINAL)
    (recording,) = recordings
    spoken = [bool(payload) for *_, payload in recording._writer.frames]
    assert spoken == [*([False, *[True] * 10, False] * 2), False]
    assert recording._writer.ended is not None
    assert house.kinds().count("recording") == 1
    assert house.record().recording == f"{call.call_sid}.wav"


def test_a_callers_turn_stands_where_the_line_had_it_however_its_crystal_runs() -> None:
    """Counted by bytes, 20 minutes of a line that is slow by 200 ppm would be 240 ms off."""
    house, line = live()
    assert line.leg is not None
    began = house.clock.now
    for number in range(60_000):
        house.clock.advance(0.020004)
        line.leg.frame(number + 1, number * 20, *audio(20))
    house.models[0].caller_starts("u1", 1_199_000)
    house.models[0].caller_stops("u1", 1_200_000)
    (turn,) = house.record().turns
    call_began = house.events[0].at
    assert turn.start_ms == pytest.approx((began + 1199 * 1.0002 - call_began) * 1000, abs=20)
    assert turn.end_ms == pytest.approx((began + 1200 * 1.0002 - call_began) * 1000, abs=20)


def test_a_callers_turn_stands_where_it_was_though_frames_were_lost() -> None:
    house, line = live()
    assert line.leg is not None
    began = house.clock.now
    for number in range(500):
        house.clock.advance(0.020)
        if not 100 <= number < 200:
            line.leg.frame(number + 1, number * 20, *audio(20))
    house.models[0].caller_starts("u1", 7000)
    house.models[0].caller_stops("u1", 8000)
    (turn,) = house.record().turns
    assert turn.start_ms == pytest.approx((began + 9.0 - house.events[0].at) * 1000, abs=20)
