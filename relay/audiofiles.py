"""The audio files of calls: where they are, writing into one, repairing what a kill left, taking out a part.

    DATA_DIR/recordings/<CallSid>.wav   both sides of a call, the caller left, the assistant right
    DATA_DIR/audio/<CallSid>.wav        the caller alone, until the transcript is complete

Mu-law at 8 kHz (see `wav`): exactly what was on the line, half of PCM's size, and browsers play it. A
position in a file is the call's time in samples. Directories have mode 0700, files 0600: these are voices.

A file's size says how many samples are in it; its header is behind by a second at most until it is closed.
What the kernel has been handed survives the death of this process, so nothing is synced; a power cut may take
the last seconds. `repair` mends files whose header and size disagree.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from handlehome.codecs import wav
from handlehome.codecs.mixdown import SAMPLES_PER_MS, SAMPLES_PER_SECOND, Piece, mix
from handlehome.relay.logs import call_logger

LIMIT_SAMPLES: Final = 6 * 3600 * SAMPLES_PER_SECOND
"""Twilio ends a call after four hours; what lies further out is a clock that was set."""

SPAN_SAMPLES: Final = 10 * SAMPLES_PER_SECOND
"""How much of a file is in memory at a time, at most, or else one piece."""

_CHANNELS_AT: Final = 22  # where the header says it


class AudioFile:
    """One file that is written, at any position and as often as necessary.

    Args:
        path: made if it is missing, together with its directory; else it is continued.
        channels: 1 or 2.

    Attributes:
        samples: per channel, so far.

    Raises:
        OSError: it can't be opened or written.
    """

    __slots__ = ("_channels", "_counted", "_fd", "samples")

    def __init__(self, path: Path, channels: int) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        self._channels = channels
        self.samples = max(os.fstat(self._fd).st_size - wav.HEADER_BYTES, 0) // channels
        try:
            self._write_header()
        except OSError:
            os.close(self._fd)
            raise

    def write(self, pieces: Sequence[tuple[int, Piece]]) -> None:
        """Puts pieces (each with its channel) where they belong; silence fills the file up to there.

        Raises:
            OSError: not everything could be written; what stood in the file before is still there, and the
            file is whole.
        """
        todo = [(channel, clipped) for channel, piece in pieces if (clipped := _clipped(piece)).audio]
        if not todo:
            return
        base = min([piece.at for _, piece in todo])
        end = max([piece.at + len(piece.audio) for _, piece in todo])
        if end - base > SPAN_SAMPLES and len(todo) > 1:
            for each in todo:
                self.write([each])
            return
        self._fill(base)
        if len(todo) == self._channels == 1:
            self._write(base, todo[0][1].audio)
            return
        there = b""
        if base < self.samples:
            there = os.pread(self._fd, (end - base) * self._channels, self._offset(base))
        line = bytearray(there + wav.SILENCE * ((end - base) * self._channels - len(there)))
        for channel, piece in todo:
            mix(line, base, self._channels, channel, [piece])
        self._write(base, line)

    def extend(self, samples: int) -> None:
        """Makes the file at least so long, by silence.

        Raises:
            OSError: it could not be written.
        """
        self._fill(min(samples, LIMIT_SAMPLES))

    def close(self) -> None:
        """Completes the header and releases the file; the second time nothing happens.

        Raises:
            OSError: the header could not be written; `repair` will do it. The file is released all the same.
        """
        if self._fd < 0:
            return
        try:
            # RIFF: chunks have an even size.
            self._fill(self.samples + self.samples * self._channels % 2)
            if self._counted != self.samples:
                self._write_header()
        finally:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _offset(self, at: int) -> int:
        return wav.HEADER_BYTES + at * self._channels

    def _fill(self, end: int) -> None:
        while self.samples < end:
            count = min(end - self.samples, SPAN_SAMPLES)
            self._write(self.samples, wav.SILENCE * (count * self._channels))

    def _write(self, at: int, line: bytes | bytearray) -> None:
        try:
            _write_all(self._fd, line, self._offset(at))
        except OSError:
            # What was written of it is not counted, and a reader would take it for the next chunk.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._offset(self.samples))
                self._write_header()  # in place: that takes no room
            raise
        end = at + len(line) // self._channels
        if end > self.samples:
            self.samples = end
            if end - self._counted >= SAMPLES_PER_SECOND:
                self._write_header()

    def _write_header(self) -> None:
        _write_all(self._fd, wav.header(self.samples, self._channels), 0)
        self._counted = self.samples


class AudioFiles:
    """All audio files of a data directory.

    Args:
        data_dir: the directory; what is missing in it is made when it is needed.
    """

    def __init__(self, data_dir: Path) -> None:
        self.recordings = data_dir / "recordings"
        self.spool = data_dir / "audio"

    def recording_path(self, call_sid: str) -> Path:
        """Where the recording of both sides is, if there is one.

        Raises:
            ValueError: that is no CallSid.
        """
        return self.recordings / _name(call_sid)

    def spool_path(self, call_sid: str) -> Path:
        """Where the caller's audio waits for the transcript, if it does.

        Raises:
            ValueError: that is no CallSid.
        """
        return self.spool / _name(call_sid)

    def caller_audio(self, call_sid: str, start_ms: float, end_ms: float) -> bytes | None:
        """A part of what the caller said, from the recording or the spool.

        Args:
            call_sid: the call.
            start_ms: call time, clipped to what there is.
            end_ms: call time, clipped to what there is.

        Returns:
            Mu-law; None when there is no file, or nothing of that time in it.

        Raises:
            ValueError: that is no CallSid.
            OSError: a file is there and can't be read.
        """
        best = b""
        # Two files where RECORD_CALLS was changed under a call.
        for path in (self.recording_path(call_sid), self.spool_path(call_sid)):
            with contextlib.suppress(FileNotFoundError):
                best = max(best, _left(path, round(start_ms), round(end_ms)), key=len)
        return best or None

    def discard(self, call_sid: str) -> bool:
        """Deletes the caller's audio that waited for the transcript; tells whether there was any.

        Raises:
            ValueError: that is no CallSid.
            OSError: it can't be deleted.
        """
        return bool(_delete([self.spool_path(call_sid)]))

    def delete(self, call_sid: str) -> list[Path]:
        """Deletes all audio of a call; gives the files that were there.

        Raises:
            ValueError: that is no CallSid.
            OSError: one can't be deleted.
        """
        return _delete([self.recording_path(call_sid), self.spool_path(call_sid)])

    def expire_recordings(self, before: float) -> int:
        """Deletes the recordings that were last written before a time (seconds since the epoch); how many.

        Raises:
            OSError: one can't be deleted.
        """
        return _expire(self.recordings, before)

    def expire_spools(self, before: float) -> int:
        """Deletes what has waited for a transcript since before a time (seconds since the epoch); how many.

        Raises:
            OSError: one can't be deleted.
        """
        return _expire(self.spool, before)

    def repair(self) -> int:
        """Mends the files that a process left unfinished; to be called while nothing is written.

        A header that is all zeros (a power cut: the size was kept, that block was not) is written anew. Files
        that hold nothing behind their header are removed; what is none of ours is left alone.

        Returns:
            How many there were.
        """
        both = sum(_repair(path, 2) for path in _wavs(self.recordings))
        return both + sum(_repair(path, 1) for path in _wavs(self.spool))


def _name(call_sid: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]{1,64}", call_sid):
        raise ValueError(f"{call_sid!r} is no CallSid")
    return f"{call_sid}.wav"


def _clipped(piece: Piece) -> Piece:
    at, audio = piece
    if at >= 0 and at + len(audio) <= LIMIT_SAMPLES:
        return piece
    if at < 0:
        at, audio = 0, audio[-at:]
    return Piece(at, audio[: max(LIMIT_SAMPLES - at, 0)])


def _write_all(fd: int, data: bytes | bytearray, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        offset += written
        rest = rest[written:]


def _left(path: Path, start_ms: int, end_ms: int) -> bytes:
    """A part of a file's first channel; the file may be in the middle of being written."""
    with path.open("rb", buffering=0) as file:
        channels = (file.read(_CHANNELS_AT + 1)[_CHANNELS_AT:] or b"\1")[0] or 1
        there = max(os.fstat(file.fileno()).st_size - wav.HEADER_BYTES, 0) // channels
        start = max(start_ms, 0) * SAMPLES_PER_MS
        end = min(end_ms * SAMPLES_PER_MS, there)
        file.seek(wav.HEADER_BYTES + start * channels)
        samples = file.read(max(end - start, 0) * channels)
    return samples[: len(samples) // channels * channels : channels]


def _delete(paths: Iterable[Path]) -> list[Path]:
    there = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            there.append(path)
    return there


def _expire(folder: Path, before: float) -> int:
    return len(_delete(path for path in _wavs(folder) if _written(path) < before))


def _written(path: Path) -> float:
    """When a file was written last; infinite for one that is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _wavs(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob("*.wav"))) if folder.is_dir() else iter(())


def _repair(path: Path, channels: int) -> bool:
    """Makes a file's header and its size agree; False: they do, or it is none of ours.

    Args:
        path: the file.
        channels: that the folder's files have; a header that says something else is believed.
    """
    log = call_logger(path.stem)
    try:
        with path.open("r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(wav.HEADER_BYTES)
            if size < wav.HEADER_BYTES or (size == wav.HEADER_BYTES and not any(head)):
                path.unlink()
                log.warning("Removed {}: it held no audio", path.name)
                return True
            if any(head):
                channels = head[_CHANNELS_AT]
            samples = (size - wav.HEADER_BYTES) // channels if channels else 0
            # A pad byte that was not written yet belongs to a sample.
            samples -= samples * channels % 2
            whole = wav.header(samples, channels)
            if head == whole and size == len(whole) + samples * channels:
                return False
            if any(head) and (head[8:46], head[50:54]) != (whole[8:46], whole[50:54]):
                return False
            file.truncate(len(whole) + samples * channels)
            file.seek(0)
            file.write(whole)
    except OSError as error:
        log.error("{} can't be repaired: {}", path, error.strerror)
        return False
    log.warning("Repaired {}: {:.1f} s of the call are there", path, samples / SAMPLES_PER_SECOND)
    return True
