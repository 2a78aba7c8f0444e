"""TwiML is read strictly."""

from __future__ import annotations

import pytest
from twilio.twiml.voice_response import Connect, VoiceResponse

from handlehome.bench import twiml

BASE = "https://phone.example.com/incoming-call"


def stream(attributes: str, inner: str = "") -> str:
    return f"<Response><Connect><Stream {attributes}>{inner}</Stream></Connect></Response>"


def test_what_twilios_package_writes_is_understood() -> None:
    response = VoiceResponse()
    connect = Connect(action="/call-ended", method="POST")
    opened = connect.stream(
        url="wss://phone.example.com/media-stream/a",
        name="n",
        status_callback="/stream-status",
        status_callback_method="GET",
    )
    opened.parameter(name="token", value="a&b")
    response.append(connect)
    response.say("Désolé <3", language="fr-FR")
    response.pause(length=2)
    response.dial("+33199999999", action="/after")
    response.redirect("https://other.example.com/x", method="GET")
    response.reject(reason="busy")
    response.hangup()
    assert twiml.parse(str(response), BASE) == [
        twiml.Connect(
            twiml.Stream(
                "wss://phone.example.com/media-stream/a",
                {"token": "a&b"},
                "n",
                "https://phone.example.com/stream-status",
                "GET",
            ),
            "https://phone.example.com/call-ended",
            "POST",
        ),
        twiml.Say("Désolé <3", "fr-FR"),
        twiml.Pause(2),
        twiml.Dial("+33199999999", "https://phone.example.com/after"),
        twiml.Redirect("https://other.example.com/x", "GET"),
        twiml.Reject("busy"),
        twiml.Hangup(),
    ]


def test_an_empty_response_has_no_verbs() -> None:
    assert twiml.parse(b"<?xml version='1.0' encoding='UTF-8'?>\n<Response/>", BASE) == []


def test_relative_stream_urls_become_wss() -> None:
    (verb,) = twiml.parse(stream("url='/media?x=1'"), BASE)
    assert isinstance(verb, twiml.Connect)
    assert verb.stream.url == "wss://phone.example.com/media?x=1"
    assert verb.action is None


def test_dial_takes_a_number_element() -> None:
    document = "<Response><Dial>\n <Number> +331 </Number></Dial></Response>"
    assert twiml.parse(document, BASE) == [twiml.Dial("+331")]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("", 12100),
        ("<Response>", 12100),
        ("<Respond/>", 12100),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><Response/>", 12100),
        (b"\xff\xfe", 12100),
        ("<Response>hello</Response>", 12200),
        ("<Response version='2'/>", 12200),
        ("<Response><Sing/></Response>", 12200),
        ("<Response><Hangup>now</Hangup></Response>", 12200),
        ("<Response><Hangup/>now</Response>", 12200),
        ("<Response><Say/></Response>", 12200),
        ("<Response><Say tone='sad'>x</Say></Response>", 12200),
        ("<Response><Say>x<b>y</b></Say></Response>", 12200),
        ("<Response><Pause length='x'/></Response>", 12200),
        ("<Response><Reject reason='tired'/></Response>", 12200),
        ("<Response><Dial><Client>a</Client></Dial></Response>", 12200),
        ("<Response><Redirect method='PUT'>/x</Redirect></Response>", 12200),
        ("<Response><Redirect>ftp://x/y</Redirect></Response>", 12200),
        ("<Response><Connect/></Response>", 12200),
        (stream("url='ws://x/'"), 31922),
        (stream("url='https://x/'"), 31922),
        (stream(""), 31923),
        (stream("url='wss:///x'"), 31923),
        (stream("url='wss://x:port/'"), 31923),
        (stream("url='wss://x/a b'"), 31923),
        (stream("url='wss://u@x/'"), 31923),
        (stream("url='wss://x/' track='both_tracks'"), 31941),
        (stream("url='wss://x/' audioFormat='l16'"), 12200),
        (stream("url='wss://x/'", "<Param/>"), 12200),
        (stream("url='wss://x/'", "<Parameter name='a'/>"), 12200),
        (stream("url='wss://x/'", "<Parameter name='a' value='b'/><Parameter name='a' value='c'/>"), 12200),
        (stream("url='wss://x/'", f"<Parameter name='a' value='{'x' * 499}'/>"), 12200),
    ],
)
def test_what_twilio_would_not_run_is_refused(document: str | bytes, code: int) -> None:
    with pytest.raises(twiml.TwimlError) as caught:
        twiml.parse(document, BASE)
    assert caught.value.code == code
