"""Twilio's playback buffer, in virtual time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.bench.playback import BYTES_PER_SECOND, Cut, Echo, Gap, Playback, Segment

T0 = 1_000_000.0
"""A clock that has run for eleven days."""


def names(echoes: list[Echo]) -> list[str]:
    return [echo.name for echo in echoes]


def test_plays_eight_bytes_per_millisecond() -> None:
    line = Playback(T0)
    line.append(T0, bytes(800))
    assert line.played_at(T0) == 0
    assert line.played_at(T0 + 0.050) == 400
    assert line.dry_at == pytest.approx(T0 + 0.1)
    assert line.played_at(T0 + 5) == 800
    assert not line.playing
    assert line.dry_at == pytest.approx(T0 + 0.1)


def test_appended_audio_plays_behind_what_is_queued() -> None:
    line = Playback(T0)
    line.append(T0, b"a" * 160, "first")
    line.append(T0 + 0.01, b"b" * 160, "second")
    assert line.played_at(T0 + 0.03) == 240
    assert line.segments() == [
        Segment(T0, b"a" * 160, "first"),
        Segment(pytest.approx(T0 + 0.02), b"b" * 80, "second"),
    ]


def test_a_mark_is_echoed_when_playback_reaches_it() -> None:
    line = Playback(T0)
    line.append(T0, bytes(160))
    line.mark(T0, "m1")
    line.append(T0, bytes(160))
    line.mark(T0, "m2")
    assert line.next_echo_at() == pytest.approx(T0 + 0.02)
    assert line.advance(T0 + 0.0199) == []
    assert names(line.advance(T0 + 0.02)) == ["m1"]
    assert line.advance(T0 + 0.03) == []
    (echo,) = line.advance(T0 + 1)
    assert echo == Echo("m2", pytest.approx(T0 + 0.04), False)
    assert line.next_echo_at() is None


def test_a_mark_on_an_empty_buffer_is_echoed_at_once() -> None:
    line = Playback(T0)
    line.mark(T0 + 1, "m")
    assert line.next_echo_at() == T0 + 1
    assert line.advance(T0 + 1) == [Echo("m", T0 + 1, False)]
    line.append(T0 + 2, bytes(8))
    line.mark(T0 + 2.001, "after the last byte")
    assert names(line.advance(T0 + 2.001)) == ["after the last byte"]


def test_clear_drops_the_rest_and_releases_all_marks() -> None:
    line = Playback(T0)
    line.append(T0, b"a" * 160)
    line.mark(T0, "heard")
    line.append(T0, b"b" * 160)
    line.mark(T0, "cut 1")
    line.mark(T0, "cut 2")
    cut = line.clear(T0 + 0.03)
    assert cut == Cut(T0 + 0.03, 240, 80, ("cut 1", "cut 2"))
    assert [(echo.name, echo.cleared) for echo in line.advance(T0 + 0.03)] == [
        ("heard", False),
        ("cut 1", True),
        ("cut 2", True),
    ]
    assert line.played_at(T0 + 10) == 240
    assert line.played() == b"a" * 160 + b"b" * 80
    assert line.dry_at == T0 + 0.03


def test_clear_of_an_empty_buffer_is_recorded() -> None:
    line = Playback(T0)
    assert line.clear(T0 + 1) == Cut(T0 + 1, 0, 0, ())
    assert line.advance(T0 + 1) == []


def test_audio_after_clear_plays_normally() -> None:
    line = Playback(T0)
    line.append(T0, b"a" * 800)
    line.clear(T0 + 0.05)
    line.append(T0 + 0.06, b"b" * 80)
    line.advance(T0 + 1)
    assert line.heard(T0, T0 + 0.08) == b"a" * 400 + b"\xff" * 80 + b"b" * 80 + b"\xff" * 80


def test_heard_is_silence_where_nothing_played() -> None:
    line = Playback(T0)
    line.append(T0 + 0.1, b"a" * 80)
    line.advance(T0 + 1)
    assert line.heard(T0, T0 + 0.2) == b"\xff" * 800 + b"a" * 80 + b"\xff" * 720
    assert line.heard(T0 + 0.105, T0 + 0.107) == b"a" * 16
    assert line.heard(T0 + 5, T0 + 5) == b""


def test_a_late_append_is_a_gap() -> None:
    line = Playback(T0)
    line.append(T0, bytes(160))
    line.append(T0 + 0.05, bytes(160))
    line.append(T0 + 5, bytes(160))
    assert line.gaps() == [Gap(pytest.approx(T0 + 0.02), pytest.approx(0.03), 160)]
    assert len(line.gaps(within=10)) == 2


def test_silence_after_clear_is_no_gap() -> None:
    line = Playback(T0)
    line.append(T0, bytes(800))
    line.clear(T0 + 0.05)
    line.append(T0 + 0.3, bytes(160))
    line.append(T0 + 0.4, bytes(160))
    assert [gap.played_bytes for gap in line.gaps()] == [400 + 160]


def test_without_audio_kept_the_counts_remain() -> None:
    line = Playback(T0, keep_audio=False)
    line.append(T0, bytes(800))
    assert line.clear(T0 + 0.05).dropped_bytes == 400
    with pytest.raises(RuntimeError, match="keep"):
        line.segments()


def test_time_does_not_go_back() -> None:
    line = Playback(T0)
    line.advance(T0 + 1)
    with pytest.raises(ValueError, match="back"):
        line.append(T0, b"x")


steps = st.lists(
    st.tuples(
        st.floats(0, 0.3),
        st.one_of(st.integers(0, 2000), st.just("mark"), st.just("clear"), st.just("advance")),
    ),
    max_size=60,
)


@given(start=st.floats(0, 1e8), steps=steps)
def test_nothing_is_lost_or_repeated(start: float, steps: list[tuple[float, int | str]]) -> None:
    """Played, dropped and queued sum up to what was appended; each mark comes back once, in order."""
    line = Playback(start)
    now = start
    appended = bytearray()
    kept = bytearray()  # what was appended without what was dropped
    sent: list[str] = []
    echoes: list[Echo] = []
    for pause, step in steps:
        now += pause
        match step:
            case "mark":
                sent.append(str(len(sent)))
                line.mark(now, sent[-1])
            case "clear":
                cut = line.clear(now)
                assert line.queued_bytes == 0
                del kept[cut.played_bytes :]
                assert line.next_echo_at() in {now, None}
            case "advance":
                echoes += line.advance(now)
            case int(size):
                payload = bytes((len(appended) + i) % 255 for i in range(size))
                appended += payload
                kept += payload
                line.append(now, payload, len(sent))
        assert line.appended_bytes == len(appended)
        assert line.played_bytes + line.dropped_bytes + line.queued_bytes == line.appended_bytes
        assert line.queued_bytes >= 0
        assert line.played() == bytes(kept[: line.played_bytes])
    echoes += line.advance(now + 60)
    assert names(echoes) == sent
    assert [echo.at for echo in echoes] == sorted(echo.at for echo in echoes)
    assert line.queued_bytes == 0
    assert line.played() == bytes(kept)
    # 0xFF is in no payload: the rendered line holds exactly what played.
    assert line.heard(start - 1, now + 60).replace(b"\xff", b"") == bytes(kept)
    ends = [(s.at, s.at + len(s.ulaw) / BYTES_PER_SECOND) for s in line.segments()]
    assert all(end <= begin + 1e-6 for (_, end), (begin, _) in itertools.pairwise(ends))


@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=20), at=st.floats(0, 10))
def test_the_next_echo_time_is_exact(sizes: list[int], at: float) -> None:
    """`advance` at `next_echo_at` returns at least one mark: a timer set for it never fires in vain."""
    line = Playback(T0)
    for size in sizes:
        line.append(T0 + at, bytes(size))
        line.mark(T0 + at, str(size))
    count = 0
    while (due := line.next_echo_at()) is not None:
        echoes = line.advance(due)
        assert echoes
        count += len(echoes)
    assert count == len(sizes)
