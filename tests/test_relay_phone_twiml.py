"""The TwiML documents, read back as Twilio would read them."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.relay.phone import twiml
from handlehome.relay.phone.twiml import Addresses


def parse(document: str) -> ET.Element:
    return ET.fromstring(document)  # noqa: S314 - our own document


PUBLIC = Addresses.public("https://relay.example.com", "i1")


def test_connect_names_stream_token_action_and_status_callback() -> None:
    document = twiml.connect(PUBLIC, "tok")
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?><Response>')
    (connect,) = parse(document)
    (stream,) = connect
    (parameter,) = stream
    assert (connect.tag, connect.attrib) == (
        "Connect",
        {"action": "https://relay.example.com/call-ended", "method": "POST"},
    )
    assert (stream.tag, stream.attrib) == (
        "Stream",
        {
            "url": "wss://relay.example.com/media-stream/i1",
            "statusCallback": "https://relay.example.com/stream-status",
            "statusCallbackMethod": "POST",
        },
    )
    assert (parameter.tag, parameter.attrib) == ("Parameter", {"name": "token", "value": "tok"})


@pytest.mark.parametrize("url", ["https://example.com/phone", "https://example.com/phone/"])
def test_a_public_urls_prefix_is_kept(url: str) -> None:
    assert Addresses.public(url, "i1") == Addresses(
        stream="wss://example.com/phone/media-stream/i1",
        call_ended="https://example.com/phone/call-ended",
        stream_status="https://example.com/phone/stream-status",
    )


def test_without_public_url_the_stream_is_wss_all_the_same() -> None:
    """Twilio opens no other scheme, and what it may resolve by itself stays relative."""
    assert Addresses.development("http", "127.0.0.1:8080", "i1") == Addresses(
        stream="wss://127.0.0.1:8080/media-stream/i1",
        call_ended="/call-ended",
        stream_status="http://127.0.0.1:8080/stream-status",
    )


def test_spoken_words_come_before_the_hang_up() -> None:
    response = parse(twiml.say_and_hang_up("Où est l'été ? <b> & co", "fr-FR"))
    assert [verb.tag for verb in response] == ["Say", "Hangup"]
    assert response[0].attrib == {"language": "fr-FR"}
    assert response[0].text == "Où est l'été ? <b> & co"


def test_hang_up_and_empty() -> None:
    assert [verb.tag for verb in parse(twiml.hang_up())] == ["Hangup"]
    assert list(parse(twiml.empty())) == []


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1))
def test_nothing_breaks_out_of_an_attribute(text: str) -> None:
    (connect,) = parse(twiml.connect(Addresses.development("http", text, text), text))
    (stream,) = connect
    assert stream.attrib["url"] == f"wss://{text}/media-stream/{text}"
    assert stream[0].attrib["value"] == text
    assert [len(connect), len(stream), len(stream[0])] == [1, 1, 0]
