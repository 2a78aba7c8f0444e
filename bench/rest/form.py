"""`multipart/form-data` (RFC 7578) in a whole body."""

from __future__ import annotations

import email.message
import email.parser
from dataclasses import dataclass, field


class FormError(ValueError):
    """The body is no such form."""


@dataclass(frozen=True, slots=True)
class FormFile:
    """An uploaded file."""

    filename: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """A form's parts.

    Attributes:
        fields: Values by name, in the order of the body; a name may come several times.
        files: Files by name.
    """

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, FormFile] = field(default_factory=dict)

    def value(self, name: str) -> str | None:
        """The last value of this name."""
        return self.fields[name][-1] if name in self.fields else None


def parse(content_type: str, body: bytes) -> Form:
    """Parses a form.

    Args:
        content_type: The request's header of that name.
        body: The whole body.

    Raises:
        FormError: Another content type, no boundary, a part without name or end.
    """
    header = email.message.Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise FormError("expected multipart/form-data with a boundary")
    # The first boundary has no line before it: with one of ours all of them look alike.
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise FormError("the last boundary is missing")
    form = Form()
    for part in parts[1:-1]:
        head, separator, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        message = email.parser.BytesHeaderParser().parsebytes(head)
        name = message.get_param("name", header="content-disposition")
        if not separator or message.get_content_disposition() != "form-data" or not isinstance(name, str):
            raise FormError("a part without a name")
        filename = message.get_filename()
        if filename is None:
            try:
                form.fields.setdefault(name, []).append(data.decode())
            except UnicodeDecodeError:
                raise FormError(f"part {name!r} is not UTF-8") from None
        else:
            form.files[name] = FormFile(filename, message.get_content_type(), data)
    return form
