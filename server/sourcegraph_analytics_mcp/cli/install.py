"""The entry that makes a client start this server."""

import json
import shlex
import sys
from pathlib import Path

_NAME = "sourcegraph-analytics-mcp"


def command() -> list[str]:
    """The line that starts this very installation, from any directory: what was called, or what lies beside Python."""
    for path in (Path(sys.argv[0]), Path(sys.executable).with_name(_NAME)):
        if path.name == _NAME and path.is_file():
            return [str(path.absolute())]  # links stay: what they lead to may go with the next version
    return [sys.executable, "-m", "sourcegraph_analytics_mcp"]


def entry(client: str, *, demo: bool, read_only: bool) -> str:
    """What to put where, with an absolute command, because clients do not know your PATH."""
    line = command()
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
