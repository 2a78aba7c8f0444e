"""Masking of phone numbers and secrets, for everything that is logged.

A `Masker` works at the one place that each log line passes, as loguru's patcher: on the message, on
the bound fields and on the text of an exception. What it recognises:

* phone numbers: E.164 with or without its plus sign (also percent-encoded, as in a webhook's query),
  French and other national forms that begin with 0, North American ones; separators are allowed. The
  first three digits and the last two stay: `+33612345678` becomes `+336•••••78`;
* the secrets that it was given, wherever they stand, also percent-encoded;
* secrets by their form: OpenAI keys (`sk-...`), JSON Web Tokens, 32 hexadecimal digits that stand
  alone (Twilio's auth tokens; a SID has two letters before them), a password in a URL;
* secrets by what stands before them: `Authorization`, `X-Twilio-Signature`, an API key, a token, a
  password, as a header, a parameter or a printed dictionary.

Numbers written out in words are not recognised. Every pattern is compiled once, and none can
backtrack further than a fixed distance, so that the cost is linear in the text's length.
"""

import re
import traceback
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from loguru import Record

HIDDEN: Final = "•••••"
"""What stands for hidden characters: always five, so that no length shows."""

EXCEPTION_KEY: Final = "exception_text"
"""The field that holds an exception's masked traceback in a patched record."""

MESSAGE_LIMIT: Final = 8192
FIELD_LIMIT: Final = 2048
EXCEPTION_LIMIT: Final = 32768
"""Characters kept of a message, of one field's text and of a traceback; the rest is cut."""

_ITEM_LIMIT: Final = 64
_DEPTH_LIMIT: Final = 6
_SECRET_MIN_LENGTH: Final = 6

_SPACE = r"[ .,/\-\u00a0\u202f]"
_INTERNATIONAL = re.compile(r"(?:\+|%2[Bb])[ (]{0,2}\d(?:[()/ .\-\u00a0\u202f]{0,3}\d){6,}")
_NATIONAL = re.compile(
    r"(?<![\w.+])(?:"
    r"(?!\d\d[./-]\d\d[./-](?:19|20))"  # a date
    rf"00?[1-9](?:{_SPACE}{{0,2}}\d){{7,13}}(?!\d)"  # 06 12 34 56 78, 0033 6 12 34 56 78
    rf"|\(?[2-9]\d\d\)?{_SPACE}{{1,2}}\d{{3}}{_SPACE}\d{{4}}(?!\d)"  # (555) 123-4567
    r"|(?<!-)[1-9]\d{10,14}(?!\w|\.\d)"  # 33612345678
    r")"
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]{0,256}:)[^/\s@]{1,256}@")
_ASSIGNED = r"""["'\]]{0,2}[ \t]{0,8}(?:[:=]|,(?=[ \t]{0,8}b?["']))[ \t]{0,8}(?:b?["'])?"""
_AUTHORIZATION = re.compile(rf"""(?i)(authorization{_ASSIGNED})[^\r\n"']+""")
_NAMES = r"(?:api[-_ ]?key|token|secret|signature|password|passwd|cookie)"
_NAMED = re.compile(rf"""(?i)({_NAMES}(?:{_ASSIGNED}|[ \t]{{1,8}}(?=[\w.~+/=-]{{16}})))[^\s"',;&)}}\]]+""")
_SCHEME = re.compile(r"(?i)\b(Bearer|Basic)[ \t]{1,8}[\w.~+/=-]{8,}")
_OPENAI_KEY = re.compile(r"sk-(?:[\w-]{20,}|(?<![A-Za-z0-9]sk-)[\w-]{8,})")
_JSON_WEB_TOKEN = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?")
_HEX_TOKEN = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{32}(?![0-9A-Za-z])")
_SECRET_NAME = re.compile(rf"(?i)authorization|{_NAMES}")

_BY_FORM: Final = (
    (("authorization",), _AUTHORIZATION, rf"\1{HIDDEN}"),
    (("key", "token", "secret", "signature", "passw", "cookie"), _NAMED, rf"\1{HIDDEN}"),
    (("bearer", "basic"), _SCHEME, rf"\1 {HIDDEN}"),
    (("sk-",), _OPENAI_KEY, f"sk-{HIDDEN}"),
    (("eyj",), _JSON_WEB_TOKEN, HIDDEN),
    (("://",), _URL_PASSWORD, rf"\1{HIDDEN}@"),
)
"""Words of which one must stand in the lower-case text, the pattern, what replaces it. Looking for the
words first costs a tenth of running every pattern over every line."""


def _mask_phone(match: re.Match[str]) -> str:
    plus = "+" if match[0][0] in "+%" else ""
    number = match[0].removeprefix("%2B").removeprefix("%2b").replace("(0)", "")
    digits = "".join(character for character in number if character.isdecimal())
    return f"{plus}{digits[: max(0, min(3, len(digits) - 6))]}{HIDDEN}{digits[-2:]}"


def clip(text: str, limit: int) -> str:
    """Cuts the middle out of a text that is longer than `limit` characters.

    Words that the cut would split go whole, so that no half of a secret stays behind that `mask`
    would no longer recognise.
    """
    if len(text) <= limit:
        return text
    head = text[: limit // 4].rpartition(" ")[0]
    tail = text[-(limit * 3 // 4) :].partition(" ")[2]
    return f"{head} [{len(text) - len(head) - len(tail)} characters cut] {tail}"


class Masker:
    """Masks texts, fields and log records.

    Args:
        secrets: The values that must never appear whatever stands around them, as configured. Those
            shorter than 6 characters are left out: they would mask ordinary words.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets if len(secret) >= _SECRET_MIN_LENGTH for form in _forms(secret)}
        # The longest first: where one secret begins like another, the whole of it goes.
        alternatives = "|".join(re.escape(form) for form in sorted(known, key=len, reverse=True))
        self._known = re.compile(alternatives) if known else None

    def mask(self, text: str) -> str:
        """Returns `text` with every phone number and secret in it hidden."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        lowered = text.lower()
        for words, pattern, replacement in _BY_FORM:
            if any(word in lowered for word in words):
                text = pattern.sub(replacement, text)
        text = _HEX_TOKEN.sub(HIDDEN, text)
        if "+" in text or "%2" in text:
            text = _INTERNATIONAL.sub(_mask_phone, text)
        return _NATIONAL.sub(_mask_phone, text)

    def mask_value(self, value: object, *, name: str = "", depth: int = 0) -> object:
        """Turns a field's value into plain masked data: JSON types only, bounded in size.

        Args:
            value: Anything. Containers are copied, up to 64 items and 6 levels; what is no JSON type
                becomes its `str`.
            name: The field's name. One like `auth_token` hides any text below it.
            depth: How deep `value` stands in its field.
        """
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth >= _DEPTH_LIMIT:
            return "..."
        if isinstance(value, Mapping):
            return {
                (key := self._text(each)): self.mask_value(inner, name=f"{name}.{key}", depth=depth + 1)
                for each, inner in list(value.items())[:_ITEM_LIMIT]
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.mask_value(inner, name=name, depth=depth + 1) for inner in list(value)[:_ITEM_LIMIT]]
        return HIDDEN if name and _SECRET_NAME.search(name) else self._text(value)

    def patch(self, record: "Record") -> None:
        """Masks a loguru record in place: the patcher for `logger.configure`.

        The exception is formatted here and moved to the field `EXCEPTION_KEY`, because a sink would
        otherwise print it as it is.
        """
        record["message"] = self.mask(clip(record["message"], MESSAGE_LIMIT))
        extra = record["extra"]
        for key, value in list(extra.items()):
            extra[key] = self.mask_value(value, name=key)
        exception = record["exception"]
        if exception is not None:
            record["exception"] = None
            if exception.value is not None:
                lines = traceback.format_exception(exception.type, exception.value, exception.traceback)
                extra[EXCEPTION_KEY] = self.mask(clip("".join(lines), EXCEPTION_LIMIT).rstrip())

    def _text(self, value: object) -> str:
        if isinstance(value, (bytes, bytearray, memoryview)):
            text = bytes(value[:FIELD_LIMIT]).decode("utf-8", "backslashreplace")
        else:
            try:
                text = str(value)
            except Exception as error:  # A foreign __str__ may fail in any way; logging must not.
                text = f"<{type(value).__name__}: {type(error).__name__} in __str__>"
        return self.mask(clip(text, FIELD_LIMIT))


def _forms(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote(secret)}


_WITHOUT_SECRETS: Final = Masker()


def mask(text: str) -> str:
    """Hides what can be recognised by its form alone: `Masker` without configured secrets."""
    return _WITHOUT_SECRETS.mask(text)
