"""Use everything once and watch the system: nothing is contacted but upstream, nothing started but the engine.

    python tests/campaigns/connections.py

Needs strace, and leave to use it.
"""

import re
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter
from support.stdio import COMMAND, Raw, spawned
from support.upstreams import serve_company

_CALL = re.compile(r"\b(connect|sendto|sendmsg|execve)\((.*)")
_EVERY_FAMILY = re.compile(r"AF_UNSPEC|AF_INET6?|AF_UNIX|AF_NETLINK")


def use_everything(raw: Raw) -> int:
    """Every tool, resource and prompt once; how many requests that was."""
    raw.handshake()
    export = _called(raw, "export_csv")["structuredContent"]["export"]
    token = _called(raw, "create_token", display_name="watched")["structuredContent"]["token"]["id"]
    for tool, given in (
        ("check_connection", {}), ("list_exports", {}), ("list_tokens", {}), ("get_credits", {}),
        ("query_usage", {"metrics": ["active_users"], "group_by": ["month"]}), ("list_inactive_users", {}),
        ("query_export", {"export_id": export["id"], "sql": "SELECT count(*) FROM usage"}),
        ("revoke_token", {"token_id": token, "confirm": True}),
    ):  # fmt: skip
        _called(raw, tool, **given)
    uris = [resource["uri"] for resource in raw.ask("resources/list")["resources"]]
    uris += [export["csv_uri"], f"{export['summary_uri']}/rows"]
    for uri in uris:
        raw.ask("resources/read", {"uri": uri})
    prompts = raw.ask("prompts/list")["prompts"]
    _called(raw, "delete_export", export_id=export["id"])
    return 11 + len(uris) + len(prompts)


def _called(raw: Raw, tool: str, **given: object) -> dict[str, dict[str, dict[str, str]]]:
    result: dict[str, dict[str, dict[str, str]]] = raw.ask("tools/call", {"name": tool, "arguments": given})
    assert not result.get("isError"), result
    return result


def unwanted(line: str, port: int) -> str | None:
    """What a traced call does that it should not."""
    found = _CALL.search(line)
    if found is None:
        return None
    call, rest = found.groups()
    if call == "execve":
        return None if str(sys.executable) in rest else f"started: {rest[:120]}"
    if "AF_" not in rest:
        return None  # data on a connection that was judged when it was made
    allowed = f'sin_port=htons({port}), sin_addr=inet_addr("127.0.0.1")'
    return None if allowed in rest else f"contacted: {_EVERY_FAMILY.findall(rest)} {rest[:120]}"


def main() -> int:
    asked = arguments(__doc__, 1)
    report, wrong, seen, requests = reporter("connections", asked), list[str](), Counter[str](), 0
    company = Company.made_up(datetime.now(UTC).date(), people=20, days=40)
    with tempfile.TemporaryDirectory() as folder, serve_company(company) as upstream:
        home = Path(folder)
        port = urlsplit(upstream.url).port or 0
        for number in range(asked.count):
            trace = home / f"trace-{number}"
            traced = ("strace", "-f", "-qq", "-s", "200", "-o", str(trace), "-e", "trace=network,execve", *COMMAND)
            with spawned(home, command=traced, lifetime=120, **named(upstream.url, home / f"data-{number}")) as raw:
                requests += use_everything(raw)
                assert raw.process.stdin is not None
                raw.process.stdin.close()
                raw.process.wait(20)
            for line in trace.read_text(errors="replace").splitlines():
                if (found := _CALL.search(line)) is not None:
                    seen[found[1]] += 1
                if (problem := unwanted(line, port)) is not None:
                    wrong.append(problem)
    return report(wrong, requests=requests, connections=seen["connect"], programs=seen["execve"])


if __name__ == "__main__":
    sys.exit(main())
