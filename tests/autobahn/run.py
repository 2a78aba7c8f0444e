"""Runs the Autobahn test suite against both WebSocket roles of the relay, and against the websockets library.

Autobahn's `wstest` is the conformance suite of RFC 6455 that nobody here wrote. It needs Python 2.7:

    python2.7 -m pip install virtualenv
    python2.7 -m virtualenv /some/where
    /some/where/bin/pip install autobahntestsuite
    python tests/autobahn/run.py /some/where/bin/wstest

Two runs of a minute or two each, on local ports:

- `wstest -m fuzzingclient` against `tests/echo_server.py`, which is the media socket's protocol class behind
  uvicorn, and against an echo server of the websockets library (`reference.py`);
- `wstest -m fuzzingserver` with `echo_client.py`, which is the class that talks to the model, and with an
  echo client of the websockets library.

Cases 1 to 7 (framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing) and 10 (automatic
fragmentation) are run. 9 measures large messages, 12 and 13 test compression, which the relay does not offer.

A table names every case that did not end as OK, or whose closing did not, for each of the four. The exit
status is 0 if the relay fails no case that the library passes. NON-STRICT and INFORMATIONAL are Autobahn's
words for behaviour that the RFC allows. The suite's own reports are left in `--reports`, its
log beside them.
"""

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
OURS = "relay"
REFERENCE = "websockets"
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}
RUN_TIMEOUT = 900.0

Verdicts = dict[str, dict[str, tuple[str, str]]]
"""Agent to case to how the case itself and how its closing ended."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wstest", type=Path, help="the suite's executable")
    parser.add_argument("--reports", type=Path, help="folder for the suite's reports (default: a new one)")
    parser.add_argument("--cases", nargs="+", default=CASES, help=f"default: {' '.join(CASES)}")
    arguments = parser.parse_args()
    reports = arguments.reports or Path(tempfile.mkdtemp(prefix="autobahn-"))
    servers = run_fuzzing_client(arguments.wstest, reports / "servers", arguments.cases)
    clients = run_fuzzing_server(arguments.wstest, reports / "clients", arguments.cases)
    worse = show("Server role (fuzzing client)", servers) + show("Client role (fuzzing server)", clients)
    print(f"\nReports: {reports}")
    sys.exit(1 if worse else 0)


def run_fuzzing_client(wstest: Path, reports: Path, cases: list[str]) -> Verdicts:
    """Tests the two echo servers."""
    ports = {OURS: free_port(), REFERENCE: free_port()}
    specification = {
        "outdir": str(reports),
        "servers": [{"agent": agent, "url": f"ws://127.0.0.1:{port}"} for agent, port in ports.items()],
        "cases": cases,
    }
    with (
        running(sys.executable, HERE.parent / "echo_server.py", ports[OURS], port=ports[OURS]),
        running(sys.executable, HERE / "reference.py", "server", ports[REFERENCE], port=ports[REFERENCE]),
    ):
        path = write_specification(reports, specification)
        with (reports / "wstest.log").open("w") as log:
            command = [wstest, "-m", "fuzzingclient", "-s", path]
            subprocess.run(command, check=True, timeout=RUN_TIMEOUT, stdout=log, stderr=log)
    return read_verdicts(reports)


def run_fuzzing_server(wstest: Path, reports: Path, cases: list[str]) -> Verdicts:
    """Tests the two echo clients."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    path = write_specification(reports, {"url": url, "outdir": str(reports), "cases": cases})
    with (
        (reports / "wstest.log").open("w") as log,
        running(wstest, "-m", "fuzzingserver", "-s", path, "-u", 0, port=port, log=log),
    ):
        for script in ([HERE / "echo_client.py"], [HERE / "reference.py", "client"]):
            agent = OURS if script[0].name == "echo_client.py" else REFERENCE
            subprocess.run([sys.executable, *script, url, agent], check=True, timeout=RUN_TIMEOUT)
    return read_verdicts(reports)


def show(title: str, verdicts: Verdicts) -> int:
    """Prints every case that is not plainly OK, and returns how many the relay alone fails."""
    ours, reference = verdicts[OURS], verdicts[REFERENCE]
    print(f"\n{title}: {len(ours)} cases")
    print(f"{'case':<10} {OURS:<32} {REFERENCE:<32}")
    worse = 0
    for case in sorted(ours, key=lambda name: [int(number) for number in name.split(".")]):
        if ours[case] == reference[case] == ("OK", "OK"):
            continue
        is_worse = not passed(ours[case]) and passed(reference[case])
        worse += is_worse
        columns = [" / ".join(verdict[case]) for verdict in (ours, reference)]
        print(f"{case:<10} {columns[0]:<32} {columns[1]:<32}{' <- worse' if is_worse else ''}".rstrip())
    for agent in (OURS, REFERENCE):
        failed = sum(not passed(verdict) for verdict in verdicts[agent].values())
        print(f"{agent}: {failed} failed of {len(verdicts[agent])}")
    return worse


def passed(verdict: tuple[str, str]) -> bool:
    return PASSED.issuperset(verdict)


def write_specification(reports: Path, specification: dict[str, object]) -> Path:
    reports.mkdir(parents=True, exist_ok=True)
    path = reports / "specification.json"
    path.write_text(json.dumps(specification | {"exclude-cases": [], "exclude-agent-cases": {}}))
    return path


def read_verdicts(reports: Path) -> Verdicts:
    index = json.loads((reports / "index.json").read_text())
    return {
        agent: {case: (result["behavior"], result["behaviorClose"]) for case, result in results.items()}
        for agent, results in index.items()
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(*command: object, port: int, log: IO[str] | None = None) -> Iterator[None]:
    """Runs a command that listens on `port` for as long as the block lasts."""
    with subprocess.Popen([str(word) for word in command], stdout=log, stderr=log) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Waits until somebody listens."""
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


if __name__ == "__main__":
    main()
