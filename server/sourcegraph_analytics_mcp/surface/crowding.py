"""Who gives way where there is room for so many: none of many callers can push out another by asking for more."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def of_whoever_has_most(items: Iterable[T], whose: Callable[[T], str]) -> list[T]:
    """Those of the caller with the most, in the order given.

    Args:
        items: one or more.
        whose: the caller's name.
    """
    every = list(items)
    most = Counter(map(whose, every)).most_common(1)[0][0]
    return [one for one in every if whose(one) == most]
