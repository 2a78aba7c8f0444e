"""Media Streams messages, from Twilio's side: composed as Twilio does, read as strictly as Twilio might.

Keys, types and examples: https://www.twilio.com/docs/voice/media-streams/websocket-messages.
Error numbers: https://www.twilio.com/docs/api/errors/31951.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import orjson

MALFORMED = 31950
"""A binary frame."""
INVALID = 31951
"""Not JSON, an unknown event, a missing or extra field, a wrong streamSid."""

StartHook = Callable[[dict[str, object]], dict[str, object] | None]


class Media(NamedTuple):
    """Audio to play."""

    ulaw: bytes


class Mark(NamedTuple):
    """A mark to echo."""

    name: str


class Clear(NamedTuple):
    """Playback to stop."""


class MessageError(ValueError):
    """A message that Twilio warns of and drops.

    Attributes:
        code: 31950 or 31951.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


_KEYS = {
    "media": {"event", "streamSid", "media"},
    "mark": {"event", "streamSid", "mark"},
    "clear": {"event", "streamSid"},
}


def read(message: bytes, stream_sid: str) -> Media | Mark | Clear:
    """Reads one text message of the relay.

    Raises:
        MessageError: It has not exactly the documented keys, or a value is of the wrong type.
    """
    try:
        fields = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise MessageError(INVALID, f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MessageError(INVALID, "not a JSON object")
    event = fields.get("event")
    if not isinstance(event, str) or event not in _KEYS:
        raise MessageError(INVALID, f"unknown event {event!r}")
    _same_keys(fields, _KEYS[event], event)
    if fields["streamSid"] != stream_sid:
        raise MessageError(INVALID, f"streamSid {fields['streamSid']!r} is not {stream_sid}")
    if event == "clear":
        return Clear()
    if event == "mark":
        return Mark(_inner(fields, "mark", "name"))
    try:
        return Media(binascii.a2b_base64(_inner(fields, "media", "payload"), strict_mode=True))
    except ValueError as error:  # binascii.Error, or a character outside ASCII
        raise MessageError(INVALID, f"payload is not base64: {error}") from error


def _inner(fields: dict[str, object], name: str, key: str) -> str:
    inner = fields[name]
    if not isinstance(inner, dict):
        raise MessageError(INVALID, f"{name} is not an object")
    _same_keys(inner, {key}, name)
    value = inner[key]
    if not isinstance(value, str):
        raise MessageError(INVALID, f"{name}.{key} is not a string")
    return value


def _same_keys(fields: Mapping[str, object], keys: set[str], where: str) -> None:
    missing, extra = keys - fields.keys(), fields.keys() - keys
    if missing or extra:
        raise MessageError(INVALID, f"{where}: missing {sorted(missing)}, extra {sorted(extra)}")


class StreamMessages:
    """Composes the messages of one stream and counts their numbers.

    Args:
        account_sid: `AC...`.
        call_sid: `CA...`.
        stream_sid: `MZ...`.
        parameters: Become `customParameters`.
        compact: Without spaces after separators.
        extra: Unknown fields, added to every message.
    """

    def __init__(
        self,
        account_sid: str,
        call_sid: str,
        stream_sid: str,
        parameters: Mapping[str, str],
        *,
        compact: bool = True,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.stream_sid = stream_sid
        self._sids = {"accountSid": account_sid, "callSid": call_sid}
        self._parameters = dict(parameters)
        self._separators = (",", ":") if compact else (", ", ": ")
        self._extra = dict(extra or {})
        self._sequence = 0
        self._chunk = 0
        self._sent_ms = 0.0
        media = {"track": "inbound", "chunk": "\0", "timestamp": "\0", "payload": "\0"}
        text = self._dump({"event": "media", "sequenceNumber": "\0", "media": media, "streamSid": stream_sid})
        self._media = text.replace("%", "%%").replace("\\u0000", "%s")

    def connected(self) -> str:
        return self._dump({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self, hook: StartHook | None = None) -> str | None:
        """Returns `start`, as `hook` changed it; None when that says so."""
        message: dict[str, object] | None = {
            "event": "start",
            "sequenceNumber": self._next(),
            "start": {
                "accountSid": self._sids["accountSid"],
                "streamSid": self.stream_sid,
                "callSid": self._sids["callSid"],
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": self._parameters,
            },
            "streamSid": self.stream_sid,
        }
        if hook is not None and message is not None:
            message = hook(message)
        return None if message is None else self._dump(message)

    def media(self, ulaw: bytes) -> str:
        """Returns the next `media`; its timestamp is where its audio ends in the stream."""
        self._chunk += 1
        self._sent_ms += len(ulaw) / 8
        payload = base64.b64encode(ulaw).decode()
        return self._media % (self._next(), self._chunk, int(self._sent_ms), payload)

    def mark(self, name: str) -> str:
        return self._numbered("mark", {"mark": {"name": name}})

    def dtmf(self, digit: str) -> str:
        """Returns the message for a key: `0` to `9`, `*` or `#`."""
        if len(digit) != 1 or digit not in "0123456789*#":
            raise ValueError(f"no key {digit!r}")
        return self._numbered("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})

    def stop(self) -> str:
        return self._numbered("stop", {"stop": self._sids})

    def _numbered(self, event: str, body: dict[str, object]) -> str:
        return self._dump(
            {"event": event, "sequenceNumber": self._next(), "streamSid": self.stream_sid} | body
        )

    def _next(self) -> str:
        self._sequence += 1
        return str(self._sequence)

    def _dump(self, message: dict[str, object]) -> str:
        return json.dumps(message | self._extra, separators=self._separators, ensure_ascii=True)
