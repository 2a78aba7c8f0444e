"""Audio as base64 text, the way both peers carry it.

The relay splices this text from one peer's message into the other's. It is checked before that:
nothing but the alphabet of RFC 4648 and its padding may pass, or a quote in it would reach the other
side's JSON. Checking by `bytes.translate` costs a third of decoding (160 bytes: 0.1 us beside 0.3 us).
"""

from __future__ import annotations

import binascii

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def payload_size(payload: bytes) -> int:
    """How many bytes the text stands for.

    Returns:
        -1 for anything that is not padded base64 text to the letter (no line breaks, no missing padding).
    """
    length = len(payload)
    if length & 3:
        return -1
    rest = payload.translate(None, _ALPHABET)
    if not rest:
        return length * 3 // 4
    if rest in (b"=", b"==") and payload.endswith(rest):
        return length * 3 // 4 - len(rest)
    return -1


def decode(payload: bytes) -> bytes:
    """The bytes behind text that `payload_size` has accepted."""
    return binascii.a2b_base64(payload)


def encode(audio: bytes | bytearray | memoryview) -> bytes:
    """Padded base64 text without line breaks."""
    return binascii.b2a_base64(audio, newline=False)
