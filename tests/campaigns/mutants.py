"""Change one small thing in a copy of the code, again and again: the tests of that module must notice.

python tests/campaigns/mutants.py --count 60 --seed 1
python tests/campaigns/mutants.py --count 999 --jobs 2 policy body
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.copies import Copy, Ended
from support.mutations import Mutant, mutants

# The tests of each module, those first that are quick and likely to notice.
TESTS = {
    "upstream/policy.py": "test_analytics.py test_downloads.py test_tokens.py",
    "upstream/body.py": "test_analytics.py test_downloads.py",
    "exports/store.py": "test_store.py test_exports.py",
    "exports/engine/gate.py": "test_query_export.py",
    "spelling.py": "test_text.py test_query_export.py test_query_usage.py",
    "surface/text.py": "test_text.py test_bounds.py test_query_usage.py test_exports.py",
    "redaction.py": "test_text.py test_secrets.py",
}
_ENOUGH = 0.85  # of the mutants
_LONGEST = 600.0  # seconds of one run
# A test that hangs is ended; the plugin of Hypothesis, which nothing here needs, takes a third of pytest's start.
_OPTIONS = "-o faulthandler_timeout=100 -o faulthandler_exit_on_timeout=true -p no:hypothesispytest"


@dataclass(frozen=True)
class Equal:
    """Mutants that no test can notice.

    Args:
        line: a pattern that is found in the line of source, or in it and the one above.
        why: what makes the change one of no effect.
    """

    file: str
    line: str
    change: str
    why: str

    def fits(self, mutant: Mutant) -> bool:
        there = mutant.file == self.file and re.search(self.line, mutant.text) is not None
        return there and mutant.change == self.change


_POLICY, _BODY, _STORE, _GATE = "upstream/policy.py", "upstream/body.py", "exports/store.py", "exports/engine/gate.py"

EQUIVALENT = (
    Equal(_POLICY, r'\n +"\w+": +\(\d', "`1` became `(0)`", "a call that may not go on has sent one request already"),
    Equal(_POLICY, r'"empty": .*\n\Z', "`1` became `(2)`", "nothing but a report can be empty"),
    Equal(_POLICY, "if status < 300:", "`status < 300` became `(status <= 300)`", "300 has been answered above"),
    Equal(_POLICY, "if status < 300:", "`300` became `(301)`", "300 has been answered above"),
    Equal(_POLICY, "if status >= 500:", "`status >= 500` became `(status > 500)`", "500 has been answered above"),
    Equal(_POLICY, "if status >= 500:", "`500` became `(501)`", "500 has been answered above"),
    Equal(
        _POLICY, "random.uniform",
        "`random.uniform(0, min(_CAP, base * 2 ** (sent - 1)))` became "
        "`(random.uniform(min(_CAP, base * 2 ** (sent - 1)), 0))`", "it is uniform from either end",
    ),
    Equal(
        _POLICY, "random.uniform", "`min(_CAP, base * 2 ** (sent - 1))` became `(min(base * 2 ** (sent - 1), _CAP))`",
        "the smaller one is the smaller one",
    ),
    Equal(
        _POLICY, "return max",
        "`max(0.0, (moment - datetime.now(UTC)).total_seconds())` became "
        "`(max((moment - datetime.now(UTC)).total_seconds(), 0.0))`", "the larger one is the larger one",
    ),
    Equal(
        _BODY, "may hide", "`bool(data) or len(piece) == _PIECE` became `(bool(data) and len(piece) == _PIECE)`",
        "what is hidden comes with the next bytes, and a member ends with bytes that hide nothing; not relied on",
    ),
    Equal(_STORE, "indent=1", "`1` became `(2)`", "spaces in a file for programs"),
    Equal(_STORE, "indent=1", "`1` became `(0)`", "spaces in a file for programs"),
    Equal(_STORE, "return 0.0", "`0.0` became `(1.0)`", "under a minute as well"),
    Equal(_STORE, "return 0.0", "`0.0` became `(-1.0)`", "under a minute as well"),
    Equal(_STORE, r"except \(?OSError.*\n +return False", "`return False` became `return None`", "only asked whether"),
    Equal(_GATE, "json_serialize_sql", "`0` became `(-1)`", "one row of one column"),
    Equal(_GATE, r"statements\[0\]", "`0` became `(-1)`", "there is exactly one"),
    Equal(
        _GATE, r"(a second lock|StatementType).*\n", '`raise Refused("only a SELECT is allowed")` became `pass`',
        "two locks, one behind the other, with the same words (DuckDB 1.5 needs the second)",
    ),
    Equal(
        _GATE, "show_type",
        '`node.get("show_type") not in _SHOWS or not node.get("query")` became '
        "`(node.get('show_type') not in _SHOWS and (not node.get('query')))`",
        "in DuckDB 1.5 and 2.0 what has no query has another type too; not relied on",
    ),
    Equal(
        "surface/text.py", "abs", "`abs(value) >= 1` became `(abs(value) > 1)`", "1.0 is `1` either way"
    ),
    Equal(
        "surface/text.py", "return max",
        "`max(shown, len(json.dumps(safe_data(list(row)), ensure_ascii=False, default=str)))` became "
        "`(max(len(json.dumps(safe_data(list(row)), ensure_ascii=False, default=str)), shown))`",
        "the larger one is the larger one",
    ),
    Equal("redaction.py", "self._pieces", "`1` became `(2)`", "the same pieces, made again each time"),
)  # fmt: skip


def given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="parts of names of modules (all)")
    parser.add_argument("--count", type=int, default=60, help="how many mutants at most (60)")
    parser.add_argument("--seed", type=int, default=1, help="where the choice comes from (1)")
    parser.add_argument("--jobs", type=int, default=1, help="copies at once (1)")
    return parser.parse_args()


def chosen(package: Path, files: list[str], count: int, seed: int) -> list[Mutant]:
    """As many mutants of each module as its size deserves, at random; all of them where there are no more."""
    every = [mutant for file in files for mutant in mutants(package, file)]
    noticeable = [mutant for mutant in every if not any(equal.fits(mutant) for equal in EQUIVALENT)]
    print(f"mutants: {len(every)}, of which {len(every) - len(noticeable)} are known to change nothing", flush=True)
    some: list[Mutant] = []
    for file in files:
        of_file = [mutant for mutant in noticeable if mutant.file == file]
        share = -(-count * len(of_file) // max(len(noticeable), 1))
        some += Random(f"{seed} {file}").sample(of_file, min(share, len(of_file)))
    Random(seed).shuffle(some)
    return some


class Copies:
    """Copies of the code, each used by one at a time."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._free: SimpleQueue[Copy] = SimpleQueue()
        for job in range(jobs):
            (folder / str(job)).mkdir()
            self._free.put(Copy(folder / str(job)))

    def run(self, file: str, source: bytes | None) -> Ended:
        """Run the tests of a module with another source, or with its own."""
        copy = self._free.get()
        path = copy.package / file
        whole = path.read_bytes()
        try:
            path.write_bytes(whole if source is None else source)
            return copy.run(TESTS[file].split(), _LONGEST)
        finally:
            path.write_bytes(whole)
            self._free.put(copy)

    def prove(self, file: str) -> None:
        """See that the tests pass, and that they run the copy: with a source that cannot be loaded they do not."""
        begun = time.monotonic()
        passed = self.run(file, None)
        broken = self.run(file, b"raise RuntimeError('the copy is what runs')\n")
        if passed.code != 0 or broken.code == 0:
            sys.exit(f"{file}: its tests must pass on the copy, and only without a change: {passed.says} {broken.says}")
        print(f"{file}: {TESTS[file]} pass in {time.monotonic() - begun:.0f} s", flush=True)


def main() -> int:
    asked = given()
    os.environ["PYTEST_ADDOPTS"] = _OPTIONS
    files = [file for file in TESTS if not asked.modules or any(part in file for part in asked.modules)]
    begun, survived, counted = time.monotonic(), list[Mutant](), defaultdict[str, list[bool]](list)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(asked.jobs) as pool:
        copies = Copies(Path(folder), asked.jobs)
        some = chosen(Path(folder) / "0" / "copy" / "server/sourcegraph_analytics_mcp", files, asked.count, asked.seed)
        list(pool.map(copies.prove, files))
        for mutant, ended in zip(some, pool.map(lambda m: copies.run(m.file, m.source), some), strict=True):
            killed = ended.code != 0
            counted[mutant.file].append(killed)
            survived += [] if killed else [mutant]
            print(f"{f'killed by {ended.says}' if killed else 'SURVIVED'}: {mutant}", flush=True)
    for mutant in survived:
        print(f"survived: {mutant}")
    for file, kills in counted.items():
        print(f"{file}: {sum(kills)} of {len(kills)} killed: {sum(kills) / len(kills):.0%}")
    score = 1 - len(survived) / max(len(some), 1)
    print(
        f"mutants: {len(some)} of seed {asked.seed}, {len(survived)} survived: {score:.1%}; "
        f"{time.monotonic() - begun:.0f} s"
    )
    return 0 if score >= _ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
