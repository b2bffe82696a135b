"""The rules of the house, read from the source with ast: who may import whom, how long a file may be, where
exceptions live, and that each package says what it is."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.python_trees import exception_classes, imported_modules, imported_names, undocumented
from tests.support.repository import ARROWS, OUTSIDE, ROOT, sources
from transport.version import VERSION

# The rooms of the core, and those of them that each may import besides itself; "" is the ground floor.
ROOMS: dict[str, set[str]] = {
    "": set(),
    "text": {""},
    "sampling": {"", "text"},
    "protocol": {"", "sampling", "text"},
    "drafts": {"", "text", "protocol"},
    "verification": {"", "text", "sampling", "protocol", "drafts"},
    "planning": {"", "protocol"},
    "sessions": {"", "text", "protocol", "drafts", "verification"},
}
# The core is pure: bytes, ints and tensors in, values out.
CORE_MAY_USE = {"torch", "numpy"}
MAX_LINES = 300
# import name -> distribution, where they differ.
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "huggingface_hub": "huggingface-hub",
    "opentelemetry": "opentelemetry-api",
    "prometheus_client": "prometheus-client",
    "prompt_toolkit": "prompt-toolkit",
    "yaml": "pyyaml",
}


def imports_of(path: Path) -> set[str]:
    """Top-level names that the file imports."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return {name.split(".")[0] for name in imported_modules(ast.parse(path.read_bytes()), package)}


def forbidden_imports(package: str, names: set[str]) -> set[str]:
    """Those of `names` that a module of our package `package` must not import."""
    ours = set(ARROWS) | set(OUTSIDE)
    bad = (names & ours) - ARROWS[package] - {package}
    if package == "speculation":
        bad |= names - ours - CORE_MAY_USE - sys.stdlib_module_names
    if package != "language_models":
        bad |= names & {"transformers"}
    return bad


@pytest.mark.parametrize("package", [package for package in ARROWS if (ROOT / package).is_dir()])
def test_imports_run_one_way(package: str) -> None:
    files = sources(package)
    assert files, f"{package}/ has no Python file"
    bad = {
        str(path.relative_to(ROOT)): names for path in files if (names := forbidden_imports(package, imports_of(path)))
    }
    assert not bad


def room_of(module: str) -> str | None:
    """The room of the core that a dotted name lies in; None: it is not of the core."""
    package, *rest = module.split(".")
    if package != "speculation":
        return None
    return rest[0] if rest and rest[0] in ROOMS else ""


def test_the_arrows_are_as_tight_as_the_truth() -> None:
    """What a package may import it does import: a permission that nobody needs hides the next wrong arrow."""
    for package, allowed in ARROWS.items():
        used = set[str]().union(*(imports_of(path) for path in sources(package)))
        assert allowed <= used, f"{package} never imports {allowed - used}"


@pytest.mark.parametrize("room", ROOMS)
def test_the_rooms_of_the_core_import_one_way(room: str) -> None:
    files = sources(f"speculation/{room}") if room else sorted((ROOT / "speculation").glob("*.py"))
    used: set[str] = set()
    for path in files:
        package = ".".join(path.relative_to(ROOT).parent.parts)
        found = {room_of(name) for name in imported_modules(ast.parse(path.read_bytes()), package)} - {None, room}
        used |= {name for name in found if name is not None}
    assert used == ROOMS[room]


def test_every_folder_of_the_core_is_a_room() -> None:
    folders = {path.parent.name for path in sources("speculation") if path.parent != ROOT / "speculation"}
    assert folders == set(ROOMS) - {""}


_LIGHT = (
    "dragoman",
    "dragoman.cli",
    "dragoman.bench.bench",
    "dragoman.bench.endpoint_choice",
    "dragoman.client",
    "dragoman.fleet_client",
    "dragoman.commands.verifier",
    "dragoman.demo",
    "dragoman.local_serving",
    "dragoman.models",
    "coordinator.server",
    "drafter_service.client",
    "drafter_service.loading",
    "drafter_service.fleet_member",
    "speculation.sessions.target_session",
    "speculation.sessions.drafter_session",
)


@pytest.mark.process
@pytest.mark.parametrize("module", _LIGHT)
def test_no_torch_where_no_tensor_is(module: str) -> None:
    """A client, a coordinator and a drafter without a model start in a moment and need no gigabytes of packages."""
    code = (
        f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}} "
        "& {'torch', 'transformers', 'ray', 'pandas', 'numpy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.process
@pytest.mark.parametrize(
    "code, words, arguments",
    [
        (3, "no model 'nonsense'", ("verifier", "--model=nonsense")),
        (3, "no model 'nonsense'", ("drafter", "--model=nonsense")),
        (2, "99999", ("drafter", "--model=lookup", "--verifier=127.0.0.1:99999")),
        (3, "no model 'nonsense'", ("doctor", "--target=nonsense", "--drafter=neither")),
        (3, "sha256", ("doctor", "--target=smollm2-135m@sha256:" + "0" * 64, "--drafter=lookup")),
        (3, "no model 'nonsense'", ("demo", "--target=smollm2-135m", "--drafter=nonsense")),
        (4, "the port is in use", ("verifier", "--model=smollm2-135m", "--listen=127.0.0.1:{taken}")),
        (
            4,
            "give another --metrics-port",
            ("verifier", "--model=smollm2-135m", "--listen=127.0.0.1:0", "--metrics-port={taken}"),
        ),
        (4, "the port is in use", ("coordinator", "--listen=127.0.0.1:{taken}")),
        (3, "no model 'nonsense'", ("serve", "--target=nonsense", "--listen=127.0.0.1:0")),
        (3, "no model 'nonsense'", ("serve", "--target=smollm2-135m", "--drafter=nonsense", "--listen=127.0.0.1:0")),
        (4, "the port is in use", ("serve", "--target=smollm2-135m", "--listen=127.0.0.1:{taken}")),
        (3, "no model 'nonsense'", ("edge", "install", "--model=nonsense", "--verifier=127.0.0.1", "--dry-run")),
        (0, "", ("models", "list")),
    ],
)
def test_a_mistake_is_told_before_torch_is_loaded(code: int, words: str, arguments: tuple[str, ...]) -> None:
    """That takes ten seconds on a small machine."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = _run_without_torch([each.format(taken=taken.getsockname()[1]) for each in arguments])
    assert done.stdout.splitlines()[-1] == "heavy:" and "Traceback" not in done.stderr
    assert done.returncode == code and words in done.stderr, done.stderr


def _run_without_torch(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """A command, which says at its end what it has loaded that is heavy."""
    script = (
        "import atexit, sys; from dragoman.cli import main; "
        "atexit.register(lambda: print('heavy:', *{'torch', 'transformers', 'ray'} & set(sys.modules))); main()"
    )
    return subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_services_never_import_each_other() -> None:
    assert "drafter_service" not in ARROWS["verifier_service"]
    assert "verifier_service" not in ARROWS["drafter_service"]
    assert forbidden_imports("verifier_service", {"drafter_service", "protos"}) == {"drafter_service"}
    assert forbidden_imports("drafter_service", {"verifier_service", "torch"}) == {"verifier_service"}


def test_the_rules_catch_what_they_forbid() -> None:
    """The readers above see every form of import and of exception."""
    code = "import a.b\nfrom c import d\ndef f():\n    import e\n    from . import g\n    from ..h import i\n"
    assert set(imported_modules(ast.parse(code), "x.y")) == {"a.b", "c", "e", "x.y", "x.h"}
    assert forbidden_imports("speculation", {"math", "torch", "grpc", "protos"}) == {"grpc", "protos"}
    assert forbidden_imports("transport", {"speculation", "coordinator", "google"}) == {"coordinator"}
    assert forbidden_imports("coordinator", {"transformers", "ray", "tests"}) == {"transformers", "tests"}
    code = "class A(B): ...\nclass B(ValueError): ...\nclass C(grpc.RpcError): ...\nclass D(E): ...\nclass F: ...\n"
    assert set(exception_classes({Path("x.py"): ast.parse(code)})) == {"A", "B", "C"}
    code = "import a.test_b\nfrom . import e\nfrom ..f import g\ndef f():\n    from c import test_d\n"
    assert set(imported_names(ast.parse(code), "x.y")) == {"a.test_b", "c.test_d", "x.y.e", "x.f.g"}
    code = "class A:\n    'x'\n    def b(self, c: int, *d) -> int:\n        'x'\n    def _e(f): ...\ndef g(): ...\n"
    assert list(undocumented(ast.parse(code))) == [("A.b", ["d"]), ("g", ["docstring", "return"])]


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in sources(*ARROWS, *OUTSIDE)}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_exceptions_live_in_one_tree() -> None:
    home = ROOT / "speculation" / "errors.py"
    found = exception_classes({path: ast.parse(path.read_bytes()) for path in sources(*ARROWS, "benchmarks")})
    assert home in found.values()
    assert {name: str(path.relative_to(ROOT)) for name, path in found.items() if path != home} == {}


def test_no_module_imports_a_test() -> None:
    """What two test modules need stands in tests/support, so that none changes under another."""
    test = re.compile(r"tests\.(.*\.)?test_\w+(\.|$)")
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in sources(*ARROWS, *OUTSIDE)
        for name in imported_names(ast.parse(path.read_bytes()), ".".join(path.relative_to(ROOT).parent.parts))
        if test.match(name)
    }
    assert found == set()


def test_what_tests_share_is_typed_and_says_what_it_is() -> None:
    bare = {
        f"{path.name}: {name}": lacks
        for path in sources("tests/support")
        for name, lacks in undocumented(ast.parse(path.read_bytes()))
    }
    assert bare == {}


def test_packages_say_what_they_are() -> None:
    folders = {path.parent for path in sources(*ARROWS, "benchmarks")}
    silent = [
        str(folder.relative_to(ROOT))
        for folder in sorted(folders)
        if not (folder / "__init__.py").is_file()
        or not ast.get_docstring(ast.parse((folder / "__init__.py").read_bytes()))
    ]
    assert silent == []


def test_packages_are_typed() -> None:
    here = [package for package in ARROWS if (ROOT / package).is_dir()]
    assert [package for package in here if not (ROOT / package / "py.typed").is_file()] == []


def test_third_party_imports_are_declared() -> None:
    """Whatever the packages import is a dependency in pyproject.toml (Ray, Triton, OpenTelemetry: of their extras)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = project["dependencies"] + [
        requirement
        for extra in ("ray", "plot", "gpu", "guided", "otel")
        for requirement in project["optional-dependencies"][extra]
    ]
    declared = {re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower() for requirement in requirements}
    third_party = {name for path in sources(*ARROWS) for name in imports_of(path)}
    third_party -= set(ARROWS) | sys.stdlib_module_names
    assert {name for name in third_party if DISTRIBUTIONS.get(name, name).lower() not in declared} == set()


def test_version_is_the_one_of_pyproject() -> None:
    """In the source, which may run without being installed, and of an installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert VERSION == project["version"] == importlib.metadata.version("dragoman")
