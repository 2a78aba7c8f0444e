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
            typer.echo(f"handlehome: ASSISTANT_FILE: {line}", err=True)
        raise typer.Exit(2) from None
    for line in settings.warnings:
        typer.echo(f"warning: {line}", err=True)
    typer.echo(f"Settings and assistant ({assistant.name}, {assistant.company}) are in order.")


@app.command()
def dev(env_file: EnvFile = Path(".env")) -> None:
    """Like start, and start again whenever a source file, .env or the assistant's file changes."""
    import shlex
    import sys

    import watchfiles

    import handlehome

    package = Path(handlehome.__file__).parent
    watched = [folder.resolve() for folder in package.iterdir() if folder.is_dir()]
    settings = _settings(env_file)
    watched += [path for path in (env_file, settings.assistant_file) if path is not None and path.exists()]
    command = shlex.join([sys.executable, "-m", "handlehome.relay.cli", "start", "--env-file", str(env_file)])
    raise typer.Exit(min(watchfiles.run_process(*watched, target=command, target_type="command"), 0))


@app.command()
def demo() -> None:
    """Make one simulated call through a real daemon and show it live; needs no account and no key."""
    from handlehome.bench.demo import main as run

    raise typer.Exit(run())


@app.command()
def bench(
    calls: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each measurement.")] = 15.0,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each relay, alternating.")] = 3,
) -> None:
    """Measure CPU per frame, latency and memory, beside a plain `async for` relay in the same run."""
    from handlehome.bench.cost import main as run

    raise typer.Exit(run(calls=calls, seconds=seconds, rounds=rounds))


Url = Annotated[str, typer.Option(help="Where the daemon listens.")]
Token = Annotated[
    str, typer.Option(envvar="TWILIO_AUTH_TOKEN", help="Signs requests as Twilio does; empty: unsigned.")
]
PublicUrl = Annotated[
    str, typer.Option(envvar="PUBLIC_URL", help="What Twilio knows the daemon by, if not --url.")
]


@app.command("simulate-openai")
def simulate_openai(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8090,
    api_key: Annotated[str, typer.Option(help="The only key that is accepted; empty: any.")] = "",
) -> None:
    """Run a simulated OpenAI Realtime server; point OPENAI_REALTIME_URL at it."""
    import uvloop

    from handlehome.bench.realtime.server import run
    from handlehome.bench.scripts import receptionist

    try:
        uvloop.run(run(host, port, receptionist(), api_key=api_key or None, log=typer.echo))
    except OSError as error:
        typer.echo(f"handlehome: {host}:{port}: {error.strerror}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command("simulate-call")
def simulate_call(
    recordings: Annotated[
        list[str] | None, typer.Argument(help="WAV files (8 kHz mono) or ids of recordings.")
    ] = None,
    url: Url = "http://127.0.0.1:8080",
    auth_token: Token = "",
    public_url: PublicUrl = "",
    wav_out: Annotated[Path, typer.Option(help="Caller left, assistant right.")] = Path("call.wav"),
) -> None:
    """Call the daemon as Twilio would, say some sentences, and write down what was heard."""
    import uvloop

    from handlehome.bench import simulate
    from handlehome.bench.twilio import WebhookError
    from handlehome.bench.twiml import TwimlError
    from handlehome.bench.wav import WavError

    speak = recordings or ["caller-leak", "caller-address", "caller-confirm"]
    try:
        call = uvloop.run(
            simulate.simulate_call(
                url, speak=speak, wav_out=wav_out, auth_token=auth_token or None, public_url=public_url
            )
        )
    except (WebhookError, TwimlError, WavError, OSError, KeyError) as error:
        typer.echo(f"handlehome: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(1 if call.errors or call.violations else 0)


@app.command("test-multiple")
def several(
    calls: Annotated[int, typer.Option("-n", "--calls", min=1, help="Calls at once.")] = 5,
    url: Url = "http://127.0.0.1:8080",
    auth_token: Token = "",
    public_url: PublicUrl = "",
) -> None:
    """Make several simulated calls at once against a running daemon."""
    import uvloop
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from handlehome.bench.several import Result, call_several

    with Progress() as progress:
        task = progress.add_task(f"{calls} calls", total=calls)

        def done(_result: Result) -> None:
            progress.advance(task)

        try:
            results = uvloop.run(
                call_several(
                    url,
                    calls,
                    speak=["caller-leak", "caller-address"],
                    auth_token=auth_token or None,
                    public_url=public_url,
                    done=done,
                )
            )
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    table = Table("call", "webhook", "answers", "result")
    for result in results:
        table.add_row(
            str(result.number), f"{result.webhook_ms:.0f} ms", str(result.answers), result.problem or "ok"
        )
    Console().print(table)
    raise typer.Exit(1 if any(result.problem for result in results) else 0)


def main() -> None:
    """Entry point of the command."""
    app(prog_name="handlehome")


if __name__ == "__main__":
    main()
