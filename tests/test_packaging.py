"""What is shipped is what the checkout holds, and it works where it is installed."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.stdio import spawned

ROOT = Path(__file__).parents[1]
GIT = shutil.which("git") or "git"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.long
def test_the_wheel_holds_every_module_and_prompt_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {str(p.relative_to(ROOT / "server")) for p in (ROOT / "server").rglob("*.py")}
    prompts = {f"sourcegraph_analytics_mcp/prompts/{p.name}" for p in (ROOT / "prompts").glob("*.*")}
    assert names == sources | prompts | {"sourcegraph_analytics_mcp/py.typed"}
    assert any(name.endswith(".md") for name in prompts)


@pytest.mark.long
def test_the_source_distribution_holds_its_tests_and_what_the_readme_names(tmp_path: Path) -> None:
    """Built from a copy, as the build writes beside the sources."""
    listed = subprocess.run([GIT, "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    for name in tracked:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path / "copy", check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in held - made if ".egg-info/" not in name} == {
        name for name in tracked if not name.startswith(".")
    }


@pytest.mark.long
def test_the_installed_wheel_works_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    target = next((home / "lib").glob("python*")) / "site-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
        capture_output=True,
    )
    own = [p for p in sys.path if p.endswith("site-packages")]
    (target / "borrowed.pth").write_text("\n".join(own) + "\n")  # the dependencies, without another download
    with spawned(tmp_path, "--demo", command=(str(python), "-m", "sourcegraph_analytics_mcp")) as raw:
        raw.handshake()
        answer = raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
        assert answer["structuredContent"]["export"]["status"] == "complete"
        assert raw.ask("prompts/list")["prompts"]


def test_the_lock_covers_what_is_needed_with_hashes_and_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", lock.strip())
    pinned = {m[1]: m[2] for entry in entries if (m := re.match(r"([a-z0-9-]+)==(\S+)", entry))}
    assert len(pinned) == len(entries)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
    todo = list(pinned)
    for name in todo:  # every requirement of every pinned distribution is pinned too
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in pinned, (name, line)
