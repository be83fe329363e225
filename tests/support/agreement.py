"""Put many questions about made-up worlds to the server and hold every answer against the reference."""

import random
from collections.abc import Callable
from pathlib import Path

from sourcegraph_analytics_mcp.settings import Settings
from support.worlds import Disagreement, World, judge, question, served

PER_WORLD = 10


async def agree(
    seed: int, questions: int, make_settings: Callable[..., Settings], folder: Path, per_world: int = PER_WORLD
) -> tuple[int, int]:
    """Ask; how many were answered with figures, and how many refused as they must be.

    Raises:
        Disagreement: with the world's seed, to replay it with `--seed`.
    """
    answered = 0
    for number in range(-(-questions // per_world)):
        here = folder / str(number)
        here.mkdir()
        answered += await _one_world(seed + number, min(per_world, questions - number * per_world), make_settings, here)
    return answered, questions - answered


async def _one_world(seed: int, questions: int, make_settings: Callable[..., Settings], folder: Path) -> int:
    rng = random.Random(seed)
    world = World.made(rng)
    answered = 0
    async with served(world, make_settings, folder) as (client, _):
        for number in range(questions):
            arguments, asked = question(world, rng)
            result = await client.call_tool("query_usage", arguments)
            try:
                answered += judge(world, arguments, asked, result)
            except Disagreement as error:
                raise Disagreement(f"seed {seed}, question {number}: {error}") from None
    return answered
