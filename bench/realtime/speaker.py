"""The model's side of a session: from ``response.created`` through the deltas to ``response.done``."""

import base64
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from handlehome.bench.realtime import events
from handlehome.bench.realtime.channel import LOG_LENGTH, Channel
from handlehome.bench.realtime.checks import Json, RefusedError
from handlehome.bench.realtime.config import BYTES_PER_MS
from handlehome.bench.realtime.conversation import Conversation, Item
from handlehome.bench.realtime.response import Piece, Response, Status, plan
from handlehome.bench.realtime.script import Answer

_LATE_S = (0.0, 0.010)
"""How far apart late deltas, and the cancellation behind them, follow ``speech_started``."""


class SentDelta(NamedTuple):
    """One audio delta that was sent."""

    t: float
    """Monotonic seconds."""
    item_id: str
    size: int
    """Bytes of audio."""


class Speaker:
    """Runs responses: one at a time in the default conversation, any number outside it.

    Args:
        channel: Where events go and timers come from.
        conversation: Where items are added.
        session: Gives the effective configuration.
        rng: Draws delays and sizes.
        on_done: Called with each response when its ``response.done`` is sent.
        keep_audio: Keep what was said in the items.

    Attributes:
        active: The response under way in the default conversation.
        spoken: Audio has been sent in this session.
        deltas: Log of audio deltas, those of echo mode left out; bounded.
    """

    def __init__(
        self,
        channel: Channel,
        conversation: Conversation,
        session: Callable[[], Json],
        rng: random.Random,
        on_done: Callable[[Response, float], None],
        *,
        keep_audio: bool,
    ) -> None:
        self._channel = channel
        self._conversation = conversation
        self._session = session
        self._rng = rng
        self._on_done = on_done
        self._keep_audio = keep_audio
        self._conversation_id = channel.new_id("conv")
        self._aside: dict[str, Response] = {}
        self._requests_left, self._tokens_left = 1000, 50000
        self._last_input = 0
        self.active: Response | None = None
        self.spoken = False
        self.deltas: deque[SentDelta] = deque(maxlen=LOG_LENGTH)

    def create(self, answer: Callable[[], Answer], request: Json, now: float) -> Response:
        """Starts a response.

        Args:
            answer: Gives what it says; called only when the response is really created.
            request: ``response`` of the client's ``response.create``; {} when turn detection makes it.
            now: Monotonic seconds.

        Raises:
            RefusedError: One is active in the default conversation already.
        """
        aside = request.get("conversation") == "none"
        if self.active and not aside:
            message = (
                f"Conversation already has an active response in progress: {self.active.response_id}. "
                "Wait until the response is finished before creating a new one."
            )
            raise RefusedError("conversation_already_has_active_response", message)
        response = self._new(answer(), request, aside)
        self._announce(response, now)
        response.started_at = now + self._rng.uniform(*response.answer.think_ms) / 1000
        self._next(response, response.started_at, self._begin)
        return response

    def open_endless(self, now: float) -> Response:
        """The one response of echo mode, ready for deltas; started if it isn't yet."""
        if self.active:
            return self.active
        response = self._new(Answer(audio=b"\xff"), {}, False)
        response.pieces.clear()
        self._announce(response, now)
        self._open_message(response, now)
        return response

    def interrupt(self, late_deltas: int, now: float) -> None:
        """Cancels the active response because the caller speaks; some late deltas still go out."""
        response = self.active
        if response is None or response.reason is not None:
            return
        response.reason = "turn_detected"
        response.late = late_deltas if response.audio_bytes else 0
        self._late(response, now)

    def settle(self, now: float) -> None:
        """Tells a cancellation that is still waiting for late deltas."""
        if self.active and self.active.reason is not None:
            self._finish(self.active, "cancelled", now)

    def cancel(self, response_id: str | None, now: float) -> None:
        """Does ``response.cancel``.

        Raises:
            RefusedError: Nothing is running (under this id).
        """
        response = self.active if response_id is None else self._aside.get(response_id)
        if response is None and self.active and self.active.response_id == response_id:
            response = self.active
        if response is None:
            message = "Cancellation failed: no active response found"
            raise RefusedError("response_cancel_not_active", message)
        response.reason = response.reason or "client_cancelled"
        self._finish(response, "cancelled", now)

    def _new(self, answer: Answer, request: Json, aside: bool) -> Response:
        session = self._session()
        modality: str = (request.get("output_modalities") or session["output_modalities"])[0]
        output = {**session["audio"]["output"], **request.get("audio", {}).get("output", {})}
        audio_type: str = output["format"]["type"]
        pieces = plan(answer, audio_type if modality == "audio" else None, self._rng)
        response = Response(self._channel.new_id("resp"), answer, request, modality, aside, pieces)
        response.bytes_per_ms = BYTES_PER_MS[audio_type]
        if aside:
            self._aside[response.response_id] = response
        else:
            self.active = response
        return response

    def _announce(self, response: Response, now: float) -> None:
        body = response.body(self._session(), self._conversation_id, None)
        self._channel.emit(events.response_created(body), now)

    def _next(self, response: Response, when: float, step: Callable[[Response, float], None]) -> None:
        """Schedules the response's next step, in place of the one scheduled before."""
        response.timer += 1
        timer = response.timer

        def run(now: float) -> None:
            if response.timer == timer and response.status == "in_progress":
                step(response, now)

        self._channel.at(when, run)

    def _begin(self, response: Response, now: float) -> None:
        if response.pieces:
            self._open_message(response, now)
            self._speak(response, now)
        else:
            self._conclude(response, now)

    def _open_message(self, response: Response, now: float) -> None:
        item_id = self._channel.new_id("item")
        response.message = events.message_item(item_id, "assistant", "in_progress", [])
        self._add_item(response, response.message, now)
        part: Json = {"type": "audio", "transcript": ""}
        if response.modality == "text":
            part = {"type": "text", "text": ""}
        added = events.content("content_part.added", response.response_id, item_id, part=part)
        self._channel.emit(added, now)

    def _add_item(self, response: Response, body: Json, now: float) -> None:
        index = len(response.output)
        self._channel.emit(events.output_item_added(response.response_id, index, body), now)
        if not response.out_of_band:
            previous = self._conversation.add(Item(dict(body), response.bytes_per_ms))
            self._channel.emit(events.item_added(body, previous), now)

    def _speak(self, response: Response, now: float) -> None:
        """Sends the deltas that are due, on their absolute deadlines."""
        while response.pieces:
            due = response.started_at + response.pieces[0].at_s
            if due > now + 0.0005:
                self._next(response, due, self._speak)
                return
            self._say(response, response.pieces.popleft(), now)
            if self._channel.over:
                return
        self._conclude(response, now)

    def _say(self, response: Response, piece: Piece, now: float) -> None:
        if isinstance(piece.data, bytes):
            self.say_audio(response, base64.b64encode(piece.data).decode(), piece.data, now)
            return
        response.said += piece.data
        kind = "output_audio_transcript.delta" if response.modality == "audio" else "output_text.delta"
        self._channel.emit(self._content(response, kind, delta=piece.data), now)

    def say_audio(
        self, response: Response, encoded: str, audio: bytes, now: float, *, log: bool = True
    ) -> None:
        """Sends one audio delta and counts it in its item.

        Args:
            response: An open response with its message added.
            encoded: The audio in base64, sent as it is.
            audio: The audio.
            now: Monotonic seconds.
            log: Keep the event in the log and the audio in the item; without, only the count is kept, and the
                event is built by hand (echo mode sends 50 a second and session).
        """
        if response.message is None:
            raise ValueError("the response has no message")
        item_id: str = response.message["id"]
        item = self._conversation.items.get(item_id)
        response.audio_bytes += len(audio)
        if item:
            item.generated += len(audio)
        if response.spoken_at is None:
            response.spoken_at = now
            self.spoken = True
        if log:
            if item and item.kept_ms is None and self._keep_audio:
                item.audio += audio
            self._channel.emit(self._content(response, "output_audio.delta", delta=encoded), now)
            self.deltas.append(SentDelta(now, item_id, len(audio)))
            return
        event_id = self._channel.new_id("event")
        self._channel.emit_raw(
            f'{{"type":"response.output_audio.delta","event_id":"{event_id}",'
            f'"response_id":"{response.response_id}","item_id":"{item_id}",'
            f'"output_index":0,"content_index":0,"delta":"{encoded}"}}'.encode()
        )

    def _content(self, response: Response, kind: str, **fields: object) -> Json:
        if response.message is None:
            raise ValueError("the response has no message")
        return events.content(kind, response.response_id, response.message["id"], **fields)

    def _late(self, response: Response, now: float) -> None:
        """Lets the next late delta out, or tells the cancellation when there is none left."""
        while response.pieces and isinstance(response.pieces[0].data, str):
            response.pieces.popleft()
        if not response.late or not response.pieces:
            self._next(response, now + self._rng.uniform(*_LATE_S), self._cancelled)
            return
        response.late -= 1
        piece = response.pieces.popleft()

        def say(response: Response, now: float) -> None:
            self._say(response, piece, now)
            self._late(response, now)

        self._next(response, now + self._rng.uniform(*_LATE_S), say)

    def _cancelled(self, response: Response, now: float) -> None:
        self._finish(response, "cancelled", now)

    def _conclude(self, response: Response, now: float) -> None:
        """Everything has been said: the function call, if there is one, and the end."""
        answer = response.answer
        if answer.fail:
            self._finish(response, "failed", now)
            return
        if answer.incomplete:
            response.reason = answer.incomplete
            self._finish(response, "incomplete", now)
            return
        self._close_message(response, "completed", now)
        if answer.function_call:
            self._call(response, *answer.function_call, now)
        self._finish(response, "completed", now)

    def _call(self, response: Response, name: str, arguments: str, now: float) -> None:
        item_id, call_id = self._channel.new_id("item"), self._channel.new_id("call")
        body = events.function_call_item(item_id, call_id, name, "", "in_progress")
        index = len(response.output)
        self._add_item(response, body, now)
        for start in range(0, len(arguments), 12):
            delta = arguments[start : start + 12]
            self._channel.emit(events.arguments_delta(response.response_id, body, index, delta), now)
        self._channel.emit(events.arguments_done(response.response_id, body, index, arguments), now)
        done = events.function_call_item(item_id, call_id, name, arguments, "completed")
        self._item_done(response, done, now)

    def _item_done(self, response: Response, body: Json, now: float) -> None:
        self._channel.emit(events.output_item_done(response.response_id, len(response.output), body), now)
        response.output.append(body)
        item = self._conversation.items.get(body["id"])
        if item is None:
            return
        item.body = body
        if item.kept_ms is not None:
            parts = [{key: part[key] for key in part if key != "transcript"} for part in body["content"]]
            item.body = {**body, "content": parts}
        self._channel.emit(events.item_done(item.body, self._conversation.previous(body["id"])), now)

    def _close_message(self, response: Response, status: str, now: float) -> None:
        if response.message is None or response.output:
            return
        said = response.said
        if response.modality == "audio":
            self._channel.emit(self._content(response, "output_audio.done"), now)
            transcript = self._content(response, "output_audio_transcript.done", transcript=said)
            self._channel.emit(transcript, now)
            part = {"type": "audio", "transcript": said}
        else:
            self._channel.emit(self._content(response, "output_text.done", text=said), now)
            part = {"type": "text", "text": said}
        self._channel.emit(self._content(response, "content_part.done", part=part), now)
        self._item_done(response, response.message_body(status), now)

    def _finish(self, response: Response, status: Status, now: float) -> None:
        self._close_message(response, "completed" if status == "completed" else "incomplete", now)
        response.status = status
        response.timer += 1
        response.pieces = deque()
        error: Json | None = None
        if status == "failed":
            code = response.answer.fail
            error = {"type": "server_error", "code": code, "message": f"The model failed: {code}."}
        if response.out_of_band:
            del self._aside[response.response_id]
        else:
            self.active = None
        body = response.body(self._session(), self._conversation_id, self._usage(response), error)
        self._channel.emit(events.response_done(body), now)
        self._channel.emit(events.rate_limits_updated(self._requests_left, self._tokens_left), now)
        self._on_done(response, now)

    def _usage(self, response: Response) -> Json:
        """Tokens of this response: the whole conversation in, what was said out."""
        text, audio = self._conversation.tokens()
        said = -(-len(response.said) // 4)
        spoken = response.audio_bytes // response.bytes_per_ms // 50
        text = max(0, text - said) + -(-len(self._session()["instructions"]) // 4)
        audio = max(0, audio - spoken)
        cached = min(self._last_input // 64 * 64, text)
        self._last_input = text + audio
        total = text + audio + said + spoken
        self._requests_left -= 1
        self._tokens_left -= total
        return {
            "total_tokens": total,
            "input_tokens": text + audio,
            "output_tokens": said + spoken,
            "input_token_details": {
                "text_tokens": text,
                "audio_tokens": audio,
                "image_tokens": 0,
                "cached_tokens": cached,
                "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": said, "audio_tokens": spoken},
        }
