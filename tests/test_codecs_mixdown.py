"""Both speakers on one time line: pieces, drift, gaps, what was cleared."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.codecs.lineclock import LineClock
from handlehome.codecs.mixdown import (
    AHEAD_SAMPLES,
    HOLD_SECONDS,
    JUMP_SAMPLES,
    SENT_BYTES,
    SLACK_SAMPLES,
    WAIT_SAMPLES,
    AssistantTrack,
    CallerTrack,
    Piece,
    Track,
    mix,
)
from tests.mixed_call import MixedCall

FRAME = 160
BEGAN = 500.0
"""Of the call; its leg comes later."""


def frame(number: int) -> bytes:
    """20 ms that tell which they are."""
    return bytes([number % 251]) * FRAME


def line_of(pieces: list[Piece], end: int | None = None) -> bytes:
    """One channel with all pieces in it, 0xFF where there is none."""
    line = bytearray(b"\xff" * (end or max(piece.at + len(piece.audio) for piece in pieces)))
    mix(line, 0, 1, 0, pieces)
    return bytes(line)


def in_order(pieces: list[Piece]) -> None:
    """No piece overlaps another."""
    for one, other in pairwise(pieces):
        assert one.at + len(one.audio) <= other.at


# ---- a track


def test_what_follows_closely_follows_without_a_gap() -> None:
    track = Track()
    first = track.place(100.4, bytes(160), joined=False)
    assert first == (100, bytes(160))
    assert track.place(260 + SLACK_SAMPLES, bytes(160), joined=True) == (260, bytes(160))
    assert track.place(420 - SLACK_SAMPLES, bytes(160), joined=True) == (420, bytes(160))


def test_a_new_stretch_stands_where_it_belongs_but_not_in_the_one_before() -> None:
    track = Track()
    track.place(0, bytes(160), joined=False)
    assert track.place(500, bytes(160), joined=False).at == 500
    assert track.place(600, bytes(160), joined=False).at == 660


@pytest.mark.parametrize("error", [-800, -160, 160, 800])
def test_audio_that_is_off_gets_there_sample_by_sample(error: int) -> None:
    """A tenth of a second is levelled out within three, and no piece is changed by more than a 16th."""
    track = Track()
    at = track.place(10_000, frame(0), joined=False).at
    for number in range(1, 150):
        piece = track.place(at + error + number * FRAME, frame(number), joined=True)
        assert abs(len(piece.audio) - FRAME) <= 10
        assert set(piece.audio) == {number % 251}
    assert abs(piece.at - (at + error + number * FRAME)) <= SLACK_SAMPLES + 1


@given(st.lists(st.tuples(st.integers(-2000, 2000), st.binary(max_size=400), st.booleans()), max_size=40))
def test_pieces_never_overlap_and_lose_no_more_than_they_must(
    steps: list[tuple[int, bytes, bool]],
) -> None:
    track = Track()
    pieces = []
    at = 0.0
    for step, audio, joined in steps:
        at += len(audio) + step
        ahead = (track.end or 0) - max(at, 0.0)
        pieces.append(track.place(max(at, 0.0), audio, joined=joined))
        assert len(pieces[-1].audio) <= len(audio) + len(audio) // 16
        if ahead <= JUMP_SAMPLES:
            assert len(pieces[-1].audio) >= len(audio) - len(audio) // 16
        assert track.end == pieces[-1].at + len(pieces[-1].audio)
    in_order(pieces)


LOUD = bytes([0x10]) * FRAME
QUIET = bytes([0xFE]) * FRAME


def test_audio_that_belongs_far_ahead_goes_there_at_once() -> None:
    track = Track()
    track.place(0, LOUD, joined=False)
    assert track.place(FRAME + 2400, LOUD, joined=True) == (FRAME + 2400, LOUD)


def test_a_track_that_is_far_ahead_waits_in_the_next_pause() -> None:
    """Speech before it is not touched."""
    track = Track()
    track.place(2400, LOUD, joined=False)
    for number in range(1, 21):
        assert track.place(number * FRAME, LOUD, joined=True) == (2400 + number * FRAME, LOUD)
    end = 2400 + 21 * FRAME
    for number in range(21, 26):
        assert track.place(number * FRAME, QUIET, joined=True) == (end, b"")
    assert track.place(26 * FRAME, LOUD, joined=True).at == end


def test_without_a_pause_a_track_that_is_far_ahead_waits_all_the_same() -> None:
    track = Track()
    track.place(80_000, LOUD, joined=False)
    kept = [track.place(number * FRAME, LOUD, joined=True).audio for number in range(1, 1200)]
    unheard = [number for number, audio in enumerate(kept, 1) if not audio]
    assert unheard[0] * FRAME == WAIT_SAMPLES + FRAME
    assert unheard == list(range(unheard[0], unheard[-1] + 1))
    assert track.end is not None
    assert abs(track.end - 1200 * FRAME) <= SLACK_SAMPLES + 1


@given(
    st.lists(st.tuples(st.integers(0, 30), st.binary(min_size=1, max_size=9)), max_size=8), st.integers(1, 3)
)
def test_mixing_touches_one_channel_only(pieces: list[tuple[int, bytes]], channels: int) -> None:
    line = bytearray(b"\xff" * (50 * channels))
    for channel in range(channels):
        mix(line, 100, channels, channel, [Piece(100 + at, audio) for at, audio in pieces])
    want = line_of([Piece(at, audio) for at, audio in pieces], 50)
    for channel in range(channels):
        assert line[channel::channels] == want


# ---- the caller


class Line:
    """A line that speaks frames, and a network that delays them, order kept.

    Args:
        delay: seconds that a frame takes.
        drift: by how much the line's clock is slow.
        leg: when it begins, seconds after the call.
    """

    def __init__(
        self, delay: tuple[float, float] = (0.03, 0.03), drift: float = 0.0, leg: float = 2.0, seed: int = 1
    ) -> None:
        self.track = CallerTrack(BEGAN)
        self.pieces: list[Piece] = []
        self.belongs: list[float] = []  # where each frame does, in samples
        self.clock = LineClock()
        self.estimates: list[float] = []  # where each frame began by what its leg knew then, seconds
        self.stamp = 0
        self.number = 0
        self._delay = delay
        self._period = 0.020 * (1 + drift)
        self._began = BEGAN + leg
        self._latest = 0.0
        self._rng = random.Random(seed)

    def speak(self, frames: int, *, lose: frozenset[int] = frozenset()) -> None:
        for index in range(frames):
            self.belongs.append((self._began + self.number * self._period - BEGAN + self._delay[0]) * 8000)
            spoken = self._began + (self.number + 1) * self._period
            self._latest = max(self._latest, spoken + self._rng.uniform(*self._delay))
            if index not in lose:
                self.clock.frame(self._latest, self.stamp)
                self.estimates.append(self.clock.event(self._latest)[0] - 0.020 - BEGAN)
                self.pieces += self.track.put(self._latest, self.number + 1, self.stamp, frame(self.number))
            self.number += 1
            self.stamp += 20

    def end(self) -> list[Piece]:
        self.pieces += self.track.end()
        in_order(self.pieces)
        return self.pieces


def test_frames_stand_where_they_were_spoken_unchanged() -> None:
    line = Line()
    line.speak(100)
    pieces = line.end()
    assert [piece.audio for piece in pieces] == [frame(number) for number in range(100)]
    assert [piece.at for piece in pieces] == [round(at) for at in line.belongs]


def test_the_first_half_second_is_held_back() -> None:
    line = Line()
    line.speak(round(HOLD_SECONDS / 0.020))
    assert line.pieces == []
    line.speak(1)
    assert len(line.pieces) == round(HOLD_SECONDS / 0.020) + 1


@pytest.mark.parametrize("seed", range(5))
def test_jitter_is_not_recorded(seed: int) -> None:
    """Frames that came in bursts follow each other, within 20 ms of where they were spoken."""
    line = Line((0.010, 0.080), seed=seed)
    line.speak(500)
    pieces = line.end()
    assert len(pieces) == 500
    for piece, belongs in zip(pieces, line.belongs, strict=True):
        assert abs(piece.at - belongs) <= 160
    assert sum(len(piece.audio) != FRAME for piece in pieces) < 50
    for one, other in pairwise(pieces):
        assert one.at + len(one.audio) == other.at


@pytest.mark.parametrize("seed", range(5))
def test_where_hardly_a_frame_is_quick_the_recording_follows_the_estimate(seed: int) -> None:
    """What is best known of the line's clock changes by tens of ms there; both channels go by it."""
    line = Line((0.050, 0.300), seed=seed)
    line.speak(1000)
    pieces = line.end()
    belongs = [begin * 8000 for begin in line.estimates]
    close = sum(abs(piece.at - at) <= 160 for piece, at in zip(pieces, belongs, strict=True))
    assert close >= 950
    in_order(pieces)


@pytest.mark.parametrize("drift", [-200e-6, 100e-6, 200e-6])
def test_a_crystal_that_is_not_ours_moves_nothing(drift: float) -> None:
    line = Line((0.010, 0.080), drift)
    line.speak(20_000)
    pieces = line.end()
    for piece, belongs in zip(pieces, line.belongs, strict=True):
        assert abs(piece.at - belongs) <= 160
    samples = sum(len(piece.audio) for piece in pieces)
    assert samples - 20_000 * FRAME == pytest.approx(20_000 * FRAME * drift, abs=200)


def test_lost_frames_leave_their_time() -> None:
    line = Line()
    line.speak(100, lose=frozenset(range(40, 60)))
    audio = line_of(line.end())
    for number in (0, 39, 60, 99):
        at = round(line.belongs[number])
        assert audio[at : at + FRAME] == frame(number)
    at = round(line.belongs[50])
    assert audio[at : at + FRAME] == b"\xff" * FRAME


@pytest.mark.parametrize("jump", [-3_600_000, -5_000, 60_000, 7_200_000])
def test_a_clock_that_was_set_costs_no_audio(jump: int) -> None:
    line = Line()
    line.speak(60)
    line.stamp += jump
    line.speak(60)
    pieces = line.end()
    assert [piece.audio for piece in pieces] == [frame(number) for number in range(120)]
    for piece, belongs in zip(pieces, line.belongs, strict=True):
        assert abs(piece.at - belongs) <= 1


def test_a_clock_that_was_set_at_the_very_start_costs_no_audio() -> None:
    line = Line()
    line.speak(5)
    line.stamp += 3_600_000
    line.speak(40)
    pieces = line.end()
    assert [piece.audio for piece in pieces] == [frame(number) for number in range(45)]
    for piece, belongs in zip(pieces, line.belongs, strict=True):
        assert abs(piece.at - belongs) <= 1


def test_frames_that_change_places_are_put_in_order() -> None:
    track = CallerTrack(BEGAN)
    numbers = [1, 2, 4, 3, 5, 7, 6, 8]
    pieces = []
    for index, number in enumerate(numbers):
        now = BEGAN + 2.0 + max(numbers[: index + 1]) * 0.020
        pieces += track.put(now, number, (number - 1) * 20, frame(number))
    pieces += track.end()
    assert [piece.audio for piece in pieces] == [frame(number) for number in sorted(numbers)]
    assert [piece.at for piece in pieces] == [16_000 + index * FRAME for index in range(8)]


@pytest.mark.parametrize("missing", ["late", "lost"])
@pytest.mark.parametrize("stray", [11, 101])
@pytest.mark.parametrize("by", [-3_600_000, -6000, 6000, 3_600_000])
def test_one_wrong_timestamp_moves_nothing_away(missing: str, stray: int, by: int) -> None:
    """Of a frame that waits for its predecessor: nothing is put before the leg, nor beyond the present."""
    numbers = list(range(1, 251))
    numbers.remove(stray - 1)
    if missing == "late":
        numbers.insert(numbers.index(stray) + 1, stray - 1)
    track = CallerTrack(BEGAN)
    pieces = []
    newest = 0
    for number in numbers:
        newest = max(newest, number)
        now = BEGAN + 2.0 + newest * 0.020
        stamp = (number - 1) * 20 + (by if number == stray else 0)
        for piece in track.put(now, number, stamp, frame(number)):
            pieces.append(piece)
            assert piece.at + len(piece.audio) <= (now - BEGAN) * 8000 + AHEAD_SAMPLES + 2 * FRAME
    pieces += track.end()
    in_order(pieces)
    assert pieces[0] == (16_000, frame(1))
    audio = line_of(pieces)
    for number, off in ((1, 0), (stray - 5, 0), (250, 2 * SLACK_SAMPLES)):
        assert abs(audio.index(number) - (16_000 + (number - 1) * FRAME)) <= off


@pytest.mark.parametrize("size", [0, 80])
@pytest.mark.parametrize("frames", [1, 10])
def test_an_odd_last_frame_does_not_move_a_short_leg(size: int, frames: int) -> None:
    """It is placed when all is known, together with those before."""
    line = Line()
    line.speak(frames)
    now = BEGAN + 2.03 + (frames + 1) * 0.020
    line.pieces += line.track.put(now, frames + 1, line.stamp, frame(0)[:size])
    pieces = line.end()
    assert [piece.at for piece in pieces[:frames]] == [round(at) for at in line.belongs]


def test_an_empty_frame_at_the_beginning_has_no_size() -> None:
    track = CallerTrack(BEGAN)
    track.put(BEGAN + 2.0, 1, 0, b"")
    track.put(BEGAN + 2.02, 2, 20, frame(1))
    assert track.end() == [(16_000, frame(1))]


# ---- the caller, in batches

Sent = tuple[float, int, int, bytes]


def joined(pieces: list[Piece]) -> list[Piece]:
    """The same audio, pieces without a gap between them made one."""
    out: list[Piece] = []
    for piece in pieces:
        if out and out[-1].at + len(out[-1].audio) == piece.at:
            out[-1] = Piece(out[-1].at, out[-1].audio + piece.audio)
        else:
            out.append(piece)
    return out


def in_batches(sent: list[Sent], sizes: list[int]) -> list[Piece]:
    track = CallerTrack(BEGAN)
    pieces = []
    rest = iter(sizes * len(sent))
    while sent:
        size = next(rest)
        pieces += track.put_all(*zip(*sent[:size], strict=True))
        sent = sent[size:]
    return pieces + track.end()


def one_by_one(sent: list[Sent]) -> list[Piece]:
    track = CallerTrack(BEGAN)
    pieces = [piece for each in sent for piece in track.put(*each)]
    return pieces + track.end()


ODD = ["lost", "twice", "late", "jump ahead", "jump back", "pause", "restart", "old"]
ODD_SIZES = ["short", "long", "empty", "rounded"]


@settings(max_examples=150)
@given(st.data())
def test_batches_come_to_the_same_as_frame_by_frame(data: st.DataObject) -> None:
    """Bit for bit, whatever is odd about some of the frames."""
    # Delays, or odd sizes that put the audio off its place: with both, corrections are spread differently.
    delays = data.draw(st.booleans())
    odd = data.draw(
        st.lists(
            st.tuples(st.integers(1, 40), st.sampled_from(ODD if delays else ODD + ODD_SIZES)), max_size=8
        )
    )
    rng = random.Random(data.draw(st.integers(0, 1000)))
    first = data.draw(st.sampled_from([1, 2, 65_500, 2**32 - 40]))
    modulus = 65_536 if first < 65_536 else 2**32
    sent: list[Sent] = []
    number, stamp, now = first, 0, 0.0
    for usual, kind in [*odd, (60, "")]:
        for step in range(usual + 1):
            size = FRAME
            if step == usual:
                if kind in ("lost", "late"):
                    number += 1
                    stamp += 20
                    now += 0.020
                now += 0.5 if kind == "pause" else 0.0
                stamp += {"jump ahead": 60_000, "jump back": -7_000, "pause": 500, "rounded": 3}.get(kind, 0)
                number += 10_000 if kind == "restart" else 0
                size = {"short": 80, "long": 480, "empty": 0}.get(kind, FRAME)
            now += 0.020
            arrives = BEGAN + 2.00003 + now + (rng.uniform(0, 0.0039) if delays else 0.0)
            audio = rng.randbytes(size)
            sent.append((arrives, number % modulus, stamp, audio))
            if step == usual and kind in ("twice", "late", "old"):
                back = {"twice": 0, "late": 1, "old": 20}[kind]
                sent.append((arrives, (number - back) % modulus, stamp - back * 20, frame(number)))
            number += 1
            stamp += size // 8
    pieces = in_batches(sent, data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=5)))
    assert joined(pieces) == joined(one_by_one(sent))


def usual_frames(count: int) -> list[Sent]:
    return [(BEGAN + 2.0 + (n + 1) * 0.020, n + 1, n * 20, frame(n)) for n in range(count)]


def test_a_batch_of_usual_frames_is_one_piece() -> None:
    """Behind what was held back."""
    pieces = in_batches(usual_frames(200), [20])
    assert [len(piece.audio) // FRAME for piece in pieces] == [1] * 26 + [14] + [20] * 8
    assert joined(pieces) == [Piece(16_000, b"".join(frame(n) for n in range(200)))]


def test_a_batch_further_from_its_place_than_the_slack_is_levelled_out() -> None:
    """The way from the line has become 30 ms shorter."""
    sent = usual_frames(400)
    sent[200:] = [(now - 0.030, number, stamp, audio) for now, number, stamp, audio in sent[200:]]
    pieces = in_batches(sent, [20])
    in_order(pieces)
    end = pieces[-1].at + len(pieces[-1].audio)
    assert abs(end - (16_000 + 400 * FRAME - 240)) <= SLACK_SAMPLES + 1
    assert joined(one_by_one(sent)) == joined(pieces)


def test_a_leg_without_a_frame_is_nothing() -> None:
    assert CallerTrack(BEGAN).end() == []


# ---- the assistant


def test_what_was_played_is_found_among_what_was_sent() -> None:
    track = AssistantTrack(BEGAN)
    track.sent(0, b"a" * 480)
    track.sent(480, b"b" * 480)
    assert track.played(BEGAN + 1.0, 0, 160) == [(8000, b"a" * 160)]
    assert track.played(BEGAN + 1.02, 160, 480) == [(8160, b"a" * 320 + b"b" * 160)]
    assert track.played(BEGAN + 1.08, 640, 320) == [(8640, b"b" * 320)]
    assert track.lost_bytes == 0


def test_what_was_cleared_is_skipped() -> None:
    track = AssistantTrack(BEGAN)
    track.sent(0, b"a" * 8000)
    track.sent(8000, b"b" * 480)
    assert track.played(BEGAN + 1.0, 0, 800) == [(8000, b"a" * 800)]
    assert track.played(BEGAN + 1.5, 8000, 480) == [(12_000, b"b" * 480)]


def test_a_pause_is_a_pause_and_an_estimate_is_none() -> None:
    track = AssistantTrack(BEGAN)
    track.sent(0, bytes(3200))
    assert track.played(BEGAN, 0, 800)[0].at == 0
    assert track.played(BEGAN + 0.104, 800, 800)[0].at == 800  # 4 ms, within the slack
    (piece,) = track.played(BEGAN + 0.208, 1600, 800)  # 8 ms: no pause of the line's, levelled out
    assert (piece.at, len(piece.audio)) == (1600, 800 + 10)
    assert track.played(BEGAN + 0.500, 2400, 800)[0].at == 4000


def test_what_is_not_there_any_more_is_counted_and_moves_nothing() -> None:
    track = AssistantTrack(BEGAN)
    track.sent(0, b"a" * SENT_BYTES)
    track.sent(SENT_BYTES, b"b" * 800)
    assert track.played(BEGAN + 1.0, SENT_BYTES - 160, 320) == [(8160, b"b" * 160)]
    assert track.lost_bytes == 160


@given(st.lists(st.integers(1, 900), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_however_it_was_sent_the_same_is_recorded(sizes: list[int], rng: random.Random) -> None:
    track = AssistantTrack(BEGAN)
    whole = rng.randbytes(sum(sizes))
    at = 0
    for size in sizes:
        track.sent(at, whole[at : at + size])
        at += size
    pieces = []
    position = 0
    while position < len(whole):
        size = rng.randint(1, 2000)
        size = min(size, len(whole) - position)
        pieces += track.played(BEGAN + position / 8000, position, size)
        position += size
    assert line_of(pieces, len(whole)) == whole


# ---- a call


def converse(call: MixedCall, seconds: float, pause: float) -> None:
    """The model speaks and is interrupted every other time."""
    rng = call.rng
    until = call.now + seconds
    while call.now < until:
        length = rng.uniform(1, 6)
        call.answer(length)
        call.run(rng.uniform(0.5, 1.3) * length)
        if rng.random() < 0.5:
            call.interrupt()
        call.run(rng.uniform(0.5, pause))
    call.end()


@pytest.mark.parametrize(
    ("seconds", "drift", "stalls"),
    [(3600, 100e-6, 0.0), (300, -100e-6, 0.0), (300, 0.0, 0.05)],
    ids=["an hour", "a fast crystal", "stalls"],
)
def test_both_channels_are_aligned_to_20_ms(seconds: float, drift: float, stalls: float) -> None:
    """With jitter, drift and interruptions, beside what a simulated line really played."""
    call = MixedCall(seed=1, delay=(0.010, 0.080), drift=drift, stalls=stalls)
    converse(call, seconds, seconds / 200)
    in_order(call.left)
    in_order(call.right)
    caller, assistant = np.abs(call.caller_errors()), np.abs(call.assistant_errors())
    assert call.interruptions > seconds / 120
    assert len(caller) > seconds * 50 - 20
    assert len(assistant) > seconds * 50 * 0.1
    print(
        f"{seconds} s, {drift * 1e6:.0f} ppm: caller off by {caller.max() / 8:.1f} ms at most, assistant by "
        f"{assistant.max() / 8:.1f} ms (99 %: {np.quantile(assistant, 0.99) / 8:.1f} ms)"
    )
    assert caller.max() <= 160
    if stalls:
        # Where between two marks the line ran dry for some ms is not known.
        assert np.mean(assistant <= 160) > 0.995
    else:
        assert assistant.max() <= 160
    # What was cut off is not there: each interruption is known to a few ms.
    recorded = sum(len(piece.audio) for piece in call.right)
    assert recorded == pytest.approx(call.playback.played_bytes, abs=160 * call.interruptions)
    assert call.assistant.lost_bytes == 0
