"""The TwiML documents that we answer with, and the addresses that stand in them.

Written by Twilio's own package, which escapes whatever it is given. One `connect` costs about 60 us, and
one is made per webhook.
"""

from dataclasses import dataclass

from twilio.twiml.voice_response import Connect, VoiceResponse

MEDIA_TYPE = "text/xml"

# The <Parameter> that carries the one-time token to the stream's `start` message.
TOKEN_PARAMETER = "token"  # noqa: S105 - a parameter's name, not a secret


@dataclass(frozen=True)
class Addresses:
    """Where Twilio finds us, as TwiML says it.

    Attributes:
        stream: `wss://.../media-stream/<instance>`. Always wss: Twilio knows no other scheme (error 31922).
        call_ended: `action` of `<Connect>`; may be relative to the webhook's own URL.
        stream_status: `statusCallback` of `<Stream>`, which has to be absolute.
    """

    stream: str
    call_ended: str
    stream_status: str

    @classmethod
    def public(cls, public_url: str, instance: str) -> "Addresses":
        """The addresses below `public_url`, an http(s) URL with or without a path prefix."""
        base = public_url.rstrip("/")
        return cls(
            stream=f"wss://{base.partition('://')[2]}/media-stream/{instance}",
            call_ended=f"{base}/call-ended",
            stream_status=f"{base}/stream-status",
        )

    @classmethod
    def development(cls, scheme: str, host: str, instance: str) -> "Addresses":
        """The addresses when no public URL is set: those under which the webhook itself came in.

        A tunnel may have taken TLS off, so that `scheme` is not what Twilio used: what can be relative, is.
        """
        return cls(
            stream=f"wss://{host}/media-stream/{instance}",
            call_ended="/call-ended",
            stream_status=f"{scheme}://{host}/stream-status",
        )


def connect(addresses: Addresses, token: str) -> str:
    """Puts the call through to our media socket; `call_ended` decides what follows."""
    verb = Connect(action=addresses.call_ended, method="POST")
    stream = verb.stream(
        url=addresses.stream,
        status_callback=addresses.stream_status,
        status_callback_method="POST",
    )
    stream.parameter(name=TOKEN_PARAMETER, value=token)
    return str(VoiceResponse().append(verb))


def say_and_hang_up(text: str, language: str) -> str:
    """Speaks `text` in `language` (BCP 47, such as `fr-FR`), then hangs up."""
    response = VoiceResponse()
    response.say(text, language=language)
    response.hangup()
    return str(response)


def hang_up() -> str:
    """Ends the call."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def empty() -> str:
    """Asks for nothing."""
    return str(VoiceResponse())
