"""Make, list and revoke access tokens without ever losing track of one.

A create is posted once. The tokens are listed before it, which also proves the cookie; when its answer is lost they are
listed again, and a token that must be ours and whose secret nobody has is revoked. A journal does the same for a
process that died in between, the next time that tokens are asked for.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NoReturn

import anyio
from pydantic import SecretStr

from ..disk import in_thread
from ..errors import AnalyticsError
from ..files import disk_error
from ..settings import Settings, header_safe
from ..upstream.analytics import Analytics
from ..upstream.models import NewToken, Token, TokenList, TokenRequest
from ..upstream.policy import Failed, Outcome
from .credentials import Configured
from .forgetting import Forgetting, Left
from .journal import Journal, Unsettled
from .search import Search, called, ids_of, told
from .secret_store import Place, SecretStore, StoredToken, changed

_LOST: tuple[Outcome, ...] = (  # a token may exist
    "silent", "late", "broken", "misread", "redirect", "conflict", "busy", "failing", "gateway", "odd", "too_large",
)  # fmt: skip
_DECLINED: tuple[Outcome, ...] = ("redirect", "conflict")  # one should not, so where none is listed there is none
_MOST_CREATES = 3  # an hour
_LIVE = "Treat it as live: check list_tokens in a minute and revoke it again, or on the page /access-tokens."
_CLOCK_SKEW = timedelta(minutes=5)
_LIST_LAG = timedelta(minutes=1)  # a list that is younger proves no absence


@dataclass(frozen=True, slots=True)
class Created:
    """A token that is stored and in use.

    Args:
        notes: what was put right after that, in sentences.
    """

    token: NewToken
    stored: StoredToken
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revoked:
    """A token that no longer works.

    Args:
        left: what of it could not be removed here; None when nothing is kept.
    """

    outcome: Literal["revoked", "already_expired"]
    left: Left | None


class TokenDesk:
    """The life of tokens.

    Args:
        store: where new tokens are kept.
        operators: the operator's, which may be the same; what is revoked goes from it and from those of all callers.
        settings: retry delay and default instance, for the check of a fresh token.
    """

    def __init__(
        self,
        analytics: Analytics,
        credentials: Configured,
        store: SecretStore,
        operators: SecretStore,
        settings: Settings,
    ) -> None:
        self._analytics = analytics
        self._credentials = credentials
        self._store = store
        self._forgetting = Forgetting(credentials, operators)
        self._pauses = tuple(settings.retry_base_delay * factor for factor in (0, 4, 6))  # 0, 2 and 5 s in all
        self._instance = settings.instance
        self._journal = Journal(settings.home / "creates", settings.url)
        self._search = Search(self.listed, self._journal, store, self._pauses)
        self._longest = timedelta(seconds=settings.deadline)
        self._answered = timedelta(seconds=settings.read_timeout)  # by then a create has its answer, or never
        self._read_only = settings.read_only
        self._named = settings.identities == "names"  # else nothing says what somebody has called a token
        self._asked: deque[tuple[float, str | None]] = deque(maxlen=_MOST_CREATES)  # when (monotonic), which name

    async def listed(self) -> TokenList:
        """Every token of the signed-in user, once; of one that is listed twice, the entry that says it is live."""
        every = await self._analytics.list_tokens()
        once: dict[str, Token] = {}
        for token in every.tokens:
            if not (token.is_expired and token.id in once):
                once[token.id] = token
        return every.model_copy(update={"tokens": tuple(once.values())})

    async def settled(self) -> list[str]:
        """Put right what a crash left between asking for a token and keeping its secret; what was done, in sentences.

        Raises:
            AnalyticsError: when the tokens cannot be listed, or a revoke is not confirmed; the entry is kept then.
        """
        try:
            left = [] if self._read_only else await in_thread(self._journal.left_by_a_crash)
        except OSError as error:
            raise disk_error(error) from None
        return [await self._settle(entry) for entry in left]

    async def ended(self, every: TokenList) -> list[str]:
        """What is kept here of tokens that a list shows as ended, in sentences."""
        return await self._forgetting.seen(every, removable=not self._read_only)

    async def create(self, display_name: str | None, expires_at: datetime | None) -> Created:
        """Make a token, keep its secret and use it from now on.

        Raises:
            AnalyticsError: `secret_store_unavailable` before anything is sent; `ambiguous` when it cannot be known
                whether a token was made.
        """
        with self._one_of_few(display_name):
            place = await in_thread(self._store.probe)
            every = await self.listed()
            before = frozenset(token.id for token in every.tokens)
        try:
            with self._journal.entry(display_name, datetime.now(UTC), before) as entry:
                made = await self._post(TokenRequest(display_name=display_name, expires_at=expires_at), entry, place)
        except OSError as error:
            raise disk_error(error) from None
        return replace(made, notes=tuple(await self._forgetting.tidied(every)))

    @contextmanager
    def _one_of_few(self, display_name: str | None) -> Iterator[None]:
        """Count a create before it waits for anything; one that fails before it is posted does not count."""
        self._hold_back(display_name)
        self._asked.append(mine := (time.monotonic(), display_name))
        try:
            yield
        except BaseException:
            self._asked.remove(mine)
            raise

    def _wait(self, display_name: str | None) -> int:
        """Seconds until a create of a name may be posted."""
        now = time.monotonic()
        waits = [at + 60 - now for at, name in self._asked if name == display_name]
        if len(self._asked) == _MOST_CREATES:
            waits.append(self._asked[0][0] + 3600 - now)
        return max(0, math.ceil(max(waits, default=0)))

    def _hold_back(self, display_name: str | None) -> None:
        """Stop an agent that goes round in circles: few tokens an hour, none twice in a minute."""
        wait = self._wait(display_name)
        if wait > 0:
            raise AnalyticsError(
                "busy",
                f"No token was created: this server makes {_MOST_CREATES} an hour, and none of one name in a minute.",
                "Use the token that was created before (list_tokens shows it); another can be made later.",
                retryable=True,
                retry_after_seconds=wait,
            )

    async def _post(self, request: TokenRequest, entry: Unsettled, place: Place) -> Created:
        try:
            token = await self._analytics.create_token(request)
            header_safe(token.secret.get_secret_value())
            self._credentials.learn(token.secret)
        except Failed as failed:
            if failed.outcome not in _LOST:
                raise failed.error from None
            declined = failed.outcome in _DECLINED or failed.error.code == "session_expired"
            await self._reconcile(entry, failed.error, declined=declined)
        except ValueError:
            await self._reconcile(entry, _unusable())
        return await self._keep(token, entry.display_name, place)

    async def revoke(self, token_id: str) -> Revoked:
        """Revoke a token and prove it by the list.

        Raises:
            AnalyticsError: `not_found`, or `unverified` when the list still shows it live.
        """
        every = await self.listed()
        listed = next((token for token in every.tokens if token.id == token_id), None)
        if listed is None and not every.whole:
            what = "Upstream lists only a part of the tokens here, and that id is not in it; nothing was revoked."
            raise AnalyticsError("not_found", what, "Revoke it on the page /access-tokens of Sourcegraph Analytics.")
        if listed is None:
            raise AnalyticsError("not_found", "There is no token with that id.", "list_tokens shows those there are.")
        if listed.is_expired:
            return Revoked("already_expired", await self._forgetting.token(token_id))
        return Revoked("revoked", await self._revoke_and_verify(token_id))

    async def _keep(self, token: NewToken, asked_for: str | None, place: Place) -> Created:
        try:
            stored = await changed({place}, self._store.save, token, place)
            await self._check(token.secret)
        except AnalyticsError as error:
            await self._undo(token, asked_for, error)
        self._credentials.use(stored, token.secret)
        return Created(token, stored)

    async def _undo(self, token: NewToken, asked_for: str | None, error: AnalyticsError) -> NoReturn:
        """Leave nothing of a token that cannot be used; where that cannot be proved, say so, and try again later."""
        await self._forgetting.token(token.id)
        try:
            await self._revoke_and_verify(token.id)
        except AnalyticsError as failed:
            message = (
                f"{error.message} It could not be proved that the new token {token.id} is revoked ({failed.code})."
            )
            raise AnalyticsError("unverified", message, _LIVE, retryable=True) from error
        message = f"{error.message} The new token {token.id} was revoked again; nothing usable remains."
        wait = self._wait(asked_for)
        next_step = f"Wait {wait} seconds, until one of that name can be made. {error.next_step}"
        raise AnalyticsError(error.code, message, next_step, retryable=True, retry_after_seconds=wait) from error

    async def _check(self, secret: SecretStr) -> None:
        """Make one authorised call with a fresh token, where there is an instance to ask about."""
        if self._instance is None:
            return
        try:
            await self._analytics.try_bearer(self._instance, secret.get_secret_value())
        except AnalyticsError as error:
            if error.code == "auth_rejected":
                raise AnalyticsError(error.code, "Upstream refuses the token it has just made.", "Try again.") from None

    async def _settle(self, entry: Unsettled) -> str:
        look = await self._search.once(entry, own=0)
        until = entry.asked_at + self._longest + _CLOCK_SKEW
        when = f"A create_token of {entry.asked_at:%Y-%m-%d %H:%M} UTC was cut off"
        if (orphan := look.orphan(entry.asked_at - _CLOCK_SKEW, until)) is not None:
            await self._revoke_and_verify(orphan.id)
            entry.settle()
            return f"{when}; the token it had made ({orphan.id}) was revoked."
        due = entry.asked_at + self._answered + _LIST_LAG
        if datetime.now(UTC) > due and look.alone:
            entry.settle()
            return f"{when}; {told(look, entry, named=self._named) or 'it left no token'}."
        known = told(look, entry, named=self._named) or "no token of its is listed yet"
        return f"{when}; {known}. Lists may lag: it is looked up again by the first call after {due:%H:%M:%S} UTC."

    async def _reconcile(self, entry: Unsettled, error: AnalyticsError, *, declined: bool = False) -> NoReturn:
        """After a lost answer: find the one token that must be ours, revoke it, say so.

        Args:
            declined: whether the answer means that no token was made, should the list not show one.
        """
        try:
            look = await self._search.repeatedly(entry)
            if (orphan := look.orphan(entry.asked_at - _CLOCK_SKEW)) is not None:
                await self._revoke_and_verify(orphan.id)
        except AnalyticsError:
            raise self._ambiguous(entry, error, ()) from None  # without a list nothing is known
        if orphan is not None:
            message = f"{error.message} The token it had made ({orphan.id}) was revoked, as its secret was lost."
            wait = self._wait(entry.display_name)
            next_step = f"Nothing is left over; call create_token again in {wait} seconds."
            raise AnalyticsError(error.code, message, next_step, retryable=True, retry_after_seconds=wait)
        if declined and look.sure and not look.lost:
            raise error
        raise self._ambiguous(entry, error, look.lost)

    def _ambiguous(self, entry: Unsettled, error: AnalyticsError, found: tuple[Token, ...]) -> AnalyticsError:
        ids = f" (perhaps {ids_of(found)})" if found else ""
        return AnalyticsError(
            "ambiguous",
            f"The answer to the create was lost ({error.code}), so it is not known whether a token was made.",
            f"Look with list_tokens for a token{called(entry, named=self._named)} created at about "
            f"{entry.asked_at:%Y-%m-%d %H:%M} UTC{ids}, and revoke it if nobody uses it; create_token can be called "
            f"again in {self._wait(entry.display_name)} seconds.",
        )

    async def _revoke_and_verify(self, token_id: str) -> Left | None:
        """Revoke a token until the list shows it; what of it could not be removed here."""
        failure: AnalyticsError | None = None
        try:
            await self._analytics.revoke_token(token_id)
        except Failed as failed:
            if _nothing_done(failed):
                raise failed.error from None
            failure = failed.error
        try:
            state = await self._state(token_id)
        except AnalyticsError as error:
            what = f"The tokens cannot be listed ({error.code}), so nothing shows that token {token_id} is revoked."
        else:
            if state == "expired":
                return await self._forgetting.token(token_id)
            if state == "absent" and failure is not None and failure.code == "unsupported":
                what = f"Token {token_id} is not listed any more, and upstream finds nothing to revoke."
                raise AnalyticsError("not_found", what, "list_tokens shows those there are.")
            what = f"The token list does not show token {token_id} as revoked."
        said = f" Upstream answered the request with {failure.code}." if failure else ""
        raise AnalyticsError("unverified", what + said, _LIVE, retryable=True)

    async def _state(self, token_id: str) -> Literal["expired", "live", "absent"]:
        """What the list says of a token, now or a little later; one that is not in a part of it may be live."""
        for pause in self._pauses:
            await anyio.sleep(pause)
            every = await self.listed()
            state = next((token for token in every.tokens if token.id == token_id), None)
            if state is not None and state.is_expired:
                return "expired"
        return "absent" if state is None and every.whole else "live"


def _nothing_done(failed: Failed) -> bool:
    """Whether a request to revoke has certainly changed nothing, so that its own error says it all."""
    if failed.outcome == "refused":
        return failed.error.code in ("session_expired", "forbidden")
    return failed.outcome in ("unsent", "certificate", "asked_to_wait")


def _unusable() -> AnalyticsError:
    return AnalyticsError("upstream_schema_changed", "Upstream sent a secret that cannot be used.", "Try again.")
