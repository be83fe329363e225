"""Four servers that share a data directory, each request sent to any of them: they answer as one.

python tests/campaigns/replicas.py --count 300 --seed 1
"""

import asyncio
import random
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter
from support.issuer import published, token
from support.upstreams import Served, serve_company
from support.web import FREE, Site, site

SERVERS, PEOPLE = 4, 3
GRANULARITIES = ("by_user", "by_user_month", "by_user_day")
ASKED: dict[str, Any] = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}


class Replicas:
    """The servers, their callers, and the exports that each caller must see."""

    def __init__(self, servers: list[Site], upstream: Served, rng: random.Random) -> None:
        self._servers = servers
        self._upstream = upstream
        self._rng = rng
        self._kept: dict[str, dict[str, int]] = {f"person{n}": {} for n in range(PEOPLE)}
        self.done = Counter[str]()

    async def call(self, who: str, tool: str, given: dict[str, Any], **more: Any) -> Any:
        """Call a tool on any of the servers."""
        server = self._rng.choice(self._servers)
        server.credential = token(who, scope="analytics:read analytics:tokens")
        async with server.client() as client:
            params = {"name": tool, "arguments": given} | more
            return await client.ask("tools/call", params, **(ASKED if tool == "revoke_token" else {}))

    async def step(self) -> str:
        """One thing that somebody does; what is wrong with it."""
        who = self._rng.choice(list(self._kept))
        kept = self._kept[who]
        kind = self._rng.choice(["export", "list", "list", "query", "query", "delete", "revoke"])
        self.done[kind] += 1
        match kind:
            case "export":
                given = {"granularity": self._rng.choice(GRANULARITIES), "refresh": self._rng.random() < 0.3}
                export = (await self.call(who, "export_csv", given))["structuredContent"]["export"]
                kept[export["id"]] = export["row_count"]
            case "list":
                found = (await self.call(who, "list_exports", {"limit": 100}))["structuredContent"]["exports"]
                seen = {export["id"]: export["row_count"] for export in found}
                return "" if seen == kept else f"{who} sees {seen} instead of {kept}"
            case "query":
                name = self._rng.choice([*kept, "0" * 32])
                given = {"export_id": name, "sql": "SELECT count(*) FROM usage"}
                data = (await self.call(who, "query_export", given))["structuredContent"]
                code = data.get("error", {}).get("code")
                good = code == "not_found" if name not in kept else data.get("rows") == [[kept[name]]]
                return "" if good else f"{who} got {data} of {name}"
            case "delete":
                for name in list(kept)[5:]:
                    await self.call(who, "delete_export", {"export_id": name})
                    del kept[name]
            case "revoke":
                return await self._revoke(who)
        return ""

    async def _revoke(self, who: str) -> str:
        """Revoke a token, which the person confirms to whichever server comes next."""
        doomed = self._upstream.desk.issue("doomed")
        given = {"token_id": doomed.id}
        question = await self.call(who, "revoke_token", given)
        if question.get("resultType") != "input_required":
            return f"not asked: {question}"
        confirmed = {"confirmation": {"action": "accept", "content": {"confirm": True}}}
        answer = {"inputResponses": confirmed, "requestState": question["requestState"]}
        result = await self.call(who, "revoke_token", given, **answer)
        done = result["structuredContent"].get("outcome") == "revoked" and doomed.revoked
        return "" if done else f"not revoked: {result}"


async def campaign(replicas: Replicas, count: int) -> list[str]:
    wrong = []
    for number in range(count):
        try:
            problem = await replicas.step()
        except (OSError, EOFError, RuntimeError) as error:
            problem = f"{type(error).__name__} {error}"
        if problem:
            wrong.append(f"step {number}: {problem[:300]}")
    return wrong


def main() -> int:
    asked = arguments(__doc__, 300)
    report = reporter("replicas", asked)
    company = Company.made_up(datetime.now(UTC).date(), people=40, days=130)
    with tempfile.TemporaryDirectory() as folder, serve_company(company) as upstream, published() as issuer:
        home = Path(folder)
        more = named(upstream.url, home / "data", state_key="s" * 32) | FREE | issuer | {"log_level": "INFO"}
        with ExitStack() as running:
            servers = [running.enter_context(site(home, **more)) for _ in range(SERVERS)]
            replicas = Replicas(servers, upstream, random.Random(asked.seed))
            wrong = asyncio.run(campaign(replicas, asked.count))
            wrong += [line[:300] for each in servers for line in each.log if "Traceback" in line]
    return report(wrong, **replicas.done)


if __name__ == "__main__":
    sys.exit(main())
