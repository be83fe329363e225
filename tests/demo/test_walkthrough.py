"""The walk through the demo ends with a sentence at whatever step goes wrong."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from mcp import MCPError
from rich.console import Console

from sourcegraph_analytics_mcp.cli.walkthrough import STEPS, Stopped, Walk
from sourcegraph_analytics_mcp.settings import Settings
from support.client import answering, connected

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("step", STEPS[1:], ids=lambda step: step.__name__.removeprefix("_"))
async def test_a_step_that_goes_wrong_says_what(
    step: Callable[[Walk], Awaitable[None]], make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings("http://127.0.0.1:9", access_token="", cas_cookie="")
    async with connected(settings, elicitation_callback=answering("accept")) as client:
        walk = Walk(client, Console(), tmp_path)
        walk.token_id = "00000000-0000-0000-0000-000000000000"
        walk.export = {"summary_uri": "analytics://exports/" + "0" * 32}
        with pytest.raises((Stopped, MCPError), match=r"^\[(auth_missing|not_found)\] ") as stopped:
            await step(walk)
    assert "\n" not in str(stopped.value)
