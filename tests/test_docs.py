"""The README is true: its commands, its tables, its entry for clients. `UPDATE_DOCS=1` writes the tables."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from sourcegraph_analytics_mcp.settings import PREFIX, Settings
from sourcegraph_analytics_mcp.surface.tools import TOOLS
from sourcegraph_analytics_mcp.usage.metrics import METRICS
from support.client import connected

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def tools_table() -> str:
    lines = ["| Tool | Arguments | What it does |", "|---|---|---|"]
    for tool in TOOLS:
        arguments = ", ".join(f"`{name}`" for name in tool.arguments.model_fields) or "none"
        lines.append(f"| `{tool.name}` | {arguments} | {tool.description.split('. ')[0].rstrip('.')}. |")
    return "\n".join(lines)


def settings_table() -> str:
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        value = field.get_default(call_default_factory=True)
        default = "" if value in (None, (), False, PydanticUndefined) or isinstance(value, SecretStr) else f"`{value}`"
        default = "`1`" if value is True else default
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def metrics_table() -> str:
    lines = ["| Metric | Unit | Definition |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{m.name}` | {m.unit} | {m.definition} |" for m in METRICS)])


@pytest.mark.parametrize(
    ("marker", "table"), [("tools", tools_table()), ("settings", settings_table()), ("metrics", metrics_table())]
)
def test_the_tables_are_those_of_the_code(marker: str, table: str) -> None:
    text = README.read_text()
    block = f"<!-- {marker} -->\n\n{table}\n"
    if os.environ.get("UPDATE_DOCS"):
        README.write_text(re.sub(rf"<!-- {marker} -->\n(\n\|(.*\n)+?(?=\n))?", lambda _: block, text))
    else:
        assert block in text


@pytest.mark.anyio
async def test_the_resources_are_those_that_are_served(settings: Settings) -> None:
    async with connected(settings) as client:
        listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
        templates = {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
    paragraph = README.read_text().split("\nResources: ")[1].split("\n\n")[0]
    assert set(re.findall(r"`(analytics:[^`]+)`", paragraph)) == listed | templates


def test_the_quick_start_is_two_lines() -> None:
    quick_start = README.read_text().split("## Quick start")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", quick_start, re.DOTALL)
    assert len(blocks) == 2
    assert all(len(block.strip().splitlines()) == 1 for block in blocks)
    assert blocks[0].strip().endswith(" demo")
    assert "pytest" in blocks[1]
    assert README.read_text().count("```sh") == 2


def test_commands_are_where_the_quick_start_installs_them() -> None:
    readme = README.read_text()
    run = readme.split("## Quick start")[1].split(" demo\n```")[0].split()[-1]
    use = readme.split("## Use it from an assistant")[1].split("\n## ")[0]
    commands = re.findall(r"`([^` ]*sourcegraph-analytics-mcp) (\w+)", use)
    assert commands == [(run, "install"), (run, "login"), (run, "doctor")]


def test_the_entry_for_clients_names_a_command_that_is_installed() -> None:
    servers = json.loads((ROOT / "mcp.json").read_text())["mcpServers"]
    for server in servers.values():
        assert shutil.which(server["command"], path=f"{Path(os.sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # type: ignore[attr-defined]
        assert not any("sams_at_" in value for value in server.get("env", {}).values())
        Settings.from_env(server.get("env", {}))


def test_links_lead_somewhere() -> None:
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (ROOT / target).exists(), (page.name, target)
