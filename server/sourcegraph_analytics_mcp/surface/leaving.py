"""What leaves as an answer or an error of the protocol, whichever method was asked: no secret in it, errors short."""

from collections.abc import Callable
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

from ..errors import MAX_TEXT, AnalyticsError
from ..redaction import Redactor
from ..spelling import safe_data, visible
from .events import Event

_OURS = ("tools/call", "tools/list")  # a tool masks its own answers, as one may reveal a secret; the list is our words
_MOST_DATA = 200  # characters of what an error says back
_CODES = {"forbidden": INVALID_REQUEST, "not_found": INVALID_PARAMS, "invalid_argument": INVALID_PARAMS}  # of JSON-RPC
_LOGGED = ("resources/read", "prompts/get")  # a tool has a line of its own


class Leaving:
    """Stands around every request.

    Args:
        redactor: gives what masks the secrets of whoever asks.
        who: gives the name of whoever asks for the log, None where there is but one.
    """

    def __init__(self, redactor: Callable[[], Redactor], who: Callable[[], str] | None) -> None:
        self._redactor = redactor
        self._who = who

    async def __call__(self, ctx: Any, call_next: Any) -> Any:
        if ctx.method not in _LOGGED:
            return await self._masked(ctx, call_next)
        event = Event(f"method={ctx.method}", self._who, ctx.request_id)
        try:
            result = await self._masked(ctx, call_next)
            event.outcome, event.texts = "ok", _texts(result)
            return result
        except MCPError:
            event.outcome = "refused"
            raise
        finally:
            event.log()

    async def _masked(self, ctx: Any, call_next: Any) -> Any:
        try:
            result = await call_next(ctx)
        except (AnalyticsError, MCPError) as error:
            told = (refused(error) if isinstance(error, AnalyticsError) else error).error
            redactor = self._redactor()
            message = redactor.text(visible(told.message))[:MAX_TEXT]
            raise MCPError(told.code, message, _short(redactor.data(safe_data(told.data)))) from None
        return result if ctx.method in _OURS else self._redactor().data(result)


def refused(error: AnalyticsError, data: Any = None) -> MCPError:
    """A failure of anything but a tool, as JSON-RPC has it.

    Args:
        data: more of it, for programs.
    """
    return MCPError(code=_CODES.get(error.code, INTERNAL_ERROR), message=error.text, data=data)


def _texts(result: dict[str, Any]) -> list[str]:
    read = [contents["text"] for contents in result.get("contents", ())]
    return read + [message["content"]["text"] for message in result.get("messages", ())]


def _short(data: Any) -> Any:
    if isinstance(data, str):
        return data[:_MOST_DATA]
    return {key: _short(value) for key, value in data.items()} if isinstance(data, dict) else data
