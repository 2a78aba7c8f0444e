"""Base64 text is checked to the letter before it is spliced into the other peer's message."""

import base64
import binascii
import string
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.codecs.payload import decode, encode, payload_size

ALPHABET = (string.ascii_letters + string.digits + "+/").encode()


def strict_size(text: bytes) -> int:
    """What RFC 4648 says, by the standard library."""
    try:
        audio = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return -1
    return len(audio) if len(text) % 4 == 0 else -1


@given(st.binary(max_size=1000))
def test_what_is_encoded_is_accepted_and_comes_back(audio: bytes) -> None:
    text = encode(audio)
    assert text == base64.b64encode(audio)
    assert payload_size(text) == len(audio)
    assert decode(text) == audio


@given(st.binary(max_size=1000))
def test_views_are_encoded_like_bytes(audio: bytes) -> None:
    assert encode(memoryview(audio)) == encode(bytearray(audio)) == encode(audio)


@given(st.binary(max_size=12) | st.text("AQgw/+=", max_size=12).map(str.encode))
def test_any_text_is_judged_as_the_rfc_says(text: bytes) -> None:
    assert payload_size(text) == strict_size(text)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_one_foreign_byte_anywhere_is_refused(audio: bytes, data: st.DataObject) -> None:
    text = bytearray(encode(audio))
    foreign = st.integers(0, 255).filter(lambda byte: byte not in ALPHABET and byte != ord("="))
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(foreign)
    assert payload_size(bytes(text)) == -1


@pytest.mark.parametrize(
    "text",
    [
        b"A",
        b"AA",
        b"AAA",
        b"AAAA=",
        b"====",
        b"A===",
        b"=AAA",
        b"AA=A",
        b"AA==AAAA",
        b"A=A=",
        b"AAA\n",
        b'AA"A',
        b"AA\\A",
        b"AA-_",
        b"AA A",
        b"\x00AAA",
        b"AAAAAA==AA==",
        b"AAA=AAA=",
        b"=",
        b"==",
    ],
)
def test_what_is_not_padded_base64_is_refused(text: bytes) -> None:
    assert payload_size(text) == -1


def test_nothing_is_no_audio() -> None:
    assert payload_size(b"") == 0
    assert decode(b"") == b""


def test_slices_of_60_ms_carry_no_padding() -> None:
    assert not encode(bytes(480)).endswith(b"=")
    assert encode(bytes(160)).endswith(b"==")


def test_the_check_costs_less_than_decoding(capsys: pytest.CaptureFixture[str]) -> None:
    text = encode(bytes(range(160)))

    def best(what: object) -> float:
        return (
            min(timeit.repeat("what(text)", globals={"what": what, "text": text}, number=2000, repeat=9))
            / 2e-3
        )

    check, decoding = best(payload_size), best(decode)
    with capsys.disabled():
        print(f"\npayload, 160 bytes: check {check:.2f} us, decode {decoding:.2f} us")
    assert check < 2 * decoding
