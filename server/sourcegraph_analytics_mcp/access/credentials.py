"""The two credentials: the session cookie for token management, the access token for everything else."""

import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from pydantic import SecretStr

from ..disk import in_thread
from ..errors import AnalyticsError
from ..redaction import LEARNT
from ..settings import DEMO_TOKEN_ID, Settings, SettingsError
from .secret_file import read_secret_file
from .secret_store import SecretStore, StoredToken, fingerprint

_log = logging.getLogger(__name__)
_IN_TIME = timedelta(days=7)  # before a token expires
Setting = Literal["SRC_ANALYTICS_ACCESS_TOKEN", "SRC_ANALYTICS_ACCESS_TOKEN_FILE"]
Source = Setting | Literal["secret store", "the demo"]


class Configured:
    """The credentials as the operator set them, else as the secret store keeps them.

    Args:
        operators: the operator's secret store, the same where the operator calls: its newest token serves who has
            none. Who calls learns nothing else of that token, as of one that is set.
        looked: on which day it was looked when a token expires, by its fingerprint; all callers share it.
        may_create: whether who asks may create tokens here, for one of many who can set nothing here; None for the
            operator.
    """

    def __init__(
        self,
        settings: Settings,
        store: SecretStore,
        operators: SecretStore,
        looked: dict[str, date],
        may_create: Callable[[], bool] | None = None,
    ) -> None:
        self._settings = settings
        self._set = None if settings.demo else settings.access_token
        self._demos = settings.access_token if settings.demo else None  # the one that the demo starts with
        self._store = store
        self._operators = operators
        self._current: tuple[StoredToken, SecretStr] | None = None
        self._taken: tuple[str, datetime] | None = None  # the secret that upstream took last, and when
        self._looked = looked
        self._may_create = may_create
        self._refused: dict[str, float] = {}  # fingerprints of what upstream did not take, and when (monotonic)
        self._gone: set[str] = set()  # ids of tokens that were revoked here
        self.known = set(settings.secrets)  # every secret that was in use, for the redactor

    def cookie(self) -> tuple[str, str]:
        """The session cookie's name and value.

        Raises:
            AnalyticsError: `auth_missing` with how to set it.
        """
        if self._settings.cas_cookie is None:
            raise AnalyticsError(
                "auth_missing",
                "Managing access tokens needs the session cookie of Sourcegraph Analytics, and none is set.",
                "Ask the operator of this server to set it." if self._may_create else self._sign_in(),
            )
        return self._settings.cookie_name, self._settings.cas_cookie.get_secret_value()

    async def bearer(self) -> str:
        """The access token's secret.

        Raises:
            AnalyticsError: `auth_missing` with how to set it.
        """
        try:
            found = await self._find()
        except SettingsError as error:
            raise AnalyticsError(
                "auth_missing",
                str(error),
                "The file is read again at the next call; it must hold an access token and be readable by this "
                "server's user alone.",
            ) from None
        if found is None:
            raise AnalyticsError(
                "auth_missing",
                f"Exports need an access token of Sourcegraph Analytics, and {self._none()}.",
                self._make(
                    "make one on the page /access-tokens of Sourcegraph Analytics and set it as "
                    "SRC_ANALYTICS_ACCESS_TOKEN."
                ),
            )
        self.learn(found)
        self._warn_in_time(found.get_secret_value())
        return found.get_secret_value()

    def learn(self, secret: SecretStr) -> None:
        """Have a secret masked from now on: in what leaves here, and in the log, which is everybody's."""
        self.known.add(secret.get_secret_value())
        LEARNT.add(secret.get_secret_value())

    def taken(self, secret: str) -> None:
        """Remember that upstream took an access token."""
        self._taken = (secret, datetime.now(UTC))
        self._refused.pop(fingerprint(secret), None)

    def refused(self, secret: str, error: AnalyticsError) -> AnalyticsError:
        """What upstream's refusal of an access token means, given what is known of the token; others come before it."""
        self._refused[fingerprint(secret)] = time.monotonic()
        if self._current is not None and self._current[1].get_secret_value() == secret:
            self._current = None  # another process may have kept another one
        known = []
        if self._taken is not None and self._taken[0] == secret:
            known.append(f"It worked before, last at {self._taken[1]:%Y-%m-%d %H:%M} UTC.")
        stored = self._listed(secret)
        if stored is not None and stored.expires_at is not None:
            end = f"{stored.expires_at:%Y-%m-%d %H:%M} UTC"
            known.append(f"It was to work until {end}." if stored.live else f"It expired at {end}.")
        return AnalyticsError(error.code, " ".join((error.message, *known)), self._remedy() or error.next_step)

    def _sign_in(self) -> str:
        """How to come by a cookie."""
        return (
            f"Sign in to Sourcegraph Analytics, copy the cookie `{self._settings.cookie_name}` from the browser's "
            "developer tools, set it as SRC_ANALYTICS_CAS_COOKIE and restart (`login` keeps an access token, not "
            "the cookie)."
        )

    def _make(self, otherwise: str) -> str:
        """How to make a token where nobody set one; read-only there is no tool for it, and no command but without."""
        if self._may_create is not None:
            may = not self._settings.read_only and self._may_create()
            return f"{'Call create_token, or ask' if may else 'Ask'} the operator of this server to set a token."
        if self._settings.demo:  # each start of it has the same first token again
            return "Restart the demo." if self._settings.read_only else "Call create_token, or restart the demo."
        if self._settings.read_only:
            return f"Run `sourcegraph-analytics-mcp login` without SRC_ANALYTICS_READ_ONLY, or {otherwise}"
        return f"Call create_token (needs the session cookie), or run `sourcegraph-analytics-mcp login`, or {otherwise}"

    def _remedy(self) -> str | None:
        """What to do where create_token alone is no remedy: a token was set, none is made here, or this is the demo."""
        if self._may_create is not None:
            return "Ask the operator of this server to set another token." if self.setting else self._make("")
        page = "Make an access token on the page /access-tokens of Sourcegraph Analytics"
        if self.setting == "SRC_ANALYTICS_ACCESS_TOKEN":
            return f"{page}, set SRC_ANALYTICS_ACCESS_TOKEN to it and restart this server."
        if self.setting is not None:
            return f"{page} and put it into the file of SRC_ANALYTICS_ACCESS_TOKEN_FILE."
        ours = self._settings.demo or self._settings.read_only
        return self._make(f"m{page[1:]} and set it.") if ours else None

    @property
    def setting(self) -> Setting | None:
        """The setting by which the operator gives the access token; None where none does."""
        if self._set is not None:
            return "SRC_ANALYTICS_ACCESS_TOKEN"
        return None if self._settings.access_token_file is None else "SRC_ANALYTICS_ACCESS_TOKEN_FILE"

    async def source(self) -> Source | None:
        """Where the access token comes from; None without one."""
        if self.setting is not None:
            return self.setting
        found = await self._find()
        if found is None:
            return None
        return "the demo" if found is self._demos else "secret store"

    async def token_in_use(self) -> str | None:
        """The id of the token in use, where it is one that we made, or the demo's."""
        secret = await self._secret()
        return None if secret is None else self._id(secret)

    async def in_use(self, *ids: str) -> dict[str, bool | None]:
        """For each id whether exports use that token; None where it cannot be told.

        That is where the operator set one that was not made here, and where others may use what one of many has not
        made.
        """
        secret = await self._secret()
        used = None if secret is None else self._id(secret)
        if self._may_create is None and (secret is None or used is not None):
            return {token_id: token_id == used for token_id in ids}
        ours = {token.id for token in self._store.tokens()}
        return {token_id: token_id == used if token_id in (*ours, used) else None for token_id in ids}

    async def expires_at(self) -> datetime | None:
        """When the token in use expires; None where that is not known, or never."""
        stored = await self._stored()
        return stored.expires_at if stored else None

    async def _stored(self) -> StoredToken | None:
        """The token in use as the secret store lists it."""
        secret = await self._secret()
        return None if secret is None else self._listed(secret)

    async def _secret(self) -> str | None:
        """The secret of the token in use; None where there is none that can be read."""
        try:
            found = await self._find()
        except SettingsError:  # whoever needs the secret is told
            return None
        return None if found is None else found.get_secret_value()

    def _id(self, secret: str) -> str | None:
        """The id of the token that has this secret, where it is known."""
        if self._demos is not None and secret == self._demos.get_secret_value():
            return DEMO_TOKEN_ID
        stored = self._listed(secret)
        return stored.id if stored else None

    def _listed(self, secret: str) -> StoredToken | None:
        return _of(secret, self._store.tokens())

    def _none(self) -> str:
        """Why there is none."""
        if self._settings.demo:
            return "the demo's own is revoked" if self._settings.access_token else "none is set"
        ends = [token.expires_at for token in self._store.tokens() if token.expires_at and not token.live]
        if ends:
            return f"the one made here expired at {max(ends):%Y-%m-%d %H:%M} UTC"
        ended = not all(token.live for token in self._operators.tokens())
        return "the one that the operator made has expired" if ended else "none is set"

    def _warn_in_time(self, secret: str) -> None:
        """Once a day, tell the log of a token that expires soon: whoever runs a server need not ask it."""
        mark, today = fingerprint(secret), datetime.now(UTC).date()
        if self._looked.get(mark) == today:
            return
        self._looked[mark] = today
        stored = self._listed(secret) or _of(secret, self._operators.tokens())
        if stored is not None and expires_soon(stored.expires_at):
            _log.warning("the access token expires at %s UTC: make another", f"{stored.expires_at:%Y-%m-%d %H:%M}")

    def use(self, token: StoredToken, secret: SecretStr) -> None:
        """Use a token that was just made, unless the operator has set one."""
        self._current = (token, secret)

    def forget(self, token_id: str) -> None:
        """Stop using a token that was revoked, also where its secret cannot be removed."""
        self._gone.add(token_id)
        self._drop(token_id)

    def _drop(self, token_id: str) -> None:
        if token_id == DEMO_TOKEN_ID:
            self._demos = None
        if self._current is not None and self._current[0].id == token_id:
            self._current = None

    def ended(self, token_ids: Collection[str]) -> None:
        """Use others before tokens that a list shows as ended, which another process may have forgotten meanwhile."""
        for token_id in token_ids:
            self._drop(token_id)
        for token in (token for store in (self._store, self._operators) for token in store.tokens()):
            if token.id in token_ids:
                self._refused[token.fingerprint] = time.monotonic()

    def held(self) -> str | None:
        """The fingerprint of the secret that a setting holds; None where none does, or it cannot be read."""
        try:
            found = self._of_a_setting()
        except SettingsError:
            return None
        return fingerprint(found.get_secret_value()) if found else None

    def _of_a_setting(self) -> SecretStr | None:
        if self._set is None and (file := self._settings.access_token_file) is not None:
            return read_secret_file(file, called="that file")  # callers see no path
        return self._set

    async def _find(self) -> SecretStr | None:
        if (found := self._of_a_setting()) is not None:
            return found
        if self._current is not None and self._current[0].live:
            return self._current[1]
        if self._settings.demo:  # what an earlier demo kept means nothing to the upstream of this one
            return self._demos
        first = await in_thread(self._first)
        own = first is not None and first[0] is self._store
        self._current = first[1:] if first and own else None  # the operator's is asked for each time: it may be revoked
        return first[2] if first else None

    def _first(self) -> tuple[SecretStore, StoredToken, SecretStr] | None:
        """The newest token that has not expired, our own before the operator's, and where it is kept.

        What upstream has refused comes last, the earliest of it first, as upstream may have been at fault.
        """
        stores = (self._store, self._operators)
        live = [
            (store, token)
            for store in stores
            for token in reversed(store.tokens())
            if token.live and token.id not in self._gone
        ]
        for store, token in sorted(live, key=lambda one: self._refused.get(one[1].fingerprint, float("-inf"))):
            if (secret := store.secret(token)) is not None:
                return store, token, secret
        return None


def _of(secret: str, tokens: list[StoredToken]) -> StoredToken | None:
    """The token that has this secret."""
    mark = fingerprint(secret)
    return next((token for token in reversed(tokens) if token.fingerprint == mark), None)


def expires_soon(moment: datetime | None) -> bool:
    """Whether it is time to make another token; never for one whose end is not known."""
    return moment is not None and moment - datetime.now(UTC) < _IN_TIME
