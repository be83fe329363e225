"""The real server and a real client of it."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from mcp import Client
from mcp.client import session
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp_types import CallToolResult, ElicitResult, TextContent

from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")


@contextmanager
def schemas_checked_once() -> Iterator[None]:
    """The SDK's client checks the schema of an answer at a tool's first call; here that is of every server."""
    check, checked = Draft202012Validator.check_schema, set[str]()

    def once(schema: Any, *more: Any, **how: Any) -> None:
        if (spelled := json.dumps(schema, sort_keys=True)) not in checked:
            check(schema, *more, **how)
            checked.add(spelled)

    Draft202012Validator.check_schema = once
    try:
        yield
    finally:
        Draft202012Validator.check_schema = check


@asynccontextmanager
async def connected(settings: Settings, revision: str = "2026-07-28", **options: Any) -> AsyncIterator[Client]:
    """A client of a fresh server, speaking one protocol revision."""
    handshake = vars(session)["LATEST_HANDSHAKE_VERSION"]
    modern = revision == REVISIONS[-1]
    if not modern:
        vars(session)["LATEST_HANDSHAKE_VERSION"] = revision  # what the client offers
    try:
        async with Client(AnalyticsServer(settings), mode=revision if modern else "legacy", **options) as client:
            yield client
    finally:
        vars(session)["LATEST_HANDSHAKE_VERSION"] = handshake


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool that must succeed; its structured answer."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must fail; its structured error, checked against the rules for every failure."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, text(result)
    assert result.structured_content is not None
    error: dict[str, Any] = result.structured_content["error"]
    assert text(result).startswith(f"[{error['code']}] ")
    assert len(text(result)) <= 2000
    return error


def text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


async def read(client: Client, uri: str) -> str:
    """Read a text resource."""
    contents = (await client.read_resource(uri, cache_mode="refresh")).contents
    return "".join(content.text for content in contents if hasattr(content, "text"))


def answering(action: str, *, confirm: bool = True) -> Any:
    """An elicitation callback that always answers alike."""

    async def answer(context: Any, parameters: Any) -> ElicitResult:
        return ElicitResult(action=action, content={"confirm": confirm} if action == "accept" else None)  # type: ignore[arg-type]

    return answer


@contextmanager
def calling(
    subject: str | None, issuer: str | None = None, scopes: Sequence[str] = ("analytics:read",)
) -> Iterator[None]:
    """As if this caller's request were being answered."""
    claims = {"iss": issuer}
    known = AccessToken(token="t", client_id="c", scopes=list(scopes), subject=subject, claims=claims)
    before = auth_context_var.set(AuthenticatedUser(known))
    try:
        yield
    finally:
        auth_context_var.reset(before)
