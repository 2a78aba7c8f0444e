"""`OpenAIMessageHandler`: one conversation with the OpenAI Realtime API.

Owns the connection, the session's configuration, audio that came too early, and the wish for
responses. Tells a `Listener` (the call) what happened; knows nothing of the phone.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

import orjson
from loguru import logger

from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.payload import decode, encode
from handlehome.extract.usage import usage_of_response, usage_of_transcription
from handlehome.relay.model import messages
from handlehome.relay.model.interface import Listener, ModelLost
from handlehome.relay.model.messages import APPEND_HEAD, APPEND_TAIL, InvalidEvent
from handlehome.relay.model.pcm import PcmTranscoder
from handlehome.relay.model.responses import Responses, Wish
from handlehome.relay.wheel import Timer, TimerWheel
from handlehome.relay.wire.client import HandshakeRefused, connect
from handlehome.relay.wire.connection import Connection

OPEN_SECONDS = 10.0
"""From asking for a session to its being configured."""

EARLY_AUDIO_BYTES = 80_000
"""Ten seconds of the caller's audio are kept while the session is not ready, or its socket is full."""

KEEPALIVE_SECONDS = 10.0
"""A connection from which nothing comes for this long is pinged, and given up after as long again."""

MAX_EVENT_BYTES = 20 * 2**20
"""An event may hold 15 MiB of audio as base64 text (Realtime API reference)."""

FATAL_CODES = frozenset(
    {"insufficient_quota", "invalid_api_key", "account_deactivated", "billing_hard_limit_reached"}
)
BENIGN_CODES = frozenset({"response_cancel_not_active", "input_audio_buffer_commit_empty"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the model is.

    Attributes:
        url: `wss://api.openai.com/v1/realtime`, or a simulator's `ws://` address.
        model: model name, sent as a query parameter.
        api_key: sent as a bearer token; empty for a simulator without one.
        tls: context for `wss`; one is shared by all sessions, since making one is slow.
    """

    url: str
    model: str
    api_key: str
    tls: ssl.SSLContext | None = None

    def address(self) -> str:
        """The URL with the model's name in the query."""
        separator = "&" if "?" in self.url else "?"
        return f"{self.url}{separator}model={quote(self.model)}"

    def headers(self) -> Mapping[str, str]:
        """The handshake's headers."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class OpenAIMessageHandler:
    """A `Model` over the Realtime API, and the `Receiver` of its connection.

    Args:
        endpoint: where to connect.
        session: the `session` object of the `session.update` that configures it.
        listener: is told what happens.
        pool: blocks for early audio.
        wheel: shared timers.
        call_sid: whose conversation it is, for the log.
        clock: the wheel's clock, seconds.
        transcoder: where the model does not speak the line's mu-law.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_committing",
        "_connection",
        "_direct",
        "_early",
        "_endpoint",
        "_expired",
        "_frames_seen",
        "_listener",
        "_log",
        "_opening",
        "_pinged",
        "_session",
        "_speaking",
        "_spoken_ms",
        "_started_ms",
        "_timer",
        "_transcoder",
        "_wheel",
        "heard_bytes",
        "invalid_events",
        "ready",
        "responses",
        "slow_deltas",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        session: dict[str, Any],
        listener: Listener,
        *,
        pool: FramePool,
        wheel: TimerWheel,
        call_sid: str = "",
        clock: Callable[[], float] = time.monotonic,
        transcoder: PcmTranscoder | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._session = session
        self._listener = listener
        self._wheel = wheel
        self._clock = clock
        self._transcoder = transcoder
        self._log = logger.bind(call_sid=call_sid)
        self._connection: Connection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._frames_seen = -1
        self._pinged = False
        self._early = FrameQueue(pool, EARLY_AUDIO_BYTES)
        self._direct = False  # audio may go straight to the socket
        self._closed = False
        self._committing = False  # a commit of ours is under way
        self._expired = False
        self._speaking: dict[str, str] = {}  # item whose audio is under way -> its response
        self._started_ms: dict[str, int] = {}  # caller's item that is being spoken
        self._spoken_ms: dict[str, int] = {}  # length of a caller's item that is being transcribed
        self.ready = False
        self.responses = Responses(self._send)
        self.heard_bytes = 0
        self.slow_deltas = 0
        self.invalid_events = 0

    # ---- life -----------------------------------------------------------------------------------

    def open(self) -> None:
        """Begins to connect; `model_ready` or `model_lost` follows within OPEN_SECONDS."""
        self._timer = self._wheel.at(self._clock() + OPEN_SECONDS, self._not_ready)
        self._opening = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await connect(
                self._endpoint.address(),
                self,
                headers=self._endpoint.headers(),
                ssl_context=self._endpoint.tls,
                open_timeout=OPEN_SECONDS,
                max_message=MAX_EVENT_BYTES,
            )
        except HandshakeRefused as error:
            self._lose(ModelLost.REFUSED, str(error))
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: a host name that is none
            self._lose(ModelLost.UNREACHABLE, str(error) or type(error).__name__)

    def connection_made(self, connection: Connection) -> None:
        """Configures the session at once; what is heard meanwhile waits."""
        self._connection = connection
        if self._closed:
            connection.close()
            return
        self._send(messages.session_update(self._session))

    def connection_lost(self, code: int, reason: str) -> None:
        """The socket is gone."""
        self._connection = None
        lost = ModelLost.EXPIRED if self._expired else ModelLost.DROPPED
        self._lose(lost, f"closed with {code} {reason}".strip())

    def close(self) -> None:
        """Ends the conversation; the listener is told nothing more."""
        if self._closed:
            return
        self._closed = True
        self._direct = False
        self.ready = False
        self._early.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.close()
        elif self._opening is not None:
            self._opening.cancel()

    def _lose(self, reason: ModelLost, detail: str) -> None:
        if self._closed:
            return
        self.close()
        self._listener.model_lost(reason, detail)

    def _not_ready(self) -> None:
        self._lose(ModelLost.NOT_READY, f"no session.updated within {OPEN_SECONDS:.0f} s")

    def _watch(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if connection.frames_received != self._frames_seen:
            self._pinged = False
        elif self._pinged:
            connection.abort()
            self._lose(ModelLost.SILENT, f"nothing came for {2 * KEEPALIVE_SECONDS:.0f} s")
            return
        else:
            self._pinged = True
            connection.ping()
        self._frames_seen = connection.frames_received
        self._timer = self._wheel.at(self._clock() + KEEPALIVE_SECONDS, self._watch)

    # ---- towards the model ----------------------------------------------------------------------

    def hear(self, payload: bytes, size: int) -> None:
        """Takes the caller's audio as base64 text that stands for `size` bytes. Once per frame."""
        if self._direct:
            if self._transcoder is not None:
                payload = self._transcoder.uplink(payload)
            self._connection.send_text(APPEND_HEAD + payload + APPEND_TAIL)  # type: ignore[union-attr]
        elif self._closed or not self._early.push(decode(payload)):
            return
        self.heard_bytes += size

    @property
    def dropped_bytes(self) -> int:
        """Audio that found neither a ready session nor room to wait."""
        return self._early.dropped_bytes

    def writing_paused(self) -> None:
        """The socket takes no more for the moment: audio waits."""
        self._direct = False

    def writing_resumed(self) -> None:
        """The socket takes audio again."""
        if self.ready:
            self._send_early()

    def _send_early(self) -> None:
        connection = self._connection
        while connection is not None and len(self._early):
            if connection.write_paused:
                return
            payload = encode(self._early.read(len(self._early)))
            if self._transcoder is not None:
                payload = self._transcoder.uplink(payload)
            connection.send_text(messages.append(payload))
        self._direct = connection is not None and not connection.write_paused

    def answer(self, purpose: str, instructions: str | None = None) -> None:
        """Asks the model to speak, as soon as it may."""
        self.responses.ask(Wish(purpose, instructions))

    @property
    def active_response(self) -> str | None:
        """Id of the response in progress."""
        return self.responses.active

    def cut(self, item_id: str, heard_ms: int) -> None:
        """Tells the model that only this much of its item was heard."""
        self._send(messages.item_truncate(item_id, heard_ms))

    def commit(self) -> None:
        """Ends the caller's turn here, in mid-word."""
        self._committing = True
        self._send(messages.commit())

    def cancel(self, response_id: str) -> None:
        """Stops a response in progress."""
        self._send(messages.response_cancel(f"evt_cancel_{response_id}", response_id))

    def tool_result(self, call_id: str, output: dict[str, Any]) -> None:
        """Hands in what a function returned."""
        self._send(messages.function_output(call_id, output))

    def _send(self, event: dict[str, Any]) -> None:
        if self._connection is not None:
            self._connection.send_text(orjson.dumps(event))

    # ---- from the model -------------------------------------------------------------------------

    def text_received(self, message: bytes) -> None:
        """One event of the server."""
        if self._closed:
            return
        delta = messages.parse_delta(message)
        if delta is not None:
            self._audio(*delta)
            return
        try:
            event = messages.parse_event(message)
            handler = self._HANDLERS.get(event["type"])
            if handler is not None:
                messages.check_event(event)
                handler(self, event)
        except (InvalidEvent, KeyError, TypeError, ValueError, AttributeError) as error:
            # Theirs, not ours: an event whose fields are not as documented must not end the call.
            self.invalid_events += 1
            if self.invalid_events == 1:
                self._log.warning("The model sent an event that can't be read: {!r}", error)
                self._log.opt(exception=error).debug("Where it failed")

    def binary_received(self, message: bytes) -> None:
        """The protocol has no binary messages."""
        self.invalid_events += 1

    def _session_updated(self, event: dict[str, Any]) -> None:
        if self.ready:
            return
        self.ready = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._wheel.at(self._clock() + KEEPALIVE_SECONDS, self._watch)
        self._send_early()
        self._listener.model_ready()

    def _audio_delta(self, event: dict[str, Any]) -> None:
        self.slow_deltas += 1
        self._audio(*messages.delta_of(event))

    def _audio(self, response_id: str, item_id: str, payload: bytes, size: int) -> None:
        self._speaking[item_id] = response_id
        if self._transcoder is not None:
            payload, size = self._transcoder.downlink(item_id, payload)
        self._listener.assistant_audio(response_id, item_id, payload, size)

    def _audio_done(self, event: dict[str, Any]) -> None:
        self._item_spoken(event["item_id"])

    def _item_spoken(self, item_id: str) -> None:
        self._speaking.pop(item_id, None)
        if self._transcoder is not None:
            self._transcoder.forget(item_id)
        self._listener.assistant_audio_done(item_id)

    def _speech_started(self, event: dict[str, Any]) -> None:
        self.responses.caller_speaks()
        item_id, start_ms = event["item_id"], int(event["audio_start_ms"])
        self._started_ms[item_id] = start_ms
        self._listener.caller_started(item_id, start_ms)

    def _speech_stopped(self, event: dict[str, Any]) -> None:
        item_id, end_ms = event["item_id"], int(event["audio_end_ms"])
        if item_id in self._started_ms:
            self._spoken_ms[item_id] = end_ms - self._started_ms.pop(item_id)
        self._listener.caller_stopped(item_id, end_ms)

    def _committed(self, event: dict[str, Any]) -> None:
        detection = self._session["audio"]["input"]["turn_detection"]
        # What we commit ourselves is not answered.
        answered = detection.get("create_response", True) and not self._committing
        self._committing = False
        self.responses.caller_committed(answered=answered)
        self._listener.item_placed(event["item_id"], event.get("previous_item_id"), "user")

    def _item_added(self, event: dict[str, Any]) -> None:
        item = event["item"]
        self._listener.item_placed(item["id"], event.get("previous_item_id"), item.get("role"))

    def _caller_transcript(self, event: dict[str, Any]) -> None:
        spoken_ms = self._spoken_ms.pop(event["item_id"], None)
        seconds = None if spoken_ms is None else spoken_ms / 1000
        counts = usage_of_transcription(event.get("usage"), seconds=seconds)
        if counts:
            model = self._session["audio"]["input"]["transcription"]["model"]
            self._listener.used("transcription", model, counts)
        self._listener.caller_said(event["item_id"], event["transcript"])

    def _caller_transcript_failed(self, event: dict[str, Any]) -> None:
        self._log.warning("A caller's turn could not be transcribed: {}", event.get("error"))
        self._listener.caller_said(event["item_id"], None)

    def _assistant_transcript(self, event: dict[str, Any]) -> None:
        self._listener.assistant_said(event["item_id"], event["delta"], final=False)

    def _assistant_transcript_done(self, event: dict[str, Any]) -> None:
        self._listener.assistant_said(event["item_id"], event["transcript"], final=True)

    def _response_created(self, event: dict[str, Any]) -> None:
        response = event["response"]
        ours = "purpose" in (response.get("metadata") or {})
        self.responses.created(response["id"], ours=ours)

    def _output_item_done(self, event: dict[str, Any]) -> None:
        item = event["item"]
        if item["type"] == "function_call" and item.get("status") == "completed":
            self._listener.tool_called(item["call_id"], item["name"], item.get("arguments") or "{}")

    def _response_done(self, event: dict[str, Any]) -> None:
        response = event["response"]
        response_id = response["id"]
        counts = usage_of_response(response)
        if counts:
            self._listener.used("realtime", self._endpoint.model, counts)
        for item_id in [item for item, owner in self._speaking.items() if owner == response_id]:
            self._item_spoken(item_id)
        error = (response.get("status_details") or {}).get("error") or {}
        if error.get("code") in FATAL_CODES:
            self._lose(ModelLost.REFUSED, f"{error['code']}: {error.get('message')}")
            return
        self._listener.response_done(response_id, response["status"], error.get("code") or error.get("type"))
        self.responses.done(response_id)

    def _error(self, event: dict[str, Any]) -> None:
        error = event["error"]
        code = error.get("code")
        text = f"{code or error.get('type')}: {error.get('message')}"
        if self.responses.refused(error.get("event_id"), code):
            self._log.info("The model is busy with an answer; ours is asked for again after it")
        elif code in FATAL_CODES or (error.get("event_id") == "evt_session" and not self.ready):
            self._lose(ModelLost.REFUSED, text)
        elif code == "session_expired":
            self._expired = True
            self._log.warning("The model's session has expired: {}", text)
        elif code in BENIGN_CODES:
            if code == "input_audio_buffer_commit_empty" and self._committing:
                self._committing = False
                self.responses.caller_committed(answered=False)
            self._log.debug("The model refused what was no longer needed: {}", text)
        else:
            self._log.warning("The model refused an event: {}", text)

    _HANDLERS: ClassVar[dict[str, Callable[[OpenAIMessageHandler, dict[str, Any]], None]]] = {
        "session.updated": _session_updated,
        "input_audio_buffer.speech_started": _speech_started,
        "input_audio_buffer.speech_stopped": _speech_stopped,
        "input_audio_buffer.committed": _committed,
        "conversation.item.added": _item_added,
        "conversation.item.created": _item_added,
        "conversation.item.input_audio_transcription.completed": _caller_transcript,
        "conversation.item.input_audio_transcription.failed": _caller_transcript_failed,
        "response.created": _response_created,
        "response.output_audio.delta": _audio_delta,
        "response.output_audio.done": _audio_done,
        "response.output_audio_transcript.delta": _assistant_transcript,
        "response.output_audio_transcript.done": _assistant_transcript_done,
        "response.output_item.done": _output_item_done,
        "response.done": _response_done,
        "error": _error,
    }
