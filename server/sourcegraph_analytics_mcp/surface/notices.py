"""Announce changes to every client of the caller's that listens, each in its own protocol's way."""

from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import anyio
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourcesListChanged, ResourceUpdated, ServerEvent

from .crowding import of_whoever_has_most

EXPORTS_URI = "analytics://exports"
MOST_SESSIONS = 1000  # about 37 kB each; the newest revision has none
_WHOSE: ContextVar[str | None] = ContextVar("whose exports changed, where that is not who calls", default=None)


@dataclass
class _Listener:
    """An older session, and whether it subscribed to the list of exports; nothing else ever changes."""

    session: Any
    whose: str
    follows: bool = False


class _Bus(InMemorySubscriptionBus):
    """One on which each hears of what is their own."""

    def __init__(self, caller: Callable[[], str]) -> None:
        super().__init__()
        self._caller = caller

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        whose = self._caller()
        return super().subscribe(lambda event: listener(event) if self._caller() == whose else None)


class Notices:
    """Who to tell: modern clients listen on the bus; of older sessions so many are remembered.

    Args:
        caller: whose the work is that is being done; a download's is whoever began it.
    """

    def __init__(self, caller: Callable[[], str] = str) -> None:
        self._called_by = caller
        self.bus = _Bus(self._caller)
        self._listeners: OrderedDict[int, _Listener] = OrderedDict()

    def remember(self, session: Any) -> None:
        """Note that an older session is there, by the handshake it made."""
        self._listener(session)

    def subscribe(self, session: Any, uri: str) -> None:
        self._listener(session, follows=uri == EXPORTS_URI)

    def unsubscribe(self, session: Any, uri: str) -> None:
        listener = self._listener(session)
        listener.follows = listener.follows and uri != EXPORTS_URI

    def _caller(self) -> str:
        whose = _WHOSE.get()
        return self._called_by() if whose is None else whose

    async def exports_changed_of(self, whose: str) -> None:
        """Say so to one caller where nobody calls."""
        before = _WHOSE.set(whose)
        try:
            await self.exports_changed()
        finally:
            _WHOSE.reset(before)

    async def exports_changed(self) -> None:
        """Say that the exports are others now."""
        await self.bus.publish(ResourcesListChanged())
        await self.bus.publish(ResourceUpdated(uri=EXPORTS_URI))
        async with anyio.create_task_group() as tasks:  # many that do not read take no longer than one
            for listener in [heard for heard in self._listeners.values() if heard.whose == self._caller()]:
                tasks.start_soon(_tell, listener)

    def _listener(self, session: Any, *, follows: bool = False) -> _Listener:
        key = id(session.client_params)
        listener = self._listeners.setdefault(key, _Listener(session, self._caller()))
        listener.session = session
        listener.follows = listener.follows or follows
        self._listeners.move_to_end(key)
        if len(self._listeners) > MOST_SESSIONS:
            self._forget_one()
        return listener

    def _forget_one(self) -> None:
        """Forget a session of the caller with the most: the oldest that subscribed to nothing, else the oldest."""
        theirs = of_whoever_has_most(self._listeners, lambda key: self._listeners[key].whose)
        del self._listeners[next((key for key in theirs if not self._listeners[key].follows), theirs[0])]


async def _tell(listener: _Listener) -> None:
    with anyio.move_on_after(1):  # a client that does not read must not hold up an export
        await listener.session.send_resource_list_changed()  # dropped where the connection has gone
        if listener.follows:
            await listener.session.send_resource_updated(EXPORTS_URI)
