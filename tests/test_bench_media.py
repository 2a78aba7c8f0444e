"""Media Streams messages: composed like Twilio's, read strictly."""

from __future__ import annotations

import base64
import json

import pytest

from handlehome.bench import media
from handlehome.bench.media import StreamMessages

SID = "MZ00000000000000000000000000000001"


def message(**fields: object) -> bytes:
    return json.dumps({"streamSid": SID} | fields).encode()


def test_the_three_messages_are_read() -> None:
    payload = base64.b64encode(b"\x00\xff").decode()
    assert media.read(message(event="media", media={"payload": payload}), SID) == media.Media(b"\x00\xff")
    assert media.read(message(event="mark", mark={"name": "é"}), SID) == media.Mark("é")
    assert isinstance(media.read(message(event="clear"), SID), media.Clear)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"not json",
        b"null",
        b'"media"',
        message(),
        message(event=None),
        message(event=["media"]),
        message(event="start"),
        message(event="clear", clear={}),
        message(event="clear", streamSid="MZ2"),
        message(event="clear", streamSid=None),
        b'{"event":"clear"}',
        message(event="mark"),
        message(event="mark", mark="m"),
        message(event="mark", mark={}),
        message(event="mark", mark={"name": 1}),
        message(event="mark", mark={"name": "m", "x": 1}),
        message(event="media", media={"payload": None}),
        message(event="media", media={"payload": "AA=", "track": "outbound"}),
        message(event="media", media={"payload": "AA"}),
        message(event="media", media={"payload": "A A="}),
        message(event="media", media={"payload": "AA==AA=="}),
        message(event="media", media={"payload": "é"}),
        message(event="media", media={"payload": "AA-_"}),
        message(event="media", sequenceNumber="1", media={"payload": "AA=="}),
    ],
)
def test_anything_else_is_invalid(text: bytes) -> None:
    with pytest.raises(media.MessageError) as caught:
        media.read(text, SID)
    assert caught.value.code == media.INVALID


def test_messages_look_like_twilios() -> None:
    messages = StreamMessages("AC1", "CA1", SID, {"token": "t"})
    assert messages.connected() == '{"event":"connected","protocol":"Call","version":"1.0.0"}'
    assert messages.start() == (
        '{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"' + SID + '",'
        '"callSid":"CA1","tracks":["inbound"],'
        '"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},'
        '"customParameters":{"token":"t"}},"streamSid":"' + SID + '"}'
    )
    assert messages.media(b"\xff" * 160) == (
        '{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1","timestamp":"20",'
        '"payload":"' + "/" * 213 + 'w=="},"streamSid":"' + SID + '"}'
    )
    assert json.loads(messages.mark('a"b')) == {
        "event": "mark",
        "sequenceNumber": "3",
        "streamSid": SID,
        "mark": {"name": 'a"b'},
    }
    assert json.loads(messages.dtmf("#"))["dtmf"] == {"track": "inbound_track", "digit": "#"}
    assert json.loads(messages.stop()) == {
        "event": "stop",
        "sequenceNumber": "5",
        "streamSid": SID,
        "stop": {"accountSid": "AC1", "callSid": "CA1"},
    }


def test_there_are_twelve_keys() -> None:
    messages = StreamMessages("AC1", "CA1", SID, {})
    for digit in ("", "12", "A", "²"):
        with pytest.raises(ValueError, match="key"):
            messages.dtmf(digit)


def test_percent_signs_survive_the_template() -> None:
    messages = StreamMessages("AC1", "CA1", SID, {}, extra={"load": "100 %d"})
    assert json.loads(messages.media(b"x"))["load"] == "100 %d"
