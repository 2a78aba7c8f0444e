"""Twilio's request signatures: is this webhook, or this WebSocket upgrade, really from Twilio?

The signature is an HMAC over the URL exactly as Twilio was told to request it, so the URL is rebuilt from
`PUBLIC_URL` and the request's own target: what a reverse proxy does to Host, port and scheme doesn't matter,
and no `X-Forwarded-*` header is believed.

The HMAC itself is computed by Twilio's package. Its `validate` is not used: it compares in variable time,
raises TypeError without a signature, adds port 80 to `wss` URLs, and puts every URL through
`urlparse(...).geturl()`, which drops a trailing `?`. The algorithm is pinned to HMAC-SHA1 with the account's
Auth Token, so that a request cannot choose another by `X-Twilio-Webhooks-Signature-Settings`.

Source: https://www.twilio.com/docs/usage/webhooks/webhooks-security
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from urllib.parse import parse_qsl, urlsplit

from twilio.request_validator import HMAC_SHA1, RequestValidator

SIGNATURE_HEADER = "x-twilio-signature"

_DEFAULT_PORTS = {"https": "443", "http": "80", "wss": "443"}
# A port at the end of an authority; the colons inside an IPv6 address's brackets are none.
_PORT = re.compile(r":\d*\Z")


class SignatureVerdict(Enum):
    """What a signature turned out to be; the value completes "the signature ..."."""

    VALID = "is valid"
    MISSING = "is missing"
    WRONG = "is wrong"


class _Fields(dict[str, list[str]]):
    """Form fields as `RequestValidator` wants them: a name may have several values."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in pairs:
            self.setdefault(name, []).append(value)

    def getall(self, name: str) -> list[str]:
        return self[name]


class SignatureChecker:
    """Checks `X-Twilio-Signature` for one account."""

    def __init__(self, auth_token: str, public_url: str | None) -> None:
        """Args:
            auth_token: the account's primary Auth Token.
            public_url: `https://host[:port][/prefix]` under which Twilio reaches us. Without it the request's
                Host header stands for it, with either scheme: for development only.

        Raises:
            ValueError: the token is empty, or the URL is not an http(s) one.
        """
        if not auth_token:
            raise ValueError("a signature cannot be checked with an empty Auth Token")
        self._validator = RequestValidator(auth_token)
        self._public: tuple[str, str, str] | None = None
        if public_url is not None:
            parts = urlsplit(public_url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"{public_url!r} is not an http or https URL with a host")
            # Twilio takes user and password out of the URL before it signs.
            self._public = (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"))

    def webhook(
        self,
        target: str,
        host: str | None,
        signature: str | None,
        *,
        form: Iterable[tuple[str, str]] = (),
        raw_body: bytes = b"",
    ) -> SignatureVerdict:
        """Checks an HTTP request.

        Args:
            target: raw path and raw query, as they stood in the request line.
            host: the Host header.
            signature: the `X-Twilio-Signature` header.
            form: decoded fields of a form body, blank values kept, in any order; nothing for a GET.
            raw_body: a body that is not a form. Twilio vouches for it by `bodySHA256` in the query.
        """
        if not signature:
            return SignatureVerdict.MISSING
        if raw_body and not _body_hash_agrees(target, raw_body):
            return SignatureVerdict.WRONG
        fields = _Fields(form)
        for base in self._bases(("https", "http"), host):
            if self._agrees(base + target, fields, signature):
                return SignatureVerdict.VALID
        return SignatureVerdict.WRONG

    def upgrade(self, target: str, host: str | None, signature: str | None) -> SignatureVerdict:
        """Checks a WebSocket upgrade: the `wss` URL of our TwiML.

        Twilio may sign it with a `/` appended, as its documentation warns; nothing else is tried.

        Args:
            target: raw path as it stood in the request line (Twilio drops a query).
            host: the Host header.
            signature: the `X-Twilio-Signature` header.
        """
        if not signature:
            return SignatureVerdict.MISSING
        for base in self._bases(("wss",), host):
            for url in (base + target, base + target + "/"):
                if self._agrees(url, _Fields(()), signature):
                    return SignatureVerdict.VALID
        return SignatureVerdict.WRONG

    def _bases(self, schemes: tuple[str, ...], host: str | None) -> Iterator[str]:
        """Everything before the request's target: both with and without port, as Twilio isn't consistent."""
        prefix = ""
        if self._public is not None:
            scheme, host, prefix = self._public
            if "wss" not in schemes:
                schemes = (scheme,)
        if not host:
            return
        bare = _PORT.sub("", host)
        for scheme in schemes:
            with_port = host if bare != host else f"{host}:{_DEFAULT_PORTS[scheme]}"
            yield f"{scheme}://{bare}{prefix}"
            yield f"{scheme}://{with_port}{prefix}"

    def _agrees(self, url: str, fields: _Fields, signature: str) -> bool:
        computed: str = self._validator.compute_signature(url, fields, HMAC_SHA1)
        # compare_digest takes only ASCII in strings, and a header may hold anything.
        return hmac.compare_digest(computed.encode(), signature.encode("utf-8", "surrogateescape"))


def _body_hash_agrees(target: str, raw_body: bytes) -> bool:
    claimed = dict(parse_qsl(target.partition("?")[2])).get("bodySHA256", "")
    actual = hashlib.sha256(raw_body).hexdigest()
    return hmac.compare_digest(actual.encode(), claimed.encode("utf-8", "surrogateescape"))
