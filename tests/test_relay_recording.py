"""Recording: from the loop's hands to the file, in a thread of its own, whatever the disk does."""

import base64
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import timeit
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from handlehome.codecs import wav
from handlehome.codecs.mixdown import Piece
from handlehome.codecs.played import Played
from handlehome.relay import recording as module
from handlehome.relay.audiofiles import AudioFile, AudioFiles
from handlehome.relay.recording import BATCH, INBOX_ENTRIES, Recorder, Recording

CALL = "CA" + "1" * 32
OTHER = "CA" + "2" * 32
BEGAN = 1000.0
FRAME = 160


def code(number: int) -> int:
    """What the frame of this number is made of."""
    return number % 251 + 1


def frame(number: int) -> bytes:
    return base64.b64encode(bytes([code(number)]) * 160)


def frames(count: int, first: int = 0) -> bytes:
    return b"".join(bytes([code(number)]) * 160 for number in range(first, first + count))


def speak(recording: Recording, count: int, first: int = 0, leg: float = 0.0) -> None:
    """Frames of the caller's on a leg that began `leg` seconds after the call."""
    for number in range(first, first + count):
        recording.frame(BEGAN + leg + (number + 1) * 0.020, number + 1, number * 20, frame(number))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    kept: list[str] = []
    sink = logger.add(kept.append, format="{level} {message}")
    yield kept
    logger.remove(sink)


@contextlib.contextmanager
def running(folder: Path, *, both: bool = True) -> Iterator[Recorder]:
    recorder = Recorder(AudioFiles(folder), both=both)
    try:
        yield recorder
    finally:
        assert recorder.close()


def channels(path: Path) -> tuple[bytes, ...]:
    return wav.read(path.read_bytes()).channels


def test_both_sides_stand_at_the_calls_time(tmp_path: Path) -> None:
    with running(tmp_path) as recorder:
        recording = recorder.open(CALL, BEGAN)
        recording.leg_started()
        recording.sent(0, base64.b64encode(b"a" * 800))
        recording.sent(800, base64.b64encode(b"b" * 800))
        speak(recording, 100, leg=1.0)
        recording.played([Played(BEGAN + 1.5, 0, 400), Played(BEGAN + 1.8, 800, 800)])
        recording.leg_ended()
        recording.close(BEGAN + 4.0)
        assert recorder.flush()
        left, right = channels(tmp_path / "recordings" / f"{CALL}.wav")
    assert left == b"\xff" * 8000 + frames(100) + b"\xff" * 8000
    assert right == b"\xff" * 12_000 + b"a" * 400 + b"\xff" * 2000 + b"b" * 800 + b"\xff" * 16_800


def test_only_the_caller_is_kept_for_the_transcript(tmp_path: Path) -> None:
    with running(tmp_path, both=False) as recorder:
        recording = recorder.open(CALL, BEGAN)
        recording.leg_started()
        speak(recording, 100)
        assert recorder.caller_audio(CALL, 500, 700) == frames(10, 25)
        assert recorder.caller_audio(OTHER, 500, 700) is None
        recording.leg_ended()
        recording.close(BEGAN + 2.0)
        recorder.flush()
        assert channels(tmp_path / "audio" / f"{CALL}.wav") == (frames(100),)
        assert recorder.files.discard(CALL)
    assert list((tmp_path / "audio").iterdir()) == []
    assert not (tmp_path / "recordings").exists()


def test_between_legs_there_is_silence(tmp_path: Path) -> None:
    with running(tmp_path) as recorder:
        recording = recorder.open(CALL, BEGAN)
        for leg in range(3):
            recording.leg_started()
            speak(recording, 50, leg=leg * 2.0)
            recording.leg_ended()
            recorder.flush()
        recording.close(BEGAN + 5.0)
    left, right = channels(tmp_path / "recordings" / f"{CALL}.wav")
    assert left == (frames(50) + b"\xff" * 8000) * 2 + frames(50)
    assert set(right) == {0xFF}


def test_a_call_that_goes_on_after_a_crash_goes_on_in_its_file(tmp_path: Path) -> None:
    for first in (0, 500):
        with running(tmp_path) as recorder:
            recording = recorder.open(CALL, BEGAN)
            recording.leg_started()
            speak(recording, 50, leg=first * 0.020)
    left, _ = channels(tmp_path / "recordings" / f"{CALL}.wav")
    assert left == frames(50) + b"\xff" * 450 * 160 + frames(50)


def test_a_burst_behind_a_stall_comes_to_where_it_was_spoken(tmp_path: Path) -> None:
    """The assistant's side has been written meanwhile."""
    with running(tmp_path) as recorder:
        recording = recorder.open(CALL, BEGAN)
        recording.leg_started()
        recording.sent(0, base64.b64encode(b"a" * 40_000))
        speak(recording, 50)
        for second in range(5):
            recording.played([Played(BEGAN + 1 + second, second * 8000, 8000)])
            recorder.flush()
        for number in range(50, 300):
            recording.frame(BEGAN + 6.0, number + 1, number * 20, frame(number))
        recording.leg_ended()
        recording.close(BEGAN + 6.0)
    left, right = channels(tmp_path / "recordings" / f"{CALL}.wav")
    assert left == frames(300)
    assert right == b"\xff" * 8000 + b"a" * 40_000


def test_a_call_without_a_leg_leaves_no_file(tmp_path: Path) -> None:
    with running(tmp_path) as recorder:
        recorder.open(CALL, BEGAN).close(BEGAN + 20.0)
    assert list(tmp_path.iterdir()) == []


def test_a_sid_that_is_none_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as recorder, pytest.raises(ValueError, match="no CallSid"):
        recorder.open("../x", BEGAN)


def test_many_calls_at_once_stay_apart(tmp_path: Path) -> None:
    with running(tmp_path) as recorder:
        calls = [f"CA{number:032x}" for number in range(30)]
        recordings = [recorder.open(call, BEGAN) for call in calls]
        for recording in recordings:
            recording.leg_started()
        for number in range(50):
            for index, recording in enumerate(recordings):
                now = BEGAN + (number + 1) * 0.020
                recording.frame(now, number + 1, number * 20, frame(number + index))
        for recording in recordings:
            recording.leg_ended()
            recording.close(BEGAN + 1.0)
    for index, call in enumerate(calls):
        assert channels(tmp_path / "recordings" / f"{call}.wav")[0] == frames(50, index)


@pytest.mark.parametrize("both", [False, True])
def test_a_thread_that_is_late_by_two_seconds_catches_up(tmp_path: Path, both: bool) -> None:
    """With 300 calls, and nothing is missing."""
    speech = base64.b64encode(b"a" * 480)
    with running(tmp_path, both=both) as recorder:
        recordings = [recorder.open(f"CA{number:032x}", BEGAN) for number in range(300)]
        for index, recording in enumerate(recordings):
            recording.leg_started()
            speak(recording, 100, index)
            if both:
                for number in range(33):
                    recording.sent(number * 480, speech)
                recording.played([Played(BEGAN, 0, 33 * 480)])
        for recording in recordings:
            recording.leg_ended()
            recording.close(BEGAN + 8.0)
        assert recorder.flush(30)
        assert (recorder.dropped, recorder.missing_seconds) == (0, 0.0)
        paths = [recorder.files.recording_path if both else recorder.files.spool_path]
        for index in range(300):
            left, *right = channels(paths[0](f"CA{index:032x}"))
            at = index * FRAME
            assert left == b"\xff" * at + frames(100, index) + b"\xff" * (64_000 - at - 16_000)
            assert right == ([b"a" * 15_840 + b"\xff" * 48_160] if both else [])


def test_no_more_than_a_batch_is_taken_at_once(tmp_path: Path) -> None:
    """The event loop waits for the GIL no longer than that takes."""
    recording = Recording(CALL, BEGAN, tmp_path / "x" / "x.wav", both=True)
    writer = recording._writer
    recording.leg_started()
    speak(recording, 120)
    left = []
    while writer.work():
        left.append(len(writer.frames))
    writer.release()
    assert left == [121 - BATCH, 121 - 2 * BATCH]
    assert channels(tmp_path / "x" / "x.wav")[0] == frames(120)


def test_the_thread_gives_the_loop_a_turn_when_it_has_worked_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRETCH_SECONDS", 0.0)
    pauses = []
    monkeypatch.setattr(module, "pause", pauses.append)
    with running(tmp_path) as recorder:
        recordings = [recorder.open(call, BEGAN) for call in (CALL, OTHER)]
        for recording in recordings:
            recording.leg_started()
            speak(recording, 120)
        assert recorder.flush()
        assert len(pauses) >= 6


def test_what_came_before_the_end_is_written(tmp_path: Path) -> None:
    """The daemon stops, calls have not been closed: their files are whole."""
    recorder = Recorder(AudioFiles(tmp_path), both=True)
    recording = recorder.open(CALL, BEGAN)
    recording.leg_started()
    speak(recording, 100)
    assert recorder.close()
    assert recorder.close()
    assert recorder.flush()
    assert channels(tmp_path / "recordings" / f"{CALL}.wav")[0] == frames(100)


# ---- adversity


def test_a_disk_that_cannot_be_written_costs_a_line_and_no_call(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "recordings").write_text("in the way")
    with running(tmp_path) as recorder:
        recording = recorder.open(CALL, BEGAN)
        recording.leg_started()
        for first in range(0, 200, 50):
            speak(recording, 50, first)
            recorder.flush()
        recording.leg_ended()
        recording.close(BEGAN + 4.0)
        recorder.flush()
        assert recorder.missing_seconds == pytest.approx(4.0)
    assert [line.split()[0] for line in lines] == ["ERROR", "WARNING"]
    assert "can't be written (File exists); the call goes on" in lines[0]
    assert "4.0 s are missing" in lines[1]


def test_a_disk_that_has_room_again_is_written_again(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    (tmp_path / "recordings").write_text("in the way")
    with running(tmp_path) as recorder:
        recording = recorder.open(CALL, BEGAN)
        recording.leg_started()
        speak(recording, 50)
        recorder.flush()
        (tmp_path / "recordings").unlink()
        speak(recording, 50, 50)
        recording.leg_ended()
        recording.close(BEGAN + 2.0)
    left, _ = channels(tmp_path / "recordings" / f"{CALL}.wav")
    assert left == b"\xff" * 8000 + frames(50, 50)
    assert len(lines) == 2


def test_while_the_disk_stands_still_memory_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is counted, and is silence; what comes later stands in its place."""
    entered, stalled = threading.Event(), threading.Event()
    real = AudioFile.write

    def stall(self: AudioFile, pieces: list[tuple[int, Piece]]) -> None:
        entered.set()
        assert stalled.wait(10)
        real(self, pieces)

    monkeypatch.setattr(AudioFile, "write", stall)
    with running(tmp_path) as recorder:
        recording = recorder.open(CALL, BEGAN)
        recording.leg_started()
        recorder.flush(0.01)
        assert entered.wait(10)
        speak(recording, INBOX_ENTRIES + 500)
        assert recording.dropped == 500
        stalled.set()
        assert recorder.flush(10)
        speak(recording, 50, INBOX_ENTRIES + 500)
        recording.leg_ended()
        recording.close(BEGAN + (INBOX_ENTRIES + 550) * 0.020)
        assert recorder.flush(10)
        assert recorder.dropped == 500
    left, _ = channels(tmp_path / "recordings" / f"{CALL}.wav")
    assert left[: INBOX_ENTRIES * 160] == frames(INBOX_ENTRIES)
    assert left[(INBOX_ENTRIES + 500) * 160 :] == frames(50, INBOX_ENTRIES + 500)
    assert left.count(b"\xff" * 8000) >= 9


def stalled_call(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> tuple[Recording, threading.Event]:
    """A call at whose first writing the disk stands still, and what lets it go on."""
    entered, going = threading.Event(), threading.Event()
    real = AudioFile.write

    def stall(self: AudioFile, pieces: list[tuple[int, Piece]]) -> None:
        entered.set()
        assert going.wait(10)
        real(self, pieces)

    monkeypatch.setattr(AudioFile, "write", stall)
    recording = recorder.open(CALL, BEGAN)
    recording.leg_started()
    recorder.flush(0.01)
    assert entered.wait(10)
    return recording, going


def test_what_was_dropped_is_told_once_with_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    with running(tmp_path) as recorder:
        recording, going = stalled_call(recorder, monkeypatch)
        speak(recording, INBOX_ENTRIES + 100)
        for number in range(INBOX_ENTRIES):
            recording.sent(number * 480, base64.b64encode(b"a" * 480))
        recording.sent(INBOX_ENTRIES * 480, base64.b64encode(b"a" * 480))
        recording.played([Played(BEGAN, 0, 8000)])
        going.set()
        recording.close(BEGAN + 22.0)
        assert recorder.flush(10)
        assert recorder.dropped > 100
        assert recorder.missing_seconds == pytest.approx(3.0, abs=0.1)
    (line,) = lines
    assert line.startswith("WARNING 3.0 s are missing in ")
    assert "3.0 s of them were dropped, the disk was too slow" in line


def test_audio_that_is_not_written_yet_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.01)
    with running(tmp_path) as recorder:
        recording, going = stalled_call(recorder, monkeypatch)
        speak(recording, 100)
        with pytest.raises(TimeoutError, match="not written yet"):
            recorder.caller_audio(CALL, 0, 1000)
        monkeypatch.setattr(module, "FLUSH_SECONDS", 10.0)
        going.set()
        assert recorder.caller_audio(CALL, 0, 1000) == frames(50)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("a mistake")])
def test_a_file_that_cannot_be_closed_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], error: Exception
) -> None:
    real = AudioFile.close

    def fail(self: AudioFile) -> None:
        real(self)
        raise error

    with running(tmp_path) as recorder:
        bad, good = recorder.open(CALL, BEGAN), recorder.open(OTHER, BEGAN)
        for recording in (bad, good):
            recording.leg_started()
            speak(recording, 50)
        with monkeypatch.context() as patch:
            patch.setattr(AudioFile, "close", fail)
            bad.close(BEGAN + 1.0)
            assert recorder.flush()
        speak(good, 50, 50)
        assert recorder.flush()
    for call, count in ((CALL, 50), (OTHER, 100)):
        assert channels(tmp_path / "recordings" / f"{call}.wav")[0] == frames(count)
    assert [line.split()[0] for line in lines if line.startswith(("ERROR", "WARNING"))] == ["ERROR"]


def test_a_thread_that_ends_unasked_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """And nobody waits for it."""
    recorder = Recorder(AudioFiles(tmp_path), both=True)

    def fail(*_: object) -> bool:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(recorder, "_work", fail)
    recorder.open(CALL, BEGAN).leg_started()
    assert not recorder.flush(10)
    assert not recorder.flush(10)
    with pytest.raises(TimeoutError):
        recorder.caller_audio(CALL, 0, 1000)
    assert not recorder.close()
    (line,) = [line for line in lines if line.startswith("ERROR")]
    assert "Nothing is recorded any more" in line


def test_a_mistake_in_one_call_does_not_stop_the_others(tmp_path: Path, lines: list[str]) -> None:
    with running(tmp_path) as recorder:
        bad, good = recorder.open(CALL, BEGAN), recorder.open(OTHER, BEGAN)
        for recording in (bad, good):
            recording.leg_started()
            speak(recording, 50)
        bad.frame(BEGAN + 2.0, 51, 1000, b"=not base64=")
        recorder.flush()
        speak(good, 50, 50)
        good.leg_ended()
    assert channels(tmp_path / "recordings" / f"{OTHER}.wav")[0] == frames(100)
    assert [line for line in lines if "The recording of this call stops here" in line]


def test_deleting_a_recording_under_way_is_final(tmp_path: Path) -> None:
    with running(tmp_path) as recorder:
        recording = recorder.open(CALL, BEGAN)
        recording.leg_started()
        speak(recording, 50)
        recorder.flush()
        assert len(recorder.files.delete(CALL)) == 1
        speak(recording, 50, 50)
    assert list((tmp_path / "recordings").iterdir()) == []


KILLED = """
import base64, sys, time
from pathlib import Path
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.recording import Recorder
recorder = Recorder(AudioFiles(Path(sys.argv[1])), both=sys.argv[2] == "both")
began = time.monotonic()
recordings = [recorder.open("CA" + digit * 32, began) for digit in "123"]
for recording in recordings:
    recording.leg_started()
for number in range(10_000):
    time.sleep(max(began + (number + 1) * 0.020 - time.monotonic(), 0))
    payload = base64.b64encode(bytes([number % 251 + 1]) * 160)
    for recording in recordings:
        recording.frame(began + (number + 1) * 0.020, number + 1, number * 20, payload)
    print(number + 1, flush=True)
"""


@pytest.mark.parametrize(("count", "both"), [(52, False), (90, True), (127, False)])
def test_kill_9_takes_less_than_the_last_second(tmp_path: Path, count: int, both: bool) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), "both" if both else "caller"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, contextlib.suppress(ProcessLookupError):
        for line in process.stdout:
            if int(line) >= count:
                os.kill(process.pid, signal.SIGKILL)
                break
    files = AudioFiles(tmp_path)
    files.repair()
    assert files.repair() == 0
    for digit in "123":
        call = "CA" + digit * 32
        left, *right = channels(files.recording_path(call) if both else files.spool_path(call))
        assert left == frames(len(left) // 160)
        assert len(left) >= (count - 50) * 160
        assert [set(each) for each in right] == [{0xFF}] * both


# ---- what it costs


def test_memory_does_not_grow_with_a_call(tmp_path: Path) -> None:
    """Ten minutes, interrupted all the time, take no more than the first half minute."""
    recording = Recording(CALL, BEGAN, tmp_path / "x" / "x.wav", both=True)
    recording.leg_started()
    speech = base64.b64encode(b"a" * 8000)
    sizes = []
    tracemalloc.start()
    try:
        for second in range(600):
            speak(recording, 50, second * 50)
            recording.sent(second * 8000, speech)
            recording.played([Played(BEGAN + second, second * 8000, 4000)])
            while recording._writer.work():
                pass
            if second in (30, 599):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    recording._writer.release()
    assert sizes[1] - sizes[0] < 50_000
    print(f"traced after 30 s and 10 min: {sizes[0]} and {sizes[1]} bytes")


def test_a_frame_costs_the_loop_next_to_nothing(tmp_path: Path) -> None:
    """The limits are far above what is measured and printed: it is no benchmark."""
    recording = Recording(CALL, BEGAN, tmp_path / "x" / "x.wav", both=True)
    recording.leg_started()
    payload = frame(1)
    take = recording.frame
    loop = min(
        timeit.repeat(
            lambda: take(1001.0, 1, 20, payload), recording._writer.frames.clear, number=1000, repeat=20
        )
    )
    recording.leg_started()
    count = 20
    spent = []
    for cycle in range(200):
        speak(recording, count, cycle * count)
        begun = time.thread_time()
        recording._writer.work()
        spent.append(time.thread_time() - begun)
    recording._writer.release()
    thread = sorted(spent)[len(spent) // 2] / count
    print(f"loop {loop * 1000:.2f} us, thread {thread * 1e6:.1f} us per frame ({count} per write)")
    assert loop / 1000 < 5e-6
    assert thread < 200e-6
