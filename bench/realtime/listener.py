"""The ear of a session: the input audio buffer, turn detection, commits and transcriptions."""

import audioop
import binascii
import random
from collections import deque
from collections.abc import Callable

from handlehome.bench.realtime import events
from handlehome.bench.realtime.channel import LOG_LENGTH, Channel
from handlehome.bench.realtime.checks import Json, RefusedError
from handlehome.bench.realtime.config import BYTES_PER_MS
from handlehome.bench.realtime.conversation import Conversation, Item
from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.vad import EnergyVad

_APPEND_LIMIT = 15 * 1024 * 1024
_LEAST_COMMIT_MS = 100
_TO_LINEAR: dict[str, Callable[[bytes], bytes]] = {
    "audio/pcmu": lambda audio: audioop.ulaw2lin(audio, 2),
    "audio/pcma": lambda audio: audioop.alaw2lin(audio, 2),
    "audio/pcm": lambda audio: audio,
}


def decoded(encoded: str) -> bytes:
    """The audio of an append.

    Raises:
        RefusedError: Not strict base64, or more than 15 MiB.
    """
    try:
        audio = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        message = "Invalid 'audio'. Expected base64-encoded audio bytes."
        raise RefusedError("invalid_value", message, "audio") from error
    if len(audio) > _APPEND_LIMIT:
        raise RefusedError("invalid_value", "Invalid 'audio': more than 15 MiB in one event.", "audio")
    return audio


class Listener:
    """Hears the caller and makes user items of what he says.

    Args:
        channel: Where events go and timers come from.
        conversation: Where items are added.
        script: Transcripts, and whether to detect speech at all.
        rng: Draws delays.
        keep_audio: Keep the audio heard.
        note: Called with a line for people at each transcript.
        on_start: Called with the time when ``speech_started`` has been sent.
        on_stop: Called with the time when ``speech_stopped`` has been sent, before the commit.
        on_turn: Called with the time when a turn has been committed by turn detection.

    Attributes:
        audio: All audio, decoded, as it came.
        sizes: Bytes of audio in each append.
        times: When each append came; as bounded as `sizes`.
        first_at: Time of the first append.
        total: Bytes of audio in all appends.
        speaking: Id of the user item whose speech is going on.
    """

    def __init__(
        self,
        channel: Channel,
        conversation: Conversation,
        script: Script,
        rng: random.Random,
        *,
        keep_audio: bool,
        note: Callable[[str], None],
        on_start: Callable[[float], None],
        on_stop: Callable[[float], None],
        on_turn: Callable[[float], None],
    ) -> None:
        self._channel = channel
        self._conversation = conversation
        self._script = script
        self._rng = rng
        self._keep_audio = keep_audio
        self._note = note
        self._on_start = on_start
        self._on_stop = on_stop
        self._on_turn = on_turn
        self._format = "audio/pcm"
        self._bytes_per_ms = BYTES_PER_MS[self._format]
        self._vad: EnergyVad | None = None
        self._prefix_ms = 0
        self._transcription: Json | None = None
        self._items = 0
        self._at_ms = 0.0
        self._committed_ms = 0.0
        self._speech_ms = 0
        self.audio = bytearray()
        self.sizes: deque[int] = deque(maxlen=LOG_LENGTH)
        self.times: deque[float] = deque(maxlen=LOG_LENGTH)
        self.first_at: float | None = None
        self.total = 0
        self.speaking: str | None = None

    @property
    def at_ms(self) -> int:
        """Whole ms of audio written to the buffer in this session."""
        return int(self._at_ms)

    @property
    def audio_format(self) -> str:
        """Type of the format in which audio is understood."""
        return self._format

    def configure(self, audio_input: Json) -> None:
        """Takes over ``session.audio.input``, complete."""
        self._format = audio_input["format"]["type"]
        self._bytes_per_ms = BYTES_PER_MS[self._format]
        self._transcription = audio_input["transcription"]
        detection: Json | None = audio_input["turn_detection"]
        self._prefix_ms = (detection or {}).get("prefix_padding_ms", 300)
        self._vad = None
        if detection and self._script.vad == "energy" and not self._script.echo:
            self._vad = EnergyVad(detection, 24000 if self._format == "audio/pcm" else 8000)
            self._vad.force(speaking=self.speaking is not None)

    def hear(self, audio: bytes, now: float) -> None:
        """Takes the audio of one append."""
        if self.first_at is None:
            self.first_at = now
        self.sizes.append(len(audio))
        self.times.append(now)
        self.total += len(audio)
        if self._keep_audio:
            self.audio += audio
        self._at_ms += len(audio) / self._bytes_per_ms
        if self._vad is None:
            return
        for change in self._vad.feed(_TO_LINEAR[self._format](audio), self._at_ms):
            # A test's own trigger may have been first; then there is nothing left to tell.
            if change.kind == "started" and self.speaking is None:
                self._start(now, max(change.ms, int(self._committed_ms)))
            elif change.kind == "stopped" and self.speaking is not None:
                self._stop(now, change.ms)

    def start_speech(self, now: float) -> None:
        """Finds that speech has begun, whatever the audio says.

        Raises:
            ValueError: Speech is going on already.
        """
        if self.speaking is not None:
            raise ValueError("speech has already started")
        if self._vad:
            self._vad.force(speaking=True)
        self._start(now, max(int(self._committed_ms), self.at_ms - self._prefix_ms))

    def stop_speech(self, now: float) -> None:
        """Finds that speech has ended, whatever the audio says.

        Raises:
            ValueError: No speech is going on.
        """
        if self.speaking is None:
            raise ValueError("no speech has started")
        if self._vad:
            self._vad.force(speaking=False)
        self._stop(now, self.at_ms)

    def commit(self, now: float) -> None:
        """Does ``input_audio_buffer.commit``.

        Raises:
            RefusedError: Less than 100 ms of audio in the buffer.
        """
        waiting = self._at_ms - self._committed_ms
        if waiting < _LEAST_COMMIT_MS:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_LEAST_COMMIT_MS}ms of audio, but buffer only has {waiting:.2f}ms of audio."
            )
            raise RefusedError("input_audio_buffer_commit_empty", message)
        if self.speaking is None:
            self._speech_ms = int(self._committed_ms)
        if self._vad:
            self._vad.force(speaking=False)
        self._commit(now)

    def clear(self, now: float) -> None:
        """Does ``input_audio_buffer.clear``."""
        self._committed_ms = self._at_ms
        self.speaking = None
        if self._vad:
            self._vad.force(speaking=False)
        self._channel.emit(events.cleared(), now)

    def idle(self, since_ms: int, now: float) -> None:
        """Commits an empty item, because the caller has been silent for ``idle_timeout_ms``."""
        self._speech_ms = self.at_ms
        self.speaking = self._channel.new_id("item")
        self._channel.emit(events.timeout_triggered(self.speaking, since_ms, self.at_ms), now)
        self._commit(now)

    def _start(self, now: float, start_ms: int) -> None:
        self.speaking = self._channel.new_id("item")
        self._speech_ms = start_ms
        self._channel.emit(events.speech_started(self.speaking, start_ms), now)
        self._on_start(now)

    def _stop(self, now: float, end_ms: int) -> None:
        if self.speaking is None:
            raise ValueError("no speech has started")
        self._channel.emit(events.speech_stopped(self.speaking, end_ms), now)
        self._on_stop(now)
        self._commit(now)
        self._on_turn(now)

    def _commit(self, now: float) -> None:
        """Makes a user item of the speech in the buffer and has it transcribed."""
        item_id = self.speaking or self._channel.new_id("item")
        self.speaking = None
        part = {"type": "input_audio", "transcript": None}
        body = events.message_item(item_id, "user", "completed", [part])
        length = max(0, int((self._at_ms - self._speech_ms) * self._bytes_per_ms))
        audio = self.audio[max(0, len(self.audio) - length) :] if length else bytearray()
        item = Item(body, self._bytes_per_ms, generated=length, audio=audio)
        previous = self._conversation.add(item)
        self._committed_ms = self._at_ms
        self._channel.emit(events.committed(item_id, previous), now)
        self._channel.emit(events.item_added(body, previous), now)
        self._channel.emit(events.item_done(body, previous), now)
        self._transcribe(item, now)

    def _transcribe(self, item: Item, now: float) -> None:
        index = self._items
        self._items += 1
        faults = self._script.transcription_faults
        if self._transcription is None or index in faults.get("never", ()):
            return
        due = now + self._rng.uniform(*self._script.transcription_ms) / 1000
        item_id: str = item.body["id"]
        if index in faults.get("failed", ()):
            self._channel.at(due, lambda now: self._channel.emit(events.transcription_failed(item_id), now))
            return
        text = self._script.caller_text(index)
        model = self._transcription.get("model") or ""

        def completed(now: float) -> None:
            item.body["content"][0]["transcript"] = text
            usage: Json = {"type": "duration", "seconds": round(item.audio_ms / 1000, 1)}
            if "whisper" not in model:
                middle = len(text) // 2
                for delta in filter(None, (text[:middle], text[middle:])):
                    self._channel.emit(events.transcription_delta(item_id, delta), now)
                heard, written = item.audio_ms // 100, -(-len(text) // 4)
                usage = {
                    "type": "tokens",
                    "total_tokens": heard + written,
                    "input_tokens": heard,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
                    "output_tokens": written,
                }
            self._channel.emit(events.transcription_completed(item_id, text, usage), now)
            self._note(f"caller: {text}")

        self._channel.at(due, completed)
