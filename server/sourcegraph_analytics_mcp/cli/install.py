"""The entry that makes a client start this server."""

import json
import shutil
import sys


def entry(client: str, *, demo: bool) -> str:
    """What to put where, with an absolute command, because clients do not know your PATH."""
    command = shutil.which("sourcegraph-analytics-mcp")
    line = [command] if command else [sys.executable, "-m", "sourcegraph_analytics_mcp"]
    arguments = [*line[1:], *(["--demo"] if demo else [])]
    settings = {} if demo else {"SRC_ANALYTICS_INSTANCE": "example.sourcegraphcloud.com"}
    server = {"command": line[0], "args": arguments, "env": settings}
    if client == "claude-code":
        return f"claude mcp add-json sourcegraph-analytics '{json.dumps(server)}'"
    where, key = {
        "claude-desktop": ("claude_desktop_config.json (Settings > Developer > Edit Config)", "mcpServers"),
        "cursor": ("~/.cursor/mcp.json", "mcpServers"),
        "vscode": (".vscode/mcp.json", "servers"),
    }[client]
    return f"Add to {where}:\n{json.dumps({key: {'sourcegraph-analytics': server}}, indent=2)}"
