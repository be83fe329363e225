"""The protocol's lists come in one piece, so a cursor that anybody sends is not one of ours."""

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

_LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")


async def refuse_cursors(ctx: Any, call_next: Any) -> Any:
    """Stand around every request; the SDK ignores cursors.

    Raises:
        MCPError: invalid params for a list that is to go on somewhere.
    """
    if ctx.method in _LISTS and (ctx.params or {}).get("cursor") is not None:
        raise MCPError(INVALID_PARAMS, "There is no such cursor: the list comes whole. Ask without one.")
    return await call_next(ctx)
