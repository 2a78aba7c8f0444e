"""A recording beside the truth: what is missing, shifted or too much in it is noticed."""

import random

import pytest

from handlehome.bench.demo_recording import Comparison, compare
from handlehome.codecs import wav

QUIET = wav.SILENCE


def sound(seconds: float, seed: int) -> bytes:
    """Loud noise, dull as speech is: no moment of it is like another."""
    return b"".join(bytes([code]) * 16 for code in random.Random(seed).randbytes(round(seconds * 500)))


def silence(seconds: float) -> bytes:
    return QUIET * round(seconds * 8000)


FIRST, SECOND, REPLY = sound(1.0, 1), sound(0.6, 2), sound(1.4, 3)
SPOKEN = silence(0.2) + FIRST + silence(1.6) + SECOND + silence(0.5)
HEARD = silence(1.3) + REPLY
LEAD = silence(0.15)


def recorded(left: bytes = LEAD + SPOKEN, right: bytes = LEAD + HEARD) -> Comparison:
    return compare(wav.write(left, right), SPOKEN, HEARD)


def test_a_recording_that_begins_earlier_is_right() -> None:
    seen = recorded()
    assert seen.lead_ms == 150
    assert seen.caller.right
    assert seen.assistant.right
    assert (seen.caller.seconds, seen.assistant.seconds) == pytest.approx((1.6, 1.4), abs=0.02)
    assert (seen.caller.found, seen.caller.off_ms, seen.caller.stray_ms) == (1, 0, 0)


@pytest.mark.parametrize(("ms", "right"), [(39, True), (-39, True), (41, False), (-41, False)])
def test_a_side_may_be_off_by_40_ms(ms: int, right: bool) -> None:
    shifted = LEAD + silence(1.3 + ms / 1000) + REPLY
    seen = recorded(right=shifted)
    assert seen.caller.right
    assert seen.assistant.off_ms == abs(ms)
    assert seen.assistant.right is right


def test_single_samples_may_be_left_out_or_doubled() -> None:
    """Four in a second, which is what a line's clock may be off."""
    stretched = b"".join(
        REPLY[at : at + 2000] + REPLY[at + 1999 : at + 2000] for at in range(0, len(REPLY), 2000)
    )
    seen = recorded(right=LEAD + silence(1.3) + stretched)
    assert seen.assistant.right
    assert 0 < seen.assistant.off_ms < 1


def test_what_is_missing_is_noticed() -> None:
    seen = recorded(left=LEAD + silence(0.2) + FIRST)
    assert 0.5 < seen.caller.found < 1
    assert not seen.caller.right
    assert seen.assistant.right


def test_what_was_not_heard_is_noticed() -> None:
    seen = recorded(right=LEAD + HEARD + sound(0.2, 4))
    assert seen.assistant.found == 1
    assert seen.assistant.stray_ms == pytest.approx(160, abs=5)
    assert not seen.assistant.right


def test_other_audio_is_not_the_same() -> None:
    seen = recorded(right=LEAD + silence(1.3) + sound(1.4, 5))
    assert seen.assistant.found == 0
    assert not seen.assistant.right


def test_a_recording_that_begins_too_late_lacks_the_beginning() -> None:
    seen = recorded(left=SPOKEN[4000:], right=HEARD[4000:])
    assert seen.lead_ms == -500
    assert seen.caller.found < 1
    assert seen.assistant.right


def test_silence_is_no_recording() -> None:
    seen = recorded(silence(5), silence(5))
    assert not seen.caller.right
    assert not seen.assistant.right
    assert not compare(wav.write(QUIET, QUIET), b"", b"").caller.right


@pytest.mark.parametrize("file", [b"RIFF", wav.write(SPOKEN), wav.write(SPOKEN, HEARD, rate=16000)])
def test_another_file_is_refused(file: bytes) -> None:
    with pytest.raises(wav.WavError):
        compare(file, SPOKEN, HEARD)
