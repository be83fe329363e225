"""Known vulnerabilities of the locked dependencies, by a copy of PyPA's advisory database: none, or each by name.

    git clone https://github.com/pypa/advisory-database
    python tests/campaigns/audit.py advisory-database

What it says is as new as the copy; `pip-audit --require-hashes -r requirements.lock` asks the network instead.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from packaging.version import Version

LOCK = Path(__file__).parents[2] / "requirements.lock"
yaml: Any = import_module("yaml")


def locked(text: str) -> dict[str, Version]:
    """The dependencies of a lock by name."""
    return {name: Version(version) for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.MULTILINE)}


def concerns(advisory: Mapping[str, Any], name: str, version: Version) -> bool:
    """Whether an advisory in the OSV format holds for a version: one of its list, or within one of its ranges."""
    if advisory.get("withdrawn"):
        return False
    affected = [part for part in advisory["affected"] if part["package"]["name"].lower().replace("_", "-") == name]
    return any(
        any(Version(listed) == version for listed in part.get("versions", ()))
        or any(_within(span["events"], version) for span in part.get("ranges", ()) if span["type"] == "ECOSYSTEM")
        for part in affected
    )


def _within(events: list[Mapping[str, str]], version: Version) -> bool:
    """Whether the last event up to a version is one that introduced the flaw."""
    inside = False
    for event in events:
        kind, at = next(iter(event.items()))
        if kind == "introduced" and (at == "0" or version >= Version(at)):
            inside = True
        if (kind == "fixed" and version >= Version(at)) or (kind == "last_affected" and version > Version(at)):
            inside = False
    return inside


def advisories(database: Path, name: str) -> Iterator[dict[str, Any]]:
    """What the database has about a package."""
    for path in sorted((database / "vulns" / name).glob("*.yaml")):
        yield yaml.safe_load(path.read_text(encoding="utf-8"))


def _date(database: Path) -> str:
    """The day of the copy's last change."""
    log = ["git", "-C", str(database), "log", "-1", "--format=%cs"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path, help="a checkout of PyPA's advisory database")
    parser.add_argument("--lock", type=Path, default=LOCK, help="another lock")
    asked = parser.parse_args()
    if not (asked.database / "vulns").is_dir():
        parser.error("that folder is no checkout of the advisory database: there is no vulns in it")
    packages = locked(asked.lock.read_text(encoding="utf-8"))
    known = [(name, advisory) for name in packages for advisory in advisories(asked.database, name)]
    holding = [(name, advisory) for name, advisory in known if concerns(advisory, name, packages[name])]
    about = f"{len(known)} advisories about them as of {_date(asked.database)}"
    print(f"audit: {len(packages)} packages, {about}, {len(holding)} hold")
    for name, advisory in holding:
        print("  ", name, packages[name], advisory["id"], *advisory.get("aliases", ()))
    return 1 if holding else 0


if __name__ == "__main__":
    sys.exit(main())
