"""The wheel, installed alone into an empty environment, is the whole product."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from handlehome.bench import speech
from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.bench.scripts import receptionist
from tests.harness import KEY, TOKEN, running_daemon

ROOT = Path(__file__).parents[1]
PACKAGES = ("relay", "codecs", "extract", "store", "bench")


@dataclass(frozen=True)
class Installed:
    """The wheel and the environment that it is installed in.

    Attributes:
        wheel: the file.
        source: what it was built from.
        folder: outside of the repository.
        python: the environment's interpreter.
        command: its `handlehome`.
    """

    wheel: Path
    source: Path
    folder: Path
    python: Path
    command: Path


def _run(*command: str | Path, cwd: Path) -> str:
    """Runs a command that has to succeed, and gives what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Builds the wheel and installs nothing else; the dependencies are lent by this environment."""
    folder = tmp_path_factory.mktemp("packaging")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    # A copy: building leaves folders behind in the source tree.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for name in (*PACKAGES, "src", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("handlehome-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    _run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A path line makes our dependencies importable, but not the repository, which an editable install has
    # put into a .pth file of its own: such files count in an environment's own folders only.
    site = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    lent = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (Path(site) / "dependencies.pth").write_text("".join(f"{path}\n" for path in lent))
    return Installed(wheel, source, folder, python, folder / "venv" / "bin" / "handlehome")


def test_the_wheel_holds_everything_and_no_tests(installed: Installed) -> None:
    """Each subpackage, recording and persona of the repository is in the wheel, and nothing else is."""
    with zipfile.ZipFile(installed.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kinds = {".py", ".toml", ".wav", ".html", ".typed"}
    expected = {"handlehome/__init__.py"}
    for package in PACKAGES:
        for path in (installed.source / package).rglob("*"):
            if path.suffix in kinds:
                expected.add(f"handlehome/{path.relative_to(installed.source)}")
    assert expected - names == set()
    assert {name for name in names - expected if not name.endswith(".md")} == set()
    assert "handlehome/relay/assistants/home_services_fr.toml" in names
    assert {f"handlehome/bench/speech/{name}.wav" for name in speech.ids()} <= names


def test_the_command_runs_from_the_new_environment(installed: Installed) -> None:
    """`handlehome --help` runs, from code that lies in the new environment."""
    where = _run(
        installed.python, "-c", "import handlehome; print(handlehome.__file__)", cwd=installed.folder
    )
    assert Path(where.strip()).is_relative_to(installed.folder / "venv")
    shown = _run(installed.command, "--help", cwd=installed.folder)
    for command in ("start", "check", "demo", "simulate-call", "simulate-openai"):
        assert command in shown


def test_the_standard_librarys_codecs_is_intact(installed: Installed) -> None:
    """Our package of that name hides nothing."""
    code = "import codecs; print(codecs.lookup('utf-8').name, codecs.__file__)"
    name, where = _run(installed.python, "-c", code, cwd=installed.folder).split()
    assert name == "utf-8"
    assert not Path(where).is_relative_to(installed.folder)


async def test_it_answers_a_call(installed: Installed) -> None:
    """A daemon of the new environment answers, with the persona and no file of the repository."""
    async with (
        RealtimeSimulator(receptionist(), api_key=KEY) as model,
        running_daemon(
            installed.folder / "daemon", model.url, command=(str(installed.command), "start")
        ) as daemon,
        PhoneCall(daemon.url, auth_token=TOKEN) as phone,
    ):
        await phone.dial()
        session = await model.wait_session()
        greeting = speech.load("assistant-greeting")
        await phone.wait_heard(8000)
        await phone.hang_up()
        record = await daemon.record(phone.call_sid)
    assert greeting.ulaw.startswith(phone.leg.playback.played())
    assert [turn.text for turn in record.turns] == [greeting.text]
    assert not phone.violations
    assert not session.violations
