"""Whole numbers in JSON: many clients read them as doubles, which lose digits from 2**53 on."""

_SAFE_INTEGER = 2**53


def in_json(value: int) -> int | str:
    """A number that every client reads as it is; as text where a number would lose digits."""
    return value if abs(value) < _SAFE_INTEGER else str(value)
