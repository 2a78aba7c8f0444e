"""Twilio's signatures: its published vectors, and every way in which a URL or a form goes astray."""

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from handlehome.relay.phone.signature import SignatureChecker, SignatureVerdict

VALID, WRONG, MISSING = SignatureVerdict.VALID, SignatureVerdict.WRONG, SignatureVerdict.MISSING
TOKEN = "12345"
RELAY = "https://relay.example.com"

# Twilio's published example.
EXAMPLE = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675310"),
    ("Digits", "1234"),
    ("From", "+14158675310"),
    ("To", "+18005551212"),
]
BLANK = [
    ("CallSid", "CA1234567890ABCDE"),
    ("From", "+14158675310"),
    ("FromZip", ""),
    ("To", "+18005551212"),
]


def signed(text: str, token: str = TOKEN) -> str:
    """The signature over the concatenated text, without Twilio's package."""
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def test_twilios_published_example() -> None:
    checker = SignatureChecker(TOKEN, "https://example.com")
    verdict = checker.webhook(
        "/myapp.php?foo=1&bar=2", "example.com", "L/OH5YylLD5NRKLltdqwSvS0BnU=", form=EXAMPLE
    )
    assert verdict is VALID


def test_blank_values_count() -> None:
    checker = SignatureChecker(TOKEN, RELAY)
    good, dropped = "yq5oaul4DqWTNGFz3jD17VHnmdg=", "+c3qpedX6eY9cTyHUuaB/wXbV2M="
    assert checker.webhook("/twilio/voice", None, good, form=BLANK) is VALID
    assert checker.webhook("/twilio/voice", None, dropped, form=BLANK) is WRONG


def test_get_has_everything_in_its_url() -> None:
    checker = SignatureChecker(TOKEN, RELAY)
    target = "/twilio/voice?CallSid=CA1234567890ABCDE&From=%2B14158675310"
    assert checker.webhook(target, None, "vce0OC6tazDMIFXkqmz1NtvM/3w=") is VALID
    # The same query, encoded in another way, is another URL.
    assert checker.webhook(target.replace("%2B", "%2b"), None, "vce0OC6tazDMIFXkqmz1NtvM/3w=") is WRONG


@pytest.mark.parametrize(
    ("target", "signature"),
    [
        ("/media", "MVVXQK8WMm1ywK7bu7blrI+Pdd8="),
        ("/media/", "hBDkC2Ruji7JIL+5FkZfru2kze8="),
        ("/media", "hBDkC2Ruji7JIL+5FkZfru2kze8="),  # Twilio put a slash behind it
        ("/media/tok_abc", "WbliKxFJV4pQlkzjdBbsbXITPW8="),
    ],
)
def test_upgrade_vectors(target: str, signature: str) -> None:
    assert SignatureChecker(TOKEN, RELAY).upgrade(target, "10.0.0.7:8080", signature) is VALID


def test_no_slash_is_taken_away_and_none_put_behind_a_webhook() -> None:
    checker = SignatureChecker(TOKEN, RELAY)
    assert checker.upgrade("/media/", None, "MVVXQK8WMm1ywK7bu7blrI+Pdd8=") is WRONG
    assert checker.webhook("/voice", None, signed(RELAY + "/voice/")) is WRONG


@pytest.mark.parametrize(
    "signature",
    ["lsU5SIRRn+omqmP1BK9+98YGi+4x9BMJAG7bI+SLmV0="],
)
def test_the_algorithm_is_pinned(signature: str) -> None:
    """A right signature by SHA-256 is not accepted where SHA-1 is what the account uses."""
    assert SignatureChecker(TOKEN, RELAY).webhook("/twilio/voice", None, signature, form=BLANK) is WRONG


@pytest.mark.parametrize("signature", [None, ""])
def test_a_missing_signature_is_named(signature: str | None) -> None:
    checker = SignatureChecker(TOKEN, RELAY)
    assert checker.webhook("/voice", None, signature, form=EXAMPLE) is MISSING
    assert checker.upgrade("/media", None, signature) is MISSING


@pytest.mark.parametrize("signature", ["é", "\udcff", "x" * 100_000, "MVVXQK8WMm1ywK7bu7blrI+Pdd8"])
def test_odd_signatures_are_wrong_and_nothing_worse(signature: str) -> None:
    checker = SignatureChecker(TOKEN, RELAY)
    assert checker.upgrade("/media", None, signature) is WRONG
    assert checker.webhook("/media", None, signature) is WRONG


def test_the_host_header_is_not_believed_when_the_public_url_is_known() -> None:
    checker = SignatureChecker(TOKEN, RELAY)
    assert checker.webhook("/voice", "evil.example", signed("https://evil.example/voice")) is WRONG
    assert checker.webhook("/voice", "evil.example", signed(RELAY + "/voice")) is VALID
    assert checker.webhook("/voice", None, signed("http://relay.example.com/voice")) is WRONG


def test_the_public_urls_prefix_belongs_to_the_signed_url() -> None:
    checker = SignatureChecker(TOKEN, "https://example.com/phone/")
    assert checker.webhook("/voice", None, signed("https://example.com/phone/voice")) is VALID
    assert checker.upgrade("/media", None, signed("wss://example.com/phone/media")) is VALID
    assert checker.webhook("/voice", None, signed("https://example.com/voice")) is WRONG


@pytest.mark.parametrize(
    ("public_url", "signed_base"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:8443", "https://example.com"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("http://example.com:8080", "http://example.com:8080"),
        ("http://example.com", "http://example.com:80"),
        ("https://user:pass@example.com", "https://example.com"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
        ("https://Example.com", "https://Example.com"),
    ],
)
def test_the_port_may_be_there_or_not(public_url: str, signed_base: str) -> None:
    checker = SignatureChecker(TOKEN, public_url)
    assert checker.webhook("/voice", None, signed(signed_base + "/voice")) is VALID


@pytest.mark.parametrize("signed_base", ["wss://relay.example.com", "wss://relay.example.com:443"])
def test_the_port_of_wss_is_443(signed_base: str) -> None:
    checker = SignatureChecker(TOKEN, RELAY)
    assert checker.upgrade("/media", None, signed(signed_base + "/media")) is VALID
    assert checker.upgrade("/media", None, signed("wss://relay.example.com:80/media")) is WRONG


@pytest.mark.parametrize("target", ["/voice?", "/voice;?a=b", "//voice", "/v%6fice", "/voice?a=b&a=c#"])
def test_the_target_is_taken_as_it_stands(target: str) -> None:
    """Nothing is parsed and put together again, which would lose an empty query or parameter."""
    assert SignatureChecker(TOKEN, RELAY).webhook(target, None, signed(RELAY + target)) is VALID


def test_without_public_url_the_host_header_stands_for_it() -> None:
    checker = SignatureChecker(TOKEN, None)
    host = "127.0.0.1:8080"
    assert checker.webhook("/voice", host, signed(f"http://{host}/voice")) is VALID
    assert (
        checker.webhook("/voice", "abc.tunnel.example", signed("https://abc.tunnel.example/voice")) is VALID
    )
    assert checker.upgrade("/media", host, signed(f"wss://{host}/media")) is VALID
    assert checker.upgrade("/media", host, signed(f"ws://{host}/media")) is WRONG
    assert checker.webhook("/voice", None, signed("http:///voice")) is WRONG


def test_a_body_that_is_no_form_is_vouched_for_by_its_hash() -> None:
    body = b'{"CallSid":"CA1234567890ABCDE","Caller":"+12349013030"}'
    digest = "5ccde7145dfb8f56479710896586cb9d5911809d83afbe34627818790db0aec9"
    checker = SignatureChecker(TOKEN, RELAY)
    target = f"/hook?bodySHA256={digest}"
    good = signed(RELAY + target)
    assert checker.webhook(target, None, good, raw_body=body) is VALID
    assert checker.webhook(target, None, good, raw_body=body + b" ") is WRONG
    assert checker.webhook("/hook", None, signed(RELAY + "/hook"), raw_body=body) is WRONG


def test_repeated_names_and_values() -> None:
    """Each value of a name counts once, in ascending order, wherever it stood."""
    checker = SignatureChecker(TOKEN, RELAY)
    form = [("b", "2"), ("a", "z"), ("b", "1"), ("b", "2")]
    assert checker.webhook("/voice", None, signed(RELAY + "/voice" + "azb1b2"), form=form) is VALID


@pytest.mark.parametrize("url", ["ftp://example.com", "example.com", "https://", "wss://example.com"])
def test_a_public_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        SignatureChecker(TOKEN, url)


def test_an_empty_auth_token_is_refused() -> None:
    with pytest.raises(ValueError, match="Auth Token"):
        SignatureChecker("", RELAY)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=8), st.booleans())
def test_agrees_with_twilios_validator_on_any_form(fields: dict[str, str], spoil: bool) -> None:
    """A form that went over the wire is signed like the fields it was made of."""
    fields = {
        name.encode("utf-8", "replace").decode(): v.encode("utf-8", "replace").decode()
        for name, v in fields.items()
    }
    url = RELAY + "/voice"
    signature: str = RequestValidator(TOKEN).compute_signature(url, fields)
    wire = parse_qsl(urlencode(fields), keep_blank_values=True)
    if spoil:
        wire.append(("Extra", "1"))
        fields = fields | {"Extra": "1"}
    ours = SignatureChecker(TOKEN, RELAY).webhook("/voice", None, signature, form=wire)
    assert (ours is VALID) == RequestValidator(TOKEN).validate(url, fields, signature)
