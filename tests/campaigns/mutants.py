"""Change one small thing in a copy of the code, again and again: the tests of that module must notice.

python tests/campaigns/mutants.py --count 60 --seed 1
"""

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.campaign import arguments
from support.copies import Copy
from support.mutations import Mutant, mutants

TESTS = {
    "upstream/policy.py": "test_analytics.py test_downloads.py test_tokens.py",
    "upstream/body.py": "test_downloads.py test_analytics.py",
    "exports/store.py": "test_store.py test_exports.py",
    "exports/engine/gate.py": "test_query_export.py",
    "surface/text.py": "test_text.py test_bounds.py test_query_usage.py test_exports.py",
    "redaction.py": "test_secrets.py",
}
_ENOUGH = 0.85  # of the mutants
_LONGEST = 90.0  # seconds; a mutant that never ends is noticed

# What no test can notice, by file and change, each with the reason.
EQUIVALENT: dict[tuple[str, str], str] = {}


def chosen(package: Path, count: int, seed: int) -> list[Mutant]:
    """As many mutants of each module as its size deserves, at random."""
    every = [mutant for file in TESTS for mutant in mutants(package, file)]
    every = [mutant for mutant in every if (mutant.file, mutant.change) not in EQUIVALENT]
    print(f"mutants: {len(every)} can be made, {len(EQUIVALENT)} of them are known to change nothing", flush=True)
    return random.Random(seed).sample(every, min(count, len(every)))


def main() -> int:
    given = arguments(__doc__, 60)
    begun, survived, died = time.monotonic(), list[Mutant](), 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        some = chosen(copy.package, given.count, given.seed)
        for mutant in some:
            path = copy.package / mutant.file
            whole = path.read_bytes()
            path.write_bytes(mutant.source)
            ended = copy.run(TESTS[mutant.file].split(), _LONGEST)
            path.write_bytes(whole)
            killed = ended.code != 0
            died += killed
            survived += [] if killed else [mutant]
            print(f"{'killed' if killed else 'SURVIVED'}: {mutant.file}:{mutant.line}: {mutant.change}", flush=True)
    score = died / max(len(some), 1)
    for mutant in survived:
        print(f"survived: {mutant.file}:{mutant.line}: {mutant.change}")
    print(
        f"mutants: {len(some)} of seed {given.seed}, {died} killed, {len(survived)} survived: {score:.0%}; "
        f"{time.monotonic() - begun:.0f} s"
    )
    return 0 if score >= _ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
