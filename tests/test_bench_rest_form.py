"""Multipart forms."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.bench.rest import form

TYPE = "multipart/form-data; boundary=b"


def sent(fields: dict[str, str | list[str]], files: dict[str, tuple[str, bytes, str]]) -> form.Form:
    """What arrives of a form that the SDK's HTTP library writes."""
    request = httpx2.Request("POST", "http://127.0.0.1/", data=fields, files=files)
    return form.parse(request.headers["content-type"], request.read())


def test_fields_and_files_arrive_under_their_names() -> None:
    got = sent(
        {"model": "gpt-transcribe", "keywords[]": ["Ünal", "a\nb"]},
        {"file": ('été "1".wav', b"\r\n--\0\xff\r\n", "audio/wav")},
    )
    assert got.fields == {"model": ["gpt-transcribe"], "keywords[]": ["Ünal", "a\nb"]}
    assert got.value("model") == "gpt-transcribe"
    assert got.value("prompt") is None
    assert got.files["file"].data == b"\r\n--\0\xff\r\n"
    assert got.files["file"].content_type == "audio/wav"


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(max_size=50))
def test_any_content_survives(data: bytes, text: str) -> None:
    got = sent({"prompt": text}, {"file": ("a.wav", data, "audio/wav")})
    assert got.files["file"].data == data
    assert got.value("prompt") == text


@pytest.mark.parametrize(
    ("content_type", "body", "problem"),
    [
        ("application/json", b"{}", "expected multipart/form-data"),
        ("multipart/form-data", b"", "expected multipart/form-data with a boundary"),
        (TYPE, b"", "the last boundary is missing"),
        (TYPE, b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n', "the last boundary"),
        (TYPE, b"--b\r\nContent-Type: text/plain\r\n\r\n1\r\n--b--\r\n", "a part without a name"),
        (TYPE, b'--b\r\nContent-Disposition: form-data; name="a"\r\n--b--\r\n', "a part without a name"),
        (TYPE, b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--b--', "is not UTF-8"),
    ],
)
def test_what_is_no_form_is_told_why(content_type: str, body: bytes, problem: str) -> None:
    with pytest.raises(form.FormError, match=problem):
        form.parse(content_type, body)
