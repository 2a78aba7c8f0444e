"""What `handlehome simulate-call` and `handlehome simulate-openai` do: either side of the daemon, alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from handlehome.bench import speech
from handlehome.bench.mouth import CallOverError
from handlehome.bench.network import LineDelay
from handlehome.bench.phone import PhoneCall
from handlehome.bench.playback import BYTES_PER_SECOND
from handlehome.bench.realtime.server import run as serve_realtime
from handlehome.bench.rest import recordings
from handlehome.bench.rest.server import RestSimulator
from handlehome.bench.scripts import receptionist
from handlehome.codecs import wav

NO_DELAY = LineDelay()


async def simulate_call(
    url: str,
    *,
    speak: Sequence[Path | str],
    wav_out: Path,
    auth_token: str | None = None,
    public_url: str = "",
    from_: str = "+33612345678",
    delay: LineDelay = NO_DELAY,
    quiet: float = 0.8,
    answer_within: float = 30.0,
    report: Callable[[str], None] = print,
) -> PhoneCall:
    """Calls, says each recording after the assistant has fallen silent, and hangs up.

    Args:
        url: Where the daemon listens.
        speak: WAV files (8 kHz mono; mu-law, A-law or 16-bit) or ids of recordings.
        wav_out: Stereo file to write: the caller left, the assistant right.
        auth_token: Signs webhooks and the upgrade.
        public_url: What Twilio knows the daemon by.
        from_: The caller's number.
        delay: The line's delay.
        quiet: Seconds of silence after which the assistant has finished.
        answer_within: Seconds to wait for an answer to begin and end; then the script goes on.
        report: Takes a line of progress.

    Returns:
        The call, over, for what it knows; its `errors` and `violations` are empty when all went well.

    Raises:
        WebhookError: The webhook gave nothing to run.
        TwimlError: Its TwiML is wrong.
        OSError: A file cannot be read or written.
        WavError: A file is no recording for a telephone line.
        KeyError: There is no recording of that id.
    """
    script = [_recording(item) for item in speak]
    async with PhoneCall(url, auth_token=auth_token, public_url=public_url, from_=from_, delay=delay) as call:
        began = time.monotonic()

        def tell(line: str) -> None:
            report(f"{time.monotonic() - began:6.1f} s  {line}")

        tell(f"dialling {call.call_sid}")
        await call.dial()
        tell(f"webhook answered in {call.webhook_ms:.0f} ms, stream {'open' if call.live else 'not opened'}")
        try:
            await _listen(call, quiet, answer_within, tell)
            for text, ulaw in script:
                tell(f"caller: {text}")
                await call.say(ulaw)
                await _listen(call, quiet, answer_within, tell)
            tell("caller hangs up")
        except CallOverError as over:
            tell(str(over))
        await call.hang_up()
        for said in call.said:
            tell(f"Twilio says: {said}")
        for error in call.errors:
            tell(f"Twilio notes {error.code}: {error.reason}")
        for violation in call.violations:
            tell(f"Twilio warns {violation.code}: {violation.reason}")
        _write(wav_out, call)
        tell(f"wrote {wav_out}")
    return call


async def simulate_openai(
    host: str,
    port: int,
    rest_port: int,
    *,
    api_key: str | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Serves the Realtime API and the REST API until it is cancelled, with a line for each turn and request.

    The speech model says the receptionist's recordings; the others know the recordings' words and what they
    tell (see `handlehome.bench.rest.recordings`).

    Args:
        host: Address to listen on.
        port: Port of the Realtime API; 0 takes any free one.
        rest_port: Port of the REST API; likewise.
        api_key: The only key that is accepted; None: any.
        log: Takes a line, at first each API's address.

    Raises:
        OSError: A port can't be had.
    """
    rest = RestSimulator(host, rest_port, api_key=api_key, answer=recordings.extract, keep=False, log=log)
    async with rest:
        log(f"Simulated OpenAI REST server: {rest.url}")
        await serve_realtime(host, port, receptionist(), api_key=api_key, log=log)


async def _listen(call: PhoneCall, quiet: float, within: float, tell: Callable[[str], None]) -> None:
    before = call.heard_bytes
    try:
        await call.wait_answer(quiet, within)
    except TimeoutError as error:
        tell(str(error))
    tell(f"assistant: {(call.heard_bytes - before) / BYTES_PER_SECOND:.1f} s of speech")


def _write(path: Path, call: PhoneCall) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav.write(call.spoken(), call.heard()))


def _recording(item: Path | str) -> tuple[str, bytes]:
    if isinstance(item, str) and item in speech.ids():
        recording = speech.load(item)
        return recording.text, recording.ulaw
    path = Path(item)
    if isinstance(item, str) and not path.suffix:
        speech.load(item)  # Raises with the ids that exist.
    return path.name, wav.read_line(path.read_bytes())
