"""The store on disk: what is damaged, in the way, abandoned or too old is noticed, said and cleared away."""

import asyncio
import errno
import fcntl
import json
import os
import pty
import re
import shutil
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from mcp import Client, MCPError

from sourcegraph_analytics_mcp import disk
from sourcegraph_analytics_mcp.cli.http.identity import LocalCredential
from sourcegraph_analytics_mcp.demo.embedded import demo_settings, embedded_upstream
from sourcegraph_analytics_mcp.disk import Disk
from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.exports import downloads, staging
from sourcegraph_analytics_mcp.exports import store as exports_store
from sourcegraph_analytics_mcp.exports.models import Export
from sourcegraph_analytics_mcp.exports.store import Store
from sourcegraph_analytics_mcp.exports.wishes import Wishes
from sourcegraph_analytics_mcp.files import give_up, private_home
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface.app import sweep_callers
from sourcegraph_analytics_mcp.surface.kept import purge
from sourcegraph_analytics_mcp.surface.notices import Notices
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from support.client import call, connected, read, refused, text
from support.commands import finished
from support.stdio import COMMAND
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
async def test_a_path_that_no_text_can_spell_is_not_named(make_settings: Make, served: Served, tmp_path: Path) -> None:
    home = tmp_path / os.fsdecode(b"d\xff")
    async with connected(make_settings(served.url, data_dir=home)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        store = (await call(client, "check_connection"))["checks"][-1]
    assert (export["path"], store["ok"], "?" in store["detail"]) == (None, True, False)
    assert (home / "exports" / export["id"]).is_dir()


@pytest.mark.anyio
async def test_a_link_in_place_of_the_data_directory_is_called_one(make_settings: Make, served: Served) -> None:
    settings = make_settings(served.url)
    there = settings.home.with_name("there")
    there.mkdir(mode=0o700)
    settings.home.symlink_to(there)
    async with connected(settings) as client:
        checks = (await call(client, "check_connection"))["checks"]
        errors = [await refused(client, "create_token"), await refused(client, "export_csv", granularity="by_user")]
    link = "The data directory, or one in it, is a symbolic link."
    step = "Set SRC_ANALYTICS_DATA_DIR to the directory itself."
    assert [(error["message"], error["next_step"]) for error in errors] == [(link, step)] * 2
    assert checks[-1]["detail"] == f"[store_corrupt] {link} {step}"
    assert list(there.iterdir()) == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EROFS, "can only be read. Make it writable"),
        (errno.EDQUOT, "no room left"),
        (errno.EFBIG, "larger than the system lets this server's files be. Raise that limit"),
        (errno.EIO, "The data directory cannot be used."),
    ],
)
async def test_a_check_finds_a_disk_that_keeps_no_export(
    settings: Settings, number: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all directories are there, and the disk refuses only what is to stay."""

    def refuses(descriptor: int) -> None:
        raise OSError(number, "made up")

    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        with monkeypatch.context() as moment:
            moment.setattr(os, "fsync", refuses)
            result = await client.call_tool("check_connection", {})
        assert (await call(client, "check_connection"))["ok"]
        assert (await call(client, "list_exports"))["exports"][0]["id"] == export
    assert text(result).startswith("Exports do not work yet.")
    assert says in (result.structured_content or {})["checks"][-1]["detail"]
    assert list((settings.home / "staging").iterdir()) == []


@pytest.mark.anyio
@pytest.mark.long
async def test_a_data_directory_that_cannot_be_looked_at_stops_no_start_and_is_said(
    make_settings: Make, upstream: Served, tmp_path: Path
) -> None:
    settings = make_settings(upstream.url, data_dir=tmp_path / ("x" * 300))
    async with connected(settings) as client:
        assert len((await client.list_tools()).tools) > 8
        codes = [(await refused(client, tool))["code"] for tool in ("list_exports", "list_tokens", "create_token")]
        checks = (await call(client, "check_connection"))["checks"]
    assert codes == ["store_corrupt"] * 3
    assert [check["name"] for check in checks if not check["ok"]] == ["store"]
    for arguments in (("--demo", "doctor"), ("export", "list"), ("export", "delete", "--all")):
        status, told = await ran(settings, *arguments)
        assert status == 1
        assert "[store_corrupt]" in told
        assert "Traceback" not in told
    with anyio.move_on_after(0.1) as swept:  # as over HTTP, where it goes on for ever
        await sweep_callers(settings, Notices())
    assert swept.cancelled_caught


@pytest.mark.anyio
@pytest.mark.parametrize("closed", ["exports", "staging"])
async def test_a_directory_that_cannot_be_searched_stops_no_start_and_is_said(
    settings: Settings, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user")
    denied = str(settings.home / closed)
    stat, scandir = os.stat, os.scandir

    def may_not(do: Callable[..., Any], path: Any, *arguments: Any, **how: Any) -> Any:
        if (str(path) == denied and do is scandir) or str(path).startswith(f"{denied}/"):  # root could all the same
            raise PermissionError(errno.EACCES, "made up")
        return do(path, *arguments, **how)

    monkeypatch.setattr(os, "stat", partial(may_not, stat))
    if closed == "staging":
        monkeypatch.setattr(os, "scandir", partial(may_not, scandir))
    async with connected(settings) as client:
        checks = (await call(client, "check_connection"))["checks"]
    detail = next(check["detail"] for check in checks if check["name"] == "store")
    assert ("1 more cannot be read" if closed == "exports" else "[store_corrupt]") in detail


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
@pytest.mark.long
async def test_a_table_of_recent_exports_that_is_cut_says_so(settings: Settings) -> None:
    store = prepared(settings.home)
    for count in range(50):
        made(store, age=timedelta(minutes=count))
    async with connected(settings) as client:
        whole = await read(client, "analytics://exports")
        made(store, age=timedelta(hours=1))
        cut = await read(client, "analytics://exports")
    assert whole.startswith("50 exports kept, newest first.\n\n|")
    assert cut.startswith("51 exports kept, newest first. The table holds the newest 50; list_exports has all.\n\n|")
    assert whole.count("\n") == cut.count("\n")


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
        checks = (await call(client, "check_connection"))["checks"]
    os.utime(Path(export["path"]).parent, (time.time() - 400 * 86_400,) * 2)
    async with connected(settings) as client:
        later = (await call(client, "check_connection"))["checks"]
    assert error["code"] == "not_found"
    assert checks[-1]["detail"].startswith("0 exports, ")
    assert "1 more cannot be read" in checks[-1]["detail"]
    assert "cannot be read" not in later[-1]["detail"]
    assert not Path(export["path"]).parent.exists()


@pytest.mark.anyio
async def test_an_export_that_cannot_be_read_for_a_moment_is_there_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def too_many_files(path: Path, *arguments: Any, **how: Any) -> str:
        if path.name == "meta.json":
            raise OSError(errno.EMFILE, "too many open files")
        return read_text(path, *arguments, **how)

    async with connected(settings) as client:
        async with connected(settings) as another:
            export = (await call(another, "export_csv", granularity="by_user"))["export"]
        with monkeypatch.context() as moment:
            moment.setattr(Path, "read_text", too_many_files)
            assert (await call(client, "list_exports"))["exports"] == []
        assert [kept["id"] for kept in (await call(client, "list_exports"))["exports"]] == [export["id"]]
        await call(client, "query_export", export_id=export["id"], sql="SELECT 1")


@pytest.mark.anyio
async def test_where_no_export_fits_any_more_a_check_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(settings) as client:
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
            result = await client.call_tool("check_connection", {})
        assert (await call(client, "check_connection"))["ok"]
    assert text(result).startswith("Exports do not work yet.")
    store = (result.structured_content or {})["checks"][-1]
    assert (store["name"], store["ok"]) == ("store", False)
    assert "[store_full]" in store["detail"]
    assert "5 MB are free" in store["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize("moment", ["2026-01-02T03:04:05", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
async def test_an_export_whose_moment_is_none_cannot_be_read_and_stops_no_start(
    settings: Settings, moment: str
) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    meta = Path(export["path"]).parent / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"created_at": moment}))
    async with connected(settings) as client:
        assert (await call(client, "export_csv", granularity="by_user"))["export"]["id"] != export["id"]
        checks = (await call(client, "check_connection"))["checks"]
    assert "1 more cannot be read" in checks[-1]["detail"]


@pytest.mark.anyio
@pytest.mark.long
async def test_an_old_export_that_cannot_be_removed_is_said_and_stops_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(settings) as client:
        kept = Path((await call(client, "export_csv", granularity="by_user"))["export"]["path"]).parent
    meta = json.loads((kept / "meta.json").read_text())
    (kept / "meta.json").write_text(json.dumps(meta | {"created_at": "2026-01-01T00:00:00Z"}))
    rename = Path.rename

    def stays(path: Path, target: Any) -> Path:
        if path == kept:
            raise OSError(errno.EPERM, "immutable")
        return rename(path, target)

    with monkeypatch.context() as immutable:
        immutable.setattr(Path, "rename", stays)
        async with connected(settings) as client:
            await call(client, "export_csv", granularity="by_user_month")
            await call(client, "query_usage", metrics=["searches"], refresh=True)
            stuck = (await call(client, "check_connection"))["checks"][-1]
    async with connected(settings) as client:
        free = (await call(client, "check_connection"))["checks"][-1]
    assert (stuck["ok"], "; 1 export past its time cannot be removed" in stuck["detail"]) == (True, True)
    assert "cannot be removed" not in free["detail"]
    assert not kept.exists()


@pytest.mark.anyio
async def test_a_store_that_cannot_be_swept_spoils_no_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed is kept, and a question has its answer, whatever the sweep behind it meets."""

    def fails(store: Store, *_: Any, **__: Any) -> bool:
        raise AnalyticsError("store_corrupt", "The data directory cannot be used.")

    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user")
        monkeypatch.setattr(Store, "prepare", lambda _: False)
        monkeypatch.setattr(Store, "settle", fails)
        monkeypatch.setattr(Store, "sweep", fails)
        await call(client, "query_usage", metrics=["searches"])
        assert len((await call(client, "list_exports"))["exports"]) == 2


@pytest.mark.anyio
async def test_a_sweep_that_fails_for_one_caller_goes_on_for_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [settings.home / "callers" / name for name in ("a", "b", "c")]
    for home in homes:
        (home / "exports").mkdir(parents=True)
    swept: list[Path] = []
    all_swept = anyio.Event()

    def odd(store: Store) -> bool:
        swept.append(store.home)
        if store.home == homes[-1]:
            anyio.from_thread.run_sync(all_swept.set)
        raise RuntimeError("nobody foresaw it")

    monkeypatch.setattr(Store, "prepare", odd)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sweep_callers, settings, Notices())
        with anyio.fail_after(30):
            await all_swept.wait()
        tasks.cancel_scope.cancel()
    assert swept == homes


@pytest.mark.anyio
async def test_an_export_that_is_given_up_cannot_be_finished(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process ends at once, while a thread of it puts the export in its place."""
    async with connected(settings) as client:
        made = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
    store = Store(settings.home, 30, 1 << 40)
    staging = store.stage()
    export = store.get(made).model_copy(update={"id": staging.id})
    remove, told = shutil.rmtree, list[str]()

    def while_it_is_removed(path: Path, **how: Any) -> None:
        if not told:
            with pytest.raises(AnalyticsError) as error:
                store.commit(staging, export)
            told.append(error.value.code)
        remove(path, **how)

    monkeypatch.setattr(shutil, "rmtree", while_it_is_removed)
    give_up()
    assert told == ["store_corrupt"]
    assert [each.id for each in store.exports()] == [made]
    assert list((settings.home / "staging").iterdir()) == []


@pytest.mark.parametrize("step", ["its lock", "the directory in it"])
def test_a_stage_that_the_disk_refuses_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = Store(tmp_path, 1, 1)
    store.prepare()
    opened = len(list(Path("/proc/self/fd").iterdir()))
    rename, mkdir = Path.rename, Path.mkdir

    def full(work: Callable[..., Any], name: str) -> Callable[..., Any]:
        def refuse(path: Path, *arguments: Any, **more: Any) -> Any:
            if path.name == name:
                raise OSError(errno.ENOSPC, "full")
            return work(path, *arguments, **more)

        return refuse

    monkeypatch.setattr(Path, "rename", full(rename, ".lock-to-be" if step == "its lock" else ""))
    monkeypatch.setattr(Path, "mkdir", full(mkdir, "parts" if step != "its lock" else ""))
    with pytest.raises(AnalyticsError) as refusal:
        store.stage()
    assert refusal.value.code == "store_full"
    assert len(list(Path("/proc/self/fd").iterdir())) == opened
    assert list((tmp_path / "staging").iterdir()) == []


def test_two_may_make_the_first_data_directory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir
    parent = tmp_path / "new"

    def after_another(path: Path, *arguments: Any, **more: Any) -> None:
        if path == parent and not parent.exists():
            mkdir(path)
        mkdir(path, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", after_another)
    Store(parent / "data", 1, 1).prepare()
    assert (parent / "data" / "exports").is_dir()


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
async def test_a_data_directory_that_others_could_read_is_made_private(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start, if there is anything in it, and the log says so once for each."""
    wide = (settings.home, settings.home / "exports")
    for folder in wide:
        folder.mkdir()
        folder.chmod(0o775)
    async with connected(settings) as client:
        assert [folder.stat().st_mode & 0o777 for folder in wide] == [0o700] * 2
        await call(client, "export_csv", granularity="by_user")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["A directory that was open to others (mode 775) is now private"] * 2


@pytest.mark.anyio
@pytest.mark.parametrize("whose", ["", "exports", "staging"])
async def test_a_directory_of_another_user_is_refused_wherever_it_is(
    settings: Settings, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.home / "exports").mkdir(parents=True)
    (settings.home / "staging").mkdir()
    others = (settings.home / whose).stat()
    lstat = Path.lstat

    def owned(path: Path) -> Any:
        found = lstat(path)
        owner = os.geteuid() + (found.st_ino == others.st_ino)  # only root could make it so on the disk
        return SimpleNamespace(st_mode=found.st_mode, st_uid=owner)

    monkeypatch.setattr(Path, "lstat", owned)
    async with connected(settings) as client:
        error = await refused(client, "export_csv", granularity="by_user")
        checks = (await call(client, "check_connection"))["checks"]
    assert (error["code"], "belongs to another user" in error["message"]) == ("store_corrupt", True)
    assert "SRC_ANALYTICS_DATA_DIR" in error["next_step"]
    assert "belongs to another user" in next(check["detail"] for check in checks if check["name"] == "store")
    assert list((settings.home / "exports").iterdir()) == list((settings.home / "staging").iterdir()) == []


@pytest.mark.anyio
async def test_a_directory_that_all_users_share_is_refused_and_left_as_it_is(settings: Settings) -> None:
    settings.home.mkdir()
    settings.home.chmod(0o1777)  # like /tmp
    async with connected(settings) as client:
        error = await refused(client, "export_csv", granularity="by_user")
    assert "is shared by all" in error["message"]
    assert (settings.home.stat().st_mode & 0o7777, list(settings.home.iterdir())) == (0o1777, [])


OTHERS = "The data directory holds files that are not this server's, so it was left as it is."
CHOOSE = "Set SRC_ANALYTICS_DATA_DIR to a directory that is empty or not there yet."


def project(folder: Path) -> dict[str, int]:
    """A directory as git projects are, with names in it that we use, too, and the mode of all that is there."""
    for path in (folder, folder / ".git", folder / "exports", folder / "secrets"):
        path.mkdir()
        path.chmod(0o755)
    for name, content in ((".gitignore", "*.pyc\n"), ("setup.py", "")):
        (folder / name).write_text(content)
    return modes(folder)


def modes(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mode for path in (folder, *folder.rglob("*"))}


@pytest.mark.anyio
@pytest.mark.parametrize("identities", ["names", "pseudonyms"])
async def test_a_directory_that_holds_files_of_others_is_refused_and_left_as_it_is(
    make_settings: Make, upstream: Served, identities: str
) -> None:
    """To narrow a home directory shuts others out of it; to ignore all of a project hides it from git."""
    settings = make_settings(upstream.url, identities=identities)
    before = project(settings.home)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("export_csv", {}), ("query_usage", {"metrics": ["searches"]}), ("list_inactive_users", {}),
        ("create_token", {}), ("query_usage", {"metrics": ["searches"], "users": ["ann"]}),
    ]  # fmt: skip
    async with connected(settings) as client:
        told = [await refused(client, tool, **arguments) for tool, arguments in calls]
        for tool, more in (("delete_export", {}), ("query_export", {"sql": "SELECT 1"})):
            await client.call_tool(tool, {"export_id": "0" * 32} | more)
        checks = (await call(client, "check_connection"))["checks"]
    assert [(error["message"], error["next_step"]) for error in told] == [(OTHERS, CHOOSE)] * len(calls)
    assert checks[-1]["detail"] == f"[store_corrupt] {OTHERS} {CHOOSE}"
    assert (modes(settings.home), (settings.home / ".gitignore").read_text()) == (before, "*.pyc\n")


@pytest.mark.anyio
@pytest.mark.long
async def test_every_command_leaves_a_directory_of_others_as_it_is(settings: Settings) -> None:
    before = project(settings.home)
    issued = {
        f"SRC_ANALYTICS_{name}": f"https://{name.lower().replace('_', '-')}.example/mcp"
        for name in ("OAUTH_ISSUER", "OAUTH_KEYS_URL", "PUBLIC_URL")
    }
    commands: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (("doctor",), {"SRC_ANALYTICS_URL": settings.url, "SRC_ANALYTICS_INSTANCE": "a.example"}),
        (("export", "delete", "--all"), {}),
        (("serve", "--http", "127.0.0.1:1"), {}),
        (("serve", "--http", "127.0.0.1:1"), issued),
    ]
    for arguments, more in commands:
        status, told = await ran(settings, *arguments, **more)
        assert (status, OTHERS in told.replace("\n", " ")) == (1, True), told
    assert modes(settings.home) == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    "there",
    [
        (),
        ("lost+found",),
        (".DS_Store", "._x"),
        ("..gitignore.0123abcd",),
        ("demo",),
        (".reading", "teams.csv"),
        (".gitignore", "callers/", "teams.csv"),
    ],
)
async def test_a_directory_that_was_prepared_begun_or_used_before_is_taken(
    settings: Settings, there: tuple[str, ...]
) -> None:
    settings.home.mkdir()
    settings.home.chmod(0o755)
    for name in there:
        path = settings.home / name
        path.mkdir() if name.endswith("/") else path.write_text("*\n")
    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user")
    assert settings.home.stat().st_mode & 0o777 == 0o700
    assert (settings.home / ".gitignore").read_text() == "*\n"


@pytest.mark.anyio
async def test_all_that_is_kept_is_known_as_our_own(make_settings: Make, upstream: Served) -> None:
    """So that a directory is ours from its first file on, whichever that is."""
    settings = make_settings(upstream.url, identities="pseudonyms", access_token="")
    (settings.home / "callers").mkdir(parents=True, mode=0o700)
    (settings.home / "tokens.json").write_text("damaged")
    async with connected(settings) as client:
        await call(client, "create_token")
        await call(client, "query_usage", metrics=["active_users"], group_by=["user"])
    LocalCredential(settings.home)
    kept = [path.name for path in settings.home.iterdir()]
    assert len(kept) == 13
    for name in kept:
        home = settings.home.with_name(f"only {name}")
        home.mkdir()
        (home / name).touch()
        private_home(home)


@pytest.mark.anyio
@pytest.mark.long
async def test_nothing_is_open_to_others_at_any_moment_whatever_the_umask(make_settings: Make) -> None:
    seen: list[Path] = []
    settings: list[Settings] = []

    def look() -> None:
        for path in (settings[0].home, *settings[0].home.rglob("*")):
            with suppress(FileNotFoundError):  # a piece that the engine is done with
                assert path.stat().st_mode & 0o077 == 0, path
                seen.append(path)

    async def answer(exchange: Exchange) -> None:
        rows = b"1,2\n" * 3_000_000
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nInstance user ID,Searches\n" % (26 + len(rows))
        )
        for at in range(0, len(rows), 1 << 20):
            await exchange.send(rows[at : at + (1 << 20)])
            look()

    mask = os.umask(0)
    try:
        async with scripted_upstream(answer) as fake:
            settings.append(make_settings(fake.url))
            async with connected(settings[0]) as client:
                await call(client, "export_csv", granularity="by_user")
                look()
    finally:
        os.umask(mask)
    assert {"export.csv", "parts", ".lock", "meta.json", "00000.parquet"} <= {path.name for path in seen}


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


def made(store: Store, size: int = 100, age: timedelta = timedelta(0), **more: Any) -> Export:
    """An export of two parts that is now in the store, as a download would put it there."""
    staged = store.stage()
    try:
        staged.csv.write_bytes(BODY)
        for number, part in enumerate((b"one", b"two")):
            (staged.parts / f"{number:05}.parquet").write_bytes(part)
        known: dict[str, Any] = {
            "id": staged.id, "instance_url": "a.example", "granularity": "by_user", "start_date": None,
            "end_date": None, "created_at": NOW - age, "row_count": 1, "byte_count": len(BODY), "sha256": "0" * 64,
            "fields": (), "segments": ((0, 1), (0, 0)),
            "checks": ((0, 0, zlib.crc32(b"one")), (0, 0, zlib.crc32(b"two"))), "active_users": 1, "first_day": None,
            "last_day": None, "days_with_data": 0, "remarks": (), "stored_bytes": size,
        }  # fmt: skip
        return store.commit(staged, Export.model_validate(known | more))
    finally:
        staged.close()


NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Noon(datetime):
    """A day on which it is always noon."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return NOW


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports_store, "datetime", Noon)


class Turned(datetime):
    """A clock that can be put forward."""

    by = timedelta(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + cls.by


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Turned]:
    """The clock of whatever makes and sweeps exports."""
    monkeypatch.setattr(Turned, "by", timedelta(0))
    for module in (exports_store, downloads):
        monkeypatch.setattr(module, "datetime", Turned)
    return Turned


@pytest.mark.anyio
@pytest.mark.long
async def test_an_export_of_a_clock_that_was_ahead_is_new_for_nobody_when_its_moment_comes(
    settings: Settings, clock: type[Turned]
) -> None:
    clock.by = timedelta(hours=2)
    async with connected(settings) as client:
        early = await call(client, "query_usage", metrics=["searches"])
        assert (await call(client, "query_usage", metrics=["searches"]))["export_ids"] == early["export_ids"]
    clock.by = timedelta(0)
    async with connected(settings) as client:
        assert len((await call(client, "list_exports"))["exports"]) == 1
    clock.by = timedelta(hours=2)
    async with connected(settings) as client:
        later = await call(client, "query_usage", metrics=["searches"])
    assert later["export_ids"] != early["export_ids"]


def test_clocks_that_differ_by_seconds_are_not_ahead(tmp_path: Path) -> None:
    store = prepared(tmp_path)
    export = made(store, created_at=datetime.now(UTC) + timedelta(seconds=30))
    assert store.fresh("", Wishes().take([], new=False)) == [export]


def test_an_export_of_a_clock_that_was_ahead_goes_when_it_has_been_there_for_so_long(
    tmp_path: Path, clock: type[Turned]
) -> None:
    store = prepared(tmp_path, days=30)
    export = made(store, created_at=datetime.now(UTC) + timedelta(days=3650))
    for days, left in ((29, [export]), (31, [])):
        clock.by = timedelta(days=days)
        Store(tmp_path, 30, 1 << 30).prepare()
        assert store.exports() == left


def test_a_clock_that_was_behind_loses_nothing(tmp_path: Path, clock: type[Turned]) -> None:
    store = prepared(tmp_path, days=30)
    export = made(store, created_at=datetime.now(UTC))
    clock.by = timedelta(days=-3650)
    Store(tmp_path, 30, 1 << 30).prepare()
    os.utime(export.folder / ".ahead", (clock.now(UTC).timestamp(),) * 2)  # as the disk would have it by that clock
    clock.by = timedelta(0)
    Store(tmp_path, 30, 1 << 30).prepare()
    assert store.exports() == [export]


def test_an_export_of_a_clock_that_was_ahead_gives_way_to_newer_ones(tmp_path: Path) -> None:
    store = prepared(tmp_path, most=250)
    made(store, created_at=datetime.now(UTC) + timedelta(days=3650))
    kept = [made(store, created_at=datetime.now(UTC)) for _ in range(2)]
    assert store.exports() == kept[::-1]


def held(folder: Path) -> list[str]:
    """The files there that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(str(folder))]


def test_an_export_in_the_store_is_what_was_staged_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path, 1e5, 1 << 30)
    store.prepare()
    export = made(store)
    (tmp_path / "staging" / "dead").mkdir()
    (tmp_path / "staging" / "dead" / ".lock").touch()
    store.prepare()
    assert sorted(path.name for path in export.folder.iterdir()) == ["export.csv", "meta.json", "parts"]
    assert list((tmp_path / "staging").iterdir()) == []
    assert held(tmp_path) == []
    assert (tmp_path / ".gitignore").read_text() == "*\n"
    for path in (tmp_path, *tmp_path.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0 or path.parent in (export.folder, export.folder / "parts")
    assert Store(tmp_path, 1e5, 1 << 30).get(export.id) == store.get(export.id) == store.exports()[0] == export


def test_a_stage_is_for_this_user_alone_and_can_be_closed_twice(tmp_path: Path) -> None:
    store = Store(tmp_path, 1, 1)
    store.prepare()
    staged = store.stage()
    assert (staged.folder / ".lock").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in staged.folder.rglob("*")) == [".lock", "parts"]
    staged.close()
    staged.close()


def test_an_export_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, 1e5, 1 << 30)
    store.prepare()
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        order.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def renamed(source: Any, target: Any, **more: Any) -> None:
        rename(source, target, **more)
        order.append(f"{source} -> {target}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    export = made(store)
    staged = tmp_path / "staging" / export.id
    named = order.index(f"{staged} -> {export.folder}")
    inside = ["", "export.csv", "meta.json", "parts", "parts/00000.parquet", "parts/00001.parquet"]
    assert {str(staged / name) for name in inside} <= set(order[:named])
    assert order[named + 1 :] == [str(tmp_path / "exports")]


def test_an_export_that_may_not_survive_a_power_cut_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = prepared(tmp_path)
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path / "exports":
            raise OSError(errno.EIO, "the disk refuses")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    with pytest.raises(AnalyticsError, match="store_corrupt"):
        made(store)
    assert list((tmp_path / "exports").iterdir()) == []


def test_a_link_in_place_of_an_export_is_none(tmp_path: Path) -> None:
    elsewhere = made(prepared(tmp_path / "elsewhere"))
    store = prepared(tmp_path / "here")
    (tmp_path / "here" / "exports" / elsewhere.id).symlink_to(elsewhere.folder)
    assert store.exports() == []
    with pytest.raises(AnalyticsError, match="not_found"):
        store.get(elsewhere.id)


def test_an_export_whose_place_is_taken_is_not_said_to_be_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, 1e5, 1 << 30)
    store.prepare()
    staged = store.stage()
    export = made(Store(tmp_path, 1e5, 1 << 30))
    (tmp_path / "exports" / staged.id / "full").mkdir(parents=True)
    with pytest.raises(AnalyticsError, match="store_corrupt"):
        store.commit(staged, export.model_copy(update={"id": staged.id}))
    staged.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "export.csv").write_bytes(BODY + b"3,4\n"),
        lambda folder: (folder / "parts" / "00001.parquet").unlink(),
        lambda folder: (folder / "parts" / "00001.parquet").write_bytes(b"tow"),
        lambda folder: (folder / "parts" / "00000.parquet").write_bytes(b""),
    ],
    ids=["longer", "a part gone", "a part changed", "a part emptied"],
)
def test_what_is_not_as_it_was_written_is_damaged(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    export = made(prepared(tmp_path))
    damage(export.folder)
    with pytest.raises(AnalyticsError, match="store_corrupt"):
        Store(tmp_path, 1e5, 1 << 30).get(export.id)
    assert Store(tmp_path, 1e5, 1 << 30).exports() == [export]  # it can be listed, and deleted


def prepared(home: Path, days: float = 1e5, most: int = 1 << 30) -> Store:
    store = Store(home, days, most)
    store.prepare()
    return store


def test_metadata_with_a_check_too_few_is_of_no_whole_export(tmp_path: Path) -> None:
    store = prepared(tmp_path)
    export = made(store, checks=((0, 0, zlib.crc32(b"one")),))
    with pytest.raises(AnalyticsError, match="store_corrupt"):
        Store(tmp_path, 1e5, 1 << 30).get(export.id)


def test_data_is_read_to_be_proved_once_by_who_wrote_it_and_by_who_found_it(tmp_path: Path) -> None:
    store, other = prepared(tmp_path), Store(tmp_path, 1e5, 1 << 30)
    export = made(store)
    assert other.get(export.id) == export
    (export.folder / "parts" / "00000.parquet").write_bytes(b"eno")
    assert store.get(export.id) == other.get(export.id) == export
    with pytest.raises(AnalyticsError, match="store_corrupt"):
        Store(tmp_path, 1e5, 1 << 30).get(export.id)


@pytest.mark.parametrize("deleted_here", [True, False])
def test_an_export_that_is_put_back_is_read_anew(tmp_path: Path, deleted_here: bool) -> None:
    store = prepared(tmp_path)
    export = made(store)
    shutil.copytree(export.folder, tmp_path / "backup")
    if deleted_here:
        assert store.delete(export.id)
    else:
        assert Store(tmp_path, 1e5, 1 << 30).delete(export.id)
        with pytest.raises(AnalyticsError, match="not_found"):
            store.get(export.id)
    assert store.exports() == []
    (tmp_path / "backup").rename(export.folder)
    text = (export.folder / "meta.json").read_text()
    (export.folder / "meta.json").write_text(text.replace('"row_count": 1,', '"row_count": 2,'))
    assert store.get(export.id).row_count == store.exports()[0].row_count == 2


def test_an_export_is_deleted_once_and_wherever_it_would_be_moved_to(tmp_path: Path) -> None:
    store = prepared(tmp_path)
    export = made(store)
    (tmp_path / "staging").rmdir()
    assert store.delete(export.id) is True
    assert list((tmp_path / "staging").iterdir()) == list((tmp_path / "exports").iterdir()) == []
    assert store.delete(export.id) is False
    assert store.delete("../exports") is False


def test_what_cannot_be_removed_to_its_end_is_no_longer_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = prepared(tmp_path)
    export, staged = made(store), store.stage()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("a file of somebody else")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        assert store.delete(export.id)
        staged.close()
        Store(tmp_path, 1e5, 1 << 30).prepare()
    assert store.exports() == []
    store.prepare()
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.usefixtures("noon")
def test_exports_are_swept_by_age_and_then_by_size_the_oldest_first(tmp_path: Path) -> None:
    day = timedelta(days=1)
    store = prepared(tmp_path, 3)
    kept = [made(store, 100), made(store, 50, 3 * day), made(store, 1, 3 * day + timedelta(microseconds=1))]
    assert store.exports() == kept  # nobody loses what has just been made
    store.sweep()
    assert store.exports() == kept[:2]
    large = made(store, 200, day)
    for most, left in ((350, [kept[0], large, kept[1]]), (349, [kept[0], large]), (299, [kept[0]]), (99, [])):
        Store(tmp_path, 3, most).sweep()
        assert Store(tmp_path, 3, most).exports() == left, most


@pytest.mark.parametrize("days", [1e6, 1e12, float("inf")])
def test_exports_can_be_kept_for_longer_than_there_are_dates(tmp_path: Path, days: float) -> None:
    store = prepared(tmp_path, days)
    export = made(store, age=timedelta(days=700_000))
    store.prepare()
    assert store.exports() == [export]


@pytest.mark.usefixtures("noon")
def test_what_is_too_large_in_the_middle_makes_room_for_the_oldest(tmp_path: Path) -> None:
    day = timedelta(days=1)
    store = prepared(tmp_path)
    newest, _, oldest = made(store, 100), made(store, 200, day), made(store, 50, 2 * day)
    Store(tmp_path, 1e5, 160).sweep()
    assert store.exports() == [newest, oldest]
    Store(tmp_path, 1, 1 << 30).sweep(keep=oldest.id)
    assert store.exports() == [newest, oldest]


@pytest.mark.parametrize(
    ("size", "needed", "says"),
    [(None, 256 << 20, "256 MB"), (100 << 20, 200 << 20, "200 MB"), (1, 2, "about 1 MB, and 0 MB")],
)
def test_room_for_a_report_is_room_for_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, needed: int, says: str
) -> None:
    store = prepared(tmp_path)
    free = needed
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    store.room_for(size)
    free -= 1
    with pytest.raises(AnalyticsError, match="store_full") as error:
        store.room_for(size)
    assert says in error.value.message


def test_a_stage_without_a_lock_is_abandoned_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = prepared(tmp_path)
    for age in ("59.5", "60", "60.5"):
        (tmp_path / "staging" / age).mkdir()
        os.utime(tmp_path / "staging" / age, (1000 - float(age), 1000 - float(age)))
    monkeypatch.setattr(staging, "time", SimpleNamespace(time=lambda: 1000.0))
    store.prepare()
    assert sorted(path.name for path in (tmp_path / "staging").iterdir()) == ["59.5", "60"]


@pytest.mark.anyio
@pytest.mark.parametrize("usable", [True, False])
@pytest.mark.long
async def test_what_is_too_old_has_gone_once_the_server_runs(settings: Settings, usable: bool) -> None:
    async with connected(settings) as client:
        old, new = [(await call(client, "export_csv", refresh=True))["export"]["id"] for _ in range(2)]
    aged(settings.home / "exports" / old)
    if not usable:  # then it stays, and the server starts all the same
        shutil.rmtree(settings.home / "staging")
        (settings.home / "staging").write_text("in the way")
    async with connected(settings) as client:
        listed = (await call(client, "list_exports"))["exports"]
    assert {export["id"] for export in listed} == ({new} if usable else {old, new})


def aged(folder: Path) -> None:
    """As if an export had been made 400 days ago."""
    meta = json.loads((folder / "meta.json").read_text())
    made_at = (datetime.now(UTC) - timedelta(days=400)).isoformat()
    (folder / "meta.json").write_text(json.dumps(meta | {"created_at": made_at}))


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


def holding(home: Path, words: str) -> set[str]:
    """The names of the files there that hold some words."""
    return {path.name for path in home.rglob("*") if path.is_file() and words.encode() in path.read_bytes()}


async def ran(settings: Settings, *arguments: str, **more: str) -> tuple[int, str]:
    """The status of a command and what it says, with the data directory of some settings."""
    environment = {"SRC_ANALYTICS_DATA_DIR": str(settings.home), "HOME": str(settings.home)} | more
    done = await anyio.to_thread.run_sync(lambda: finished(*arguments, **environment))
    return done.returncode, done.stdout + done.stderr


def typed(settings: Settings, *arguments: str, columns: int = 80) -> str:
    """What a command shows at a terminal of so many columns."""
    keyboard, terminal = pty.openpty()
    environment = {"SRC_ANALYTICS_DATA_DIR": str(settings.home), "HOME": str(settings.home)}
    environment["COLUMNS"] = str(columns)
    with subprocess.Popen([*COMMAND, *arguments], stdin=terminal, stdout=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # once nobody writes any more
            while more := os.read(keyboard, 4096):
                shown += more
        assert process.wait(20) == 0
    os.close(keyboard)
    return shown.decode()


@pytest.mark.anyio
@pytest.mark.long
async def test_ids_are_whole_at_a_terminal_and_elsewhere_nothing_is_cut(settings: Settings) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert export["id"] in typed(settings, "export", "list")
    status, listed = await ran(settings, "export", "list", COLUMNS="80")
    assert status == 0
    assert export["instance_url"] in next(line for line in listed.splitlines() if export["id"] in line)
    assert max(map(len, listed.splitlines())) < 200
    token = "00000000-0000-0000-0000-000000000002"
    for columns in (45, 120):
        listed = typed(settings, "--demo", "token", "list", columns=columns)
        assert token in listed
        assert len(re.findall(r"20\d\d-\d\d-\d\d|never", listed)) == 6  # no day is broken
    status, listed = await ran(settings, "--demo", "token", "list", COLUMNS="40")
    assert status == 0
    assert token in listed


@pytest.mark.anyio
@pytest.mark.long
async def test_the_demo_keeps_what_is_its_own_apart_from_what_is_real(settings: Settings) -> None:
    async with connected(settings) as client:
        real = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
    chosen = {"SRC_ANALYTICS_DEMO": "1", "SRC_ANALYTICS_DATA_DIR": str(settings.home)}
    demo = demo_settings(Settings.from_env(chosen))
    async with Client(AnalyticsServer(demo, embedded_upstream()), mode="2026-07-28") as client:
        made_up = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        listed = (await call(client, "list_exports"))["exports"]
        with pytest.raises(MCPError):
            await read(client, f"analytics://exports/{real}/rows?offset=0&limit=1")
    assert [export["id"] for export in listed] == [made_up]
    assert (settings.home / "demo" / "exports" / made_up).exists()
    assert (await ran(settings, "--demo", "export", "delete", "--all"))[1].startswith("1 export deleted")
    async with connected(settings) as client:
        assert [export["id"] for export in (await call(client, "list_exports"))["exports"]] == [real]


@pytest.mark.anyio
@pytest.mark.parametrize("chosen", ["one", "an instance", "all"])
@pytest.mark.long
async def test_what_is_deleted_at_the_terminal_has_gone_wherever_it_was(make_settings: Make, chosen: str) -> None:
    """Of every caller's directory, and of what dead processes were making, too."""

    async def answer(exchange: Exchange) -> None:
        person = "canary-a" if "a.example" in exchange.target else "canary-b"
        await exchange.answer(f"Instance user ID,User Email,Searches\n1,{person}@corp.example,2\n".encode())

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        theirs = settings.model_copy(update={"data_dir": settings.home / "callers" / "somebody"})
        for each, instance in ((settings, "a.example"), (settings, "b.example"), (theirs, "a.example")):
            async with connected(each) as client:
                asked = {"granularity": "by_user", "instance_url": instance}
                export = (await call(client, "export_csv", **asked))["export"]
                await call(client, "query_export", export_id=export["id"], sql="SELECT user_email FROM usage")
        async with connected(settings) as client:
            broken = Path((await call(client, "export_csv", **asked | {"refresh": True}))["export"]["path"]).parent
    metadata_that_is_cut(broken)
    (settings.home / "callers" / ".DS_Store").write_text("left by a file manager")
    dead = Store(theirs.home, 30, 1 << 40).stage()
    dead.csv.write_text("canary-a@corp.example")
    os.close(dead._lock)
    assert "export.csv" in holding(settings.home, "canary-a") & holding(settings.home, "canary-b")
    status, shown = await ran(settings, "export", "list")
    assert (status, shown.count("example"), "3 exports kept. 1 more cannot be read" in shown) == (0, 3, True)

    which = {"one": export["id"], "an instance": "--instance=https://A.example/", "all": "--all"}[chosen]
    done = await ran(settings, "export", "delete", which)
    said = {"one": "1 export deleted", "an instance": "2 exports deleted", "all": "4 exports deleted"}[chosen]
    left = "" if chosen == "all" else " 1 more cannot be read; `export delete --all` deletes them, too."
    assert done == (0, f"{said}, every copy.{left}\n")
    assert holding(theirs.home, "canary") == set()
    if chosen == "an instance":
        assert {path.parent for path in settings.home.rglob("export.csv") if b"canary-a" in path.read_bytes()} == {
            broken
        }
        assert holding(settings.home, "canary-b")
    if chosen == "all":
        assert holding(settings.home, "canary") == set()
        status, shown = await ran(settings, "export", "list")
        assert (status, shown.strip()) == (0, "0 exports kept.")
    if chosen == "one":
        again = await ran(settings, "export", "delete", which)
        assert (again[0], again[1].startswith("[not_found] ")) == (1, True)


@pytest.mark.anyio
async def test_what_cannot_be_removed_to_its_end_is_not_said_to_be_deleted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(AnalyticsError, match="could not be removed"):
        purge(settings)


@pytest.mark.anyio
async def test_work_leaves_the_loop_once_the_disk_proves_slow() -> None:
    slowing = Disk()

    def slow() -> int:
        until = time.monotonic() + 0.06
        while time.monotonic() < until:
            pass
        return threading.get_ident()

    first, second = await slowing.run(slow), await slowing.run(threading.get_ident)
    assert first == threading.get_ident() != second


@pytest.mark.anyio
async def test_a_question_never_looks_at_a_slow_disk_while_others_wait(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[str, bool]] = []
    look = os.scandir

    def scandir(path: Any) -> Any:
        looked.append((str(path).rpartition("/")[2], threading.current_thread() is threading.main_thread()))
        return look(path)

    monkeypatch.setattr(disk, "_SLOW", -1.0)  # so that the first work has proved it slow
    async with connected(settings) as client:
        await call(client, "list_exports")
        monkeypatch.setattr(os, "scandir", scandir)
        await call(client, "query_usage", metrics=["searches"], period="all_time")
    assert {name for name, _ in looked} >= {"exports", "staging"}
    assert not {("exports", True), ("staging", True)} & set(looked)


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


@pytest.mark.anyio
async def test_what_is_kept_of_an_upstream_is_found_however_its_address_is_spelled(
    make_settings: Make, upstream: Served
) -> None:
    plain = upstream.url.replace("127.0.0.1", "localhost")
    before = make_settings(plain, access_token="")
    async with connected(before) as client:
        made = await call(client, "create_token", display_name="a")
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    for kept in (before.home / "tokens.json", Path(export["path"]).with_name("meta.json")):
        assert plain in kept.read_text()
        kept.write_text(kept.read_text().replace(plain, plain.replace("localhost", "LocalHost")))  # as it once was
    note = {"url": plain.upper(), "name": "b", "asked_at": "2026-01-01T00:00:00+00:00", "before": []}
    (before.home / "creates" / "left.json").write_text(json.dumps(note))
    for spelled in (plain, plain.replace("localhost", "LOCALHOST")):
        async with connected(make_settings(spelled, access_token="")) as client:
            again = (await call(client, "export_csv", granularity="by_user"))["export"]
            assert (again["id"], again["reused"]) == (export["id"], True)
            listed = await call(client, "list_tokens")
            assert [token["id"] for token in listed["tokens"] if token["in_use"]] == [made["token"]["id"]]
    assert not list((before.home / "creates").iterdir())


@pytest.mark.anyio
async def test_an_export_that_an_earlier_version_kept_is_there_and_says_that_its_remarks_are_gone(
    make_settings: Make,
) -> None:
    """That version kept sentences, which nobody can tell apart by what they are about."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Searches,Nickname\n1,many,planted\n2,3,planted\n")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        async with connected(settings) as client:
            made = (await call(client, "export_csv", granularity="by_user"))["export"]
        meta = Path(made["path"]).with_name("meta.json")
        kept = json.loads(meta.read_text())
        assert kept.pop("remarks") == [{"kind": "cells", "count": 1, "column": "searches"}]
        told = {}
        for said in ([], ["1 cell of searches is not a value of its kind; it counts as blank."]):
            meta.write_text(json.dumps(kept | {"warnings": said}))
            async with connected(settings) as client:
                (export,) = (await call(client, "list_exports"))["exports"]
                summary = await read(client, export["summary_uri"])
            told[len(said)] = [line for line in summary.splitlines() if line.startswith("Note: ")]
    about = "Note: 1 earlier version kept this export, and what it noted of rows and cells is not known any more; "
    assert [line for line in told[1] if line not in told[0]] == [f"{about}export_csv with refresh downloads it again."]
    assert any("nickname" in line for line in told[0])
