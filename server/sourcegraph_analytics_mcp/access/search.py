"""Look in the list of tokens for what a create may have left."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio

from ..disk import surely
from ..upstream.models import Token, TokenList
from .journal import Journal, Unsettled
from .secret_store import SecretStore

_NO_END = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Look:
    """What a list shows of a create: the live tokens of its name that are new since it was asked for.

    Args:
        lost: those whose secret is not kept here.
        kept: the others.
        whole: whether the list is, and the secret store can tell what it keeps.
        alone: whether no other create of that name is under way.
    """

    lost: tuple[Token, ...]
    kept: tuple[Token, ...]
    whole: bool
    alone: bool

    @property
    def sure(self) -> bool:
        return self.whole and self.alone

    def orphan(self, since: datetime, until: datetime = _NO_END) -> Token | None:
        """The token that must be the create's, made between two times; None where there is a doubt."""
        certain = self.sure and len(self.lost) == 1 and since <= self.lost[0].created_at <= until
        return self.lost[0] if certain else None


class Search:
    """Looks for what creates have left.

    Args:
        listed: gives every token of the signed-in user.
        pauses: seconds before each look at a list that may lag.
    """

    def __init__(
        self,
        listed: Callable[[], Awaitable[TokenList]],
        journal: Journal,
        store: SecretStore,
        pauses: tuple[float, ...],
    ) -> None:
        self._listed = listed
        self._journal = journal
        self._store = store
        self._pauses = pauses

    async def repeatedly(self, entry: Unsettled) -> Look:
        """Look for what a create of ours that is under way has made, until something is found."""
        for pause in self._pauses:
            await anyio.sleep(pause)
            look = await self.once(entry, own=1)
            if look.lost:
                break
        return look

    async def once(self, entry: Unsettled, own: int) -> Look:
        """Look for what a create has made.

        Args:
            own: how many creates of that name are under way when there is no other one.
        """
        every = await self._listed()
        # In this order: whatever another server has made is on its way still, or kept by now.
        under_way = await surely(self._journal.under_way, entry.display_name)
        ids = await surely(self._store.kept)
        new = [t for t in every.tokens if _may_be_its(t, entry)]
        return Look(
            lost=tuple(t for t in new if t.id not in (ids or ())),
            kept=tuple(t for t in new if t.id in (ids or ())),
            whole=every.whole and ids is not None,
            alone=under_way <= own,
        )


def _may_be_its(token: Token, entry: Unsettled) -> bool:
    return token.id not in entry.before and token.display_name == entry.display_name and not token.is_expired


def called(entry: Unsettled, *, named: bool) -> str:
    """How a create's token is called, behind the word for it.

    Args:
        named: whether names of tokens may be shown.
    """
    if not named:
        return ""
    return f" named {entry.display_name!r}" if entry.display_name else " without a name"


def told(look: Look, entry: Unsettled, *, named: bool) -> str:
    """What is known of a create without a certain orphan; empty where it seems to have left nothing.

    Args:
        named: whether names of tokens may be shown.
    """
    if look.lost:
        return f"this may be its, with a secret nobody has: {ids_of(look.lost)}"
    if not look.sure:
        return f"it is not known whether it left a token{called(entry, named=named)}; look on the page /access-tokens"
    return f"token {ids_of(look.kept)} of its name was made since, and its secret is kept here" if look.kept else ""


def ids_of(tokens: tuple[Token, ...]) -> str:
    """Their ids, in one line."""
    return ", ".join(token.id for token in tokens)
