"""Announce changes to every client that listens, each in its own protocol's way."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourcesListChanged, ResourceUpdated

EXPORTS_URI = "analytics://exports"
_MOST_SESSIONS = 64


@dataclass
class _Listener:
    """An older session and the resources it subscribed to."""

    session: Any
    resources: set[str] = field(default_factory=set)


class Notices:
    """Who to tell: modern clients listen on the bus; of older sessions the latest are remembered."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self._listeners: OrderedDict[int, _Listener] = OrderedDict()

    def remember(self, session: Any) -> None:
        """Note that an older session is there, by the handshake it made."""
        self._listener(session)
        while len(self._listeners) > _MOST_SESSIONS:
            self._listeners.popitem(last=False)

    def subscribe(self, session: Any, uri: str) -> None:
        self._listener(session).resources.add(uri)

    def unsubscribe(self, session: Any, uri: str) -> None:
        self._listener(session).resources.discard(uri)

    async def exports_changed(self) -> None:
        """Say that the exports are others now."""
        await self.bus.publish(ResourcesListChanged())
        await self.bus.publish(ResourceUpdated(uri=EXPORTS_URI))
        for listener in list(self._listeners.values()):
            with anyio.move_on_after(1):  # a client that does not read must not hold up an export
                await listener.session.send_resource_list_changed()  # dropped where the connection has gone
                if EXPORTS_URI in listener.resources:
                    await listener.session.send_resource_updated(EXPORTS_URI)

    def _listener(self, session: Any) -> _Listener:
        key = id(session.client_params)
        listener = self._listeners.setdefault(key, _Listener(session))
        listener.session = session
        self._listeners.move_to_end(key)
        return listener
