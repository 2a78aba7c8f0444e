"""One Realtime session as the server sees it: pure protocol logic, with time as an argument and no socket."""

import binascii
import random
from collections import deque
from collections.abc import Callable

import orjson

from handlehome.bench.realtime import events, schema
from handlehome.bench.realtime.channel import LOG_LENGTH, Channel
from handlehome.bench.realtime.checks import Json, RefusedError
from handlehome.bench.realtime.config import default_session, merged
from handlehome.bench.realtime.conversation import Conversation, Item
from handlehome.bench.realtime.listener import Listener, decoded
from handlehome.bench.realtime.response import Response
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.realtime.speaker import Speaker

SESSION_S = 3600
"""A session lives for 60 minutes."""

_APPEND_PREFIX = '{"type":"input_audio_buffer.append","audio":"'


class Session:
    """Answers client events as a Realtime server does, and keeps a log of what it saw.

    The owner of the socket calls `start`, `receive` and `tick`, each with the time in monotonic seconds, and
    after each call sends what is in `channel.outbox`; `channel.deadline` says when `tick` is needed.

    Args:
        number: Of the session in its simulator, from 0.
        model: From the URL's query.
        script: What it answers.
        seed: Of all that is random in the session.
        keep_audio: Keep the caller's audio, and the items' for ``conversation.item.retrieve``.
        note: Called with a line for people at each turn.

    Attributes:
        session: The effective configuration, as ``session.updated`` tells it.
        channel: Its sending side: log of events, errors, violations.
        conversation: Its items.
        listener: The caller's side.
        speaker: The model's side.
        received: ``(t, event)`` of client events, appends left out.
        truncations: ``(t, item_id, audio_end_ms, accepted)`` of each ``conversation.item.truncate``.
        response_creates: ``(t, response)`` of each ``response.create``.
        configured: ``session.updated`` has been sent once.
    """

    def __init__(
        self,
        number: int,
        model: str,
        script: Script,
        *,
        seed: int = 0,
        keep_audio: bool = True,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.number = number
        self.model = model
        self.script = script
        self._rng = random.Random(f"{seed}:{number}")
        self.note = note or (lambda _line: None)
        self.channel = Channel(f"{self._rng.getrandbits(48):012x}", script.faults)
        self.session: Json = default_session(self.channel.new_id("sess"), model, 0)
        self.conversation = Conversation()
        self.speaker = Speaker(
            self.channel,
            self.conversation,
            lambda: self.session,
            self._rng,
            self._response_done,
            keep_audio=keep_audio,
        )
        self.listener = Listener(
            self.channel,
            self.conversation,
            script,
            self._rng,
            keep_audio=keep_audio,
            note=self.note,
            on_start=self._speech_started,
            on_stop=self.speaker.settle,
            on_turn=self._turn_ended,
        )
        self.listener.configure(self.session["audio"]["input"])
        self._early = False
        self._answers_given = 0
        self._idle_timer = 0
        self._greeted = False
        self.configured = False
        self.received: deque[tuple[float, Json]] = deque(maxlen=LOG_LENGTH)
        self.truncations: list[tuple[float, str, int, bool]] = []
        self.response_creates: list[tuple[float, Json]] = []
        self._handlers: dict[str, Callable[[Json, float], None]] = {
            "session.update": self._session_update,
            "input_audio_buffer.append": self._append_event,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._item_create,
            "conversation.item.delete": self._item_delete,
            "conversation.item.retrieve": self._item_retrieve,
            "conversation.item.truncate": self._item_truncate,
            "response.create": self._response_create,
            "response.cancel": self._response_cancel,
            "output_audio_buffer.clear": self._output_clear,
        }

    # The owner of the socket

    def start(self, now: float, unix_time: float) -> None:
        """The connection is open."""
        faults = self.script.faults
        length = SESSION_S if faults.expire_after_s is None else faults.expire_after_s
        self.session["expires_at"] = int(unix_time + length)
        self.channel.emit(events.session_created(self.session), now)
        self.channel.at(now + length, self.expire)
        if faults.drop_after_s is not None:
            self.channel.at(now + faults.drop_after_s, lambda _now: self.channel.drop())
        self.note("session opened")

    def tick(self, now: float) -> None:
        """Does what is due."""
        self.channel.tick(now)

    def receive(self, message: str | bytes, now: float) -> None:
        """Takes one WebSocket message of the client."""
        if self.channel.over:
            return
        if isinstance(message, str) and message.startswith(_APPEND_PREFIX) and message.endswith('"}'):
            encoded = message[len(_APPEND_PREFIX) : -2]
            try:
                audio = binascii.a2b_base64(encoded, strict_mode=True)
            except ValueError:
                pass  # Fields behind the audio, or no base64: the long way tells.
            else:
                self._append(encoded, audio, now)
                return
        event: object = None
        try:
            if isinstance(message, bytes):
                raise RefusedError("invalid_event", "Events must be sent as text messages.")
            try:
                event = orjson.loads(message)
            except orjson.JSONDecodeError as error:
                raise RefusedError("invalid_event", f"The event is not valid JSON: {error}.") from error
            kind = schema.check_event(event)
            if not isinstance(event, dict):
                raise TypeError("a checked event is an object")
            if kind != "input_audio_buffer.append":
                self.received.append((now, event))
            self._handlers[kind](event, now)
        except RefusedError as refused:
            self.channel.refuse(refused, now, event if isinstance(event, dict) else None)

    def expire(self, now: float) -> None:
        """Ends the session as at its limit of 60 minutes."""
        message = "Your session hit the maximum duration of 60 minutes."
        self.channel.emit(events.error(RefusedError("session_expired", message), None), now)
        self.channel.close(1001, message)

    def start_speech(self, now: float) -> None:
        """Turn detection finds that the caller speaks, whatever the audio says.

        Raises:
            ValueError: Speech is going on already.
        """
        self.listener.start_speech(now)

    def stop_speech(self, now: float) -> None:
        """Turn detection finds that the caller has stopped, whatever the audio says.

        Raises:
            ValueError: No speech is going on.
        """
        self.listener.stop_speech(now)

    def _speech_started(self, now: float) -> None:
        self._idle_timer += 1
        if self._turn_detection().get("interrupt_response", True):
            if self.speaker.active:
                self.note("caller interrupts")
            self.speaker.interrupt(self.script.late_deltas, now)

    def _turn_ended(self, now: float) -> None:
        if self._turn_detection().get("create_response", True):
            self._answer_by_itself(now)

    # Configuration

    def _session_update(self, event: Json, now: float) -> None:
        update: Json = event["session"]
        active = self.speaker.active is not None
        self.session = merged(self.session, update, spoken=self.speaker.spoken, speaking=active)
        self.listener.configure(self.session["audio"]["input"])
        session = self.session

        def announce(now: float) -> None:
            self.configured = True
            self.channel.emit(events.session_updated(session), now)

        delay = self._rng.uniform(*self.script.session_update_ms) / 1000
        if delay:
            self.channel.at(now + delay, announce)
        else:
            announce(now)

    def _turn_detection(self) -> Json:
        detection: Json | None = self.session["audio"]["input"]["turn_detection"]
        return detection or {"create_response": False, "interrupt_response": True}

    # Input audio

    def _append_event(self, event: Json, now: float) -> None:
        self._append(event["audio"], decoded(event["audio"]), now)

    def _append(self, encoded: str, audio: bytes, now: float) -> None:
        if self.configured and self.script.echo:
            response = self.speaker.open_endless(now)
            self.speaker.say_audio(response, encoded, audio, now, log=False)
        elif not self.configured and not self._early:
            self._early = True
            form = self.listener.audio_format
            self.channel.violations.append(f"append before session.updated, taken as {form}")
        self.listener.hear(audio, now)

    def _commit(self, _event: Json, now: float) -> None:
        self.listener.commit(now)

    def _clear(self, _event: Json, now: float) -> None:
        self.listener.clear(now)

    # The conversation

    def _item_create(self, event: Json, now: float) -> None:
        body: Json = dict(event["item"])
        body.setdefault("id", self.channel.new_id("item"))
        body = {"id": body["id"], "object": "realtime.item", **body, "status": "completed"}
        if body["type"] == "function_call_output" and not any(
            item.body.get("call_id") == body["call_id"] for item in self.conversation.items.values()
        ):
            message = f"Tool call ID '{body['call_id']}' not found in conversation."
            raise RefusedError("invalid_value", message, "item.call_id")
        previous = self.conversation.add(Item(body), event.get("previous_item_id"))
        self.channel.emit(events.item_added(body, previous), now)
        self.channel.emit(events.item_done(body, previous), now)

    def _item_delete(self, event: Json, now: float) -> None:
        self.conversation.delete(event["item_id"])
        self.channel.emit(events.item_deleted(event["item_id"]), now)

    def _item_retrieve(self, event: Json, now: float) -> None:
        self.channel.emit(events.item_retrieved(self.conversation.retrieved(event["item_id"])), now)

    def _item_truncate(self, event: Json, now: float) -> None:
        item_id, audio_end_ms = event["item_id"], event["audio_end_ms"]
        accepted = False
        try:
            self.conversation.truncate(item_id, event["content_index"], audio_end_ms)
            accepted = True
        finally:
            self.truncations.append((now, item_id, audio_end_ms, accepted))
        self.channel.emit(events.item_truncated(item_id, event["content_index"], audio_end_ms), now)
        self.note(f"truncated to {audio_end_ms} ms")

    def generated_ms(self, item_id: str) -> int:
        """Whole ms of audio sent for an item, truncated or not.

        Raises:
            RefusedError: No such item.
        """
        return self.conversation.get(item_id).generated_ms

    # Responses

    def _response_create(self, event: Json, now: float) -> None:
        request: Json = event.get("response") or {}
        self.response_creates.append((now, request))
        if self.script.echo and not self.speaker.active:
            self.speaker.open_endless(now)
            return
        self._respond(request, now, by_client=True)

    def _respond(self, request: Json, now: float, *, by_client: bool) -> None:
        script = self.script

        def answer() -> Answer:
            if by_client and not self._greeted:
                self._greeted = True
                if script.greeting is not None:
                    return script.greeting
            self._answers_given += 1
            return script.answer(self._answers_given - 1)

        self.speaker.create(answer, request, now)
        self._idle_timer += 1

    def _answer_by_itself(self, now: float) -> None:
        """Turn detection asks for a response; one that is running (not interrupted) stays."""
        try:
            self._respond({}, now, by_client=False)
        except RefusedError as refused:
            self.channel.refuse(refused, now)

    def _response_cancel(self, event: Json, now: float) -> None:
        self.speaker.cancel(event.get("response_id"), now)

    def _output_clear(self, _event: Json, _now: float) -> None:
        message = "output_audio_buffer.clear is only available over WebRTC and SIP."
        raise RefusedError("invalid_event", message, "type")

    def _response_done(self, response: Response, now: float) -> None:
        said = response.said or ", ".join(item["type"] for item in response.output) or "(nothing)"
        self.note(f"assistant ({response.status}): {said}")
        idle_ms = self._turn_detection().get("idle_timeout_ms")
        if idle_ms is None or response.out_of_band or self.listener.speaking is not None:
            return
        self._idle_timer += 1
        timer = self._idle_timer
        played = (response.spoken_at or now) + response.audio_bytes / response.bytes_per_ms / 1000
        since_ms = self.listener.at_ms

        def idle(now: float) -> None:
            if timer == self._idle_timer:
                self.listener.idle(since_ms, now)
                self._answer_by_itself(now)

        self.channel.at(max(now, played) + idle_ms / 1000, idle)
