"""The entry that makes a client start this server."""

import json
import shlex
import shutil
import sys


def entry(client: str, *, demo: bool, read_only: bool) -> str:
    """What to put where, with an absolute command, because clients do not know your PATH."""
    command = shutil.which("sourcegraph-analytics-mcp")
    line = [command] if command else [sys.executable, "-m", "sourcegraph_analytics_mcp"]
    flags = {"--demo": demo, "--read-only": read_only}
    arguments = [*line[1:], *(flag for flag, given in flags.items() if given)]
    settings = {} if demo else {"SRC_ANALYTICS_INSTANCE": "example.sourcegraphcloud.com"}
    server = {"command": line[0], "args": arguments, "env": settings}
    if client == "claude-code":
        return shlex.join(["claude", "mcp", "add-json", "sourcegraph-analytics", json.dumps(server)])
    where, key = {
        "claude-desktop": ("claude_desktop_config.json (Settings > Developer > Edit Config)", "mcpServers"),
        "cursor": ("~/.cursor/mcp.json", "mcpServers"),
        "vscode": (".vscode/mcp.json", "servers"),
    }[client]
    return f"Add to {where}:\n{json.dumps({key: {'sourcegraph-analytics': server}}, indent=2)}"
