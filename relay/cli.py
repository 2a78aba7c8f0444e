"""The command `handlehome`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from handlehome.relay.config import Settings

app = typer.Typer(
    name="handlehome",
    help="An AI assistant answers the phone: a relay between Twilio Media Streams and OpenAI speech models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EnvFile = Annotated[Path, typer.Option("--env-file", help="File with settings; the environment wins.")]


def _settings(env_file: Path) -> Settings:
    from handlehome.relay.config import SettingsError, load_settings

    try:
        return load_settings(env_file=env_file)
    except SettingsError as error:
        for line in error.lines:
            typer.echo(f"handlehome: {line}", err=True)
        raise typer.Exit(2) from None


@app.command()
def start(env_file: EnvFile = Path(".env")) -> None:
    """Answer calls until SIGTERM; running calls may end first (DRAIN_SECONDS)."""
    from handlehome.relay.daemon import main as run

    raise typer.Exit(run(_settings(env_file)))


@app.command()
def check(env_file: EnvFile = Path(".env")) -> None:
    """Check the settings and the assistant's file without starting anything."""
    from handlehome.relay.assistant import AssistantError, load_assistant

    settings = _settings(env_file)
    try:
        assistant = load_assistant(settings.assistant_file)
    except AssistantError as error:
        for line in error.lines:
            typer.echo(f"handlehome: {line}", err=True)
        raise typer.Exit(2) from None
    for line in settings.warnings:
        typer.echo(f"warning: {line}", err=True)
    typer.echo(f"Settings and assistant ({assistant.name}, {assistant.company}) are in order.")


def main() -> None:
    """Entry point of the command."""
    app(prog_name="handlehome")


if __name__ == "__main__":
    main()
