"""The direction of imports, and who may touch what."""

import ast
import gc
from functools import cache
from pathlib import Path

import sourcegraph_analytics_mcp
from support.mechanisms import SWITCHES

PACKAGE = Path(sourcegraph_analytics_mcp.__file__).parent
FLOOR = {"at_leave", "errors", "settings", "files", "disk", "loading", "pasted", "redaction", "spelling"}
MAY_IMPORT = {
    "at_leave": set(),
    "errors": set(),
    "files": {"errors"},
    "disk": {"errors"},
    "pasted": set(),
    "redaction": set(),
    "spelling": set(),
    "loading": set(),
    "settings": {"errors", "pasted", "redaction"},
    "upstream": FLOOR,
    "access": FLOOR | {"upstream"},
    "exports": FLOOR | {"upstream"},
    "usage": FLOOR | {"upstream", "exports"},
    "surface": FLOOR | {"upstream", "access", "exports", "usage"},
    "demo": FLOOR,
    "cli": FLOOR | {"upstream", "access", "usage", "surface", "demo"},
    "__main__": {"cli"},
    "__init__": set(),
}
ONLY_IN = {
    "httpx": {"upstream/http.py", "upstream/document.py"},
    "httpcore": {"upstream/http.py"},
    "isal": {"upstream/body.py", "exports/engine/ingest.py", "exports/engine/source.py"},
    "duckdb": {"exports/engine"},
    "keyring": {"access/secret_store.py"},
    "rich": {"cli"},
    "mcp": {"surface", "cli"},
    "starlette": {"demo/upstream.py"},
    "uvicorn": {"cli/http"},
    "jwt": {"cli/http/identity.py"},
}


@cache
def modules() -> list[tuple[str, ast.Module]]:
    gc.disable()  # what it finds may be told with a traceback, for which Python parses: it cannot do so within itself
    try:
        found = [(str(path.relative_to(PACKAGE)), ast.parse(path.read_text())) for path in PACKAGE.rglob("*.py")]
    finally:
        gc.enable()
    return [(name, tree) for name, tree in found if not name.startswith("prompts")]


def imported(name: str, tree: ast.Module) -> list[str]:
    """Absolute dotted names; imports within the package begin with a dot."""
    depth = len(Path(name).parts)
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            names += [f".{node.module}"] if node.module else [f".{alias.name}" for alias in node.names]
    return [n.replace("sourcegraph_analytics_mcp", "", 1) if n.startswith("sourcegraph_") else n for n in names]


def test_imports_go_one_way() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, tree in modules()
        for target in imported(name, tree)
        if target.startswith(".")
        and (room := target.split(".")[1]) != (own := Path(name).parts[0].removesuffix(".py"))
        and room not in MAY_IMPORT[own]
    ]
    assert wrong == []


def test_each_library_has_its_place() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, tree in modules()
        for target in imported(name, tree)
        if (top := target.split(".")[0]) in ONLY_IN and not any(name.startswith(place) for place in ONLY_IN[top])
    ]
    assert wrong == []


def test_threads_are_had_where_it_is_known_what_a_system_without_them_means() -> None:
    had = {name for name, tree in modules() if any("to_thread" in target for target in imported(name, tree))}
    assert had == {"disk.py"}


def test_every_mechanism_is_where_its_switch_says_and_names_tests_that_there_are() -> None:
    """So that tests/campaigns/switches.py can switch each of them off."""
    tests = {path.name: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    for switch in SWITCHES:
        for file, on, off in ((switch.file, switch.on, switch.off), *switch.also):
            assert sources[file].count(on) == 1, f"{switch.name}: its code is in {file} {sources[file].count(on)} times"
            assert on != off, switch.name
        for named in switch.tests.split():
            file, _, name = named.partition("::")
            assert f"def {name.split('[')[0]}(" in tests[file], f"{switch.name}: there is no {named}"
    assert len({switch.name for switch in SWITCHES}) == len(SWITCHES)


def test_files_and_functions_stay_readable() -> None:
    for name, tree in modules():
        lines = max((node.end_lineno or 0 for node in ast.walk(tree) if hasattr(node, "end_lineno")), default=0)
        assert lines <= 330, f"{name} has {lines} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{name}: {node.name} is too long"
