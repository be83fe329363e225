"""What whoever calls may do: over stdio everything, over HTTP what scopes, the operator's grants and shares allow."""

from collections.abc import Collection

from ..errors import AnalyticsError
from ..settings import PREFIX, Settings
from .callers import Callers, may_manage_tokens
from .resources import GIVEN_BY
from .tools import QUESTIONS, TOKEN_TOOLS


class Permits:
    """The one place that decides it.

    Args:
        settings: with the shares.
        tools: names of those that are offered.
    """

    def __init__(self, settings: Settings, tools: Collection[str]) -> None:
        self._settings = settings
        self._tools = tools
        self.callers: Callers | None = None  # over HTTP, while it is served

    def may_use(self, tool: str) -> bool:
        """Whether the operator lets the caller use that tool."""
        grant = None if self.callers is None else self.callers.grant()
        return grant is None or grant.covers(tool)

    def covers(self, tool: str) -> bool:
        """Whether the caller's access and the operator's grant are enough for that tool."""
        scoped = self.callers is None or tool not in TOKEN_TOOLS or may_manage_tokens()
        return scoped and self.may_use(tool)

    def usable(self) -> str:
        """The tools that the caller may use, in words."""
        return ", ".join(filter(self.may_use, self._tools))

    def admit(self, tool: str) -> None:
        """Over HTTP, whether this caller may call that tool now.

        Raises:
            AnalyticsError: `forbidden` without the scope or the operator's grant, `busy` beyond the caller's share.
        """
        if self.callers is None:
            return
        if not self.may_use(tool):
            raise self._forbidden(f"use {tool}")
        if not self.covers(tool):
            raise AnalyticsError(
                "forbidden", "Your access does not cover tokens.", "Ask for the scope analytics:tokens."
            )
        self.callers.take("calls", self._settings.calls_per_minute, 60)
        if tool in QUESTIONS:
            self.callers.take("questions", self._settings.queries_per_minute, 60)

    def admit_download(self) -> None:
        """Over HTTP, count a download of the caller's, whatever it is for."""
        assert self.callers is not None
        self.callers.take("exports", self._settings.exports_per_hour, 3600)

    def may_read(self, uri: str) -> bool:
        """Whether the caller may use a tool that gives what the resource or template of that URI does."""
        tools = GIVEN_BY[uri]
        return not tools or any(map(self.may_use, tools))

    def admit_reader(self, uri: str) -> None:
        """Refuse the resource or template of that URI to who may use no tool that gives the same.

        Raises:
            AnalyticsError: `forbidden`.
        """
        if not self.may_read(uri):
            raise self._forbidden(f"read {uri}")

    def _forbidden(self, what: str) -> AnalyticsError:
        decides = f"You may use: {self.usable()}; the operator decides ({PREFIX}CALLERS_FILE)."
        return AnalyticsError("forbidden", f"You may not {what} here.", decides)
