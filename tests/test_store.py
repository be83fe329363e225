"""The store on disk: what is damaged, in the way, abandoned or too old is noticed, said and cleared away."""

import asyncio
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from mcp import Client, MCPError

from sourcegraph_analytics_mcp.disk import Disk
from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.exports.store import Store
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from support.client import call, connected, read, refused
from support.upstreams import Exchange, Served, scripted_upstream

Make = Callable[..., Settings]
BODY = b"Instance user ID,Searches\n1,2\n"


@pytest.mark.anyio
async def test_a_file_in_place_of_the_data_directory_is_said_by_every_way_in(
    make_settings: Make, upstream: Served
) -> None:
    settings = make_settings(upstream.url)
    settings.home.write_text("in the way")
    async with connected(settings) as client:
        error = await refused(client, "export_csv", granularity="by_user", refresh=True)
        checks = (await call(client, "check_connection"))["checks"]
    with pytest.raises(AnalyticsError) as staged:
        Store(settings.home, 1, 1).stage()
    assert error["code"] == staged.value.code == "store_corrupt"
    assert str(settings.home) not in json.dumps(error)
    assert not next(check["ok"] for check in checks if check["name"] == "store")


@pytest.mark.anyio
async def test_an_export_that_cannot_be_put_in_its_place_leaves_nothing(make_settings: Make) -> None:
    begun, gone = anyio.Event(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        begun.set()
        await gone.wait()
        await exchange.answer(BODY)

    errors = []

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        async with connected(settings) as client, anyio.create_task_group() as tasks:

            async def export() -> None:
                errors.append(await refused(client, "export_csv", granularity="by_user"))

            tasks.start_soon(export)
            await begun.wait()
            (settings.home / "exports").rmdir()
            (settings.home / "exports").write_text("in the way")
            gone.set()
    assert [error["code"] for error in errors] == ["store_corrupt"]
    assert list((settings.home / "staging").iterdir()) == []


@pytest.mark.anyio
async def test_a_list_that_cannot_be_read_is_a_failure_and_not_an_empty_one(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "exports").write_text("in the way")
    async with connected(settings) as client:
        assert (await client.call_tool("list_exports", {})).is_error
        with pytest.raises(MCPError) as error:
            await read(client, "analytics://exports")
        with pytest.raises(MCPError) as listing:
            await client.list_resources()
    assert error.value.error.code == listing.value.error.code == -32603
    assert listing.value.error.message.startswith("[store_corrupt] ")


@pytest.mark.anyio
async def test_an_export_that_cannot_be_moved_away_is_not_said_to_be_deleted(settings: Settings) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        (settings.home / "staging").rmdir()
        (settings.home / "staging").write_text("in the way")
        error = await refused(client, "delete_export", export_id=export["id"])
    assert error["code"] == "store_corrupt"
    assert Path(export["path"]).exists()


def metadata_that_is_cut(folder: Path) -> None:
    (folder / "meta.json").write_text((folder / "meta.json").read_text()[:100])


def metadata_of_another(folder: Path) -> None:
    text = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(text.replace(folder.name, "0" * 32))


@pytest.mark.anyio
@pytest.mark.parametrize("damage", [metadata_that_is_cut, metadata_of_another])
async def test_an_export_without_its_metadata_is_none(settings: Settings, damage: Callable[[Path], None]) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    damage(Path(export["path"]).parent)
    async with connected(settings) as client:
        assert (await call(client, "list_exports"))["exports"] == []
        error = await refused(client, "query_export", export_id=export["id"], sql="SELECT 1")
    assert error["code"] == "not_found"


def csv_gone(folder: Path) -> None:
    (folder / "export.csv").unlink()


def part_unreadable(folder: Path) -> None:
    part = folder / "parts" / "00000.parquet"
    part.unlink()
    part.symlink_to("/proc/self/mem")  # a file whose first byte cannot be read


@pytest.mark.anyio
@pytest.mark.parametrize("damage", [csv_gone, part_unreadable])
async def test_an_export_without_its_files_is_damaged(settings: Settings, damage: Callable[[Path], None]) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    damage(Path(export["path"]).parent)
    async with connected(settings) as client:
        error = await refused(client, "query_export", export_id=export["id"], sql="SELECT 1")
    assert error["code"] == "store_corrupt"


@pytest.mark.anyio
async def test_a_data_directory_that_others_could_read_is_made_private(settings: Settings) -> None:
    settings.home.mkdir()
    settings.home.chmod(0o755)
    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user")
    assert settings.home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("linked", ["", "exports", "staging"])
def test_a_link_in_place_of_a_directory_is_not_followed(tmp_path: Path, linked: str) -> None:
    home, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)  # whatever the umask
    (home if linked else tmp_path).mkdir(exist_ok=True)
    (home / linked).symlink_to(elsewhere)
    with pytest.raises(AnalyticsError, match="store_corrupt"):
        Store(home, 1, 1 << 30).prepare()
    assert list(elsewhere.iterdir()) == []
    assert elsewhere.stat().st_mode & 0o777 == 0o755


def test_what_a_living_maker_stages_is_left_alone_by_another(tmp_path: Path) -> None:
    store = Store(tmp_path, 1, 1 << 30)
    store.prepare()
    staged = store.stage()
    Store(tmp_path, 1, 1 << 30).prepare()
    assert staged.parts.is_dir()
    os.close(staged._lock)  # as when its process dies
    Store(tmp_path, 1, 1 << 30).prepare()
    assert not staged.folder.exists()


@pytest.mark.parametrize("name", ["", "..", "../exports/x", "x" * 32, "A" * 32, "0" * 31, "0" * 32 + "\n", "０" * 32])
def test_a_name_that_is_no_id_leads_nowhere(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path, 1, 1 << 30)
    store.prepare()
    (tmp_path / "exports" / ("x" * 32)).mkdir()
    with pytest.raises(AnalyticsError, match="not_found"):
        store.get(name)
    assert not store.delete(name)
    assert (tmp_path / "exports" / ("x" * 32)).is_dir()


@pytest.mark.anyio
async def test_a_path_that_ends_in_an_id_leads_nowhere_either(settings: Settings) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        for path in (f"../exports/{export['id']}", f"./{export['id']}", f"{settings.home}/exports/{export['id']}"):
            for tool, arguments in (("query_export", {"sql": "SELECT 1"}), ("delete_export", {})):
                error = await refused(client, tool, export_id=path, **arguments)
                assert error["code"] in ("not_found", "invalid_argument")
            with pytest.raises(AnalyticsError, match="not_found"):
                Store(settings.home, 30, 1 << 40).get(path)
        assert (await call(client, "list_exports"))["exports"][0]["id"] == export["id"]


def test_nothing_of_it_gets_into_a_repository_that_it_lies_in(tmp_path: Path) -> None:
    home = tmp_path / "data"
    Store(home, 1, 1 << 30).prepare()
    assert (home / ".gitignore").read_text() == "*\n"


def test_what_dead_makers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path, 1, 1 << 30)
    store.prepare()
    staging = tmp_path / "staging"
    for name in ("dead", "alive", "linked", "old", "fresh", "deleted-1"):
        (staging / name).mkdir()
    (staging / "vanished").symlink_to(tmp_path / "nothing")
    (staging / "dead" / ".lock").touch()
    (staging / "linked" / ".lock").symlink_to(tmp_path / ".gitignore")
    os.utime(staging / "old", (time.time() - 100, time.time() - 100))
    with (staging / "alive" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        store.prepare()
    assert sorted(path.name for path in staging.iterdir()) == ["alive", "fresh", "linked", "vanished"]


class TurnedClock(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def test_every_hour_what_is_too_old_is_swept_away(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url, retention_days=0.00000001)

    async def an_hour_later() -> None:
        async with connected(settings) as client:
            await call(client, "export_csv", granularity="by_user")
            assert len((await call(client, "list_exports"))["exports"]) == 1
            loop = asyncio.get_running_loop()
            assert isinstance(loop, TurnedClock)
            loop.ahead += 3601
            with anyio.fail_after(30):
                while (await call(client, "list_exports"))["exports"]:
                    await anyio.lowlevel.checkpoint()

    anyio.run(an_hour_later, backend_options={"loop_factory": TurnedClock})


@pytest.mark.anyio
async def test_work_leaves_the_loop_once_the_disk_proves_slow() -> None:
    disk = Disk()

    def slow() -> int:
        until = time.monotonic() + 0.06
        while time.monotonic() < until:
            pass
        return threading.get_ident()

    first, second = await disk.run(slow), await disk.run(threading.get_ident)
    assert first == threading.get_ident() != second


@pytest.mark.anyio
async def test_a_server_that_does_not_run_has_no_store_and_no_tools_to_call(settings: Settings) -> None:
    server = AnalyticsServer(settings)
    with pytest.raises(RuntimeError, match="not running"):
        await server.list_resources()
    with pytest.raises(RuntimeError, match="called by clients"):
        await server.call_tool("list_exports", {})


@pytest.mark.anyio
async def test_a_resource_can_be_read_by_who_runs_the_server_too(settings: Settings) -> None:
    server = AnalyticsServer(settings)
    async with Client(server):
        assert await server.read_resource("analytics://metrics")
