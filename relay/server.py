"""The daemon's listener: uvicorn, with its sockets, its signals and its end in our hands.

uvicorn closes the listener at the first SIGTERM, which would refuse health checks and the webhooks of calls
still running. Here a signal only tells the daemon; everything stays up while it drains, and the daemon sets
`should_exit` when it is done.
"""

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import uvicorn

BACKLOG = 512
# Twilio's largest webhook headers are under 2 KiB, a GET with all parameters under 4.
MAX_HEADER_BYTES = 16 * 1024
# Longer than a reverse proxy keeps an idle connection (nginx: 60 s), so that it's the proxy that lets go:
# otherwise a webhook may be sent into a connection that is just being closed here.
KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 5

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ListenError(Exception):
    """The address cannot be listened on; the message is one line that names the setting.

    Attributes:
        exit_status: 2 when `HOST` or `PORT` can't be right, 1 when the machine's state is in the way.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def listen(host: str, port: int, *, backlog: int = BACKLOG) -> list[socket.socket]:
    """Opens the listening sockets, one for each address that `host` stands for.

    Connections wait in the backlog from here on, until a server takes the sockets.

    Args:
        host: name or address.
        port: 0 takes any free port, the same for every address.
        backlog: connections that may wait to be accepted.

    Raises:
        ListenError: no such host, no such address here, the port in use or not allowed.
    """
    if not 0 <= port <= 65535:
        raise ListenError(f"PORT={port}: a port is a number from 0 to 65535", 2)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ListenError(f"HOST={host}: {reason}", 2) from error
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = undo.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
                # Here and not only in the loop: two sockets may be bound to one address, but not listen.
                sock.listen(backlog)
            except OSError as error:
                raise _listen_error(host, port, error) from error
            port = sock.getsockname()[1]
            sockets.append(sock)
        undo.pop_all()
    return sockets


def _listen_error(host: str, port: int, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return ListenError(f"PORT={port}: the port is already in use on {host}", 1)
    if error.errno == errno.EACCES:
        return ListenError(f"PORT={port}: this user may not listen on that port", 2)
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"HOST={host}: this machine has no such address", 2)
    return ListenError(f"HOST={host} PORT={port}: {error.strerror}", 1)


class DaemonServer(uvicorn.Server):
    """Serves an application on sockets of ours until `should_exit` is set.

    `await serve()` runs it on the running loop; it leaves no socket and no signal handler behind.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        sockets: list[socket.socket],
        *,
        http: type[asyncio.Protocol],
        ws: Callable[..., asyncio.BaseProtocol],
        on_signal: Callable[[signal.Signals, bool], None],
        on_ready: Callable[[int], None] | None = None,
        shutdown_seconds: int = SHUTDOWN_SECONDS,
    ) -> None:
        """Args:
            app: the ASGI application. Its lifespan is not run: the daemon starts and stops things itself.
            sockets: from `listen`; closed by this server.
            http: uvicorn's HTTP protocol class or one derived from it.
            ws: called with `config`, `server_state` and `app_state` for each upgrade, whatever its path.
            on_signal: called in the loop for each SIGTERM or SIGINT, with True from the second on: hurry.
            on_ready: called with the port once connections are accepted.
            shutdown_seconds: how long connections may still take after `should_exit`.

        Raises:
            ValueError: no sockets.
        """
        if not sockets:
            raise ValueError("a server needs a socket to listen on")
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=http,
                # uvicorn asks for a class, but only ever calls it; a factory can pass the daemon in.
                ws=cast("type[asyncio.Protocol]", ws),
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                # The proxy's word on scheme and client is not taken: PUBLIC_URL says what the outside sees.
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=shutdown_seconds,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            )
        )
        self._sockets = sockets
        self._on_signal = on_signal
        self._on_ready = on_ready
        self._signals = 0
        self.port: int = sockets[0].getsockname()[1]

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until `should_exit`, then lets the open connections finish.

        Args:
            sockets: uvicorn's parameter; the sockets are those given at construction.
        """
        try:
            await super().serve(sockets or self._sockets)
        finally:
            # When cancelled, uvicorn leaves without closing anything.
            for server in getattr(self, "servers", ()):
                server.close()
            for sock in self._sockets:
                sock.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to accept connections and reports the port."""
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(self.port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Sends SIGTERM and SIGINT to the daemon instead of to uvicorn."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        previous = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        for signum in _SIGNALS:
            loop.add_signal_handler(signum, self._signalled, signum)
        try:
            yield
        finally:
            for signum, handler in previous.items():
                loop.remove_signal_handler(signum)
                signal.signal(signum, handler)

    def _signalled(self, signum: signal.Signals) -> None:
        self._signals += 1
        if self.should_exit:
            # The daemon is done, only connections keep us: whoever asks now does not want to wait for them.
            self.force_exit = True
        self._on_signal(signum, self._signals > 1)
