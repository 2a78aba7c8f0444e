"""Audio files of calls: written at any place, whole when closed, repaired, read in part, deleted."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from handlehome.codecs import wav
from handlehome.codecs.mixdown import Piece
from handlehome.relay.audiofiles import LIMIT_SAMPLES, SPAN_SAMPLES, AudioFile, AudioFiles

CALL = "CA" + "1" * 32


@pytest.fixture
def files(tmp_path: Path) -> AudioFiles:
    return AudioFiles(tmp_path)


def content(path: Path) -> tuple[bytes, ...]:
    """The channels of a file that has to be whole."""
    data = path.read_bytes()
    read = wav.read(data)
    assert (read.tag, read.rate) == (wav.Tag.ULAW, 8000)
    assert len(data) == wav.HEADER_BYTES + sum(map(len, read.channels))
    return read.channels


def write(path: Path, *channels: bytes) -> bytes:
    """A whole file of ours; gives its bytes."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(wav.write(*channels))
    return path.read_bytes()


pieces_of = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-20, 90), st.binary(max_size=30)), min_size=1, max_size=6
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(pieces_of, max_size=6), st.integers(1, 2))
def test_pieces_come_to_their_places_and_the_file_is_whole_when_closed(
    tmp_path: Path, writes: list[list[tuple[int, int, bytes]]], channels: int
) -> None:
    path = tmp_path / "recordings" / "x.wav"
    path.unlink(missing_ok=True)
    want = [bytearray(b"\xff" * 200) for _ in range(channels)]
    for pieces in writes:
        # Each time as a process that comes after the one before.
        file = AudioFile(path, channels)
        file.write([(channel % channels, Piece(at, audio)) for channel, at, audio in pieces])
        assert file.samples <= 122
        file.close()
        for channel, at, audio in pieces:
            for index, code in enumerate(audio):
                if at + index >= 0:
                    want[channel % channels][at + index] = code
        for channel, samples in zip(want, content(path), strict=True):
            assert samples == channel[: len(samples)]
            assert set(channel[len(samples) :]) <= {0xFF}


def test_pieces_far_apart_take_no_more_memory_than_one(tmp_path: Path) -> None:
    file = AudioFile(tmp_path / "a" / "x.wav", 2)
    file.write([(0, Piece(3 * SPAN_SAMPLES, b"abc")), (1, Piece(1, b"def"))])
    file.close()
    left, right = content(tmp_path / "a" / "x.wav")
    assert left == b"\xff" * 3 * SPAN_SAMPLES + b"abc"
    assert right[:5] == b"\xffdef\xff"


def test_what_lies_beyond_any_call_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.wav"
    file = AudioFile(path, 1)
    file.write([(0, Piece(LIMIT_SAMPLES + 5, b"abc")), (0, Piece(0, b"ab"))])
    assert file.samples == 2
    file.close()
    assert content(path) == (b"ab",)


def test_a_file_is_made_as_long_as_its_call(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.wav"
    file = AudioFile(path, 1)
    file.write([(0, Piece(0, b"abc"))])
    file.extend(10)
    file.extend(5)
    file.close()
    file.close()
    assert content(path) == (b"abc" + b"\xff" * 7,)


def test_the_header_follows_once_a_second_and_at_the_end(files: AudioFiles) -> None:
    path = files.spool_path(CALL)
    file = AudioFile(path, 1)
    for tenth in range(25):
        file.write([(0, Piece(tenth * 800, b"a" * 800))])
        data = path.read_bytes()
        assert len(data) == wav.HEADER_BYTES + (tenth + 1) * 800
        assert data.startswith(wav.header((tenth + 1) // 10 * 8000, 1))
        assert files.caller_audio(CALL, tenth * 100, 9e9) == b"a" * 800
    file.close()
    assert content(path) == (b"a" * 20_000,)


def test_a_piece_of_odd_length_is_padded_at_the_end(files: AudioFiles) -> None:
    """As RIFF wants it; in between the next piece follows without a gap."""
    file = AudioFile(files.spool_path(CALL), 1)
    file.write([(0, Piece(0, b"abc"))])
    file.write([(0, Piece(3, b"de"))])
    file.close()
    assert content(files.spool_path(CALL)) == (b"abcde\xff",)


def test_a_header_that_cannot_be_completed_is_left_to_repair(
    files: AudioFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AudioFile(files.spool_path(CALL), 1)
    file.write([(0, Piece(0, b"abcd"))])

    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            file.close()
    file.close()
    assert files.repair() == 1
    assert content(files.spool_path(CALL)) == (b"abcd",)


FULL = """
import resource, sys
from pathlib import Path
from handlehome.codecs import wav
from handlehome.codecs.mixdown import Piece
from handlehome.relay.audiofiles import AudioFile
path, channels = Path(sys.argv[1]), int(sys.argv[2])
file = AudioFile(path, channels)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
for at in range(0, 100_000, 700):
    try:
        file.write([(0, Piece(at, b"a" * 700))])
    except OSError:
        break
assert file.samples == at < 20_000
assert wav.read(path.read_bytes()).channels[0] == b"a" * at
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
file.write([(0, Piece(at + 700, b"b" * 700))])
file.close()
print(at)
"""


@pytest.mark.parametrize("channels", [1, 2])
def test_on_a_full_disk_a_file_is_whole_and_goes_on_when_there_is_room(
    files: AudioFiles, channels: int
) -> None:
    """The limit on a process's files ends a write halfway, as a full disk does."""
    path = files.recording_path(CALL)
    command = [sys.executable, "-c", FULL, str(path), str(channels)]
    at = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    left, *right = content(path)
    assert left == b"a" * at + b"\xff" * 700 + b"b" * 700
    assert right == [b"\xff" * len(left)] * (channels - 1)


def test_a_file_that_cannot_be_closed_is_not_closed_twice(
    files: AudioFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then its number may be another file's."""
    file = AudioFile(files.spool_path(CALL), 1)
    closed = []

    def fail(fd: int) -> None:
        closed.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        with pytest.raises(OSError, match="Input/output"):
            file.close()
        file.close()
    os.close(closed[0])
    assert len(closed) == 1


def test_nobody_else_may_listen(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        AudioFile(tmp_path / "recordings" / "x.wav", 2).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "recordings").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "recordings" / "x.wav").stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.wav").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        AudioFile(tmp_path / "x.wav", 2)
    assert not (tmp_path / "elsewhere").exists()


# ---- parts


@pytest.mark.parametrize("kind", ["recording", "spool"])
def test_a_part_of_what_the_caller_said_is_had_from_either_kind(files: AudioFiles, kind: str) -> None:
    caller = bytes(range(250)) * 32  # one second
    if kind == "recording":
        write(files.recording_path(CALL), caller, b"a" * 8000)
    else:
        write(files.spool_path(CALL), caller)
    assert files.caller_audio(CALL, 0, 1000) == caller
    assert files.caller_audio(CALL, 100, 200.4) == caller[800:1600]
    assert files.caller_audio(CALL, -500, 10) == caller[:80]
    assert files.caller_audio(CALL, 990, 99_000) == caller[-80:]
    assert files.caller_audio(CALL, 1000, 2000) is None
    assert files.caller_audio(CALL, 500, 400) is None


def test_a_file_that_has_only_begun_has_no_parts(files: AudioFiles) -> None:
    data = write(files.spool_path(CALL), b"abcd")
    for size in range(wav.HEADER_BYTES + 1):
        files.spool_path(CALL).write_bytes(data[:size])
        assert files.caller_audio(CALL, 0, 1000) is None


def test_a_call_without_audio_has_no_parts(files: AudioFiles) -> None:
    assert files.caller_audio(CALL, 0, 1000) is None


def test_of_two_files_the_one_that_has_it_is_taken(files: AudioFiles) -> None:
    """RECORD_CALLS was changed while the call went on."""
    write(files.recording_path(CALL), b"a" * 8000, b"b" * 8000)
    write(files.spool_path(CALL), b"\xff" * 8000 + b"c" * 8000)
    assert files.caller_audio(CALL, 1000, 2000) == b"c" * 8000


# ---- deleting


def test_what_waited_for_the_transcript_is_deleted_and_the_recording_is_not(files: AudioFiles) -> None:
    write(files.recording_path(CALL), b"", b"")
    write(files.spool_path(CALL), b"")
    assert files.discard(CALL)
    assert not files.discard(CALL)
    assert files.recording_path(CALL).exists()


def test_deleting_a_call_says_what_was_there(files: AudioFiles) -> None:
    write(files.recording_path(CALL), b"", b"")
    write(files.spool_path(CALL), b"")
    assert files.delete(CALL) == [files.recording_path(CALL), files.spool_path(CALL)]
    assert files.delete(CALL) == []


def test_what_is_old_enough_is_deleted_kind_by_kind(files: AudioFiles) -> None:
    for age, digit in ((100, "1"), (50, "2"), (10, "3")):
        for path in (files.recording_path("CA" + digit), files.spool_path("CA" + digit)):
            write(path, b"")
            os.utime(path, (1000 - age, 1000 - age))
    assert files.expire_spools(925) == 1
    assert files.expire_spools(925) == 0
    assert files.expire_recordings(960) == 2
    assert [path.name for path in sorted(files.spool.iterdir())] == ["CA2.wav", "CA3.wav"]
    assert [path.name for path in files.recordings.iterdir()] == ["CA3.wav"]


def test_a_file_that_is_deleted_meanwhile_stops_no_expiry(
    files: AudioFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for digit in "123":
        path = files.spool_path("CA" + digit)
        write(path, b"")
        os.utime(path, (900, 900))
    real = Path.stat

    def discarded(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self.name == "CA2.wav":
            self.unlink(missing_ok=True)
        return real(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", discarded)
    assert files.expire_spools(925) == 2


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x.wav", "CA1\n", "CA 1", "é", "a" * 65])
def test_only_a_sid_names_a_file(files: AudioFiles, name: str) -> None:
    for ask in (files.recording_path, files.spool_path, files.discard, files.delete):
        with pytest.raises(ValueError, match="no CallSid"):
            ask(name)


# ---- repair


@pytest.fixture
def lines() -> Iterator[list[str]]:
    kept: list[str] = []
    sink = logger.add(kept.append, format="{message}")
    yield kept
    logger.remove(sink)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("torn", [0, 1, 2, 3, 320])
def test_what_was_written_behind_the_last_header_is_kept(
    files: AudioFiles, lines: list[str], channels: int, torn: int
) -> None:
    path = files.recording_path(CALL)
    data = write(path, *[b"abcd"] * channels)
    path.write_bytes(data + b"x" * torn)
    assert files.repair() == (torn > 0)
    assert len(lines) == (torn > 0)
    for samples in content(path):
        assert samples.startswith(b"abcd")
        assert len(samples) == 4 + torn // channels - torn % 2 * (channels == 1)
    assert files.repair() == 0


def test_samples_that_a_power_cut_took_are_not_counted(files: AudioFiles, lines: list[str]) -> None:
    path = files.spool_path(CALL)
    path.parent.mkdir()
    path.write_bytes(wav.header(8000, 1) + b"a" * 4000)
    assert files.repair() == 1
    assert content(path) == (b"a" * 4000,)
    assert lines == [f"Repaired {path}: 0.5 s of the call are there\n"]


def test_a_file_that_holds_no_audio_is_removed(files: AudioFiles, lines: list[str]) -> None:
    path = files.recording_path(CALL)
    data = write(path, b"ab", b"cd")
    path.write_bytes(data[:40])
    assert files.repair() == 1
    assert not path.exists()
    assert len(lines) == 1


@pytest.mark.parametrize("kind", ["recording", "spool"])
def test_a_header_that_a_power_cut_has_zeroed_costs_no_audio(
    files: AudioFiles, lines: list[str], kind: str
) -> None:
    """How many channels there are says the folder."""
    path, channels = (files.recording_path(CALL), 2) if kind == "recording" else (files.spool_path(CALL), 1)
    data = write(path, *[b"abcd" * 30_000] * channels)
    path.write_bytes(bytes(4096) + data[4096:])
    assert files.repair() == 1
    for samples in content(path):
        assert len(samples) == 120_000
        assert samples[4096:] == (b"abcd" * 30_000)[4096:]
    assert files.repair() == 0
    assert len(lines) == 1


def test_zeros_and_nothing_else_are_no_recording(files: AudioFiles) -> None:
    path = files.recording_path(CALL)
    path.parent.mkdir()
    path.write_bytes(bytes(wav.HEADER_BYTES))
    assert files.repair() == 1
    assert not path.exists()


def test_a_file_whose_header_has_no_channels_is_left_alone(files: AudioFiles, lines: list[str]) -> None:
    path = files.spool / "music.wav"
    foreign = bytearray(write(path, b"a" * 8000))
    foreign[22] = 0
    path.write_bytes(foreign)
    assert files.repair() == 0
    assert path.read_bytes() == foreign
    assert lines == []


def test_files_of_others_are_left_alone(files: AudioFiles, lines: list[str]) -> None:
    path = files.recordings / "music.wav"
    files.recordings.mkdir()
    foreign = wav.write(b"abcd", b"efgh", tag=wav.Tag.PCM) + b"more"
    path.write_bytes(foreign)
    assert files.repair() == 0
    assert path.read_bytes() == foreign
    assert lines == []


def test_what_cannot_be_repaired_stops_nothing(files: AudioFiles, lines: list[str]) -> None:
    good = files.recordings / "b.wav"
    write(good, b"ab")
    good.write_bytes(good.read_bytes() + b"cd")
    (files.recordings / "a.wav").mkdir()
    assert files.repair() == 1
    assert content(good) == (b"abcd",)
    assert [line for line in lines if "a.wav can't be repaired" in line]


def test_nothing_to_repair_in_a_new_directory(files: AudioFiles) -> None:
    assert files.repair() == 0
    assert not files.recordings.exists()
