"""Recording calls: the event loop hands audio over, one thread writes the files of all calls.

Theory of operation
-------------------

* **Loop.** Each call has an inbox, a deque into which the loop puts what there is to do (a frame, audio that
  was sent, positions that were played), undecoded: 0.2 us, no lock, no system call. An inbox is bounded:
  what comes on top while the disk stands still is counted, and is silence in the file.
* **Thread.** Some times a second it empties the inboxes, decodes, finds out where each piece belongs (see
  `mixdown`), and writes it there, one read and two writes per call. These release the GIL, so that the loop
  waits for the work on one call at most. It keeps nothing but what `mixdown` holds back.
* **Late is not lost.** A piece is written at its own place in the file, over the silence that stands there:
  a burst of frames behind a network's stall still comes to where it was spoken.
* **After a kill -9** the files hold everything up to the last second at least: the caller up to the last
  writing (but the first half second of a leg is held back for as long), the assistant up to what is known
  to have been heard by then.
* **When the disk fails** (full, read-only), the call goes on: one line in the log, another attempt every
  `RETRY_SECONDS`, silence for what is missing, and a line at the end that says how much that is.

With `both` a call is recorded in stereo. Otherwise only the caller is kept, for transcribing what the model
did not, until whoever completes the transcript calls `discard`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from loguru import logger

from handlehome.codecs.mixdown import SAMPLES_PER_SECOND, AssistantTrack, CallerTrack, Piece
from handlehome.codecs.payload import decode
from handlehome.codecs.played import Played
from handlehome.relay.audiofiles import AudioFile, AudioFiles
from handlehome.relay.logs import call_logger

CYCLE_SECONDS: Final = 0.1
"""What was heard is known late (see `tape`); this is on top."""

SPOOL_SECONDS: Final = 0.25
"""The same where only the caller is kept: his last words before a kill are all that depends on it."""

INBOX_ENTRIES: Final = 1500
"""Of one call, about 20 s of both sides and 1 MB at most: so long a disk may stand still."""

RETRY_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 5.0

_CALLER: Final = 0
_ASSISTANT: Final = 1


class Recording:
    """One call's recording, as the event loop sees it. Nothing here blocks.

    Args:
        call_sid: the call.
        began: loop time at which the call began, the file's beginning.
        path: of the file.
        both: record both sides, not the caller alone.

    Attributes:
        file: its name, without the directory.
        dropped: frames and other entries that found the inbox full.
    """

    __slots__ = ("_inbox", "_take_frame", "_take_played", "_take_sent", "_writer", "both", "dropped", "file")

    def __init__(self, call_sid: str, began: float, path: Path, *, both: bool) -> None:
        self.both = both
        self.file = path.name
        self.dropped = 0
        self._writer = writer = _Writer(call_sid, began, path, 2 if both else 1)
        self._inbox = writer.inbox
        self._take_frame = writer.frame
        self._take_sent = writer.sent
        self._take_played = writer.played

    def leg_started(self) -> None:
        """A leg of the call begins; the first one opens the file."""
        self._inbox.append((self._writer.leg_started, ()))

    def frame(self, now: float, chunk: int, timestamp_ms: int, payload: bytes) -> None:
        """A frame of the caller's audio. Once per frame.

        Args:
            now: loop time at which it came.
            chunk: its number.
            timestamp_ms: the line's timestamp.
            payload: base64 text.
        """
        if len(self._inbox) < INBOX_ENTRIES:
            self._inbox.append((self._take_frame, (now, chunk, timestamp_ms, payload)))
        else:
            self.dropped += 1

    def sent(self, start: int, payload: bytes) -> None:
        """Audio that goes to the line, as base64 text, at a position of the stream of all sent bytes."""
        if len(self._inbox) < INBOX_ENTRIES:
            self._inbox.append((self._take_sent, (start, payload)))
        else:
            self.dropped += 1

    def played(self, played: Iterable[Played]) -> None:
        """Positions of that stream that were played, each once and in order."""
        if len(self._inbox) < INBOX_ENTRIES:
            self._inbox.append((self._take_played, (played,)))
        else:
            self.dropped += 1

    def leg_ended(self) -> None:
        """The leg is over."""
        self._inbox.append((self._writer.leg_ended, ()))

    def close(self, at: float) -> None:
        """The call ended at this loop time: nothing more comes."""
        self._inbox.append((self._writer.call_ended, (at,)))


class _Writer:
    """The thread's part of one recording.

    Attributes:
        inbox: what is to be done: one of the methods, and its arguments.
        closed: nothing more comes.
        missing: samples (of either side) that are silence in the file, or not in it.
    """

    def __init__(self, call_sid: str, began: float, path: Path, channels: int) -> None:
        self.call_sid = call_sid
        self.inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.closed = False
        self.missing = 0
        self._began = began
        self._path = path
        self._channels = channels
        self._file: AudioFile | None = None
        self._caller: CallerTrack | None = None
        self._assistant: AssistantTrack | None = None
        self._pieces: list[tuple[int, Piece]] = []
        self._length = 0  # of the file at least, in samples
        self._opened = False  # there is something to record
        self._complained = False
        self._retry_at = 0.0

    # ---- what comes out of the inbox

    def leg_started(self) -> None:
        self.leg_ended()
        self._opened = True
        self._caller = CallerTrack(self._began)
        self._assistant = AssistantTrack(self._began)

    def frame(self, now: float, chunk: int, timestamp_ms: int, payload: bytes) -> None:
        if self._caller is not None:
            self._keep(_CALLER, self._caller.put(now, chunk, timestamp_ms, decode(payload)))

    def sent(self, start: int, payload: bytes) -> None:
        if self._assistant is not None:
            self._assistant.sent(start, decode(payload))

    def played(self, played: Iterable[Played]) -> None:
        if self._assistant is not None:
            for at, start, size in played:
                self._keep(_ASSISTANT, self._assistant.played(at, start, size))

    def leg_ended(self) -> None:
        if self._caller is not None:
            self._keep(_CALLER, self._caller.end())
        if self._assistant is not None:
            self.missing += self._assistant.lost_bytes
        self._caller = self._assistant = None

    def call_ended(self, at: float) -> None:
        self.leg_ended()
        self.closed = True
        self._length = round((at - self._began) * SAMPLES_PER_SECOND)

    def _keep(self, channel: int, pieces: list[Piece]) -> None:
        self._pieces += [(channel, piece) for piece in pieces]

    # ---- the file

    def work(self) -> None:
        """Empties the inbox and writes."""
        inbox = self.inbox
        for _ in range(len(inbox)):
            take, arguments = inbox.popleft()
            take(*arguments)
        pieces, self._pieces = self._pieces, []
        now = time.monotonic()
        if not self._opened or (not pieces and not self.closed and self._file is not None):
            return
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
        if self.closed:
            self._file.extend(self._length)

    def release(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.missing:
            seconds = self.missing / SAMPLES_PER_SECOND
            call_logger(self.call_sid).warning("{:.1f} s are missing in {}", seconds, self._path)

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
        self._ended = False
        self._dropped = 0
        self._missing = 0
        self._cycle = CYCLE_SECONDS if both else SPOOL_SECONDS
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def missing_seconds(self) -> float:
        """What could not be written of the calls that have ended."""
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
        recording = Recording(call_sid, began, path, both=self.both)
        self._new.append(recording)
        self._wake.set()
        return recording

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Waits, at most `timeout` seconds, until all that came before is written; tells whether it is."""
        with self._done:
            self._asked += 1
            ticket = self._asked
            self._wake.set()
            return self._done.wait_for(lambda: self._served >= ticket or self._ended, timeout)

    def caller_audio(self, call_sid: str, start_ms: float, end_ms: float) -> bytes | None:
        """As `AudioFiles.caller_audio`, up to this moment for a call that goes on."""
        self.flush()
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
        return True

    # ---- the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(self._cycle if self._running else None)
            self._wake.clear()
            stop = self._stop
            with self._done:
                ticket = self._asked
            while self._new:
                self._running.append(self._new.popleft())
            self._running = [recording for recording in self._running if not self._work(recording, stop)]
            with self._done:
                self._served = ticket
                self._ended = stop
                self._done.notify_all()
            if stop:
                return

    def _work(self, recording: Recording, stop: bool) -> bool:
        """Does what there is to do for a call; tells whether nothing more comes of it."""
        writer = recording._writer
        try:
            writer.work()
            over = writer.closed or stop
        except Exception:  # the boundary between calls: one's mistake must not stop the others' recordings
            call_logger(writer.call_sid).opt(exception=True).error("The recording of this call stops here")
            over = True
        if over:
            writer.release()
            self._dropped += recording.dropped
            self._missing += writer.missing
        return over
