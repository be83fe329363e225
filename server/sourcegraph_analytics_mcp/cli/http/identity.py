"""Who calls: the holder of a credential on this machine, or of an access token of the operator's OAuth 2.1 issuer."""

import asyncio
import hmac
import json
import logging
import secrets
import time
from pathlib import Path
from typing import Any, Protocol

import anyio
import jwt
from mcp.server.auth.provider import AccessToken

from ...errors import AnalyticsError
from ...files import disk_error, make_private, private_home
from ...settings import Settings
from ...upstream.document import fetch_document

READ, TOKENS = "analytics:read", "analytics:tokens"
_LONGEST_TOKEN = 16 << 10
SKEW = 60  # seconds that clocks may differ
_LATEST = 1 << 40  # seconds since 1970; whoever means never may write more than a clock can count
_KEYS_FRESH = 3600  # seconds
_PATIENCE = 1  # seconds that who has a known key waits for newer ones
_KEYS_APART = 60  # seconds between two looks for a key nobody knows
_ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]  # never a shared secret, never none
_log = logging.getLogger(__name__)


class NotAccepted(Exception):
    """A bearer token that is not accepted; the text is a word on why, for the log alone."""


class Identity(Protocol):
    """Decides who holds a bearer token."""

    async def of(self, token: str) -> AccessToken:
        """Whose token this is.

        Raises:
            NotAccepted: for one that is not accepted, whatever the reason.
        """


class LocalCredential:
    """One random credential in a file that only this user can read: its holder is the operator.

    Args:
        home: the data directory, where the file `http-credential` is kept from start to start.

    Raises:
        AnalyticsError: when the file can neither be read nor made.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "http-credential"
        try:
            private_home(home)
            if not self.path.exists():
                make_private(self.path, secrets.token_urlsafe(32))
            if self.path.stat().st_mode & 0o077:  # exFAT refuses a change, even of what is private
                self.path.chmod(0o600)
            self._secret = self.path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise disk_error(error) from None
        except UnicodeDecodeError:
            self._secret = ""
        if len(self._secret) < 32:
            raise AnalyticsError("store_corrupt", f"{self.path.name} is damaged.", "Delete it and start again.")
        self._holder = AccessToken(token="local", client_id="local", scopes=[READ, TOKENS])  # noqa: S106 - not a secret

    async def of(self, token: str) -> AccessToken:
        if not hmac.compare_digest(token.encode(), self._secret.encode()):
            raise NotAccepted("OtherCredential")
        return self._holder


class IssuedTokens:
    """JSON web tokens of one issuer for one audience, signed with a key of the issuer's published set (RFC 9068).

    Args:
        settings: with the issuer, the address of its keys, and the public address, which is the audience.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched = self._looked = float("-inf")
        self._fetching = anyio.Lock()
        self._beside: asyncio.Task[None] | None = None  # reads keys anew while those that are known are in use

    async def of(self, token: str) -> AccessToken:
        if len(token) > _LONGEST_TOKEN:
            raise NotAccepted("TooLong")
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise NotAccepted("UnknownKey")
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._settings.public_url,
                issuer=self._settings.oauth_issuer,
                leeway=SKEW,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return _accepted(claims)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise NotAccepted(type(error).__name__) from None

    async def _key(self, name: str | None) -> "jwt.PyJWK | None":
        if name not in self._keys:
            await self._refresh(name)
        elif self._due(known=True) and (self._beside is None or self._beside.done()):
            self._beside = asyncio.create_task(self._refresh(name))
            await asyncio.wait({self._beside}, timeout=_PATIENCE)  # for a key that is withdrawn by now
        return self._keys.get(name)

    async def _refresh(self, name: str | None) -> None:
        """Read the keys where that is due for one of this name; whoever knows none waits for those on their way."""
        async with self._fetching:
            if self._due(known=name in self._keys):
                await self._fetch()
                self._looked = time.monotonic()

    def _due(self, *, known: bool) -> bool:
        now = time.monotonic()
        stale = now - self._fetched > _KEYS_FRESH
        return (stale or not known) and now - self._looked > _KEYS_APART

    async def _fetch(self) -> None:
        """Read the issuer's keys; the older ones stay in use when that fails."""
        assert self._settings.oauth_keys_url is not None
        try:
            document = json.loads(await fetch_document(self._settings, self._settings.oauth_keys_url))
            self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys}
            self._fetched = time.monotonic()
        except (AnalyticsError, ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
            _log.error("The issuer's keys cannot be read: %s", type(error).__name__)


def _accepted(claims: dict[str, Any]) -> AccessToken:
    named = claims.get("scope", claims.get("scp", ""))
    scopes = named.split() if isinstance(named, str) else [str(scope) for scope in named]
    client = str(claims.get("client_id") or claims.get("azp") or "")
    ends = min(int(claims["exp"]), _LATEST)
    known = {"subject": claims["sub"], "claims": {"iss": claims["iss"]}, "expires_at": ends}
    return AccessToken(token="issued", client_id=client, scopes=scopes, **known)  # noqa: S106 - not a secret
