"""The command `handlehome`."""

from __future__ import annotations

import os
from datetime import datetime
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

# Before anything imports numpy, which starts a BLAS thread per core: what we multiply is too small to share.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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
    """Check the settings and the files that they name without starting anything."""
    from handlehome.relay.assistant import AssistantError, load_assistant
    from handlehome.relay.processing import ProcessingError, make_profile, with_cost

    settings = _settings(env_file)
    try:
        assistant = load_assistant(settings.assistant_file)
        make_profile(settings, assistant)
        with_cost(settings)
    except AssistantError as error:
        for line in error.lines:
            typer.echo(f"handlehome: ASSISTANT_FILE: {line}", err=True)
        raise typer.Exit(2) from None
    except ProcessingError as error:
        for line in error.lines:
            typer.echo(f"handlehome: {line}", err=True)
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


Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD")]


@app.command()
def export(
    what: Annotated[
        str, typer.Option("--format", help="csv (for spreadsheets) or jsonl (whole records).")
    ] = "csv",
    since: Day = None,
    until: Day = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; standard output if none.")
    ] = None,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Write stored calls out: those of some days, or all.

    Days are those of the assistant's time zone, first and last included. Works beside a running daemon.
    """
    from handlehome.relay.export import ExportFormat
    from handlehome.relay.records_commands import run_export

    if what not in tuple(ExportFormat):
        raise typer.BadParameter("expected csv or jsonl", param_hint="--format")
    days = [day.date() if day else None for day in (since, until)]
    raise typer.Exit(run_export(_settings(env_file), ExportFormat(what), days[0], days[1], output))


@app.command()
def erase(
    number: Annotated[str, typer.Argument(help="Phone number, for example +33612345678.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this it is only said what would go.")
    ] = False,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Erase everything that is known of a phone number (GDPR, article 17), and report what was removed.

    Calls with transcripts and data, the client, recordings and callers' audio, the journal with what waits to
    be saved, and the log's lines. Works beside a running daemon; a call that is going on has to end first.
    """
    from handlehome.relay.records_commands import run_erase

    raise typer.Exit(run_erase(_settings(env_file), number, confirmed=yes))


@app.command("reprocess")
def reprocess_calls(
    call_sids: Annotated[list[str] | None, typer.Argument(help="CallSids.", metavar="[CALLSID]...")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="All calls from this day on."),
    ] = None,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Extract the data of stored calls anew: after a change of schema or model, or after a failure.

    One attempt per call; the status is 1 when not every call could be extracted.
    """
    from handlehome.relay.reprocess_command import run_reprocess

    raise typer.Exit(run_reprocess(_settings(env_file), call_sids or [], since.date() if since else None))


@app.command()
def score(
    model: Annotated[
        str | None, typer.Option(help="A text model, asked with your OPENAI_API_KEY; without it: the rules.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write it there, with each case's differences.")
    ] = None,
    env_file: EnvFile = Path(".env"),
) -> None:
    """Score the rules, or any model, on the corpus of written calls: hits, errors, F1 per field.

    A model's run asks it once per call of the corpus (about 50 requests).
    """
    from handlehome.relay.score_command import run_score

    settings = _settings(env_file) if model is not None else None
    raise typer.Exit(run_score(settings, model, json_file))


bench_app = typer.Typer()
app.add_typer(bench_app, name="bench")


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    calls: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each measurement.")] = 15.0,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each relay, alternating.")] = 3,
) -> None:
    """Measure CPU per frame, latency and memory, beside a plain `async for` relay in the same run."""
    if context.invoked_subcommand is not None:
        return
    from handlehome.bench.cost import main as run

    raise typer.Exit(run(calls=calls, seconds=seconds, rounds=rounds))


@bench_app.command("codecs")
def bench_codecs(
    seconds: Annotated[float, typer.Option(min=0.01, help="Spent on each cost.")] = 0.2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Takes all figures, too.")] = None,
) -> None:
    """Measure G.711, resampling, levels and jitter buffering: what they do to the sound and what they cost.

    audioop, scipy and soxr stand beside ours where they are installed. Costs
    are microseconds of CPU: the best and the median of many batches, with BLAS
    on one thread. The status is 1 when a target is missed. Takes half a minute.
    """
    from handlehome.bench.codecs import main as run

    raise typer.Exit(run(seconds=seconds, json_file=json_file))


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
    rest_port: Annotated[int, typer.Option(min=0, max=65535, help="Likewise, for the REST API.")] = 8091,
    api_key: Annotated[str, typer.Option(help="The only key that is accepted; empty: any.")] = "",
) -> None:
    """Run a simulated OpenAI; point OPENAI_REALTIME_URL and OPENAI_BASE_URL at it."""
    import uvloop

    from handlehome.bench import simulate

    try:
        uvloop.run(simulate.simulate_openai(host, port, rest_port, api_key=api_key or None, log=typer.echo))
    except OSError as error:
        typer.echo(f"handlehome: {host}: {error.strerror}", err=True)
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
    from handlehome.codecs.wav import WavError

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
