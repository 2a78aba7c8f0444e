"""Settings: what is read from where, and every error by its name."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from handlehome.relay.config import (
    REQUIRED_IN_PRODUCTION,
    VARIABLES,
    Settings,
    SettingsError,
    load_settings,
)

KEY = {"OPENAI_API_KEY": "sk-test-0123456789"}
EXAMPLE = Path(__file__).parent.parent / ".env.example"


def problems(env: dict[str, str], env_file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(env, env_file)
    return caught.value.lines


def test_defaults() -> None:
    settings = load_settings(KEY, None)
    assert (settings.host, settings.port, settings.app_env) == ("127.0.0.1", 8080, "development")
    assert settings.openai_realtime_url == "wss://api.openai.com/v1/realtime"
    assert settings.openai_realtime_model == "gpt-realtime-2.1-mini"
    assert (settings.max_calls, settings.playout_lead_ms, settings.resume_seconds) == (100, 1000, 60)
    assert (settings.data_dir, settings.log_dir) == (Path("data"), Path("logs"))
    assert settings.public_url is settings.assistant_file is settings.mongo_uri is None
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("HOST", "1.2.3", "'1.2.3' is no address and no host name"),
        ("HOST", "a b", "'a b' is no address"),
        ("PORT", "eighty", "'eighty' is not valid; expected a whole number from 0 to 65535"),
        ("PORT", "65536", "expected a whole number from 0 to 65535"),
        ("APP_ENV", "staging", "expected development or production"),
        ("PUBLIC_URL", "voice.example.com", "does not begin with https:// or http://"),
        ("PUBLIC_URL", "https://", "names no host"),
        ("PUBLIC_URL", "https://h:99999", "is no URL"),
        ("PUBLIC_URL", "https://h/?", "has a query or a fragment"),
        ("PUBLIC_URL", "https://h/#x", "has a query or a fragment"),
        ("PUBLIC_URL", "https://u:geheim@h", "contains a user name"),
        ("INSTANCE", "a_b", "expected 1 to 63 of the characters a-z, 0-9 and -"),
        ("INSTANCE", "a" * 64, "expected 1 to 63"),
        ("X_API_KEY", "a geheim", "contains a space"),
        ("TWILIO_ACCOUNT_SID", "AC12", "'AC12' is not valid; expected AC and 32 hexadecimal digits"),
        ("TWILIO_AUTH_TOKEN", "é-geheim", "a character beyond ASCII"),
        ("OPENAI_API_KEY", "a\tgeheim", "a control character"),
        ("OPENAI_BASE_URL", "wss://api.openai.com/v1", "does not begin with https:// or http://"),
        ("OPENAI_REALTIME_URL", "https://api.openai.com", "does not begin with wss:// or ws://"),
        ("OPENAI_REALTIME_URL", "ws://h:0/x", "names port 0"),
        ("OPENAI_REALTIME_URL", "ws://h/x?model=y", "has a query or a fragment"),
        ("OPENAI_REALTIME_MODEL", "gpt 5", "expected a model's name"),
        ("OPENAI_VOICE", "bob", "'bob' is no known voice; expected one of alloy, ash"),
        ("OPENAI_TRANSCRIPTION_MODEL", "?", "expected a model's name"),
        ("OPENAI_EXTRACTION_MODEL", "?", "expected a model's name"),
        ("EXTRACTION_SCHEMA", "/nowhere/schema.json", "is no file; expected a file's path"),
        ("EXTRACTION_WORKERS", "0", "expected a whole number from 1 to 64"),
        ("PRICES_FILE", "/", "is no file"),
        ("PHONE_REGION", "XX", "'XX' is no region; expected a country's two letters"),
        ("AUDIO_FORMAT", "opus", "'opus' is not valid; expected pcmu or pcm24k"),
        ("RECORD_CALLS", "perhaps", "'perhaps' is not valid; expected true or false"),
        ("MONGO_URI", "http://h/db", "is no MongoDB URI (Invalid URI scheme"),
        (
            "MONGO_URI",
            "mongodb://u:geheim@x:y@z",
            "is no MongoDB URI; expected a URI like mongodb://localhost",
        ),
        ("MONGO_URI", "mongodb://h:99999/", "is no MongoDB URI"),
        ("RETENTION_DAYS", "-1", "expected a whole number of days from 0 to 36500"),
        ("RECORDING_RETENTION_DAYS", "x", "expected a whole number of days from 0 to 36500"),
        ("AUDIO_RETENTION_DAYS", "0", "expected a whole number of days from 1 to 365"),
        ("DATA_DIR", __file__, "is a file; expected a directory"),
        ("LOG_DIR", __file__, "is a file; expected a directory"),
        ("LOG_LEVEL", "loud", "expected TRACE, DEBUG, INFO"),
        ("MAX_CALLS", "0", "expected a whole number from 1 to 10000"),
        ("MAX_CALL_SECONDS", "nan", "expected a number of seconds from 1 to 14400"),
        ("MAX_CALL_SECONDS", "14401", "expected a number of seconds from 1 to 14400"),
        ("PLAYOUT_LEAD_MS", "99", "expected a whole number of milliseconds from 100 to 10000"),
        ("DRAIN_SECONDS", "-1", "expected a number of seconds from 0 to 14400"),
        ("RESUME_SECONDS", "inf", "expected a number of seconds from 0 to 3600"),
    ],
)
def test_a_wrong_value_gets_one_line_that_names_it(name: str, value: str, reason: str) -> None:
    (line,) = problems({**KEY, name: value})
    assert line.startswith(f"{name}: ")
    assert reason in line
    assert "\n" not in line
    assert "geheim" not in line


def test_all_problems_are_named_at_once() -> None:
    lines = problems({"APP_ENV": "production", "PORT": "x", "MAX_CALLS": "0", "LOG_LEVEL": "loud"})
    named = [line.split(":")[0] for line in lines]
    assert named == ["PORT", "LOG_LEVEL", "MAX_CALLS", *REQUIRED_IN_PRODUCTION]


def test_production_needs_its_keys() -> None:
    assert problems({"APP_ENV": "production"}) == [
        f"{name}: missing; APP_ENV=production needs it"
        for name in ("PUBLIC_URL", "X_API_KEY", "TWILIO_AUTH_TOKEN", "OPENAI_API_KEY")
    ]
    full = {**KEY, "APP_ENV": "production", "X_API_KEY": "k" * 20, "TWILIO_AUTH_TOKEN": "t" * 32}
    assert load_settings({**full, "PUBLIC_URL": "https://h"}, None).warnings == ()
    (warning,) = load_settings({**full, "PUBLIC_URL": "http://h"}, None).warnings
    assert warning.startswith("PUBLIC_URL: is not https")


def test_development_needs_a_key_or_a_simulator() -> None:
    for url in ("", "wss://api.openai.com/v1/realtime", "wss://eu.API.openai.com/v1/realtime"):
        (line,) = problems({"OPENAI_REALTIME_URL": url})
        assert line.startswith("OPENAI_API_KEY: missing")
    simulator = {"OPENAI_REALTIME_URL": "ws://127.0.0.1:9000/v1/realtime"}
    settings = load_settings(simulator, None)
    assert settings.openai_api_key is None
    assert [line.split(":")[0] for line in settings.warnings] == ["OPENAI_BASE_URL"]
    simulator["OPENAI_BASE_URL"] = "http://127.0.0.1:9000/v1"
    assert load_settings(simulator, None).warnings == ()


def test_urls_lose_their_trailing_slash_and_keep_the_rest() -> None:
    settings = load_settings({**KEY, "PUBLIC_URL": "HTTPS://Voice.example.com:8443/phone//"}, None)
    assert settings.public_url == "https://Voice.example.com:8443/phone"


def test_the_environment_wins_over_the_file_and_empty_counts_as_unset(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("\ufeff# comment\nexport PORT=9000\nMAX_CALLS='7'\nLOG_LEVEL=  \nHOST=::1\n", "utf-8")
    settings = load_settings({**KEY, "PORT": " ", "MAX_CALLS": " 8 ", "LOG_LEVEL": "debug"}, file)
    assert (settings.port, settings.max_calls, settings.log_level) == (9000, 8, "DEBUG")
    assert settings.host == "::1"


def test_the_process_environment_and_the_working_directory_are_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-file\nPORT=9001\n")
    monkeypatch.setenv("PORT", "9002")
    settings = load_settings()
    assert settings.port == 9002
    assert settings.secrets == ("sk-from-file",)


def test_near_misses_in_the_file_are_warned_of_and_others_ignored(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("MAX_CALL=5\nOPENAI_ORG_ID=x\nport=1\nEDITOR=vi\n")
    settings = load_settings(KEY, file)
    assert settings.warnings == (
        f"{file}, line 1: MAX_CALL is no setting and is ignored; did you mean MAX_CALLS?",
        f"{file}, line 3: port is no setting and is ignored; did you mean PORT?",
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    assert load_settings(KEY, file).port == 8080
    file.write_text("PORT=1\nOPENAI_API_KEY geheim\n")
    assert problems(KEY, file) == [f"{file}, line 2: is not readable; expected a line like PORT=8080"]
    file.write_bytes(b"PORT=\xff")
    assert problems(KEY, file) == [f"{file}: is not UTF-8; expected lines like PORT=8080"]
    assert problems(KEY, tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_secrets_show_nowhere() -> None:
    env = {**KEY, "X_API_KEY": "geheim-1", "TWILIO_AUTH_TOKEN": "geheim-2"}
    settings = load_settings(env, None)
    assert set(settings.secrets) == set(env.values())
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert not any(secret in text for secret in env.values())
    with pytest.raises(SettingsError) as caught:
        load_settings({**env, "PORT": "x", "OPENAI_API_KEY": "a geheim-3"}, None)
    assert caught.value.__context__ is None
    assert "geheim" not in str(caught.value)


def test_settings_are_immutable_and_read_nothing_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1234")
    settings = Settings(x_api_key=SecretStr("k"))
    assert settings.port == 8080
    with pytest.raises(ValidationError):
        settings.port = 1
    with pytest.raises(ValidationError):
        Settings.model_validate({"prot": 1})


@pytest.mark.parametrize(
    ("host", "port", "instance"),
    [
        ("Web_1.example.com", "8080", r"web-1-example-com-8080"),
        ("x" * 80, "8080", "x" * 58 + "-8080"),
        ("***", "1", "handlehome-1"),
        ("h", "0", r"h-\d+"),
    ],
)
def test_the_instance_is_named_after_host_and_port(
    host: str, port: str, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert re.fullmatch(instance, load_settings({**KEY, "PORT": port}, None).instance)
    assert load_settings({**KEY, "INSTANCE": "mine"}, None).instance == "mine"


def test_the_example_lists_every_setting_with_its_default_and_a_comment() -> None:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    found = {
        line.partition("=")[0]: number for number, line in enumerate(lines) if re.match(r"[A-Z_]+=", line)
    }
    assert tuple(found) == VARIABLES
    for name, number in found.items():
        assert lines[number - 1] == f"# {Settings.model_fields[name.lower()].description}"
    defaults = Settings.model_validate({"openai_api_key": "x"})
    assert load_settings(KEY, EXAMPLE).model_dump() | {"openai_api_key": None} == (
        defaults.model_dump() | {"openai_api_key": None}
    )
    assert load_settings(KEY, EXAMPLE).warnings == ()
