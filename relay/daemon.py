"""The daemon: puts the parts together, starts them in order, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import sys
import time
from datetime import UTC, datetime

import uvloop
from fastapi import FastAPI
from loguru import logger

from handlehome import __version__
from handlehome.codecs.framepool import FramePool
from handlehome.relay.api import health
from handlehome.relay.assistant import Assistant, AssistantError, ServerVad, load_assistant
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.backoffice import BackOffice
from handlehome.relay.call.premises import Party, Premises
from handlehome.relay.call.switchboard import Switchboard
from handlehome.relay.call.tools import TOOLS
from handlehome.relay.config import Settings
from handlehome.relay.keeping import open_store
from handlehome.relay.logs import Event, log_event, setup_logging, shutdown_logging
from handlehome.relay.model.interface import Listener, Model
from handlehome.relay.model.openai import Endpoint, OpenAIMessageHandler
from handlehome.relay.model.pcm import PcmTranscoder
from handlehome.relay.model.session import first_words, resume_words, session_config
from handlehome.relay.phone import webhooks
from handlehome.relay.phone.handler import TwilioMessageHandler
from handlehome.relay.phone.signature import SignatureChecker, SignatureVerdict
from handlehome.relay.processing import ProcessingError
from handlehome.relay.recording import Recorder
from handlehome.relay.server import DaemonServer, ListenError, listen
from handlehome.relay.wheel import TimerWheel
from handlehome.relay.wire.connection import Receiver
from handlehome.relay.wire.server import HttpProtocol, Refusal, UpgradeRequest, media_protocol
from handlehome.store.datadir import DataDir, DataDirError, DataDirLocked, StoreError
from handlehome.store.journal import Journal, JournalHealth

GC_THRESHOLDS = (50_000, 20, 100)
"""Frames make no garbage in circles; what calls leave behind is collected in larger portions."""

SWITCH_SECONDS = 0.000_02
"""How long another thread may keep the GIL while the loop waits for it. uvloop takes it anew for each
callback: a thread that computes delays every one of a tick's frames by so much, and Python's 5 ms add up."""

POOL_BYTES = 64 << 20
"""All audio that waits, of all calls."""

LAST_REQUESTS_SECONDS = 2.0

GOODBYE_SECONDS = 3.0
"""At the end of draining, for Twilio to ask what comes after the streams that were closed."""


class Daemon:
    """One daemon on one data directory.

    Args:
        settings: checked.
        assistant: checked.
    """

    def __init__(
        self,
        settings: Settings,
        assistant: Assistant,
        office: BackOffice,
        recorder: Recorder,
    ) -> None:
        self._settings = settings
        self._assistant = assistant
        self._loop = asyncio.get_running_loop()
        self._clock = time.monotonic
        self._wheel = TimerWheel(self._loop)
        self._pool = FramePool(POOL_BYTES // 9600)
        self._endpoint = Endpoint(
            settings.openai_realtime_url,
            settings.openai_realtime_model,
            settings.openai_api_key.get_secret_value() if settings.openai_api_key else "",
            ssl.create_default_context() if settings.openai_realtime_url.startswith("wss:") else None,
        )
        self._office = office
        self._checker = (
            SignatureChecker(settings.twilio_auth_token.get_secret_value(), settings.public_url)
            if settings.twilio_auth_token
            else None
        )
        vad = assistant.vad
        self.switchboard = Switchboard(
            Premises(
                open_model=self._open_model,
                write=office.write,
                pool=self._pool,
                wheel=self._wheel,
                clock=self._clock,
                greeting=first_words(assistant),
                resume=resume_words(assistant),
                assistant=assistant.name,
                lead=settings.playout_lead_ms / 1000,
                max_seconds=settings.max_call_seconds,
                resume_seconds=settings.resume_seconds,
                server_interrupts=vad.interrupt_response,
                padding_ms=vad.prefix_padding_ms if isinstance(vad, ServerVad) else 0,
                silence_ms=vad.silence_duration_ms if isinstance(vad, ServerVad) else 0,
                in_order=settings.audio_format != "pcmu",
                record=recorder.open,
            ),
            settings.max_calls,
            office.save,
        )
        self._media_path = f"/media-stream/{settings.instance}"
        self._hurry = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    def application(self) -> FastAPI:
        """The HTTP face."""
        settings = self._settings
        app = FastAPI(title="HandleHome", version=__version__, redoc_url=None, redirect_slashes=False)
        app.include_router(
            webhooks.routes(
                self.switchboard,
                checker=self._checker,
                public_url=settings.public_url,
                instance=settings.instance,
                sentences=webhooks.Sentences(
                    language=self._assistant.say_language,
                    at_capacity=self._assistant.texts.line_full,
                    unavailable=self._assistant.texts.unavailable,
                    fallback=self._assistant.texts.unavailable,
                    goodbye=self._assistant.texts.goodbye,
                ),
            )
        )
        app.include_router(health.routes(self.switchboard, self._office.health))
        return app

    def _open_model(self, listener: Listener, party: Party) -> Model:
        model = OpenAIMessageHandler(
            self._endpoint,
            session_config(
                self._assistant,
                voice=self._settings.openai_voice,
                transcription_model=self._settings.openai_transcription_model,
                now=datetime.now(UTC),
                caller=party.from_,
                tools=TOOLS,
                audio_format=self._settings.audio_format,
            ),
            listener,
            pool=self._pool,
            wheel=self._wheel,
            call_sid=party.call_sid,
            transcoder=PcmTranscoder() if self._settings.audio_format == "pcm24k" else None,
        )
        model.open()
        return model

    def _gate(self, request: UpgradeRequest) -> Receiver | Refusal:
        """Who may open a media socket: the right path, and Twilio's signature where there is a token."""
        if request.path.rstrip("/") != self._media_path:
            return Refusal(404, "There is no WebSocket here.")
        if self._checker is not None:
            target = f"{request.path}?{request.query}" if request.query else request.path
            verdict = self._checker.upgrade(
                target, request.headers.get("host"), request.headers.get("x-twilio-signature")
            )
            if verdict is not SignatureVerdict.VALID:
                log_event(
                    logger,
                    Event.REFUSED,
                    f"Refused the media socket's upgrade: the signature {verdict.value}"
                    " (if it was Twilio: check PUBLIC_URL and TWILIO_AUTH_TOKEN)",
                    reason=f"upgrade's signature {verdict.value}",
                )
                return Refusal(403, f"Twilio's signature {verdict.value}.")
        return TwilioMessageHandler(self.switchboard, self._wheel, self._clock)

    async def run(self, sockets: list[socket.socket]) -> None:
        """Serves until drained."""
        for call in await self._office.start():
            self.switchboard.adopt(call)
        server = DaemonServer(
            self.application(),
            sockets,
            http=HttpProtocol,
            ws=media_protocol(self._gate),
            on_signal=lambda signum, hurry: self._signalled(server, signum, hurry),
            on_ready=self._ready,
        )
        try:
            await server.serve()
        finally:
            self._wheel.close()
            await self._office.close()
            log_event(logger, Event.DAEMON_STOPPED, "Stopped")

    def _ready(self, port: int) -> None:
        # What exists now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_SECONDS)
        settings = self._settings
        log_event(
            logger,
            Event.DAEMON_STARTED,
            f"HandleHome {__version__} answers on http://{settings.host}:{port} as {settings.instance} "
            f"({settings.openai_realtime_model}, {settings.app_env})",
            port=port,
        )
        for line in settings.warnings:
            logger.warning("{}", line)

    # ---- the end --------------------------------------------------------------------------------

    def _signalled(self, server: DaemonServer, signum: signal.Signals, hurry: bool) -> None:
        """SIGTERM or SIGINT: drains; a second one, or Ctrl-C in development, hurries."""
        if self._stopping is None:
            log_event(
                logger,
                Event.DAEMON_DRAINING,
                f"{signum.name}: no new calls; {self.switchboard.active_calls} running may take "
                f"{self._settings.drain_seconds:.0f} s to end (a second signal hurries)",
            )
            self._stopping = self._loop.create_task(self._drain(server))
        if hurry:
            self._hurry.set()

    async def _drain(self, server: DaemonServer) -> None:
        switchboard = self.switchboard
        running = switchboard.active_calls
        switchboard.drain()
        emptied = self._loop.create_task(switchboard.emptied())
        hurried = self._loop.create_task(self._hurry.wait())
        await asyncio.wait(
            (emptied, hurried), timeout=self._settings.drain_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if emptied.done() and running and not self._hurry.is_set():
            # Twilio's last requests for a call come a moment after its stream has ended.
            await asyncio.wait((hurried,), timeout=LAST_REQUESTS_SECONDS)
        elif not emptied.done():
            logger.warning("{} calls are ended by us", switchboard.active_calls)
            switchboard.stop_calls()
            await asyncio.wait((emptied,), timeout=GOODBYE_SECONDS)
            switchboard.finish_calls()
        hurried.cancel()
        emptied.cancel()
        server.should_exit = True


def _journal_health(health: JournalHealth) -> None:
    if health.ok:
        logger.info("The journal is written again")
    else:
        logger.error("The journal can't be written; {} events wait: {}", health.waiting, health.error)


async def _serve(
    settings: Settings,
    assistant: Assistant,
    sockets: list[socket.socket],
    office: BackOffice,
    recorder: Recorder,
) -> None:
    await Daemon(settings, assistant, office, recorder).run(sockets)


def main(settings: Settings) -> int:
    """Runs a daemon in this process until it is told to stop.

    Returns:
        Exit status: 0 after an orderly end, 1 when something is in the way, 2 for a wrong setting.
    """
    try:
        assistant = load_assistant(settings.assistant_file)
        sockets = listen(settings.host, settings.port)
    except AssistantError as error:
        return _complain(2, *(f"ASSISTANT_FILE: {line}" for line in error.lines))
    except ListenError as error:
        return _complain(error.exit_status, str(error))
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)
        try:
            data = stack.enter_context(DataDir.open(settings.data_dir, instance=settings.instance))
            setup_logging(settings.log_dir, settings.log_level, secrets=settings.secrets)
            stack.callback(shutdown_logging)
            journal = Journal.open(data.journal, on_health=_journal_health)
            stack.callback(journal.close)
            store = open_store(settings, data.calls)
            stack.callback(store.close)
            files = AudioFiles(data.path)
            files.repair()
            recorder = Recorder(files, both=settings.record_calls)
            stack.callback(recorder.close)
            office = BackOffice(settings, assistant, journal, store, recorder)
        except StoreError as error:
            wrong = isinstance(error, DataDirError) and not isinstance(error, DataDirLocked)
            return _complain(2 if wrong else 1, str(error))
        except ProcessingError as error:
            return _complain(2, *error.lines)
        except OSError as error:
            return _complain(2, f"LOG_DIR={settings.log_dir}: {error.strerror}")
        uvloop.run(_serve(settings, assistant, sockets, office, recorder))
    return 0


def _complain(status: int, *lines: str) -> int:
    for line in lines:
        print(f"handlehome: {line}", file=sys.stderr)  # noqa: T201 - there is no log yet
    return status
