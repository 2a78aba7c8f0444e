"""Signatures and forms, compared with Twilio's own package and published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from handlehome.bench import twilio
from handlehome.bench.twilio import Origin

TOKEN = "12345"
CALL = {"CallSid": "CA1234567890ABCDE", "From": "+14158675310", "To": "+18005551212"}


@pytest.mark.parametrize(
    ("url", "params", "expected"),
    [
        # Twilio's published example.
        (
            "https://example.com/myapp.php?foo=1&bar=2",
            CALL | {"Caller": "+14158675310", "Digits": "1234"},
            "L/OH5YylLD5NRKLltdqwSvS0BnU=",
        ),
        ("https://relay.example.com/twilio/voice", CALL | {"FromZip": ""}, "yq5oaul4DqWTNGFz3jD17VHnmdg="),
        ("https://relay.example.com/twilio/voice", CALL, "+c3qpedX6eY9cTyHUuaB/wXbV2M="),
        (
            "https://relay.example.com/twilio/voice?CallSid=CA1234567890ABCDE&From=%2B14158675310",
            {},
            "vce0OC6tazDMIFXkqmz1NtvM/3w=",
        ),
        ("wss://relay.example.com/media", {}, "MVVXQK8WMm1ywK7bu7blrI+Pdd8="),
        ("wss://relay.example.com/media/", {}, "hBDkC2Ruji7JIL+5FkZfru2kze8="),
        ("wss://relay.example.com/media/tok_abc", {}, "WbliKxFJV4pQlkzjdBbsbXITPW8="),
    ],
)
def test_signatures_agree_with_known_vectors(url: str, params: dict[str, str], expected: str) -> None:
    assert twilio.signature(TOKEN, url, params) == expected
    assert RequestValidator(TOKEN).validate(url, params, expected)


@given(
    token=st.text(st.characters(codec="ascii"), min_size=1),
    path=st.text(st.characters(codec="ascii", categories=["L", "N"])),
    params=st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
)
def test_signatures_agree_with_twilios_package(token: str, path: str, params: dict[str, str]) -> None:
    url = f"http://localhost:8080/{path}"
    assert twilio.signature(token, url, params) == RequestValidator(token).compute_signature(url, params)


def test_repeated_names_and_values_count_once_in_order() -> None:
    pairs = [("b", "2"), ("a", "9"), ("b", "1"), ("b", "2")]
    assert twilio.signature(TOKEN, "https://x/", pairs) == twilio.signature(TOKEN, "https://x/a9b1b2")


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://user:secret@example.com:8443/a?b=c#rc=2", "https://example.com/a?b=c"),
        ("https://example.com/a", "https://example.com/a"),
        ("http://example.com:8080/a#x", "http://example.com:8080/a"),
    ],
)
def test_https_webhooks_are_signed_without_port(url: str, signed: str) -> None:
    assert twilio.signed_url(url) == signed


def test_a_form_names_everything_that_twilio_names() -> None:
    form = twilio.voice_form(call_sid="CA1", account_sid="AC1", from_="+336", to="+331")
    assert (form["From"], form["Caller"], form["To"], form["Called"]) == ("+336", "+336", "+331", "+331")
    for who in ("From", "To", "Caller", "Called"):
        assert form[f"{who}City"] == form[f"{who}State"] == form[f"{who}Zip"] == ""
    assert form["ApiVersion"] == "2010-04-01"
    assert form["Direction"] == "inbound"


@pytest.mark.parametrize(("seconds", "minutes"), [(0.2, "1"), (60, "1"), (61, "2")])
def test_the_final_status_bills_begun_minutes(seconds: float, minutes: str) -> None:
    form = twilio.status_form({"CallSid": "CA1"}, seconds=seconds)
    assert form["CallStatus"] == "completed"
    assert form["CallDuration"] == str(round(seconds))
    assert form["Duration"] == minutes
    assert form["Timestamp"].endswith("-0000") or form["Timestamp"].endswith("+0000")


def test_stream_errors_are_told_in_the_stream_status() -> None:
    form = {"AccountSid": "AC1", "CallSid": "CA1"}
    assert twilio.stream_form(form, "MZ1", None, "stream-started")["StreamName"] == "MZ1"
    assert twilio.stream_form(form, "MZ1", "n", "stream-error", "31920")["StreamError"] == "31920"


def test_sids_are_unique() -> None:
    sids = {twilio.new_sid("CA") for _ in range(100)}
    assert len(sids) == 100
    assert all(len(sid) == 34 and sid.startswith("CA") for sid in sids)


@pytest.mark.parametrize(
    ("base", "public", "url", "target"),
    [
        ("http://[::1]:80", "", "wss://[::1]:80/a/b", "ws://[::1]:80/a/b"),
        ("http://127.0.0.1:80/", "https://x.fr/", "https://x.fr/a?b=c", "http://127.0.0.1:80/a?b=c"),
        ("http://127.0.0.1:80", "https://x.fr", "wss://x.fr/media", "ws://127.0.0.1:80/media"),
        ("http://127.0.0.1:80", "https://x.fr/phone", "wss://x.fr/phone/media", "ws://127.0.0.1:80/media"),
        ("https://y.fr", "https://x.fr", "wss://x.fr/media", "wss://y.fr/media"),
        ("http://127.0.0.1:80", "https://x.fr", "wss://x.fr.evil.com/media", "wss://x.fr.evil.com/media"),
    ],
)
def test_public_urls_lead_to_the_daemon(base: str, public: str, url: str, target: str) -> None:
    assert Origin(base, public).connect(url) == target
