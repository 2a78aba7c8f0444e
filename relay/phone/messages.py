"""Messages of Twilio Media Streams, as far as the relay sends and reads them.

Shapes: Twilio's documentation, "Media Streams: WebSocket messages".

Audio is text that is spliced, not parsed: `parse_media` reads the layout in which Twilio sends it and
leaves every other layout to `parse_message`, with the same result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from handlehome.codecs.payload import payload_size

# Twilio's layout; any other is as good, and takes the slow path.
_MEDIA = re.compile(
    rb'\{"event":"media","sequenceNumber":"\d+","media":\{"track":"inbound",'
    rb'"chunk":"(\d{1,12})","timestamp":"(\d{1,12})","payload":"'
)
_STREAM_SID = re.compile(r"MZ[0-9a-f]{32}")
_CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}")
_MAX_NUMBER = 10**12
_FRAME_MS = 20

Media = tuple[int, int, bytes, int]
"""A frame of the caller's audio: its number (`chunk`, from 1), the line's timestamp in ms, base64 text, and
the bytes it stands for."""


@dataclass(frozen=True, slots=True)
class Start:
    """The `start` message: which stream of which call, and our own parameters."""

    stream_sid: str
    call_sid: str
    account_sid: str
    parameters: dict[str, str]


class InvalidMessage(Exception):
    """The peer sent something that is no message of the protocol."""


def media_tail(stream_sid: str) -> bytes:
    """What a `media` message of this stream ends with in Twilio's usual layout."""
    return b'"},"streamSid":"' + stream_sid.encode("ascii") + b'"}'


def parse_media(message: bytes, tail: bytes) -> Media | None:
    """Reads a `media` message in Twilio's usual layout without parsing JSON. Once per frame.

    Args:
        message: any message.
        tail: `media_tail` of the stream.

    Returns:
        None for every other message, and for every other layout of this one.
    """
    head = _MEDIA.match(message)
    if head is None or not message.endswith(tail, head.end()):
        return None
    payload = message[head.end() : -len(tail)]
    size = payload_size(payload)
    return None if size < 0 else (int(head[1]), int(head[2]), payload, size)


def parse_message(message: bytes) -> dict[str, Any]:
    """Parses any message.

    Raises:
        InvalidMessage: no JSON object, or no `event`.
    """
    try:
        parsed = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise InvalidMessage(f"not JSON: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("event"), str):
        raise InvalidMessage("no object with an event")
    return parsed


def media_of(parsed: dict[str, Any], stream_sid: str) -> Media | None:
    """The slow path of `parse_media`: the same from a parsed message.

    Returns:
        None for audio that is not this stream's caller's.

    Raises:
        InvalidMessage: a field is missing or of the wrong kind, or the audio is not base64.
    """
    try:
        media = parsed["media"]
        if media.get("track", "inbound") != "inbound" or parsed["streamSid"] != stream_sid:
            return None
        payload = media["payload"].encode("ascii")
        timestamp_ms = int(media["timestamp"])
        # Twilio numbers its frames; who doesn't is taken at the word of the timestamps.
        chunk = int(media.get("chunk", timestamp_ms // _FRAME_MS + 1))
        if not (-_MAX_NUMBER < timestamp_ms < _MAX_NUMBER and -_MAX_NUMBER < chunk < _MAX_NUMBER):
            raise ValueError("timestamp or chunk is out of range")
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise InvalidMessage(f"media: {error!r}") from error
    size = payload_size(payload)
    if size < 0:
        raise InvalidMessage("media: the payload is not base64")
    return chunk, timestamp_ms, payload, size


def start_of(parsed: dict[str, Any]) -> Start:
    """Reads a `start` message.

    Raises:
        InvalidMessage: a field is missing or of the wrong kind, or the audio is not 8 kHz mu-law.
    """
    start = parsed.get("start")
    if not isinstance(start, dict):
        raise InvalidMessage("start: no object")
    stream_sid, call_sid = start.get("streamSid"), start.get("callSid")
    if not isinstance(stream_sid, str) or not _STREAM_SID.fullmatch(stream_sid):
        raise InvalidMessage("start: streamSid is missing or malformed")
    if not isinstance(call_sid, str) or not _CALL_SID.fullmatch(call_sid):
        raise InvalidMessage("start: callSid is missing or malformed")
    media_format = start.get("mediaFormat", {})
    if not isinstance(media_format, dict) or media_format.get("encoding", "audio/x-mulaw") != "audio/x-mulaw":
        raise InvalidMessage("start: mediaFormat is not audio/x-mulaw")
    parameters = start.get("customParameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidMessage("start: customParameters is no object")
    account_sid = start.get("accountSid")
    return Start(
        stream_sid,
        call_sid,
        account_sid if isinstance(account_sid, str) else "",
        {str(name): value for name, value in parameters.items() if isinstance(value, str)},
    )


class Outgoing:
    """Composes messages for one stream; exactly Twilio's keys, since extra ones are a warning (31951).

    Attributes:
        media_head: A `media` message is this, base64 text, and `TAIL`.
        mark_head: A `mark` message is this, a name (ASCII without quotes or backslashes), and `TAIL`.
        clear: A `clear` message.
    """

    TAIL = b'"}}'

    __slots__ = ("clear", "mark_head", "media_head")

    def __init__(self, stream_sid: str) -> None:
        sid = stream_sid.encode("ascii")
        self.media_head = b'{"event":"media","streamSid":"' + sid + b'","media":{"payload":"'
        self.mark_head = b'{"event":"mark","streamSid":"' + sid + b'","mark":{"name":"'
        self.clear = b'{"event":"clear","streamSid":"' + sid + b'"}'
