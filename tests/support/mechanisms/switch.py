"""What a mechanism is to the campaign that switches it off."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Switch:
    """A mechanism: the code that is it, what stands there without it, and the tests that must fail then.

    Args:
        file: in the package; `on` stands there once.
        tests: one or more, separated by spaces, each `test_file.py` or `test_file.py::test_name`.
        also: more code, as (file, on, off), where two mechanisms do the same and either is enough.
    """

    name: str
    file: str
    on: str
    off: str
    tests: str
    also: tuple[tuple[str, str, str], ...] = ()
