"""Recording calls: the event loop hands audio over, one thread writes the files of all calls.

Theory of operation
-------------------

* **Loop.** Each call has two inboxes, one per side, into which the loop puts what there is to do, undecoded:
  0.2 us, no lock, no system call. An inbox is bounded: what comes on top while the disk stands still is
  counted, and is silence in the file.
* **Thread.** `CYCLE_SECONDS` apart it visits the calls, empties their inboxes, decodes, finds out where each
  piece belongs (see `mixdown`), and writes it there, with one or two system calls. The caller's side is due
  only every `CALLER_CYCLES` cycles, because most of the cost is per batch, not per frame; the calls take
  turns. It keeps nothing but what `mixdown` holds back. A frame of the caller's costs the thread 3 us, 20 ms
  of both sides 10 us, system calls and waking up included: with 100 calls, 5 % of a core.
* **The GIL** is the loop's as well. A system call of some us gives the loop no chance to get it, so the
  thread sleeps for a moment whenever it has worked for `STRETCH_SECONDS`, and takes no more than `BATCH`
  entries of each side before it looks whether it has.
* **Late is not lost.** A piece is written at its own place in the file, over the silence that stands there:
  a burst of frames behind a network's stall still comes to where it was spoken.
* **After a kill -9** the files hold everything up to the last second at least: the caller up to the last
  writing (but the first half second of a leg is held back for as long), the assistant up to what is known
  to have been heard by then. The files' headers are mended by `AudioFiles.repair` at the next start.
* **When the disk fails** (full, read-only), the call goes on: one line in the log, another attempt every
  `RETRY_SECONDS`, silence for what is missing, and a line at the end that says how much that is.

With `both` a call is recorded in stereo. Otherwise only the caller is kept, for transcribing what the model
did not, until whoever completes the transcript calls `discard`.
"""

from __future__ import annotations

import threading
import time
from binascii import a2b_base64
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from time import sleep as pause
from typing import Final

from loguru import logger

from handlehome.codecs.mixdown import SAMPLES_PER_SECOND, AssistantTrack, CallerTrack, Piece
from handlehome.codecs.payload import decode
from handlehome.codecs.played import Played
from handlehome.relay.audiofiles import AudioFile, AudioFiles
from handlehome.relay.logs import call_logger

CYCLE_SECONDS: Final = 0.1
"""On top of how late it is known what was heard: 0.9 s (see `tape`), together 1.0 s. Twice as long saves the
thread a tenth, and would have to be taken from `tape.BEHIND_SECONDS`: from the precision of long deltas."""

CALLER_CYCLES: Final = 4
"""The caller's audio is written when it is so many cycles old: 0.4 s. Together with the 0.5 s that are held
back at a leg's beginning (`mixdown.HOLD_SECONDS`) that is less than a second."""

INBOX_ENTRIES: Final = 1000
"""Of one side of a call: 20 s of the caller, and of both sides about 1 MB: so long a disk may stand still."""

BATCH: Final = 50
"""Entries taken at once, a second of the caller's: 0.5 ms of work if everything is odd about them."""

STRETCH_SECONDS: Final = 0.0005
PAUSE_SECONDS: Final = 0.0001
RETRY_SECONDS: Final = 5.0
"""A full disk is not cleared any faster by hand, and each attempt costs every call some system calls."""

FLUSH_SECONDS: Final = 2.0
"""Twenty cycles: a thread that takes longer waits for a disk that stands still, which may take minutes."""

CLOSE_SECONDS: Final = 5.0
"""Half of the 10 s that Docker leaves between SIGTERM and SIGKILL."""

_CALLER: Final = 0
_ASSISTANT: Final = 1

_Frame = tuple[float, int, int, bytes]
"""Of the caller's: loop time, number, the line's timestamp, base64 text."""

_Sound = tuple[int, bytes] | list[Played] | None
"""Of the assistant's: audio sent (position, base64 text), positions played, or a leg's beginning or end."""

_LEG: Final[_Frame] = (0.0, -1, -1, b"")
"""Among frames: a leg begins or ends."""


class Recording:
    """One call's recording, as the event loop sees it. Nothing here blocks.

    Args:
        call_sid: the call.
        began: loop time at which the call began, the file's beginning.
        path: of the file.
        both: record both sides, not the caller alone.
        turn: in which of `CALLER_CYCLES` cycles the caller's side is written.

    Attributes:
        file: its name, without the directory.
        dropped: frames and other entries that found the inbox full; what that cost is logged at the end.
    """

    __slots__ = ("_frames", "_sounds", "_writer", "both", "dropped", "file", "turn")

    def __init__(self, call_sid: str, began: float, path: Path, *, both: bool, turn: int = 0) -> None:
        self.both = both
        self.file = path.name
        self.dropped = 0
        self.turn = turn
        self._writer = _Writer(call_sid, began, path, 2 if both else 1)
        self._frames = self._writer.frames
        self._sounds = self._writer.sounds

    def leg_started(self) -> None:
        """A leg of the call begins; the first one opens the file."""
        self._writer.opened = True
        self.leg_ended()

    def frame(self, now: float, chunk: int, timestamp_ms: int, payload: bytes) -> None:
        """A frame of the caller's audio. Once per frame.

        Args:
            now: loop time at which it came.
            chunk: its number.
            timestamp_ms: the line's timestamp.
            payload: base64 text.
        """
        if len(self._frames) < INBOX_ENTRIES:
            self._frames.append((now, chunk, timestamp_ms, payload))
        else:
            self._drop(len(payload) * 3 // 4)

    def sent(self, start: int, payload: bytes) -> None:
        """Audio that goes to the line, as base64 text, at a position of the stream of all sent bytes."""
        if not self._sound((start, payload)):
            self._drop(0)  # `AssistantTrack.lost_bytes` tells when it is played

    def played(self, played: Iterable[Played]) -> None:
        """Positions of that stream that were played, each once and in order."""
        entry = list(played)
        if not self._sound(entry):
            self._drop(sum(each.size for each in entry))

    def leg_ended(self) -> None:
        """The leg is over."""
        self._frames.append(_LEG)
        self._sounds.append(None)

    def close(self, at: float) -> None:
        """The call ended at this loop time: nothing more comes."""
        self.leg_ended()
        self._writer.ended = at

    def _sound(self, entry: _Sound) -> bool:
        room = len(self._sounds) < INBOX_ENTRIES
        if room:
            self._sounds.append(entry)
        return room

    def _drop(self, samples: int) -> None:
        self.dropped += 1
        self._writer.dropped += samples


class _Writer:
    """The thread's part of one recording.

    Attributes:
        frames: the caller's inbox.
        sounds: the assistant's inbox.
        opened: there is something to record; set by the loop.
        ended: loop time at which the call ended; set by the loop, behind the last entry.
        closed: nothing more comes, and all that came is done.
        dropped: samples (of either side) that found an inbox full; the loop's.
        missing: others that are silence in the file, or not in it.
    """

    def __init__(self, call_sid: str, began: float, path: Path, channels: int) -> None:
        self.call_sid = call_sid
        self.frames: deque[_Frame] = deque()
        self.sounds: deque[_Sound] = deque()
        self.opened = False
        self.ended: float | None = None
        self.closed = False
        self.dropped = 0
        self.missing = 0
        self._began = began
        self._path = path
        self._channels = channels
        self._file: AudioFile | None = None
        self._caller = CallerTrack(began)
        self._assistant = AssistantTrack(began)
        self._pieces: list[tuple[int, Piece]] = []
        self._complained = False
        self._retry_at = 0.0

    def work(self, *, caller: bool = True) -> bool:
        """Takes what is in the inboxes, `BATCH` entries of each at most, and writes.

        Args:
            caller: the caller's side, too.

        Returns:
            Whether more is waiting.
        """
        ended = self.ended  # read first: what is in the inboxes now is all there was
        more = self._hear_assistant()
        if caller or ended is not None:
            more = self._hear_caller() or more
        self.closed = ended is not None and not more
        pieces, self._pieces = self._pieces, []
        if self.opened and (pieces or self.closed or self._file is None):
            self._save(pieces)
        return more

    # ---- from the inboxes to pieces

    def _hear_caller(self) -> bool:
        inbox = self.frames
        waiting = len(inbox)
        batch = [inbox.popleft() for _ in range(min(waiting, BATCH))]
        while _LEG in batch:
            end = batch.index(_LEG)
            self._place(batch[:end])
            self._keep(_CALLER, self._caller.end())
            self._caller = CallerTrack(self._began)
            del batch[: end + 1]
        self._place(batch)
        return waiting > BATCH

    def _place(self, frames: list[_Frame]) -> None:
        if frames:
            nows, numbers, stamps, payloads = zip(*frames, strict=True)
            audio = list(map(a2b_base64, payloads))  # without a call of ours (`decode`) for each
            self._keep(_CALLER, self._caller.put_all(nows, numbers, stamps, audio))

    def _hear_assistant(self) -> bool:
        inbox = self.sounds
        waiting = len(inbox)
        for _ in range(min(waiting, BATCH)):
            entry = inbox.popleft()
            if entry is None:
                self.missing += self._assistant.lost_bytes
                self._assistant = AssistantTrack(self._began)
            elif isinstance(entry, tuple):
                start, payload = entry
                self._assistant.sent(start, decode(payload))
            else:
                for played in entry:
                    self._keep(_ASSISTANT, self._assistant.played(*played))
        return waiting > BATCH

    def _keep(self, channel: int, pieces: list[Piece]) -> None:
        self._pieces += [(channel, piece) for piece in pieces]

    # ---- the file

    def _save(self, pieces: list[tuple[int, Piece]]) -> None:
        now = time.monotonic()
        if now >= self._retry_at or self.closed:
            try:
                self._write(pieces)
            except OSError as error:
                self._retry_at = now + RETRY_SECONDS
                self._complain(error)
            else:
                return
        self.missing += sum(len(piece.audio) for _, piece in pieces)

    def _write(self, pieces: list[tuple[int, Piece]]) -> None:
        if self._file is None:
            self._file = AudioFile(self._path, self._channels)
        self._file.write(pieces)
        if self.closed and self.ended is not None:
            self._file.extend(round((self.ended - self._began) * SAMPLES_PER_SECOND))

    def release(self) -> None:
        """Closes the file, and says what is not in it."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._complain(error)
            self._file = None
        if self.missing or self.dropped:
            text = "{:.1f} s are missing in {}; {:.1f} s of them were dropped, the disk was too slow"
            dropped = self.dropped / SAMPLES_PER_SECOND
            lost = self.missing / SAMPLES_PER_SECOND + dropped
            call_logger(self.call_sid).warning(text, lost, self._path, dropped)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            text = "{} can't be written ({}); the call goes on, silence stands for what is missing"
            call_logger(self.call_sid).error(text, self._path, error.strerror)


class Recorder:
    """Records calls into a data directory; one thread for all of them.

    `open` is for the event loop. `flush`, `close` and `caller_audio` wait for the disk: not for the loop.

    Args:
        files: where to.
        both: record both sides of each call; otherwise the caller's audio is kept for the transcript.
    """

    def __init__(self, files: AudioFiles, *, both: bool) -> None:
        self.files = files
        self.both = both
        self._new: deque[Recording] = deque()
        self._running: list[Recording] = []  # the thread's
        self._wake = threading.Event()
        self._done = threading.Condition()
        self._asked = self._served = 0  # flushes, counted
        self._stop = False
        self._ended = False  # as it was asked to
        self._over = False  # the thread, for whatever reason
        self._dropped = 0
        self._missing = 0
        self._opened = 0
        self._rested = 0.0  # the thread's: when it slept last
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def missing_seconds(self) -> float:
        """What could not be written, or was dropped, of the calls that have ended."""
        return self._missing / SAMPLES_PER_SECOND

    @property
    def dropped(self) -> int:
        """Frames and other entries that found an inbox full, of the calls that have ended."""
        return self._dropped

    def open(self, call_sid: str, began: float) -> Recording:
        """Begins to record a call; its file is continued if there is one.

        Args:
            call_sid: the call.
            began: loop time at which it began; before this process, for one that was resumed.

        Raises:
            ValueError: that is no CallSid.
        """
        path = self.files.recording_path(call_sid) if self.both else self.files.spool_path(call_sid)
        self._opened += 1
        turn = self._opened % CALLER_CYCLES
        recording = Recording(call_sid, began, path, both=self.both, turn=turn)
        self._new.append(recording)
        self._wake.set()
        return recording

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Waits, at most `timeout` seconds, until all that came before is written; tells whether it is."""
        with self._done:
            self._asked += 1
            ticket = self._asked
            self._wake.set()
            self._done.wait_for(lambda: self._served >= ticket or self._over, timeout)
            return self._served >= ticket or self._ended

    def caller_audio(self, call_sid: str, start_ms: float, end_ms: float) -> bytes | None:
        """As `AudioFiles.caller_audio`, up to this moment for a call that goes on.

        Raises:
            ValueError: that is no CallSid.
            TimeoutError: what came is not written yet; nobody knows what will be there.
            OSError: a file is there and can't be read.
        """
        if not self.flush(FLUSH_SECONDS):
            raise TimeoutError(f"the audio of {call_sid} is not written yet")
        return self.files.caller_audio(call_sid, start_ms, end_ms)

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Writes what came, for at most `timeout` seconds, and ends the thread; tells whether it got done."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout)
        # A thread that hangs in a system call can't be helped: it is left behind as the daemon thread it is.
        if self._thread.is_alive():
            logger.error("Recordings could not be finished within {:g} s", timeout)
            return False
        return self._ended

    # ---- the thread

    def _run(self) -> None:
        try:
            self._cycles()
        except Exception:  # the thread's boundary: nothing comes here, and if it does, nobody else would tell
            logger.opt(exception=True).error("Nothing is recorded any more, until a restart")
        finally:
            with self._done:
                self._over = True
                self._done.notify_all()

    def _cycles(self) -> None:
        cycle = 0
        while True:
            asked = self._wake.wait(CYCLE_SECONDS if self._running else None)
            self._wake.clear()
            self._rested = time.monotonic()
            stop = self._stop
            with self._done:
                ticket = self._asked
            while self._new:
                self._running.append(self._new.popleft())
            cycle = (cycle + 1) % CALLER_CYCLES
            for recording in self._running.copy():
                due = asked or recording.turn == cycle
                if (due or self.both) and self._work(recording, due, stop):
                    self._running.remove(recording)
            with self._done:
                self._served = ticket
                self._ended = self._over = stop
                self._done.notify_all()
            if stop:
                return

    def _work(self, recording: Recording, caller: bool, stop: bool) -> bool:
        """Does what there is to do for a call; tells whether nothing more comes of it."""
        writer = recording._writer
        try:
            while writer.work(caller=caller):
                self._rest()
            over = writer.closed or stop
        except Exception:  # the boundary between calls: one's mistake must not stop the others' recordings
            call_logger(writer.call_sid).opt(exception=True).error("The recording of this call stops here")
            over = True
        if over:
            try:
                writer.release()
            except Exception:  # the same boundary
                call_logger(writer.call_sid).opt(exception=True).error("This call's recording was not closed")
            self._dropped += recording.dropped
            self._missing += writer.missing + writer.dropped
        self._rest()
        return over

    def _rest(self) -> None:
        """Lets the event loop have the GIL, if the thread has worked for long."""
        if time.monotonic() - self._rested >= STRETCH_SECONDS:
            pause(PAUSE_SECONDS)
            self._rested = time.monotonic()
