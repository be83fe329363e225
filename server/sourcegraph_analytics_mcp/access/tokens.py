"""Make, list and revoke access tokens without ever losing track of one.

A create is posted once. The tokens are listed before it, which also proves the cookie; when its answer is lost they are
listed again, and a token that must be ours and whose secret nobody has is revoked. A journal does the same for a
process that died in between, the next time that tokens are asked for.
"""

import math
import time
from collections import deque
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NoReturn

import anyio
import anyio.to_thread
from pydantic import SecretStr

from ..errors import AnalyticsError
from ..files import disk_error
from ..settings import Settings, header_safe
from ..upstream.analytics import Analytics
from ..upstream.models import NewToken, Token, TokenRequest
from ..upstream.policy import Failed, Outcome
from .credentials import Configured
from .journal import Journal, Unsettled
from .secret_store import Place, SecretStore, StoredToken

_LOST: tuple[Outcome, ...] = (  # a token may exist
    "silent", "late", "broken", "misread", "redirect", "conflict", "busy", "failing", "gateway", "odd", "too_large",
)  # fmt: skip
_DECLINED: tuple[Outcome, ...] = ("redirect", "conflict")  # one should not, so where none is listed there is none
_MOST_CREATES = 3  # an hour
_LIVE = "Treat it as live: check list_tokens in a minute and revoke it again, or on the page /access-tokens."
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Created:
    """A token that is stored and in use."""

    token: NewToken
    stored: StoredToken


class TokenDesk:
    """The life of tokens.

    Args:
        settings: retry delay and default instance, for the check of a fresh token.
    """

    def __init__(self, analytics: Analytics, credentials: Configured, store: SecretStore, settings: Settings) -> None:
        self._analytics = analytics
        self._credentials = credentials
        self._store = store
        self._pauses = tuple(settings.retry_base_delay * factor for factor in (0, 4, 6))  # 0, 2 and 5 s in all
        self._instance = settings.instance
        self._journal = Journal(settings.home / "creates", settings.url)
        self._longest = timedelta(seconds=settings.deadline)
        self._read_only = settings.read_only
        self._asked: deque[tuple[float, str | None]] = deque(maxlen=_MOST_CREATES)  # when (monotonic), which name

    async def listed(self) -> tuple[Token, ...]:
        """Every token of the signed-in user."""
        return await self._analytics.list_tokens()

    async def settled(self) -> list[str]:
        """Put right what a crash left between asking for a token and keeping its secret; what was done, in sentences.

        Raises:
            AnalyticsError: when the tokens cannot be listed, or a revoke is not confirmed; the entry is kept then.
        """
        left = [] if self._read_only else await anyio.to_thread.run_sync(self._journal.left_by_a_crash)
        return [await self._settle(entry) for entry in left]

    async def create(self, display_name: str | None, expires_at: datetime | None) -> Created:
        """Make a token, keep its secret and use it from now on.

        Raises:
            AnalyticsError: `secret_store_unavailable` before anything is sent; `ambiguous` when it cannot be known
                whether a token was made.
        """
        self._hold_back(display_name)
        place = await anyio.to_thread.run_sync(self._store.probe)
        before = {token.id for token in await self.listed()}
        asked_at = datetime.now(UTC)
        self._asked.append((time.monotonic(), display_name))
        try:
            with self._journal.entry(display_name, asked_at, before):
                return await self._post(TokenRequest(display_name=display_name, expires_at=expires_at), before, place)
        except OSError as error:
            raise disk_error(error) from None

    def _hold_back(self, display_name: str | None) -> None:
        """Stop an agent that goes round in circles: few tokens an hour, none twice in a minute."""
        now = time.monotonic()
        waits = [at + 60 - now for at, name in self._asked if name == display_name]
        if len(self._asked) == _MOST_CREATES:
            waits.append(self._asked[0][0] + 3600 - now)
        wait = max(waits, default=0)
        if wait > 0:
            raise AnalyticsError(
                "busy",
                f"No token was created: this server makes {_MOST_CREATES} an hour, and none of one name in a minute.",
                "Use the token that was created before (list_tokens shows it); another can be made later.",
                retryable=True,
                retry_after_seconds=math.ceil(wait),
            )

    async def _post(self, request: TokenRequest, before: set[str], place: Place) -> Created:
        asked_at = datetime.now(UTC)
        try:
            token = await self._analytics.create_token(request)
            header_safe(token.secret.get_secret_value())
        except Failed as failed:
            if failed.outcome not in _LOST:
                raise failed.error from None
            declined = failed.outcome in _DECLINED or failed.error.code == "session_expired"
            await self._reconcile(before, request.display_name, asked_at, failed.error, declined=declined)
        except ValueError:
            await self._reconcile(before, request.display_name, asked_at, _unusable())
        return await self._keep(token, place)

    async def revoke(self, token_id: str) -> Literal["revoked", "already_expired"]:
        """Revoke a token and prove it by the list.

        Raises:
            AnalyticsError: `not_found`, or `unverified` when the list still shows it live.
        """
        listed = next((token for token in await self.listed() if token.id == token_id), None)
        if listed is None:
            raise AnalyticsError("not_found", "There is no token with that id.", "list_tokens shows those there are.")
        if listed.is_expired:
            await self._forget(token_id)
            return "already_expired"
        await self._revoke_and_verify(token_id)
        return "revoked"

    async def _keep(self, token: NewToken, place: Place) -> Created:
        try:
            stored = await anyio.to_thread.run_sync(self._store.save, token, place)
            await self._check(token.secret)
        except AnalyticsError as error:
            await self._undo(token.id, error)
        self._credentials.use(stored, token.secret)
        return Created(token, stored)

    async def _undo(self, token_id: str, error: AnalyticsError) -> NoReturn:
        """Leave nothing of a token that cannot be used; where that cannot be proved, say so, and try again later."""
        await self._forget(token_id)
        try:
            await self._revoke_and_verify(token_id)
        except AnalyticsError as failed:
            message = (
                f"{error.message} It could not be proved that the new token {token_id} is revoked ({failed.code})."
            )
            raise AnalyticsError("unverified", message, _LIVE, retryable=True) from error
        message = f"{error.message} The new token {token_id} was revoked again; nothing usable remains."
        raise AnalyticsError(error.code, message, error.next_step) from error

    async def _check(self, secret: SecretStr) -> None:
        """Make one authorised call with a fresh token, where there is an instance to ask about."""
        if self._instance is None:
            return
        try:
            await self._analytics.try_bearer(secret.get_secret_value(), self._instance)
        except AnalyticsError as error:
            if error.code == "auth_rejected":
                raise AnalyticsError(error.code, "Upstream refuses the token it has just made.", "Try again.") from None

    async def _settle(self, entry: Unsettled) -> str:
        kept = {stored.id for stored in await anyio.to_thread.run_sync(self._store.tokens)}
        found = [
            token
            for token in await self.listed()
            if _may_be_ours(token, entry.before, entry.display_name, entry.asked_at)
            and token.created_at <= entry.asked_at + self._longest + _CLOCK_SKEW
            and token.id not in kept
            and not token.is_expired
        ]
        when = f"A create_token of {entry.asked_at:%Y-%m-%d %H:%M} UTC was cut off"
        if len(found) == 1:
            await self._revoke_and_verify(found[0].id)
        entry.settle()
        if len(found) > 1:
            ids = ", ".join(token.id for token in found)
            return f"{when}; one of these tokens may be its, with a secret nobody has: {ids}."
        return f"{when}; the token it had made ({found[0].id}) was revoked." if found else f"{when}; it left no token."

    async def _reconcile(
        self,
        before: set[str],
        display_name: str | None,
        asked_at: datetime,
        error: AnalyticsError,
        *,
        declined: bool = False,
    ) -> NoReturn:
        """After a lost answer: find the one token that must be ours, revoke it, say so.

        Args:
            declined: whether the answer means that no token was made, should the list not show one.
        """
        try:
            orphans = await self._orphans(before, display_name, asked_at)
            if len(orphans) == 1:
                await self._revoke_and_verify(orphans[0].id)
        except AnalyticsError:
            orphans, declined = [], False  # without a list nothing is known
        if len(orphans) == 1:
            message = f"{error.message} The token it had made ({orphans[0].id}) was revoked, as its secret was lost."
            raise AnalyticsError(error.code, message, "Nothing is left over; call create_token again.", retryable=True)
        if declined and not orphans:
            raise error
        name = f"named {display_name!r}" if display_name else "without a name"
        raise AnalyticsError(
            "ambiguous",
            f"The answer to the create was lost ({error.code}), so it is not known whether a token was made.",
            f"Look with list_tokens for a token {name} created at {asked_at:%Y-%m-%d %H:%M} UTC or later, and revoke "
            "it if nobody uses it; then call create_token again.",
        )

    async def _orphans(self, before: set[str], display_name: str | None, asked_at: datetime) -> list[Token]:
        found: list[Token] = []
        for pause in self._pauses:
            await anyio.sleep(pause)
            found = [token for token in await self.listed() if _may_be_ours(token, before, display_name, asked_at)]
            if found:
                break
        return found

    async def _revoke_and_verify(self, token_id: str) -> None:
        failure: AnalyticsError | None = None
        try:
            await self._analytics.revoke_token(token_id)
        except Failed as failed:
            if _nothing_done(failed):
                raise failed.error from None
            failure = failed.error
        try:
            if await self._shown_expired(token_id):
                await self._forget(token_id)
                return
            what = f"The token list does not show token {token_id} as revoked."
        except AnalyticsError as error:
            what = f"The tokens cannot be listed ({error.code}), so nothing shows that token {token_id} is revoked."
        said = f" Upstream answered the request with {failure.code}." if failure else ""
        raise AnalyticsError("unverified", what + said, _LIVE, retryable=True)

    async def _shown_expired(self, token_id: str) -> bool:
        """Whether the list shows a token as expired, now or a little later."""
        for pause in self._pauses:
            await anyio.sleep(pause)
            state = next((token for token in await self.listed() if token.id == token_id), None)
            if state is not None and state.is_expired:
                return True
        return False

    async def _forget(self, token_id: str) -> None:
        await anyio.to_thread.run_sync(self._store.forget, token_id)
        self._credentials.forget(token_id)


def _may_be_ours(token: Token, before: Set[str], display_name: str | None, asked_at: datetime) -> bool:
    return token.id not in before and token.display_name == display_name and token.created_at >= asked_at - _CLOCK_SKEW


def _nothing_done(failed: Failed) -> bool:
    """Whether a request to revoke has certainly changed nothing, so that its own error says it all."""
    if failed.outcome == "refused":
        return failed.error.code in ("session_expired", "forbidden")
    return failed.outcome in ("unsent", "certificate", "asked_to_wait")


def _unusable() -> AnalyticsError:
    return AnalyticsError("upstream_schema_changed", "Upstream sent a secret that cannot be used.", "Try again.")
