"""Switch each mechanism off in a copy of the code: its tests must fail, or they prove nothing.

python tests/campaigns/switches.py [--jobs 2] [part of a mechanism's name …]

First the tests run with everything on: they must pass. The mechanisms are listed in tests/support/mechanisms.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.copies import Copy
from support.mechanisms import SWITCHES
from support.mechanisms.switch import Switch


class CannotSwitch(Exception):
    """A switch does not fit the code any more."""


@contextmanager
def switched_off(switch: Switch, copy: Copy) -> Iterator[None]:
    """A copy without a mechanism, for as long as the block lasts."""
    whole: dict[Path, str] = {}
    try:
        for file, on, off in ((switch.file, switch.on, switch.off), *switch.also):
            path = copy.package / file
            source = path.read_text()
            if source.count(on) != 1:
                raise CannotSwitch(f"cannot be switched off: its code is in {file} {source.count(on)} times")
            whole.setdefault(path, source)
            try:
                compile(source.replace(on, off), file, "exec")
            except SyntaxError as error:
                raise CannotSwitch(f"is no code without it: {error.msg}") from None
            path.write_text(source.replace(on, off))
        yield
    finally:
        for path, source in whole.items():
            path.write_text(source)


def outcome(switch: Switch, copy: Copy) -> tuple[str, str]:
    """What is wrong with the tests without the mechanism, and the first thing they say."""
    try:
        with switched_off(switch, copy):
            ended = copy.run(switch.tests.split())
            if ended.code and not ended.failed:  # pytest itself fell, which it does once in many hundred runs
                ended = copy.run(switch.tests.split())
    except CannotSwitch as error:
        return str(error), ""
    if ended.failed:
        return "", ended.says
    return f"its tests do not {'end' if ended.code is None else 'fail'} (exit {ended.code})", ended.says


def each_off(chosen: Sequence[Switch], copies: Sequence[Copy]) -> Iterator[tuple[Switch, str]]:
    """Each mechanism and what is wrong with its tests, as many at once as there are copies; says each as it ends."""
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(switch: Switch) -> tuple[Switch, str]:
        copy, begun = free.get(), time.monotonic()
        try:
            wrong, says = outcome(switch, copy)
        finally:
            free.put(copy)
        took = time.monotonic() - begun
        print(
            f"{'WRONG' if wrong else 'ok'} {took:.0f} s, {switch.name}: {wrong or 'its tests fail'} ({says})",
            flush=True,
        )
        return switch, wrong

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(one, chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help="only mechanisms whose name holds one of these")
    parser.add_argument("--jobs", type=int, default=2, help="copies at once (2)")
    asked, begun = parser.parse_args(), time.monotonic()
    chosen = [s for s in SWITCHES if not asked.parts or any(part in s.name for part in asked.parts)]
    with tempfile.TemporaryDirectory() as folder:
        copies = [Copy(Path(folder) / str(job)) for job in range(max(asked.jobs, 1))]
        tests = sorted({test for switch in chosen for test in switch.tests.split()})
        whole = copies[0].run(tests, seconds=900, jobs=len(copies))
        wrong = [] if whole.code == 0 else [f"with everything on (exit {whole.code})"]
        print(f"with everything on: {'its tests pass' if whole.code == 0 else whole.says}", flush=True)
        wrong += [switch.name for switch, found in each_off(chosen, copies) if found]
    print(f"switches: {len(chosen)} mechanisms switched off, {len(wrong)} wrong; {time.monotonic() - begun:.0f} s")
    for name in wrong:
        print("  ", name)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
