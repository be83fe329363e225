"""One call as a tool sees it: progress out, questions to the person, whatever the protocol revision."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from pydantic import ValidationError

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context

_MODERN = "2026-07-28"  # asks by an input_required result; before, by a request of the server's own
_LINKS_SINCE = "2025-06-18"  # whose schema has resource_link
_ASKS_SINCE = "2025-06-18"  # older clients that declare elicitation still refuse the request
_KEY = "confirmation"
_PROGRESS_EVERY = 0.5  # seconds
_LONGEST_DIALOG = 300.0  # seconds for the answer; over HTTP nobody may be there any more to give one
_CANNOT = (METHOD_NOT_FOUND, INVALID_REQUEST, INVALID_PARAMS)  # other errors may be a person's no, or a lost connection
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"confirm": {"type": "boolean", "title": "Confirm", "description": "Yes, do it"}},
    "required": ["confirm"],
}


class Call:
    """What a tool may do with the client that called it.

    Args:
        covers: whether the caller may use the tool of that name.
    """

    def __init__(self, context: "Context[Any, Any]", covers: Callable[[str], bool] = lambda _: True) -> None:
        self._context = context
        self.covers = covers
        self._last_progress = (0.0, 0.0)
        self._passed = 0.0  # what the parts before have added to the progress
        self._began = time.monotonic()

    @property
    def modern(self) -> bool:
        return (self._context.protocol_version or "") >= _MODERN  # revisions are dates

    @property
    def takes_links(self) -> bool:
        """Whether the revision that is spoken has `resource_link` blocks."""
        return (self._context.protocol_version or "") >= _LINKS_SINCE

    def left_of(self, seconds: float) -> float:
        """What this call has left of so many seconds since it began, none at least."""
        return max(0.0, self._began + seconds - time.monotonic())

    async def progress(self, done: float, total: float | None, message: str, *, parts: int = 1) -> None:
        """Report the progress of one part of the call, at most twice a second and only upwards.

        Args:
            parts: how many there are from this one on; one scale holds them all.
        """
        last_time, last_done = self._last_progress
        now, reached = time.monotonic(), self._passed + done
        if reached > last_done and now - last_time >= _PROGRESS_EVERY:
            self._last_progress = (now, reached)
            await self._context.report_progress(reached, total and self._passed + parts * total, message)

    def pass_by(self, done: float) -> None:
        """A part has ended, with so much progress."""
        self._passed += done

    async def confirmed(self, question: str) -> bool | InputRequiredResult | None:
        """Ask the person to confirm; None when this client cannot ask, a result to pass on while it is asking.

        What is agreed to must depend on the arguments alone, since the client sends the call again with the answer.
        """
        if not self._can_ask():
            return None
        if not self.modern:
            return await self._answered(question)
        responses = self._context.input_responses or {}
        if self._context.request_state is None or _KEY not in responses:
            ask = ElicitRequest(params=ElicitRequestFormParams(message=question, requested_schema=_FORM))
            return InputRequiredResult(input_requests={_KEY: ask}, request_state=_KEY)
        return _agreed(responses[_KEY])

    async def _answered(self, question: str) -> bool | None:
        """Ask by a request of the server's own; None where the client says that it cannot ask."""
        context = self._context
        try:
            with anyio.move_on_after(_LONGEST_DIALOG):
                return _agreed(await context.session.elicit_form(question, _FORM, context.request_id))
        except MCPError as error:
            if error.code in _CANNOT:
                return None
        except ValidationError:  # what came is no answer to a question
            pass
        return False

    def _can_ask(self) -> bool:
        capabilities = self._context.client_capabilities
        elicitation = capabilities.elicitation if capabilities else None
        if elicitation is None or (elicitation.form is None and elicitation.url is not None):
            return False
        version = self._context.protocol_version or ""
        return self.modern or (version >= _ASKS_SINCE and self._context.session.can_send_request)


def _agreed(answer: Any) -> bool:
    """Whether the person has said yes, in so many words."""
    return (
        isinstance(answer, ElicitResult) and answer.action == "accept" and (answer.content or {}).get("confirm") is True
    )
