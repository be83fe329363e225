"""Measure the branch coverage of the package by the tests, in every process they start: 100 %, or the places missed.

python tests/campaigns/coverage.py [pytest arguments]
"""

import json
import os
import shlex
import socketserver
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "server/sourcegraph_analytics_mcp"
MEASURED = ROOT / "tests/support/measured.py"
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]  # this file's own name
library: Any = import_module("coverage")


class Listener(socketserver.ThreadingUnixStreamServer):
    """Hears from every process which line followed which."""

    def __init__(self, place: Path) -> None:
        super().__init__(str(place), Conversation)
        self.heard: dict[str, set[tuple[int, int]]] = {}


class Conversation(socketserver.StreamRequestHandler):
    """One process, until it is gone."""

    server: Listener

    def handle(self) -> None:
        for line in self.rfile:
            if line.endswith(b"\n"):  # else it died while it spoke
                for name, arcs in json.loads(line).items():
                    self.server.heard.setdefault(name, set()).update((a, b) for a, b in arcs)


def interpreter(folder: Path, listener: Path) -> Path:
    """A `python` that measures what it runs; the engine's flags reach the real one."""
    wrapper = folder / "python"
    given = {"listener": str(listener), "package": str(PACKAGE), "interpreter": str(wrapper)}
    start = f"{shlex.quote(str(MEASURED))} {shlex.quote(json.dumps(given))}"
    real = shlex.quote(sys.executable)
    wrapper.write_text(
        f'#!/bin/sh\nif [ "$1 $2" = "-I -S" ]; then shift 2; exec {real} -I -S {start} "$@"; fi\n'
        f'if [ "$1" = "-u" ]; then shift; exec {real} -u {start} "$@"; fi\n'  # a worker of the tests
        f'exec {real} {start} "$@"\n'
    )
    wrapper.chmod(0o755)
    return wrapper


def run_tests(folder: Path, arguments: list[str]) -> tuple[int, dict[str, set[tuple[int, int]]]]:
    """Run the tests, measured; their status, and what all processes have executed."""
    listener = Listener(folder / "listener")
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # beside it, the installed command
    options = ["-p", "no:cacheprovider", "-m", ""]
    command = [str(interpreter(folder, folder / "listener")), "-m", "pytest", *options, *arguments]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=False)
    listener.shutdown()
    thread.join()
    listener.server_close()  # waits for those who are still speaking
    return ended.returncode, listener.heard


def report(folder: Path, heard: dict[str, set[tuple[int, int]]]) -> dict[str, Any]:
    """The report of coverage.py, on what was executed and what could have been."""
    data = library.CoverageData(str(folder / "data"))
    data.add_arcs(heard)
    data.touch_files([str(file) for file in PACKAGE.rglob("*.py")])
    data.write()
    coverage = library.Coverage(data_file=str(folder / "data"), config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    coverage.json_report(outfile=str(folder / "report.json"))
    made: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return made


def missed(file: dict[str, Any]) -> str:
    """The lines never executed, and the jumps never made from lines that were."""
    lines = [str(line) for line in file["missing_lines"]]
    jumps = [f"{a}→{b if b > 0 else 'end'}" for a, b in file["missing_branches"] if a not in file["missing_lines"]]
    return " ".join(lines + jumps)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        status, heard = run_tests(Path(name), sys.argv[1:])
        made = report(Path(name), heard)
    totals = made["totals"]
    gaps = {os.path.relpath(file, PACKAGE): missed(of) for file, of in sorted(made["files"].items())}
    places = "; ".join(f"{file}: {places}" for file, places in gaps.items() if places)
    print(
        f"coverage: {totals['percent_covered']:.2f} % of {totals['num_statements']} lines and {totals['num_branches']} "
        f"branches, {totals['excluded_lines']} lines excluded, tests {'failed' if status else 'passed'}"
        f"{'; missed: ' + places if places else ''}"
    )
    return 1 if status or places else 0


if __name__ == "__main__":
    sys.exit(main())
