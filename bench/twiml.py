"""TwiML, read as strictly as a simulator should: what Twilio would warn of is refused.

Verbs and attributes: https://www.twilio.com/docs/voice/twiml (the part that a relay may answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit, urlunsplit
from xml.etree import ElementTree


class TwimlError(ValueError):
    """TwiML that Twilio would not run, or would warn of.

    Attributes:
        code: Twilio's error number, e.g. 12100 (document parse failure) or 31922 (scheme not supported).
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Stream:
    """`<Stream>`: where to open the WebSocket."""

    url: str
    """Absolute `wss`, exactly as written (relative ones resolved): what the upgrade's signature is over."""
    parameters: Mapping[str, str]
    """Become `start.customParameters`."""
    name: str | None = None
    status_callback: str | None = None
    status_callback_method: str = "POST"


@dataclass(frozen=True)
class Connect:
    """`<Connect>` round one `<Stream>`."""

    stream: Stream
    action: str | None = None
    """Absolute URL."""
    method: str = "POST"


@dataclass(frozen=True)
class Say:
    text: str
    language: str | None = None
    voice: str | None = None


@dataclass(frozen=True)
class Pause:
    seconds: float = 1.0


@dataclass(frozen=True)
class Dial:
    number: str
    action: str | None = None
    method: str = "POST"


@dataclass(frozen=True)
class Redirect:
    url: str
    """Absolute."""
    method: str = "POST"


@dataclass(frozen=True)
class Hangup:
    pass


@dataclass(frozen=True)
class Reject:
    reason: str = "rejected"


Verb = Connect | Say | Pause | Dial | Redirect | Hangup | Reject

_ATTRIBUTES = {
    "Response": set[str](),
    "Connect": {"action", "method"},
    "Stream": {"url", "name", "track", "statusCallback", "statusCallbackMethod"},
    "Parameter": {"name", "value"},
    "Say": {"voice", "language", "loop"},
    "Pause": {"length"},
    "Dial": {"action", "method", "timeout", "timeLimit", "callerId", "answerOnBridge", "hangupOnStar"},
    "Number": set[str](),
    "Redirect": {"method"},
    "Hangup": set[str](),
    "Reject": {"reason"},
}

_MAX_PARAMETER = 500
"""Name and value together must stay below it."""


def parse(document: bytes | str, base_url: str) -> list[Verb]:
    """Returns the verbs of a TwiML document.

    Args:
        document: The whole document.
        base_url: Where it came from; relative URLs are resolved against it.

    Raises:
        TwimlError: It is not well-formed, or anything in it is unknown, missing or out of range.
    """
    try:
        text = document.decode() if isinstance(document, bytes) else document
    except UnicodeDecodeError as error:
        raise TwimlError(12100, f"not UTF-8: {error}") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise TwimlError(12100, "a document type is not allowed")
    try:
        # Bytes, because ElementTree refuses an encoding declaration in a str.
        root = ElementTree.fromstring(text.encode())  # noqa: S314 - no doctype, no danger
    except ElementTree.ParseError as error:
        raise TwimlError(12100, f"document parse failure: {error}") from error
    if root.tag != "Response":
        raise TwimlError(12100, f"the root is <{root.tag}>, not <Response>")
    _check(root, children=True)
    return [_verb(element, base_url) for element in root]


def _verb(element: ElementTree.Element, base_url: str) -> Verb:
    match element.tag:
        case "Connect":
            _check(element, children=True)
            if [child.tag for child in element] != ["Stream"]:
                raise TwimlError(12200, "<Connect> takes exactly one <Stream> here")
            return Connect(_stream(element[0], base_url), *_action(element, base_url))
        case "Say":
            _check(element, text=True)
            return Say(_text(element), element.get("language"), element.get("voice"))
        case "Dial":
            return _dial(element, base_url)
        case "Redirect":
            _check(element, text=True)
            return Redirect(_http_url(_text(element), base_url), _method(element, "method"))
        case "Pause" | "Hangup" | "Reject":
            return _empty(element)
        case tag:
            raise TwimlError(12200, f"unknown verb <{tag}>")


def _empty(element: ElementTree.Element) -> Verb:
    """The verbs that have attributes at most."""
    _check(element)
    if element.tag == "Hangup":
        return Hangup()
    if element.tag == "Reject":
        reason = element.get("reason", "rejected")
        if reason not in {"rejected", "busy"}:
            raise TwimlError(12200, f"<Reject reason={reason!r}>")
        return Reject(reason)
    length = element.get("length", "1")
    if not length.isdecimal():
        raise TwimlError(12200, f"<Pause length={length!r}>")
    return Pause(int(length))


def _dial(element: ElementTree.Element, base_url: str) -> Dial:
    nouns = list(element)
    if not nouns:
        _check(element, text=True)
        return Dial(_text(element), *_action(element, base_url))
    _check(element, children=True)
    if [noun.tag for noun in nouns] != ["Number"]:
        raise TwimlError(12200, "<Dial> takes a number or one <Number> here")
    _check(nouns[0], text=True)
    return Dial(_text(nouns[0]), *_action(element, base_url))


def _stream(element: ElementTree.Element, base_url: str) -> Stream:
    _check(element, children=True)
    url = element.get("url")
    if not url:
        raise TwimlError(31923, "<Stream> has no url")
    if "://" not in url:
        # Relative to the document; the connection is always wss.
        url = urlunsplit(urlsplit(urljoin(base_url, url))._replace(scheme="wss"))
    try:
        parts = urlsplit(url)
        well_formed = parts.hostname and parts.port != 0 and parts.username is None
    except ValueError:
        well_formed = False
    if not well_formed or any(c.isspace() for c in url):
        raise TwimlError(31923, f"malformed stream url {url!r}")
    if parts.scheme != "wss":
        raise TwimlError(31922, f"stream url {url!r} is not wss")
    if element.get("track", "inbound_track") != "inbound_track":
        raise TwimlError(31941, f"track {element.get('track')!r} under <Connect>")
    callback = element.get("statusCallback")
    return Stream(
        url,
        _parameters(element),
        element.get("name"),
        _http_url(callback, base_url) if callback else None,
        _method(element, "statusCallbackMethod"),
    )


def _parameters(stream: ElementTree.Element) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for element in stream:
        if element.tag != "Parameter":
            raise TwimlError(12200, f"<{element.tag}> inside <Stream>")
        _check(element)
        name, value = element.get("name"), element.get("value")
        if not name or value is None:
            raise TwimlError(12200, "<Parameter> without name or value")
        if len(name) + len(value) >= _MAX_PARAMETER:
            raise TwimlError(12200, f"<Parameter> {name!r} has {len(name) + len(value)} characters")
        if name in parameters:
            raise TwimlError(12200, f"<Parameter> {name!r} stands there twice")
        parameters[name] = value
    return parameters


def _check(element: ElementTree.Element, *, children: bool = False, text: bool = False) -> None:
    """Refuses attributes, children and text that do not belong there."""
    unknown = set(element.attrib) - _ATTRIBUTES[element.tag]
    if unknown:
        raise TwimlError(12200, f"<{element.tag}> has no attribute {', '.join(sorted(unknown))}")
    if len(element) and not children:
        raise TwimlError(12200, f"<{element[0].tag}> inside <{element.tag}>")
    stray = "".join([element.text or "", *(child.tail or "" for child in element)]).strip()
    if stray and not text:
        raise TwimlError(12200, f"text inside <{element.tag}>: {stray!r}")


def _text(element: ElementTree.Element) -> str:
    text = (element.text or "").strip()
    if not text:
        raise TwimlError(12200, f"<{element.tag}> is empty")
    return text


def _action(element: ElementTree.Element, base_url: str) -> tuple[str | None, str]:
    action = element.get("action")
    return (_http_url(action, base_url) if action else None), _method(element, "method")


def _method(element: ElementTree.Element, attribute: str) -> str:
    method = element.get(attribute, "POST")
    if method not in {"GET", "POST"}:
        raise TwimlError(12200, f"<{element.tag} {attribute}={method!r}>")
    return method


def _http_url(url: str, base_url: str) -> str:
    absolute = urljoin(base_url, url)
    parts = urlsplit(absolute)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise TwimlError(12200, f"not an http url: {url!r}")
    return absolute
