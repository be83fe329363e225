"""Switch each mechanism off in a copy of the code: its tests must fail, or they prove nothing.

python tests/campaigns/switches.py [part of a mechanism's name …]

First the tests run with everything on: they must pass. The mechanisms are listed in tests/support/mechanisms.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.copies import Copy
from support.mechanisms import SWITCHES
from support.mechanisms.switch import Switch


def outcome(switch: Switch, copy: Copy) -> tuple[str, str]:
    """What is wrong with the tests without the mechanism, and the first thing they say."""
    path = copy.package / switch.file
    source = path.read_text()
    if source.count(switch.on) != 1:
        return f"cannot be switched off: its code is there {source.count(switch.on)} times", ""
    changed = source.replace(switch.on, switch.off)
    try:
        compile(changed, switch.file, "exec")
    except SyntaxError as error:
        return f"is no code without it: {error.msg}", ""
    path.write_text(changed)
    ended = copy.run(switch.tests.split())
    path.write_text(source)
    return "" if ended.failed else f"its tests do not fail (exit {ended.code})", ended.says


def main() -> int:
    begun = time.monotonic()
    chosen = [s for s in SWITCHES if not sys.argv[1:] or any(part in s.name for part in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        whole = copy.run(sorted({test for switch in chosen for test in switch.tests.split()}), seconds=600)
        wrong = [] if whole.code == 0 else [f"with everything on (exit {whole.code})"]
        print(f"with everything on: {'its tests pass' if whole.code == 0 else whole.says}", flush=True)
        for switch in chosen:
            found, says = outcome(switch, copy)
            print(f"{switch.name}: {found or 'its tests fail'} ({says})", flush=True)
            wrong += [switch.name] if found else []
    print(f"switches: {len(chosen)} mechanisms switched off, {len(wrong)} wrong; {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
