"""Stop using tokens that no longer work, and remove what is kept of them here."""

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import anyio

from ..disk import in_thread, surely
from ..errors import AnalyticsError
from ..upstream.models import TokenList
from .credentials import Configured
from .secret_store import Removed, SecretStore, StoredToken

_log = logging.getLogger(__name__)
_PATIENCE = 3  # seconds for a keyring, while what was done upstream waits to be told
_NAMED = 5  # ids in one sentence
_BECAME = {
    "removed": "and what was kept here of {} was removed",
    "absent": "and the entry of {}, all that was left here, was removed",
    "entry": "but the entry of {} in the index here could not be removed; the next create_token tries again",
    "secret": "but the secret of {} that is kept here could not be removed",
    "unanswered": "but the keyring has not answered in time about what is kept of {} here; the next create_token tries "
    "again",
}
Left = Literal["secret", "entry", "unanswered"]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A token that is kept in a store: the operator's, or that of a caller over HTTP."""

    store: SecretStore
    token: StoredToken


@dataclass(frozen=True, slots=True)
class _Forgotten:
    """What became of a token that was kept.

    Args:
        secret: None where its keyring has not answered, and may do so later.
        dropped: whether its entry in the index has gone.
    """

    id: str
    secret: Removed | None
    dropped: bool

    @property
    def left(self) -> Left | None:
        if self.secret is None:
            return "unanswered"
        if self.secret == "stays":  # noqa: S105
            return "secret"
        return None if self.dropped else "entry"


class Forgetting:
    """Forgets tokens in all places.

    Args:
        operators: the operator's store; what is forgotten goes from it and from those of all callers.
    """

    def __init__(self, credentials: Configured, operators: SecretStore) -> None:
        self._credentials = credentials
        self._operators = operators

    async def token(self, token_id: str) -> Left | None:
        """Stop using a token and remove what is kept of it; what could not be removed."""
        self._credentials.forget(token_id)
        try:
            left = {one.left for one in await self._forget(lambda token: token.id == token_id)}
        except AnalyticsError as error:
            _log.warning("What is kept of a revoked token stays: %s", error.code)
            return "secret" if error.code == "busy" else "entry"
        worst: tuple[Left, ...] = ("secret", "unanswered", "entry")
        return next((what for what in worst if what in left), None)

    async def seen(self, every: TokenList, *, removable: bool) -> list[str]:
        """Say what is kept here of tokens that a list shows as ended, and change nothing of it.

        Exports use another that is kept, where there is one.

        Args:
            every: each token once, as for `tidied`.
            removable: whether there is a create that removes it, so that it need be said.
        """
        ended = _ended(every)
        if not ended:
            return []
        self._credentials.ended(ended)
        used, source = await self._credentials.token_in_use(), await self._credentials.source()
        held = used in ended and source in ("SRC_ANALYTICS_ACCESS_TOKEN", "SRC_ANALYTICS_ACCESS_TOKEN_FILE")
        said = [_told([used], f"but {source} holds {{}}: set another")] if used and held else []
        try:
            kept = await surely(self._kept, self._spent(ended)) if removable else []
        except AnalyticsError as error:
            _log.warning("What is kept of tokens cannot be looked through: %s", error.code)
            kept = []
        if kept:
            said.append(_told([one.token.id for one in kept], "but still kept here; the next create_token removes {}"))
        return [" ".join(said)] if said else []

    async def tidied(self, every: TokenList) -> list[str]:
        """Remove what is kept here of tokens that a list shows as ended, as a revoke that was cut off could not.

        Absence proves nothing: the list may be late, or of another user. What was done is said; nothing is raised, as
        something else was asked for, and is done.

        Args:
            every: each token once; nothing is concluded from a part of the list, which may hold another entry of one.
        """
        if not (ended := _ended(every)):
            return []
        try:
            done = await self._forget(self._spent(ended))
        except AnalyticsError as error:
            _log.warning("What is kept of ended tokens stays: %s", error.code)
            return []
        became = {what: [one.id for one in done if (one.left or one.secret) == what] for what in _BECAME}
        said = [_told(ids, _BECAME[what]) for what, ids in became.items() if ids]
        return [" ".join(said)] if said else []

    def _spent(self, ended: Collection[str]) -> Callable[[StoredToken], bool]:
        """Which tokens need not be kept: what a setting holds stays known here, what ended in its time is told of."""
        ids, held = frozenset(ended), self._credentials.held()
        return lambda token: token.id in ids and token.live and token.fingerprint != held

    async def _forget(self, which: Callable[[StoredToken], bool]) -> list[_Forgotten]:
        """Remove the tokens' secrets, then the entries of those whose keyring has answered.

        Raises:
            AnalyticsError: when the stores cannot be looked through, or a keyring would have to be asked and the
                system has no more threads; nothing was removed then.
        """
        kept = await surely(self._kept, which)
        answers = await _asked([one for one in kept if one.token.place == "keyring"])
        return await surely(_forgotten, kept, answers)

    def _kept(self, which: Callable[[StoredToken], bool]) -> list[_Kept]:
        stores = self._operators.with_callers()
        return [_Kept(store, token) for store in stores for token in store.tokens() if which(token)]


async def _asked(kept: list[_Kept]) -> list[Removed]:
    """Remove secrets from a keyring, and leave it to itself where it asks somebody for long; its answers so far."""
    answers: list[Removed] = []
    if kept:  # no loop waits for a keyring
        with anyio.move_on_after(_PATIENCE):
            await in_thread(lambda: answers.extend(one.store.remove(one.token) for one in kept), leave=True)
    return answers.copy()  # as more may come


def _forgotten(kept: list[_Kept], answers: list[Removed]) -> list[_Forgotten]:
    """Each index is changed once, until one cannot be changed: whoever holds it is not waited for again and again.

    Args:
        answers: what became of the secrets in a keyring, as far as it has answered.
    """
    told = iter(answers)
    secrets = [next(told, None) if one.token.place == "keyring" else one.store.remove(one.token) for one in kept]
    done: list[_Forgotten] = []
    can = True
    for store, some in groupby(zip(kept, secrets, strict=True), lambda pair: pair[0].store):
        tokens = [(one.token.id, secret) for one, secret in some]
        answered = {token_id for token_id, secret in tokens if secret is not None}
        can = can and (not answered or _dropped(store, answered))
        done += [_Forgotten(token_id, secret, can) for token_id, secret in tokens]
    return done


def _dropped(store: SecretStore, token_ids: set[str]) -> bool:
    try:
        store.drop(token_ids)
    except (AnalyticsError, OSError) as error:
        _log.warning("Entries of tokens stay in the index: %s", type(error).__name__)
        return False
    return True


def _ended(every: TokenList) -> list[str]:
    return [token.id for token in every.tokens if token.is_expired] if every.whole else []


def _told(token_ids: Iterable[str], what: str) -> str:
    """A sentence about tokens that have ended, with the ids of a few.

    Args:
        what: what else there is to say of `{}`.
    """
    ids = list(dict.fromkeys(token_ids))
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    named = f"{', '.join(ids[:_NAMED])}{more}"
    if len(ids) == 1:
        return f"Token {named} is revoked or has expired, {what.format('it')}."
    return f"Tokens {named} are revoked or have expired, {what.format('them')}."
