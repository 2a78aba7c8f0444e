"""The daemon's settings: environment variables and a `.env` file, checked before anything starts.

`load_settings` looks at everything before it complains: `SettingsError.lines` has one line for each
value that is wrong or missing, so that one start shows all there is to repair.

Each field of `Settings` is the lower-case form of its variable (`port` is `PORT`). Its description is
the comment in `.env.example`, and `expected` completes the sentence of its error line.
"""

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Final, Literal, cast
from urllib.parse import urlsplit

import phonenumbers
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.config import JsonDict
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from handlehome.relay.masking import mask

VOICES: Final = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
"""The voices of OpenAI's Realtime API; besides them there are own voices, `voice_...`."""

VOICE_EXPECTED: Final = f"one of {', '.join(VOICES)}, or an own voice's id (voice_...)"

REQUIRED_IN_PRODUCTION: Final = ("PUBLIC_URL", "X_API_KEY", "TWILIO_AUTH_TOKEN", "OPENAI_API_KEY")

_OPENAI_HOST: Final = "api.openai.com"
_NEAR_MISS: Final = 0.8
_SHOWN: Final = 60


class SettingsError(Exception):
    """Settings are wrong or missing.

    Attributes:
        lines: One line per problem; each names the variable and what is expected. No secret is in them.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def check_voice(voice: str) -> str:
    """Returns `voice` if the Realtime API can know it.

    Raises:
        ValueError: It is neither in `VOICES` nor of the form `voice_...`.
    """
    if voice not in VOICES and not re.fullmatch(r"voice_[\w-]+", voice):
        raise ValueError(f"{voice!r} is no known voice")
    return voice


def _check_host(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # Digits and dots alone were meant to be an address.
        if not re.fullmatch(r"(?![\d.]+$)(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?", host):
            raise ValueError("is no address and no host name") from None
    return host


def _check_url(url: str, schemes: tuple[str, ...]) -> str:
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("contains a space or a control character")
    try:
        parts = urlsplit(url)
        port_is_zero = parts.port == 0
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in schemes:
        raise ValueError(f"does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.hostname or port_is_zero:
        raise ValueError("names no host" if not parts.hostname else "names port 0")
    if parts.username is not None or parts.password is not None:
        raise ValueError("contains a user name")
    if "?" in url or "#" in url:
        raise ValueError("has a query or a fragment")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _check_http_url(url: str) -> str:
    return _check_url(url, ("https", "http"))


def _check_websocket_url(url: str) -> str:
    return _check_url(url, ("wss", "ws"))


def _check_directory(path: Path) -> Path:
    path = path.expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError("is a file")
    return path


def _check_secret(secret: SecretStr) -> SecretStr:
    # It goes into HTTP headers, where nothing else is allowed.
    if not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise ValueError("contains a space, a control character or a character beyond ASCII")
    return secret


def _check_mongo_uri(uri: SecretStr) -> SecretStr:
    # As if it named its servers: to parse the other kind, pymongo asks the DNS.
    text = re.sub(r"^mongodb\+srv://", "mongodb://", uri.get_secret_value())
    try:
        parse_uri(text)
    except (PyMongoError, ValueError) as error:
        # What the library says of a user name or a password may hold it.
        reason = "" if "@" in text else f" ({error})"
        raise ValueError(f"is no MongoDB URI{reason}") from None
    return uri


def _check_region(region: str) -> str:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(f"{region!r} is no region")
    return region


def _check_file(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise ValueError("is no file")
    return path


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
WebSocketUrl = Annotated[str, AfterValidator(_check_websocket_url)]
Directory = Annotated[Path, AfterValidator(_check_directory)]
File = Annotated[Path, AfterValidator(_check_file)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


def _expected(what: str) -> JsonDict:
    return {"expected": what}


_SECRET: Final[JsonDict] = _expected("visible ASCII characters") | {"secret": True}
_MODEL_NAME: Final[JsonDict] = _expected("a model's name, for example gpt-5.6-luna")
_DIRECTORY: Final[JsonDict] = _expected("a directory, which is created if it is missing")


class Settings(BaseSettings):
    """Everything that can be set. Immutable, and its `repr` shows no secret.

    Built directly (`Settings(port=0)`) it reads no environment and checks each value by itself only;
    `load_settings` does the rest.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: Annotated[str, AfterValidator(_check_host)] = Field(
        "127.0.0.1",
        description="Address to listen on; the reverse proxy stands in front of it",
        json_schema_extra=_expected("an IP address or a host name, for example 127.0.0.1"),
    )
    port: int = Field(
        8080,
        ge=0,
        le=65535,
        description="Port for HTTP and media streams; 0 takes any free one",
        json_schema_extra=_expected("a whole number from 0 to 65535"),
    )
    app_env: Literal["development", "production"] = Field(
        "development",
        description="development or production; production insists on keys and signatures",
        json_schema_extra=_expected("development or production"),
    )
    public_url: HttpUrl | None = Field(
        None,
        description="URL under which Twilio reaches this daemon, for example https://voice.example.com",
        json_schema_extra=_expected("a URL like https://voice.example.com, without query and fragment"),
    )
    instance: str = Field(
        default_factory=lambda validated: _default_instance(validated.get("port", 0)),
        pattern=r"^[a-z0-9-]{1,63}$",
        description="This daemon's name in stream URLs, unique per load balancer; empty: <hostname>-<port>",
        json_schema_extra=_expected("1 to 63 of the characters a-z, 0-9 and -"),
    )
    x_api_key: Secret | None = Field(
        None,
        description="Key for the API and the metrics, which a later version serves; production needs it now",
        json_schema_extra=_SECRET,
    )
    twilio_account_sid: Annotated[str, Field(pattern=r"^AC[0-9a-fA-F]{32}$")] | None = Field(
        None,
        description="Twilio's account SID",
        json_schema_extra=_expected("AC and 32 hexadecimal digits"),
    )
    twilio_auth_token: Secret | None = Field(
        None,
        description="Twilio's auth token; with it, every webhook and media stream must be signed",
        json_schema_extra=_SECRET,
    )
    openai_api_key: Secret | None = Field(
        None,
        description="OpenAI's API key",
        json_schema_extra=_SECRET,
    )
    openai_base_url: HttpUrl = Field(
        "https://api.openai.com/v1",
        description="OpenAI's REST API, for transcription and extraction after the call",
        json_schema_extra=_expected("a URL like https://api.openai.com/v1, without query and fragment"),
    )
    openai_realtime_url: WebSocketUrl = Field(
        "wss://api.openai.com/v1/realtime",
        description="OpenAI's Realtime API; the model's name is appended",
        json_schema_extra=_expected(
            "a URL like wss://api.openai.com/v1/realtime, without query and fragment"
        ),
    )
    openai_realtime_model: ModelName = Field(
        "gpt-realtime-2.1-mini",
        description="Model that speaks with the caller",
        json_schema_extra=_MODEL_NAME,
    )
    openai_voice: Annotated[str, AfterValidator(check_voice)] = Field(
        "marin",
        description="Its voice, unless the assistant's file names one",
        json_schema_extra=_expected(VOICE_EXPECTED),
    )
    openai_transcription_model: ModelName = Field(
        "gpt-transcribe",
        description="Model that writes down what the caller says",
        json_schema_extra=_MODEL_NAME,
    )
    openai_extraction_model: ModelName = Field(
        "gpt-5.6-luna",
        description="Model that extracts the customer's data from the transcript",
        json_schema_extra=_MODEL_NAME,
    )
    extraction_schema: File | None = Field(
        None,
        description="JSON Schema of what is extracted from a call; empty: the built-in one",
        json_schema_extra=_expected("a file's path"),
    )
    extraction_workers: int = Field(
        4,
        ge=1,
        le=64,
        description="Calls whose transcripts are processed at once, in threads that compete with the audio",
        json_schema_extra=_expected("a whole number from 1 to 64"),
    )
    prices_file: File | None = Field(
        None,
        description="TOML file of what the models cost; empty: the built-in list",
        json_schema_extra=_expected("a file's path"),
    )
    phone_region: Annotated[str, BeforeValidator(_upper), AfterValidator(_check_region)] = Field(
        "FR",
        description="Country whose phone numbers are said without a country code, two letters",
        json_schema_extra=_expected("a country's two letters, for example FR"),
    )
    audio_format: Literal["pcmu", "pcm24k"] = Field(
        "pcmu",
        description="Audio between this daemon and the model: pcmu (mu-law, 8 kHz, as on the phone line) "
        "or pcm24k (24 kHz, resampled)",
        json_schema_extra=_expected("pcmu or pcm24k"),
    )
    record_calls: bool = Field(
        False,
        description="Record both sides of each call to DATA_DIR/recordings (true or false)",
        json_schema_extra=_expected("true or false"),
    )
    mongo_uri: Annotated[SecretStr, AfterValidator(_check_mongo_uri)] | None = Field(
        None,
        description="MongoDB for the records, mongodb://user:password@host/database; empty: "
        "the embedded SQLite store in DATA_DIR",
        json_schema_extra=_expected("a URI like mongodb://localhost:27017/handlehome") | {"secret": True},
    )
    retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after which a call's record is deleted, with all that belongs to it; 0 keeps it",
        json_schema_extra=_expected("a whole number of days from 0 to 36500"),
    )
    recording_retention_days: int = Field(
        90,
        ge=0,
        le=36_500,
        description="Days after which a call's recording is deleted; 0 keeps it as long as the record",
        json_schema_extra=_expected("a whole number of days from 0 to 36500"),
    )
    audio_retention_days: int = Field(
        7,
        ge=1,
        le=365,
        description="Days for which the caller's audio is kept where its words could not be had",
        json_schema_extra=_expected("a whole number of days from 1 to 365"),
    )
    data_dir: Directory = Field(
        Path("./data"),
        description="Directory of the journal and the records; one daemon per directory",
        json_schema_extra=_DIRECTORY,
    )
    log_dir: Directory = Field(
        Path("./logs"),
        description="Directory of combined.log and error.log",
        json_schema_extra=_DIRECTORY,
    )
    log_level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)
    ] = Field(
        "INFO",
        description="Least important level that is logged: TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL",
        json_schema_extra=_expected("TRACE, DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    )
    max_calls: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Calls at once; further callers hear that the line is full",
        json_schema_extra=_expected("a whole number from 1 to 10000"),
    )
    # Twilio itself ends every call after four hours.
    max_call_seconds: Seconds = Field(
        3500,
        ge=1,
        le=14_400,
        description="A call's longest duration in seconds; a Realtime session, opened just before, has 3600",
        json_schema_extra=_expected("a number of seconds from 1 to 14400"),
    )
    playout_lead_ms: int = Field(
        1000,
        ge=100,
        le=10_000,
        description="How far the audio sent to Twilio may run ahead of the ear, in milliseconds",
        json_schema_extra=_expected("a whole number of milliseconds from 100 to 10000"),
    )
    drain_seconds: Seconds = Field(
        300,
        ge=0,
        le=14_400,
        description="How long a stopping daemon lets running calls go on, in seconds",
        json_schema_extra=_expected("a number of seconds from 0 to 14400"),
    )
    resume_seconds: Seconds = Field(
        60,
        ge=0,
        le=3600,
        description="How long a call without a stream may come back, in seconds",
        json_schema_extra=_expected("a number of seconds from 0 to 3600"),
    )
    assistant_file: Path | None = Field(
        None,
        description="TOML file of the assistant's persona; empty: the built-in French receptionist",
        json_schema_extra=_expected("a file's path"),
    )
    warnings: tuple[str, ...] = Field(
        (), description="Lines worth showing at start. Not a variable: load_settings fills it"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library passes all four by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leaves reading to `load_settings`, which can say what is wrong with the file itself."""
        return (init_settings,)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values in clear, for the log's masking."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr))


VARIABLES: Final = tuple(name.upper() for name in Settings.model_fields if name != "warnings")
"""The names of all settings as environment variables, in the order of `.env.example`."""


def load_settings(env: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Reads and checks the settings.

    The environment wins over the file; an empty value counts as not set, in both; blanks around a
    value are dropped. A file that does not exist is no error. Unknown variables are ignored, but a
    near miss in the file (`MAX_CALL`) gets a line in `Settings.warnings`.

    Args:
        env: The environment; by default the process's own.
        env_file: The `.env` file; None reads none.

    Raises:
        SettingsError: Something is wrong or missing; it lists everything.
    """
    from_file, problems, warnings = _read_env_file(env_file) if env_file is not None else ({}, [], [])
    environment = os.environ if env is None else env
    raw = {
        name: value
        for name in VARIABLES
        if (value := environment.get(name, "").strip() or from_file.get(name, ""))
    }
    settings: Settings | None = None
    wrong: list[ErrorDetails] = []
    values: dict[str, object] = {name.lower(): value for name, value in raw.items()}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        # INSTANCE's default isn't built after an error elsewhere: no problem of its own.
        wrong = [
            each for each in error.errors(include_url=False) if each["type"] != "default_factory_not_called"
        ]
    # Raised outside of `except`, so that no chained exception carries the values along.
    problems += [_line(details, raw) for details in wrong] + _missing(raw)
    if problems or settings is None:
        raise SettingsError(problems)
    warnings += _doubts(settings)
    return settings.model_copy(update={"warnings": tuple(warnings)})


def _line(details: ErrorDetails, raw: Mapping[str, str]) -> str:
    field = str(details["loc"][0])
    extra = cast("JsonDict", Settings.model_fields[field].json_schema_extra)
    reason = ""
    if details["type"] == "value_error":
        reason = str(details["ctx"]["error"])
    elif extra.get("secret"):
        reason = "is not usable"
    value = raw.get(field.upper(), "")
    shown = (
        "" if extra.get("secret") or reason.startswith((value, repr(value))) else f"{mask(value)[:_SHOWN]!r} "
    )
    return f"{field.upper()}: {shown}{reason or 'is not valid'}; expected {extra['expected']}"


def _missing(raw: Mapping[str, str]) -> list[str]:
    if raw.get("APP_ENV") == "production":
        return [
            f"{name}: missing; APP_ENV=production needs it"
            for name in REQUIRED_IN_PRODUCTION
            if name not in raw
        ]
    realtime_url = raw.get("OPENAI_REALTIME_URL", str(Settings.model_fields["openai_realtime_url"].default))
    if "OPENAI_API_KEY" not in raw and _is_openai(realtime_url):
        return [
            "OPENAI_API_KEY: missing; expected OpenAI's key, "
            "or OPENAI_REALTIME_URL with the address of a simulator (handlehome simulate-openai)"
        ]
    return []


def _doubts(settings: Settings) -> list[str]:
    doubts = []
    if settings.openai_api_key is None and _is_openai(settings.openai_base_url):
        doubts.append(
            "OPENAI_BASE_URL: points to OpenAI, but OPENAI_API_KEY is missing: "
            "nothing will be transcribed or extracted after a call"
        )
    if settings.app_env == "production" and settings.public_url and settings.public_url.startswith("http:"):
        doubts.append("PUBLIC_URL: is not https; Twilio opens media streams over TLS only")
    return doubts


def _is_openai(url: str) -> bool:
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False
    return host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}")


def _default_instance(port: int) -> str:
    # With any free port the number isn't known yet; the process id is as good on one machine.
    suffix = str(port or os.getpid())
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-") or "handlehome"
    return f"{host[: 62 - len(suffix)]}-{suffix}"


def _read_env_file(path: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Reads a `.env` file: its values that are not empty, problems, warnings."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}, [], []
    except UnicodeDecodeError:
        return {}, [f"{path}: is not UTF-8; expected lines like PORT=8080"], []
    except OSError as error:
        return {}, [f"{path}: cannot be read: {error.strerror}"], []
    values: dict[str, str] = {}
    problems: list[str] = []
    warnings: list[str] = []
    for binding in parse_stream(StringIO(text)):
        where = f"{path}, line {binding.original.line}"
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(f"{where}: is not readable; expected a line like PORT=8080")
        elif binding.key in VARIABLES:
            values[binding.key] = (binding.value or "").strip()
        elif binding.key is not None:
            near = difflib.get_close_matches(binding.key.upper(), VARIABLES, n=1, cutoff=_NEAR_MISS)
            if near:
                warnings.append(
                    f"{where}: {binding.key} is no setting and is ignored; did you mean {near[0]}?"
                )
    return values, problems, warnings
