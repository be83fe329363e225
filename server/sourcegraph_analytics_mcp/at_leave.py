"""What is to be put away where this process ends at once; whoever begins such things says so here."""

from collections.abc import Callable

_PUT_AWAY: list[Callable[[], object]] = []


def at_leave(put_away: Callable[[], object]) -> None:
    """Have that called once before the process ends; it must take no more than a second or so."""
    _PUT_AWAY.append(put_away)


def leave_nothing() -> None:
    """Put away all that was begun, the last of it first, whoever uses it."""
    while _PUT_AWAY:
        _PUT_AWAY.pop()()
