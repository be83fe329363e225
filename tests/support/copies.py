"""A copy of the code in which something is changed, and the tests run against it, in every process they start."""

import os
import shutil
import signal
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = Path("server/sourcegraph_analytics_mcp")
_LONGEST = 120.0  # seconds; without what they test, some tests would never end


@dataclass(frozen=True)
class Ended:
    """How a run of tests ended.

    Args:
        code: pytest's exit code; None where it had to be ended.
        failed: whether a test ran and failed; not that it did not end, that there was none, or that pytest itself fell.
        says: its first error, shortened.
    """

    code: int | None
    failed: bool
    says: str


class Copy:
    """A copy of the checkout with an interpreter of its own, so that child processes run the copy too.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.root = folder / "copy"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", ".*_cache")
        shutil.copytree(ROOT, self.root, ignore=ignored)
        shutil.copytree(ROOT / "prompts", self.root / PACKAGE / "prompts")
        self.package = self.root / PACKAGE
        venv.create(folder / "python", symlinks=True)
        self._python = folder / "python" / "bin" / "python"
        libraries = next((folder / "python" / "lib").glob("python*")) / "site-packages"
        (libraries / "copy.pth").write_text(f"{self.root / 'server'}\n{sysconfig.get_path('purelib')}\n")

    def run(self, tests: list[str], seconds: float = _LONGEST, jobs: int = 0) -> Ended:
        """Run tests by the names of their files, in one process or so many, until the first fails."""
        for compiled in list(self.root.rglob("__pycache__")):  # a process that was ended, or had no room, may cut one
            shutil.rmtree(compiled)
        options = ["-x", "-q", "-n", str(jobs), "-p", "no:cacheprovider", "--tb=short", "-m", ""]
        running = subprocess.Popen(
            [str(self._python), "-m", "pytest", *options, *(str(self.root / "tests" / test) for test in tests)],
            cwd=self.root,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)  # and the servers that it has started
            running.communicate()
            return Ended(None, False, f"not over after {seconds:g} seconds")
        lines = said.splitlines()
        failures = [line for line in lines if line.startswith("FAILED ")]
        errors = [line[4:].strip() for line in lines if line.startswith("E   ")] or failures or lines[-1:]
        return Ended(running.returncode, running.returncode == 1 and bool(failures), " ".join(errors[:1])[:120])
