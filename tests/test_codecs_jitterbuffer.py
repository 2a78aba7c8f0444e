import itertools
import math
import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.codecs.g711 import ulaw_decode, ulaw_encode
from handlehome.codecs.jitterbuffer import (
    ALLOWANCE_MS,
    CONCEAL_MS,
    MAX_GAP_MS,
    MAX_WINDOW,
    TOLERANCE_MS,
    JitterBuffer,
)

WINDOW = 4
HOUR_MS = 3_600_000
SILENCE = b"\xff"
CODES = bytes(range(1, 101)) * 20
"""Of loud audio; from each place on they go on otherwise."""

Packet = tuple[int, int, bytes]
"""Number, timestamp in ms, audio."""


def stream(count: int, *, first: int = 1, start_ms: int = 20, size: int = 160) -> list[Packet]:
    """Frames of a line that loses nothing; no two are alike, and none has silent codes."""
    step = size // 8
    return [(first + n, start_ms + n * step, CODES[5 * n % 100 :][:size]) for n in range(count)]


def audio(packets: Iterable[Packet]) -> bytes:
    return b"".join(frame for _, _, frame in packets)


def put(buffer: JitterBuffer, packet: Packet) -> bytes:
    """Puts a frame in as if it arrived at the time of its timestamp, and checks what always holds."""
    before = buffer.position_ms - buffer.origin_ms
    ready = buffer.put(packet[1] / 1000, *packet)
    assert all(ready), "no piece is empty"
    assert buffer.waiting <= WINDOW
    joined = b"".join(ready)
    assert buffer.position_ms - buffer.origin_ms == pytest.approx(before + len(joined) / 8, abs=1e-6)
    return joined


def play(buffer: JitterBuffer, packets: Iterable[Packet]) -> bytes:
    """All that becomes of a stream."""
    return b"".join([put(buffer, packet) for packet in packets] + buffer.flush())


def counters(buffer: JitterBuffer) -> dict[str, float]:
    """Those that are not zero, without `received`."""
    names = ["reordered", "duplicates", "late", "lost", "resyncs", "restarts"]
    names += ["filled_ms", "concealed_ms", "trimmed_ms"]
    return {name: value for name in names if (value := getattr(buffer, name))}


def repeated(frame: bytes, milliseconds: int) -> bytes:
    """A frame of 20 ms repeated by the rule of G.711 Appendix I: after 10 ms, 20 % less every 10 ms."""
    size = milliseconds * 8
    linear = [int(sample) for sample in ulaw_decode(frame)]
    faded = [linear[n % 160] * min(1.0, max(0.0, 1.0 - (n / 8 - 10) / 50)) for n in range(size)]
    return ulaw_encode(np.array([round(sample) for sample in faded], np.int16))


def close(one: bytes, other: bytes) -> bool:
    """Whether two pieces are of the same length and differ by rounding at most: one code of mu-law."""
    difference = np.abs(np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8))
    return len(one) == len(other) and bool((difference <= 1).all())


# ---- in order -------------------------------------------------------------------------------------


def test_first_frame_comes_out_at_once_and_anchors_the_timeline() -> None:
    buffer = JitterBuffer()
    assert buffer.position_ms == buffer.origin_ms == 0.0
    frame = bytes(range(160))
    assert buffer.put(5.0, 1, 37, frame) == [frame]
    assert buffer.origin_ms == 37
    assert buffer.position_ms == 57
    assert buffer.received == 1
    assert counters(buffer) == {}


def test_frames_in_order_are_handed_on_as_they_are() -> None:
    """The very objects: nothing is copied, nothing is kept back."""
    buffer = JitterBuffer()
    for packet in stream(200):
        ready = buffer.put(0.0, *packet)
        assert len(ready) == 1
        assert ready[0] is packet[2]
    assert buffer.flush() == []
    assert buffer.received == 200
    assert counters(buffer) == {}


@pytest.mark.parametrize("first", [0, 7, 5000, 1 << 20, -3])
def test_a_stream_may_begin_anywhere(first: int) -> None:
    buffer = JitterBuffer()
    packets = stream(10, first=first, start_ms=123_456)
    assert [put(buffer, packet) for packet in packets] == [frame for _, _, frame in packets]
    assert counters(buffer) == {}


def test_a_stream_that_begins_out_of_order_waits_for_its_first_frame() -> None:
    """Twilio counts from 1, so that 3 and 2 are known to have predecessors."""
    buffer = JitterBuffer()
    packets = stream(5)
    assert [put(buffer, packets[n]) for n in (2, 1, 0, 3, 4)] == [
        b"",
        b"",
        audio(packets[:3]),
        packets[3][2],
        packets[4][2],
    ]
    assert counters(buffer) == {"reordered": 2}


def test_a_stream_whose_first_frames_never_come_begins_with_the_third() -> None:
    buffer = JitterBuffer()
    packets = stream(10)[2:]
    assert play(buffer, packets) == audio(packets)
    assert buffer.origin_ms == packets[0][1]
    assert counters(buffer) == {"lost": 2}


# ---- order ----------------------------------------------------------------------------------------


def test_reordered_within_the_window_is_put_in_order() -> None:
    buffer = JitterBuffer()
    packets = stream(8)
    outputs = [put(buffer, packets[n]) for n in (0, 2, 3, 4, 5, 1, 6, 7)]
    assert outputs[1:5] == [b""] * 4
    assert outputs[5] == audio(packets[1:6])
    assert b"".join(outputs) == audio(packets)
    assert counters(buffer) == {"reordered": 1}


def test_reordered_beyond_the_window_is_filled_and_then_too_late() -> None:
    buffer = JitterBuffer()
    packets = stream(8)
    outputs = [put(buffer, packets[n]) for n in (0, 2, 3, 4, 5, 6, 1, 7)]
    assert outputs[:5] == [packets[0][2], b"", b"", b"", b""]
    assert len(outputs[5]) == 6 * 160
    assert outputs[5][160:] == audio(packets[2:7])
    assert outputs[6:] == [b"", packets[7][2]]
    assert counters(buffer) == {"lost": 1, "late": 1, "filled_ms": 20, "concealed_ms": 20}


def test_two_missing_frames_are_waited_for_one_after_the_other() -> None:
    """When the first is given up, what stands behind the second goes on waiting."""
    buffer = JitterBuffer()
    packets = stream(10)
    outputs = [put(buffer, packets[n]) for n in (0, 2, 3, 5, 6)]
    assert outputs == [packets[0][2], b"", b"", b"", b""]
    released = put(buffer, packets[7])
    assert released[160:] == audio(packets[2:4])
    assert buffer.waiting == 3
    assert put(buffer, packets[4]) == audio(packets[4:8])
    assert counters(buffer) == {"lost": 1, "reordered": 1, "filled_ms": 20, "concealed_ms": 20}


def test_without_a_window_nothing_waits() -> None:
    buffer = JitterBuffer(window=0)
    packets = stream(4)
    assert buffer.put(0.0, *packets[0]) == [packets[0][2]]
    assert len(b"".join(buffer.put(0.0, *packets[2]))) == 320
    assert buffer.put(0.0, *packets[1]) == []
    assert counters(buffer) == {"lost": 1, "late": 1, "filled_ms": 20, "concealed_ms": 20}


@pytest.mark.parametrize("window", [-1, MAX_WINDOW + 1])
def test_a_window_out_of_range_is_an_error(window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        JitterBuffer(window=window)


def test_a_duplicate_is_dropped_when_its_first_was_returned() -> None:
    buffer = JitterBuffer()
    packets = stream(5)
    assert play(buffer, [*packets, packets[4], packets[0]]) == audio(packets)
    assert counters(buffer) == {"duplicates": 2}


def test_a_duplicate_is_dropped_when_its_first_waits() -> None:
    buffer = JitterBuffer()
    packets = stream(5)
    assert play(buffer, [packets[n] for n in (0, 2, 3, 2, 3, 1, 4)]) == audio(packets)
    assert counters(buffer) == {"duplicates": 2, "reordered": 1}


def test_too_late_a_frame_is_late_once_and_then_a_duplicate() -> None:
    buffer = JitterBuffer(window=0)
    packets = stream(50)
    play(buffer, [packets[0], *packets[2:]])
    assert put(buffer, packets[1]) == put(buffer, packets[1]) == b""
    assert (buffer.late, buffer.duplicates) == (1, 1)


@pytest.mark.parametrize("bits", [16, 32])
def test_numbers_wrap_around(bits: int) -> None:
    buffer = JitterBuffer()
    turn = 1 << bits
    packets = [(number % turn, at, frame) for number, at, frame in stream(20, first=turn - 10)]
    assert [put(buffer, packet) for packet in packets] == [frame for _, _, frame in packets]
    assert counters(buffer) == {}


@pytest.mark.parametrize("bits", [16, 32])
def test_frames_are_reordered_lost_late_and_double_across_the_wrap_around(bits: int) -> None:
    buffer = JitterBuffer()
    turn = 1 << bits
    packets = [(number % turn, at, frame) for number, at, frame in stream(20, first=turn - 4)]
    order = [0, 1, 2, 4, 5, 3, 3, 7, 8, 9, 10, 11, 2, 6, 6, 13, 12]
    output = play(buffer, [packets[n] for n in order])
    assert output[: 6 * 160] == audio(packets[:6])
    assert output[7 * 160 :] == audio(packets[7:14])
    assert counters(buffer) == {
        "reordered": 2,
        "duplicates": 3,
        "late": 1,
        "lost": 1,
        "filled_ms": 20,
        "concealed_ms": 20,
    }


def test_numbers_beyond_16_bits_do_not_wrap_around() -> None:
    """So that 1 behind 65,600 is a restart, and not 63 numbers ago."""
    buffer = JitterBuffer()
    packets = stream(75, first=(1 << 16) - 10)
    assert play(buffer, packets) == audio(packets)
    assert counters(buffer) == {}
    restarted = stream(20, first=1, start_ms=20 + 75 * 20)
    assert play(buffer, restarted) == audio(restarted)
    assert counters(buffer) == {"restarts": 1}


def test_numbers_that_start_again_are_a_restart() -> None:
    """Nothing of either side is lost, and what waited comes first."""
    buffer = JitterBuffer()
    before, after = stream(300), stream(20, first=1, start_ms=20 + 300 * 20)
    assert play(buffer, [*before[:-2], before[-1], *after]) == (
        audio(before[:-2]) + repeated(before[-3][2], 20) + audio([before[-1], *after])
    )
    assert counters(buffer) == {"restarts": 1, "lost": 1, "filled_ms": 20, "concealed_ms": 20}


@pytest.mark.parametrize("number", [-200, 3006, (1 << 16) + 6, (1 << 16) + 8, 1_000_000])
def test_numbers_that_jump_leave_the_place_to_the_timestamps(number: int) -> None:
    buffer = JitterBuffer()
    packets = [*stream(5), *stream(5, first=number, start_ms=220)]
    output = play(buffer, packets)
    assert output == audio(packets[:5]) + SILENCE * 800 + audio(packets[5:])
    assert counters(buffer) == {"restarts": 1, "filled_ms": 100}


def test_numbers_missing_without_time_for_them_are_not_waited_for() -> None:
    """A line that counts by time sends 40 ms and adds two."""
    buffer = JitterBuffer()
    packets = [(1 + 2 * n, at, frame) for n, (_, at, frame) in enumerate(stream(10, size=320))]
    assert [put(buffer, packet) for packet in packets] == [frame for _, _, frame in packets]
    assert counters(buffer) == {}


# ---- gaps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_gap_is_concealed_by_the_last_frame_fading(missing: int) -> None:
    buffer = JitterBuffer()
    packets = stream(20)
    output = play(buffer, packets[:5] + packets[5 + missing :])
    gap = output[5 * 160 : (5 + missing) * 160]
    assert output[: 5 * 160] + output[(5 + missing) * 160 :] == audio(packets[:5] + packets[5 + missing :])
    assert close(gap, repeated(packets[4][2], 20 * missing))
    assert counters(buffer) == {
        "lost": missing,
        "filled_ms": 20 * missing,
        "concealed_ms": 20 * missing,
    }


@pytest.mark.parametrize("missing", [4, 50, 499])
def test_a_gap_of_many_is_silent_from_60_ms_on(missing: int) -> None:
    buffer = JitterBuffer()
    packets = stream(missing + 20)
    output = play(buffer, packets[:5] + packets[5 + missing :])
    gap = output[5 * 160 : (5 + missing) * 160]
    assert close(gap[: CONCEAL_MS * 8], repeated(packets[4][2], CONCEAL_MS))
    assert set(gap[CONCEAL_MS * 8 :]) == {0xFF}
    assert len(output) == len(packets) * 160
    assert counters(buffer) == {
        "lost": missing,
        "filled_ms": 20 * missing,
        "concealed_ms": CONCEAL_MS,
    }


def test_the_fade_keeps_10_ms_and_falls_by_a_fifth_every_10_ms() -> None:
    buffer = JitterBuffer(window=0)
    frame = ulaw_encode(np.full(160, 8000, np.int16))
    loud = int(ulaw_decode(frame)[0])
    buffer.put(0.0, 1, 20, frame)
    faded = ulaw_decode(b"".join(buffer.put(0.0, 9, 180, frame))[: CONCEAL_MS * 8])
    assert set(faded[:80]) == {loud}
    for step in range(6):
        assert faded[80 * (step + 1) - 1] == pytest.approx(loud * (1 - 0.2 * step), abs=0.04 * loud)
    assert faded[-1] <= 0.004 * loud


def test_a_gap_is_concealed_from_what_there_is_of_a_short_frame() -> None:
    buffer = JitterBuffer(window=0)
    buffer.put(0.0, 1, 0, b"\x90" * 40)
    assert b"".join(buffer.put(0.0, 3, 15, b"\x80" * 40)) == b"\x90" * 80 + b"\x80" * 40


@pytest.mark.parametrize("silence_ms", [20, 100, MAX_GAP_MS])
def test_a_timestamp_ahead_with_consecutive_numbers_is_a_pause_of_the_line(silence_ms: int) -> None:
    buffer = JitterBuffer()
    before, after = stream(5), stream(5, first=6, start_ms=120 + silence_ms)
    outputs = [put(buffer, packet) for packet in before + after]
    assert outputs[5] == SILENCE * (silence_ms * 8) + after[0][2]
    assert counters(buffer) == {"filled_ms": silence_ms}
    assert buffer.position_ms == 220 + silence_ms


def test_a_pause_shorter_than_a_frame_is_concealed() -> None:
    buffer = JitterBuffer()
    before, after = stream(5), stream(5, first=6, start_ms=120 + 12)
    output = play(buffer, before + after)
    assert output[5 * 160 : 5 * 160 + 96] == repeated(before[4][2], 12)
    assert counters(buffer) == {"filled_ms": 12, "concealed_ms": 12}


def test_flush_returns_what_waits_with_its_gaps_filled() -> None:
    buffer = JitterBuffer()
    packets = stream(8)
    for number in (0, 2, 5, 6):
        put(buffer, packets[number])
    rest = b"".join(buffer.flush())
    assert len(rest) == 6 * 160
    assert rest[160:320] == packets[2][2]
    assert rest[-320:] == audio(packets[5:7])
    assert buffer.flush() == []
    assert put(buffer, packets[7]) == packets[7][2]
    assert counters(buffer) == {"lost": 3, "filled_ms": 60, "concealed_ms": 60}


def test_flush_of_a_stream_that_never_had_its_first_frame() -> None:
    buffer = JitterBuffer()
    packet = stream(3)[2]
    assert buffer.put(0.0, *packet) == []
    assert buffer.flush() == [packet[2]]
    assert buffer.flush() == JitterBuffer().flush() == []


# ---- timestamps -----------------------------------------------------------------------------------


def test_timestamps_slightly_wrong_change_nothing() -> None:
    """Neither a click nor a drift in 20 minutes, with stamps off by as much as is tolerated."""
    rng = random.Random(1)
    buffer = JitterBuffer()
    frame = b"\x42" * 160
    assert buffer.put(0.0, 1, 20, frame) == [frame]
    for number in range(2, 60_001):
        off = rng.randint(-TOLERANCE_MS, TOLERANCE_MS)
        assert buffer.put(0.0, number, 20 * number + off, frame) == [frame]
    assert counters(buffer) == {}
    assert buffer.position_ms == 60_001 * 20


@pytest.mark.parametrize("size", [40, 160])
@pytest.mark.parametrize("off", [-TOLERANCE_MS + 1, TOLERANCE_MS - 1])
def test_timestamps_slightly_wrong_change_nothing_where_frames_wait(off: int, size: int) -> None:
    buffer = JitterBuffer()
    packets = [
        (number, at + (off if number == 3 else 0), frame) for number, at, frame in stream(6, size=size)
    ]
    assert play(buffer, [packets[n] for n in (0, 1, 3, 4, 2, 5)]) == audio(packets)
    assert set(counters(buffer)) <= {"reordered"}


@pytest.mark.parametrize("per_frame", [-0.01, 0.01])
def test_timestamps_that_drift_are_followed(per_frame: float) -> None:
    """A line whose clock is off by 500 ppm: the audio stays with it, in few and small corrections."""
    buffer = JitterBuffer()
    frame = b"\x42" * 160
    for number in range(1, 30_001):
        stamp = math.floor(number * (20 + per_frame))
        buffer.put(0.0, number, stamp, frame)
        assert abs(buffer.position_ms - 20 - stamp) <= TOLERANCE_MS
    moved = counters(buffer)
    name = "filled_ms" if per_frame > 0 else "trimmed_ms"
    assert moved.pop(name) == pytest.approx(300, abs=2 * TOLERANCE_MS)
    assert set(moved) <= {"concealed_ms"}


def test_a_timestamp_that_repeats_part_of_the_past_is_cut() -> None:
    buffer = JitterBuffer()
    before, after = stream(5), stream(5, first=6, start_ms=120 - 12)
    assert play(buffer, before + after) == audio(before) + audio(after)[96:]
    assert counters(buffer) == {"trimmed_ms": 12}


@pytest.mark.parametrize("back_ms", [20, 90, 5000, 3 * HOUR_MS])
def test_a_clock_set_back_is_a_resynchronisation(back_ms: int) -> None:
    """All audio is kept; the timeline goes on from where the clock now is."""
    buffer = JitterBuffer()
    before, after = stream(5), stream(5, first=6, start_ms=120 - back_ms)
    outputs = [put(buffer, packet) for packet in before + after]
    assert outputs == [frame for _, _, frame in before + after]
    assert counters(buffer) == {"resyncs": 1}
    assert buffer.position_ms == after[-1][1] + 20
    assert buffer.position_ms - buffer.origin_ms == 200


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("jump_ms", [MAX_GAP_MS + 20, 3 * HOUR_MS, 10**12])
def test_a_jump_of_hours_is_a_resynchronisation(jump_ms: int, missing: int) -> None:
    buffer = JitterBuffer()
    before, after = stream(5), stream(5, first=6 + missing, start_ms=120 + jump_ms)
    assert play(buffer, before + after) == audio(before + after)
    assert buffer.resyncs == 1
    assert buffer.filled_ms == 0
    assert buffer.position_ms == after[-1][1] + 20


def test_one_stray_timestamp_costs_no_audio() -> None:
    buffer = JitterBuffer()
    packets = stream(10)
    packets[5] = (packets[5][0], 9 * HOUR_MS, packets[5][2])
    assert play(buffer, packets) == audio(packets)
    assert counters(buffer) == {"resyncs": 2}
    assert buffer.position_ms == packets[-1][1] + 20


def test_timestamps_that_stand_still_are_survived() -> None:
    buffer = JitterBuffer()
    packets = [(number, 0, frame) for number, _, frame in stream(10)]
    assert play(buffer, packets) == audio(packets)
    assert counters(buffer) == {"resyncs": 9}


# ---- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [80, 240, 320, 1600])
def test_frames_of_another_size_are_as_good(size: int) -> None:
    buffer = JitterBuffer()
    packets = stream(12, size=size)
    output = play(buffer, packets[:5] + packets[6:])
    assert output[: 5 * size] + output[6 * size :] == audio(packets[:5] + packets[6:])
    if size >= 160:
        assert close(
            output[5 * size : 6 * size][: CONCEAL_MS * 8],
            repeated(packets[4][2][-160:], min(size // 8, CONCEAL_MS)),
        )
    assert len(output) == 12 * size
    assert buffer.lost == 1
    assert buffer.filled_ms == size / 8


def test_a_gap_that_is_less_than_timestamps_are_off_is_not_filled() -> None:
    buffer = JitterBuffer()
    packets = stream(12, size=8)
    assert play(buffer, packets[:5] + packets[6:]) == audio(packets[:5] + packets[6:])
    assert counters(buffer) == {"lost": 1}


@pytest.mark.parametrize("stamps", ["begin", "end"])
def test_frames_that_change_their_size_follow_each_other(stamps: str) -> None:
    """Wherever in its frame a timestamp stands."""
    buffer = JitterBuffer()
    time = 1000
    packets = []
    for number, size in enumerate([160, 160, 320, 160, 80, 80, 1600, 160, 320, 320, 160], 1):
        length = size // 8
        packets.append((number, time if stamps == "begin" else time + length, bytes([number]) * size))
        time += length
    assert [put(buffer, packet) for packet in packets] == [frame for _, _, frame in packets]
    assert counters(buffer) == {}


def test_a_missing_frame_is_waited_for_where_sizes_change() -> None:
    """Stamps at the beginnings would let the third follow on the first; at the ends, 10 ms are missing."""
    buffer = JitterBuffer()
    packets = [(1, 20, b"\x01" * 160), (2, 30, b"\x02" * 80), (3, 40, b"\x03" * 80)]
    assert [put(buffer, packets[n]) for n in (0, 2, 1)] == [packets[0][2], b"", audio(packets[1:])]


@pytest.mark.parametrize("odd", [1, 7, 41, 159, 161, 333])
def test_a_frame_that_is_no_whole_number_of_ms_adds_no_drift(odd: int) -> None:
    buffer = JitterBuffer()
    position = 0
    packets = []
    for number in range(1, 500):
        packets.append((number, 20 + position // 8, bytes([number % 100 + 1]) * odd))
        position += odd
    assert play(buffer, packets) == audio(packets)
    assert counters(buffer) == {}


def test_an_empty_frame_takes_its_number_only() -> None:
    buffer = JitterBuffer()
    packets = stream(3)
    empty = (3, 60, b"")
    rest = [(number + 1, at, frame) for number, at, frame in packets[2:]]
    assert play(buffer, [(0, 0, b""), *packets[:2], empty, *rest]) == audio(packets)
    assert counters(buffer) == {}


# ---- jitter ---------------------------------------------------------------------------------------


def test_jitter_of_a_steady_stream_is_zero() -> None:
    buffer = JitterBuffer()
    for number, at, frame in stream(100):
        buffer.put(7.5 + at / 1000, number, at, frame)
    assert buffer.jitter == pytest.approx(0.0, abs=1e-12)


def test_jitter_equals_a_series_reckoned_by_hand() -> None:
    """RFC 3550 6.4.1: J += (|D| - J) / 16, D being by how much the transit time has changed.

    Frames leave every 20 ms and are 100, 116, 108, 108, 140 and 100 ms on their way, so |D| is 16, 8, 0, 32
    and 40 ms: J is 1, then 1.4375, then 1.34765625, ...
    """
    buffer = JitterBuffer()
    expected = [0.0, 1.0, 1.4375, 1.34765625, 3.263427734375, 5.5594635009765625]
    for n, transit in enumerate([100, 116, 108, 108, 140, 100]):
        buffer.put((20 * n + transit) / 1000, n + 1, 20 * n, b"\x01" * 160)
        assert buffer.jitter * 1000 == pytest.approx(expected[n], abs=1e-9)


def test_jitter_does_not_count_a_clock_that_was_set() -> None:
    buffer = JitterBuffer()
    for number in range(1, 100):
        offset = 3 * HOUR_MS if number > 50 else 0
        buffer.put(number * 0.02, number, number * 20 + offset, b"\x01" * 160)
    assert buffer.jitter == pytest.approx(0.0, abs=1e-9)


# ---- wall time ------------------------------------------------------------------------------------


def put_at(buffer: JitterBuffer, now: float, packet: Packet) -> float:
    """Puts a frame in, and tells how many ms of audio came out."""
    return len(b"".join(buffer.put(now, *packet))) / 8


def arrivals(
    buffer: JitterBuffer, packets: Iterable[Packet], began: float = 0.0, every: float = 0.02
) -> float:
    """Puts frames in that arrive at a steady pace, and tells how many ms of audio came out."""
    return sum(put_at(buffer, began + n * every, packet) for n, packet in enumerate(packets))


@pytest.mark.parametrize("step_ms", [420, 1000, 2000, 5000, 9980, MAX_GAP_MS])
def test_a_step_ahead_with_no_wall_time_passed_is_a_resynchronisation(step_ms: int) -> None:
    buffer = JitterBuffer()
    packets = [*stream(50), *stream(50, first=51, start_ms=1020 + step_ms)]
    assert arrivals(buffer, packets) == 2000
    assert counters(buffer) == {"resyncs": 1}
    assert buffer.position_ms == packets[-1][1] + 20


@pytest.mark.parametrize("step_ms", [20, 420, 1000, 2000, 5000, 9980, MAX_GAP_MS])
def test_a_step_ahead_with_its_wall_time_passed_is_filled(step_ms: int) -> None:
    buffer = JitterBuffer()
    before, after = stream(50), stream(50, first=51, start_ms=1020 + step_ms)
    assert arrivals(buffer, before) == 1000
    assert arrivals(buffer, after, 1 + step_ms / 1000) == 1000 + step_ms
    assert counters(buffer) == {"filled_ms": step_ms}


@pytest.mark.parametrize(("lead_ms", "filled"), [(ALLOWANCE_MS, True), (ALLOWANCE_MS + 1, False)])
@pytest.mark.parametrize("gap_ms", [500, 3000])
def test_a_gap_may_lead_the_wall_clock_by_the_allowance(gap_ms: int, lead_ms: int, filled: bool) -> None:
    """As when all frames before it were held up by a retransmission, and the one behind it isn't."""
    buffer = JitterBuffer()
    arrivals(buffer, stream(50))
    after = (51, 1020 + gap_ms, b"\x01" * 160)
    came = put_at(buffer, 1 + (gap_ms - lead_ms) / 1000, after)
    assert came == 20 + (gap_ms if filled else 0)
    assert buffer.resyncs == (not filled)


@pytest.mark.parametrize("missing", [5, 50, 400])
def test_lost_frames_take_their_wall_time(missing: int) -> None:
    buffer = JitterBuffer()
    packets = stream(1000)
    lossy = packets[:100] + packets[100 + missing :]
    assert sum(put_at(buffer, packet[1] / 1000, packet) for packet in lossy) == 20_000
    assert (buffer.lost, buffer.filled_ms, buffer.resyncs) == (missing, 20 * missing, 0)


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_one_frame_in_four_lost_for_ten_minutes_is_filled_throughout(jitter: float) -> None:
    """Gaps use up no more allowance than frames ever come early."""
    rng = random.Random(2)
    buffer = JitterBuffer()
    came = now = 0.0
    for number in range(1, 30_002):
        now = max(now, 0.02 * number + rng.uniform(0, jitter))
        if number % 4 != 2:
            came += put_at(buffer, now, (number, 20 * number, b"\x42" * 160))
    came += len(b"".join(buffer.flush())) / 8
    assert came == 600_020
    assert buffer.resyncs == 0


@pytest.mark.parametrize("stray_ms", [200, 400, 900, 5000, 9000])
def test_stray_timestamps_again_and_again_add_the_allowance_at_most(stray_ms: int) -> None:
    buffer = JitterBuffer()
    packets = [(n, at + (stray_ms if n % 40 == 0 else 0), frame) for n, at, frame in stream(400)]
    came = arrivals(buffer, packets)
    assert 8000 <= came <= 8000 + ALLOWANCE_MS
    if stray_ms > ALLOWANCE_MS:
        assert came == 8000


@pytest.mark.parametrize("stall", [0.3, 3.0, 30.0])
def test_a_burst_behind_a_stall_is_handed_on_as_it_is(stall: float) -> None:
    buffer = JitterBuffer()
    count = round(stall * 50)
    packets = stream(100 + count)
    came = arrivals(buffer, packets[:50])
    came += arrivals(buffer, packets[50 : 50 + count], 1 + stall, 0.0)
    came += arrivals(buffer, packets[50 + count :], 1 + stall)
    assert came == len(packets) * 20
    assert counters(buffer) == {}


@pytest.mark.parametrize("place", [0, 1, 50, 99])
@pytest.mark.parametrize("gap_ms", [420, 2000, 4000])
def test_a_gap_anywhere_in_the_burst_behind_a_stall_is_filled(place: int, gap_ms: int) -> None:
    """Its wall time passed in the stall, though none has since the frame before it."""
    buffer = JitterBuffer()
    before, burst = stream(50), stream(100, first=51, start_ms=1020)
    burst = [(n, at + (gap_ms if n - 51 >= place else 0), frame) for n, at, frame in burst]
    arrivals(buffer, before)
    assert arrivals(buffer, burst, 1 + 2 + gap_ms / 1000, 0.0) == 2000 + gap_ms
    assert counters(buffer) == {"filled_ms": gap_ms}


def test_frames_lost_in_a_stall_are_filled_within_its_burst() -> None:
    buffer = JitterBuffer()
    packets = stream(250)
    came = arrivals(buffer, packets[:50])
    came += arrivals(buffer, packets[50:100] + packets[180:], 5.0, 0.0)
    assert came == 5000
    assert (buffer.lost, buffer.resyncs) == (80, 0)


def test_a_burst_at_the_beginning_leaves_later_gaps_their_time() -> None:
    """Three seconds of frames with no wall time before them: they show that it had passed."""
    buffer = JitterBuffer()
    packets = stream(350)
    assert arrivals(buffer, packets[:150], 0.0, 0.0) == 3000
    assert arrivals(buffer, packets[200:], 1.02) == 4000
    assert buffer.resyncs == 0


def test_a_stall_longer_than_any_gap_is_not_made_up_for_later() -> None:
    """A jump explains the time that passed: a stray timestamp behind it finds none to be filled from."""
    buffer = JitterBuffer()
    arrivals(buffer, stream(50))
    after = stream(50, first=51, start_ms=1020 + 30_000)
    after[10] = (after[10][0], after[10][1] + 5000, after[10][2])
    assert arrivals(buffer, after, 31.0) == 1000
    assert counters(buffer) == {"resyncs": 3}


@pytest.mark.parametrize("stall", [5, 60])
def test_time_that_the_timestamps_leave_out_expires_as_fast_as_it_passed(stall: int) -> None:
    """A line that stood still, stamps and all; long afterwards a stray stamp leads by more than is left."""
    buffer = JitterBuffer()
    packets = stream(100 + 50 * stall)
    packets[-1] = (packets[-1][0], packets[-1][1] + 2 * ALLOWANCE_MS + 20, packets[-1][2])
    came = arrivals(buffer, packets[:50])
    came += arrivals(buffer, packets[50:], 1.0 + stall)
    assert came == 20 * len(packets)
    assert counters(buffer) == {"resyncs": 1}


def test_with_the_allowance_used_up_a_pause_is_filled_as_far_as_wall_time_goes() -> None:
    buffer = JitterBuffer()
    arrivals(buffer, stream(50))
    assert put_at(buffer, 1.0, (51, 1020 + ALLOWANCE_MS, b"\x01" * 160)) == ALLOWANCE_MS + 20
    stamp = 1040 + ALLOWANCE_MS + 3000
    assert put_at(buffer, 1.02 + 2.99, (52, stamp, b"\x02" * 160)) == 2990 + 20
    assert buffer.position_ms == stamp + 20
    assert buffer.position_ms - buffer.origin_ms == 1000 + 20 + ALLOWANCE_MS + 2990 + 20
    assert counters(buffer) == {"filled_ms": ALLOWANCE_MS + 2990, "resyncs": 1}


def test_a_frame_dropped_takes_no_time_from_gaps() -> None:
    """Every frame comes twice, and every tenth is lost."""
    buffer = JitterBuffer()
    kept = [packet for packet in stream(6000) if packet[0] % 10 != 5]
    came = sum(put_at(buffer, packet[1] / 1000, packet) for packet in kept for _ in range(2))
    assert came == 120_000
    assert buffer.resyncs == 0


@settings(deadline=None, max_examples=300)
@given(
    packets=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.0, 0.005, 0.1, 1.0, 12.0]),  # later than real time
            st.sampled_from([1, 1, 1, 1, 0, 2, 3, 5, -1, -3, 4000, -4000]),  # number
            st.sampled_from([0, 0, 0, 0, 20, 60, 100, 390, 900, 5000, 9990, -5, -12, -100, -5000]),  # stamp
            st.sampled_from([160, 160, 80, 320, 1600]),
        ),
        max_size=80,
    ),
    window=st.integers(0, 8),
)
def test_the_audio_never_leads_the_wall_clock_by_more_than_the_allowance(
    packets: list[tuple[float, int, int, int]], window: int
) -> None:
    """Whatever numbers and stamps say, when frames come no faster than they last."""
    buffer = JitterBuffer(window=window)
    returned = now = 0.0
    number = stamp = 0
    for late, counted, off, size in packets:
        now += size / 8000 + late
        number += counted
        stamp += size // 8 + off
        ready = buffer.put(now, number, stamp, b"\x42" * size)
        returned += sum(map(len, ready))
        wall = now - packets[0][0]  # since the first frame began to be spoken
        assert returned <= 8000 * wall + 8 * ALLOWANCE_MS + 1
    returned += sum(map(len, buffer.flush()))
    assert returned <= 8000 * (now - (packets[0][0] if packets else 0)) + 8 * ALLOWANCE_MS + 1


# ---- properties -----------------------------------------------------------------------------------


@st.composite
def displaced(draw: st.DrawFn, count: int, window: int) -> list[int]:
    """A permutation in which every frame is overtaken by at most `window` others."""
    left = list(range(count))
    order = []
    while left:
        # The oldest has been overtaken by all that left before it with a higher number.
        overtaken = sum(number > left[0] for number in order)
        order.append(left.pop(0 if overtaken >= window else draw(st.integers(0, min(window, len(left) - 1)))))
    return order


@settings(deadline=None)
@given(
    order=displaced(40, WINDOW),
    first=st.sampled_from([1, (1 << 16) - 20, (1 << 32) - 20]),
    start_ms=st.integers(0, 10**9),
    size=st.sampled_from([80, 160, 320]),
)
def test_any_permutation_within_the_window_gives_the_stream(
    order: list[int], first: int, start_ms: int, size: int
) -> None:
    """But for the first frame of a stream that doesn't count from 1: what comes first is its beginning."""
    packets = stream(40, first=first, start_ms=start_ms, size=size)
    if first != 1:
        packets = [(number % (first + 20), at, frame) for number, at, frame in packets]
        order = [0, *(number for number in order if number)]
    buffer = JitterBuffer(window=WINDOW)
    assert play(buffer, [packets[n] for n in order]) == audio(packets)
    highest = itertools.accumulate(order, max)
    assert counters(buffer).pop("reordered", 0) == sum(n < top for n, top in zip(order, highest, strict=True))
    assert buffer.lost == buffer.late == buffer.duplicates == buffer.resyncs == buffer.restarts == 0


@settings(deadline=None)
@given(
    order=displaced(20, WINDOW),
    sizes=st.lists(st.sampled_from([80, 160, 320, 1600]), min_size=20, max_size=20),
    ends=st.booleans(),
)
def test_any_permutation_of_frames_of_any_size_gives_the_stream(
    order: list[int], sizes: list[int], ends: bool
) -> None:
    """Wherever in its frame a timestamp stands."""
    starts = [sum(sizes[:n]) // 8 for n in range(20)]
    packets = [(n + 1, starts[n] + ends * sizes[n] // 8, bytes([n + 1]) * sizes[n]) for n in range(20)]
    buffer = JitterBuffer(window=WINDOW)
    assert play(buffer, [packets[n] for n in order]) == audio(packets)
    assert set(counters(buffer)) <= {"reordered"}


@settings(deadline=None)
@given(size=st.sampled_from([80, 160, 320, 800]), data=st.data())
def test_the_output_is_as_long_as_its_timestamps_say(size: int, data: st.DataObject) -> None:
    """Whatever is lost, double or out of order: each frame that gets in stands on its place."""
    packets = stream(100, size=size, first=1000)
    kept = data.draw(st.lists(st.integers(0, 99), min_size=1, unique=True))
    first, *rest = sorted(kept)
    twice = data.draw(st.lists(st.sampled_from(kept), max_size=20))
    order = [first, *data.draw(st.permutations(rest + twice))]
    buffer = JitterBuffer(window=WINDOW)
    output = play(buffer, [packets[n] for n in order])
    assert len(output) == (max(kept) - first + 1) * size
    assert buffer.received == len(order)
    assert buffer.resyncs == buffer.restarts == buffer.trimmed_ms == 0
    misplaced = [n for n in kept if output[(n - first) * size :][:size] != packets[n][2]]
    assert len(misplaced) <= buffer.late


@settings(deadline=None)
@given(
    window=st.integers(0, 8),
    packets=st.lists(
        st.tuples(
            st.floats(0, 1e6),
            st.one_of(st.integers(-20, 200), st.integers(65_500, 65_600), st.integers(-(10**12), 10**12)),
            st.one_of(st.integers(-100, 4000), st.integers(-(10**12), 10**12)),
            st.one_of(st.binary(max_size=10), st.integers(1, 2000).map(bytes)),
        ),
        max_size=60,
    ),
)
def test_any_input_keeps_the_buffer_bounded_and_its_books_right(
    window: int, packets: list[tuple[float, int, int, bytes]]
) -> None:
    buffer = JitterBuffer(window=window)
    returned = taken = 0
    latest = max([now for now, *_ in packets], default=0.0)
    for now, number, at, frame in packets:
        taken += len(frame)
        ready = buffer.put(now, number, at, frame)
        longest = max(len(frame), 2000)
        assert buffer.waiting <= window
        assert sum(map(len, ready)) <= (window + 1) * (MAX_GAP_MS * 8 + longest)
        assert all(0 < len(piece) <= longest for piece in ready)
        returned += sum(map(len, ready))
        assert (buffer.position_ms - buffer.origin_ms) * 8 == returned
        assert 0 <= buffer.jitter <= MAX_GAP_MS / 1000
    returned += sum(map(len, buffer.flush()))
    assert buffer.waiting == 0
    assert (buffer.position_ms - buffer.origin_ms) * 8 == returned
    assert min(0, *counters(buffer).values(), 0) == 0
    assert returned <= taken + (buffer.filled_ms - buffer.trimmed_ms) * 8
    if packets:
        assert buffer.filled_ms <= 1000 * (latest - packets[0][0]) + ALLOWANCE_MS + 1
    assert buffer.concealed_ms <= buffer.filled_ms
    assert buffer.received == len(packets)
