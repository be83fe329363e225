"""Stop using tokens that no longer work, and remove what is kept of them here."""

import logging
from typing import Literal

from ..disk import surely
from ..errors import AnalyticsError
from ..upstream.models import TokenList
from .credentials import Configured
from .secret_store import SecretStore, changed

_log = logging.getLogger(__name__)
Left = Literal["secret", "entry"]
_REMOVED = {
    None: "it was removed",
    "entry": "its entry in the index of tokens could not be removed",
    "secret": "it could not be removed, but no longer works",
}


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
            places = await surely(self._operators.places, token_id)
            gone = await changed(places, self._operators.forget, token_id)
        except (AnalyticsError, OSError) as error:
            _log.warning("The entry of a revoked token stays in the index: %s", type(error).__name__)
            return "secret" if isinstance(error, AnalyticsError) and error.code == "busy" else "entry"
        return None if gone else "secret"

    async def revoked(self, every: TokenList) -> list[str]:
        """Forget what a list shows as revoked, as a revoke that was cut off could not; what was done, in sentences.

        Absence proves nothing: the list may be late, or of another user.

        Args:
            every: each token once; nothing is concluded from a part of the list, which may hold another entry of one.
        """
        ended = [token.id for token in every.tokens if token.is_expired] if every.whole else []
        if not ended:
            return []
        for token_id in ended:
            self._credentials.forget(token_id)  # also one that another process has forgotten
        kept = await surely(self._live)
        done = [(token_id, await self.token(token_id)) for token_id in ended if token_id in kept]
        return [f"Token {one} is revoked, and its secret was still kept here; {_REMOVED[left]}." for one, left in done]

    def _live(self) -> frozenset[str]:
        """The tokens kept here that should work still; one that has expired in its time stays, to be told of."""
        try:
            stores = self._operators.with_callers()
        except AnalyticsError as error:
            _log.warning("What is kept of tokens cannot be looked through: %s", error.code)
            return frozenset()
        return frozenset(token.id for store in stores for token in store.tokens() if token.live)
