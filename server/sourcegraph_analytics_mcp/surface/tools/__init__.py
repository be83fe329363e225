"""Every tool the server offers, in the order it lists them; one module per family."""

from ..tool import Tool
from .account import check_connection, get_credits
from .exports import delete_export, export_csv, list_exports
from .inactive import list_inactive_users
from .sql import query_export
from .tokens import create_token, list_tokens, revoke_token
from .usage import query_usage

TOOLS: tuple[Tool, ...] = (
    query_usage,
    list_inactive_users,
    query_export,
    export_csv,
    list_exports,
    delete_export,
    create_token,
    list_tokens,
    revoke_token,
    get_credits,
    check_connection,
)
TOKEN_TOOLS = frozenset(tool.name for tool in (create_token, list_tokens, revoke_token))
QUESTIONS = frozenset(tool.name for tool in (query_usage, list_inactive_users, query_export))
