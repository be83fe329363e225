"""Callers over HTTP: each has data of their own, as if each had a server of their own, and a bounded share of it."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.abc
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import principal_components

from ..errors import AnalyticsError
from ..settings import Settings
from .app import App
from .grants import Grant, Grants, named

_MOST_OPEN = 256
_MOST_WARM = 8  # callers whose engines (33 MB each) wait for their next question
_LOOK_EVERY = 15.0  # seconds
_IDLE = 900.0  # seconds after which what a caller has open is closed
_LONGEST_SHARE = 3600.0  # seconds
_log = logging.getLogger(__name__)
_OPERATOR = ""  # who calls over stdio, or holds this machine's credential


def caller() -> str:
    """The one who sent the request being answered, as a name that can stand in a path; empty for the operator."""
    token = get_access_token()
    if token is None or token.subject is None:
        return _OPERATOR
    _, issuer, _ = principal_components(token)
    return named(issuer, token.subject)


def may_manage_tokens() -> bool:
    """Whether whoever calls holds the scope for it; the operator does."""
    token = get_access_token()
    return token is None or "analytics:tokens" in token.scopes


def own(settings: Settings, name: str, grants: Grants | None = None) -> Settings:
    """The settings with a caller's own data directory, and with the instances that it may ask about."""
    settings = settings if grants is None else grants.of(name).narrowed(settings)
    return settings if name == _OPERATOR else settings.model_copy(update={"data_dir": settings.home / "callers" / name})


class _Open:
    """One caller's parts, and whether they are in use."""

    def __init__(self) -> None:
        self.app: App | None = None
        self.error: Exception | None = None
        self.ready = anyio.Event()
        self.over = anyio.Event()
        self.uses = 0
        self.last_used = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether nothing is done for its caller, not even a download."""
        return self.app is not None and not self.uses and not self.app.downloads.running

    def leave(self) -> None:
        """One use less."""
        self.uses -= 1
        self.last_used = time.monotonic()


class Callers:
    """The parts of each caller, opened by the first request and closed when idle.

    Args:
        opened: opens the parts of the caller of that name.
        tasks: where they live.
        grants: what each may use; None for everything.
    """

    def __init__(
        self,
        opened: Callable[[str], AbstractAsyncContextManager[App]],
        tasks: anyio.abc.TaskGroup,
        grants: Grants | None = None,
    ) -> None:
        self._opened = opened
        self._tasks = tasks
        self._grants = grants
        self._callers: dict[str, _Open] = {}
        self._shares: dict[tuple[str, str], deque[float]] = {}  # which outlive what is open

    def app(self) -> App:
        """What the request being answered works with."""
        known = self._callers.get(caller())
        if known is None or known.app is None:
            raise RuntimeError("the caller is not there")
        return known.app

    def grant(self) -> Grant | None:
        """What the caller may use; None for everything.

        Raises:
            AnalyticsError: `forbidden` for who may use nothing.
        """
        return None if self._grants is None else self._grants.of(caller())

    async def enter(self) -> Callable[[], None]:
        """Keep the caller's parts open until the function that this returns is called.

        Raises:
            AnalyticsError: `forbidden` for who may use nothing, `busy` when too many callers are at work at once.
        """
        self.grant()
        name = caller()
        known = self._callers.get(name)
        if known is None:
            if len(self._callers) >= _MOST_OPEN:
                self._make_room()
            known = self._callers[name] = _Open()
            self._tasks.start_soon(self._hold, name, known)
        known.uses += 1
        try:
            if not known.ready.is_set():
                await known.ready.wait()
            if known.error is not None:
                raise known.error
        except BaseException:
            known.leave()
            raise
        return known.leave

    def take(self, share: str, most: int, seconds: float) -> None:
        """Count one use of a share.

        Args:
            most: uses in a row of `seconds`.

        Raises:
            AnalyticsError: `busy`, with the seconds until the next is free.
        """
        uses = self._shares.setdefault((caller(), share), deque())
        now = time.monotonic()
        while uses and uses[0] <= now - seconds:
            uses.popleft()
        if len(uses) >= most:
            raise busy(f"That is more than {most} {share} in {seconds:g} seconds.", uses[0] + seconds - now)
        uses.append(now)

    def _make_room(self) -> None:
        """Close what the caller has open who has been idle for the longest."""
        idle = {name: known for name, known in self._callers.items() if known.idle}
        if not idle:
            raise busy("Too many people are using this server.", 60)
        name = min(idle, key=lambda name: idle[name].last_used)
        self._forget(name, idle[name])
        idle[name].over.set()

    def _cold(self, known: _Open) -> bool:
        """Whether a caller does nothing while enough others have called since."""
        since = sum(other.last_used > known.last_used for other in self._callers.values())
        return not known.uses and since >= _MOST_WARM

    async def _hold(self, name: str, known: _Open) -> None:
        try:
            async with self._opened(name) as known.app:
                known.ready.set()
                while not known.idle or time.monotonic() - known.last_used < _IDLE:
                    with anyio.move_on_after(min(_LOOK_EVERY, _IDLE / 10)):
                        await known.over.wait()
                        break
                    if self._cold(known):
                        await known.app.questions.aclose()  # the next question starts another engine
                self._forget(name, known)
        except Exception as error:  # noqa: BLE001 - told to this caller; the others have parts of their own
            _log.error("A caller's parts ended: %s", type(error).__name__)
            known.error = error
            self._forget(name, known)
            known.ready.set()

    def _forget(self, name: str, known: _Open) -> None:
        if self._callers.get(name) is known:  # by now there may be another
            del self._callers[name]
        past = time.monotonic() - _LONGEST_SHARE
        self._shares = {share: uses for share, uses in self._shares.items() if uses and uses[-1] > past}


def busy(what: str, seconds: float) -> AnalyticsError:
    """The error of too much at once."""
    wait = max(1, round(seconds))
    return AnalyticsError("busy", what, f"Try again in {wait} seconds.", retryable=True, retry_after_seconds=wait)
