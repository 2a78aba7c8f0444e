"""The repository's shape: folders and links, who may import whom, a test module for each source module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / "src" / "handlehome"

# Who may import whom, besides itself. `bench` drives the daemon from outside, over sockets.
MAY_IMPORT = {
    "codecs": set(),
    "store": set(),
    "extract": {"store"},
    "relay": {"codecs", "extract", "store"},
    "bench": {"codecs", "store"},
}
PACKAGES = sorted(MAY_IMPORT)

# The command line is the one place that may start what lies in `bench`.
MAY_IMPORT_BENCH = ("relay/cli.py", "relay/cli/")

# Source modules without a test module of their own, each with the reason.
UNTESTED: dict[str, str] = {
    "relay/daemon.py": "puts the parts together: every scenario test starts it, as a process of its own",
    "relay/call/premises.py": "types only; the tests of calls and of the switchboard use each of them",
    "relay/phone/desk.py": "types only; the tests of the webhooks and of the switchboard use each of them",
}

MAX_LINES = 600
MAX_TEST_LINES = 900


def sources(*folders: str) -> list[Path]:
    """All Python files below the given top-level folders, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def imported_names(tree: ast.AST, *, at_import_time: bool = False) -> Iterator[str]:
    """The dotted names that a module imports, `from a import b` as a.b, relative ones with their dots.

    Args:
        tree: The module.
        at_import_time: Leaves out what is imported later (in functions) or never (`if TYPE_CHECKING:`).
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        elif at_import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imported_names(ast.Module([other], []), at_import_time=True)
        else:
            yield from imported_names(node, at_import_time=at_import_time)


def forbidden(path: Path, names: Iterator[str]) -> list[str]:
    """Those of the names that the module at `path` must not import."""
    package = path.parts[0]
    allowed = MAY_IMPORT[package] | {package}
    if path.as_posix().startswith(MAY_IMPORT_BENCH):
        allowed = allowed | {"bench"}
    wrong = []
    for name in names:
        parts = name.split(".")
        ours = parts[0] == "handlehome" and not (MAY_IMPORT.keys() - allowed).isdisjoint(parts[1:2])
        # A relative import, or one of the folder itself instead of the package that links to it.
        misnamed = name.startswith(".") or parts[0] in MAY_IMPORT.keys() - {"codecs"}
        if ours or misnamed:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("folder", [ROOT, ROOT / "src", LINKS], ids=["root", "src", "package"])
@pytest.mark.parametrize("folder_first", [False, True], ids=["plain", "PYTHONPATH"])
def test_import_codecs_means_the_standard_library(folder: Path, folder_first: bool) -> None:
    """It does in a fresh interpreter too, started in the very folder that has one of that name."""
    script = "import codecs, handlehome.codecs as ours; print(codecs.__file__); print(ours.__file__)"
    environment = {"PYTHONPATH": str(folder)} if folder_first else {}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    theirs, ours = map(Path, done.stdout.splitlines())
    assert ROOT not in theirs.resolve().parents
    assert ours.resolve() == ROOT / "codecs" / "__init__.py"


def test_codecs_is_intact_in_this_process() -> None:
    import codecs

    assert codecs.lookup("utf-8").name == "utf-8"
    assert codecs.__file__ is not None
    assert ROOT not in Path(codecs.__file__).resolve().parents


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_a_relative_link_to_its_folder(package: str) -> None:
    link = LINKS / package
    assert link.is_symlink()
    assert link.readlink().as_posix() == f"../../{package}"
    assert (ROOT / package / "__init__.py").is_file()
    assert not (ROOT / package).is_symlink()


def test_src_holds_nothing_but_the_links() -> None:
    there = {path.name for path in LINKS.iterdir()} - {"__pycache__"}
    assert there - {"py.typed"} == {"__init__.py", *PACKAGES}


def test_every_folder_with_modules_is_a_package() -> None:
    """Without its `__init__.py` a folder wouldn't get into the wheel."""
    bare = [
        path.parent.as_posix()
        for path in sources(*PACKAGES)
        if not (ROOT / path.parent / "__init__.py").is_file()
    ]
    assert bare == []


def test_who_may_import_whom() -> None:
    """Imports are absolute and none reaches upwards, those in functions and type checks included."""
    wrong = {path.as_posix(): forbidden(path, imported_names(parse(path))) for path in sources(*PACKAGES)}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("codecs/a.py", "import codecs", 0),
        ("codecs/a.py", "def f():\n    from handlehome.store import records", 1),
        ("codecs/a.py", "from handlehome.codecs import g711", 0),
        ("extract/a.py", "import handlehome.store.records", 0),
        ("extract/a.py", "from handlehome import relay", 1),
        ("relay/call/a.py", "if TYPE_CHECKING:\n    from handlehome.bench.phone import Phone", 1),
        ("relay/cli.py", "from handlehome.bench.phone import Phone", 0),
        ("relay/cli/demo.py", "from handlehome.bench import phone", 0),
        ("relay/clients.py", "from handlehome.bench import phone", 1),
        ("bench/a.py", "from handlehome.relay import wheel", 1),
        ("bench/a.py", "import handlehome", 0),
        ("bench/a.py", "from handlehome import __version__", 0),
        ("relay/a.py", "from . import wheel", 1),
        ("relay/a.py", "from relay import wheel", 1),
    ],
)
def test_the_import_rules_see_every_form(path: str, source: str, wrong: int) -> None:
    assert len(forbidden(Path(path), imported_names(ast.parse(source)))) == wrong


def test_no_module_imports_itself_by_a_circle() -> None:
    """Counted are imports that run when a module is loaded; a circle is named by graphlib's CycleError."""
    modules = {}
    for path in sources(*PACKAGES):
        parts = path.with_suffix("").parts
        modules[".".join(("handlehome", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = set(imported_names(parse(path), at_import_time=True))
        # a.b is the module of that name if there is one, else the name b of module a.
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names} & set(
            modules
        )
    assert set(TopologicalSorter(graph).static_order()) == set(modules)


def test_each_source_module_has_its_test_module() -> None:
    missing = []
    for path in sources(*PACKAGES):
        test = "test_" + "_".join(path.with_suffix("").parts) + ".py"
        if (
            path.name != "__init__.py"
            and path.as_posix() not in UNTESTED
            and not (ROOT / "tests" / test).is_file()
        ):
            missing.append(f"{path.as_posix()}: tests/{test}")
    assert missing == []


def test_the_list_of_untested_modules_is_up_to_date() -> None:
    existing = {path.as_posix() for path in sources(*PACKAGES)}
    assert UNTESTED.keys() <= existing
    assert all(UNTESTED.values())


@pytest.mark.parametrize(("folders", "most"), [(PACKAGES, MAX_LINES), (["tests"], MAX_TEST_LINES)])
def test_no_file_is_too_long(folders: list[str], most: int) -> None:
    long = {
        path.as_posix(): lines
        for path in sources(*folders)
        if (lines := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > most
    }
    assert long == {}
