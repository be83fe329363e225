"""No secret in anything that is answered, logged or written, in any of six encodings, whatever upstream does."""

import base64
import json
import logging
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from mcp import MCPError
from mcp_types import PromptReference

from sourcegraph_analytics_mcp.cli.log import configure_log, flush_log
from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.upstream import Upstream
from sourcegraph_analytics_mcp.redaction import SHORTEST, Redactor
from sourcegraph_analytics_mcp.settings import Settings
from support.client import call, connected, read
from support.client import text as text_of
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio

TOKEN = "sams_at_PlantedToken-0123456789abcdefghijklmnopqrstuv.SecondHalf9876543210"
COOKIE = "PlantedCookie/0123456789+abcdefghijklmnop=="
MADE = "sams_at_MadeUpstream-0123456789abcdefghijklmnopqrst.OtherHalf5555555555"


ROOT = Path(__file__).parents[1]
MADE_ELSEWHERE = (".git", ".venv", "build", "dist", "node_modules")
# The shape of a real token; ours say that they are made up.
REAL = re.compile(r"sams_at_(?!Planted|MadeUp)[A-Za-z0-9_-]{24,}")


def encodings(secret: str) -> Iterator[str]:
    """The pieces a leak would hold: whole, its second half, and both in the usual disguises."""
    for piece in (secret, secret[len(secret) // 2 :], secret[: len(secret) // 2]):
        raw = piece.encode()
        yield piece
        yield quote(piece, safe="")
        yield raw.hex()
        for shift in range(3):  # wherever it begins in a longer text
            yield base64.b64encode(b"x" * shift + raw).decode()[4:-4]
        yield json.dumps(piece)[1:-1]
        yield raw.decode()[::-1]


def leaks(text: str) -> list[str]:
    return [s[:18] for s in (TOKEN, COOKIE, MADE) if any(e in text or e.lower() in text.lower() for e in encodings(s))]


def answer_with(kind: str) -> Callable[[Exchange], object]:
    """An upstream that says our own secrets back to us in every place it has."""
    echo = f"Authorization: Bearer {TOKEN}; Cookie: cas={COOKIE}"

    async def answer(exchange: Exchange) -> None:
        listing = json.dumps({"tokens": [], "hint": echo}).encode()
        if exchange.method == "POST":
            made = {"id": "11111111-1111-1111-1111-111111111111", "createdAt": "2026-01-01T00:00:00Z", "secret": MADE}
            await exchange.answer(json.dumps(made).encode(), "201 Created", "application/json")
        elif "access-tokens" in exchange.target:
            await exchange.answer(listing, content_type="application/json")
        elif kind == "ok":
            await exchange.answer(b"Instance user ID,Searches\n1,2\n", extra=f"Set-Cookie: cas={COOKIE}\r\n")
        elif kind == "cut":
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + echo.encode())
        elif kind == "junk":
            await exchange.send(echo.encode() + b"\r\n\r\n")
        elif kind == "html":
            await exchange.answer(f"<html>{echo}</html>".encode())
        else:
            await exchange.answer(echo.encode(), f"{kind} {echo}", extra=f"X-Echo: {echo}\r\nLocation: /{TOKEN}\r\n")

    return answer


@pytest.mark.parametrize("kind", ["ok", "401", "400", "302", "500", "cut", "junk", "html"])
async def test_no_secret_leaves(
    kind: str, make_settings: Callable[..., Settings], capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    async with scripted_upstream(answer_with(kind)) as fake:  # type: ignore[arg-type]
        settings = make_settings(fake.url, access_token=TOKEN, cas_cookie=COOKIE)
        async with connected(settings) as client:
            for tool, arguments in (
                ("export_csv", {"granularity": "by_user"}),
                ("query_usage", {"metrics": ["searches"], "users": [TOKEN]}),
                ("query_export", {"export_id": "0" * 32, "sql": f"SELECT '{TOKEN}'"}),
                ("get_credits", {}),
                ("list_tokens", {}),
                ("create_token", {"display_name": "x"}),
                ("check_connection", {}),
                ("list_inactive_users", {}),
                ("list_exports", {"limit": TOKEN}),
            ):
                said.append((await client.call_tool(tool, arguments)).model_dump_json())
            try:
                said.append(await read(client, f"analytics://exports/{'0' * 32}"))
            except MCPError as error:
                said.append(str(error))
    caught = capfd.readouterr()
    said += [caught.out, caught.err, repr(settings), settings.model_dump_json()]
    said += [
        p.read_text(errors="replace")
        for p in settings.home.rglob("*")
        if p.is_file() and p.parent.name != "secrets"  # the one place for them
    ]
    assert [found for text in said for found in leaks(text)] == []
    kept = [p for p in settings.home.rglob("*") if p.is_file() and MADE in p.read_text(errors="replace")]
    assert all(p.parent == Path(settings.home) / "secrets" and p.stat().st_mode & 0o777 == 0o600 for p in kept)


@pytest.mark.long
async def test_secrets_that_upstream_says_back_as_data_are_masked(make_settings: Callable[..., Settings]) -> None:
    async def echo(exchange: Exchange) -> None:
        told = f"{TOKEN} and {COOKIE}"
        if "credits" in exchange.target:
            await exchange.answer(json.dumps([{"bucket": told, TOKEN: 1}]).encode(), content_type="application/json")
        elif "tokens" in exchange.target:
            token = {"id": "1", "displayName": told, "createdAt": "2026-01-01T00:00:00Z", "isExpired": False}
            await exchange.answer(json.dumps({"tokens": [token]}).encode(), content_type="application/json")
        elif "registry" in exchange.target:
            await exchange.answer(status="404 Not Found")
        else:
            rows = f"{COOKIE},{told},{told},2026-01-05,{TOKEN},1\n2,here,,{datetime.now(UTC).date()},,1"
            head = "Instance user ID,Username,Client Name,Timestamp Date,Language,Searches"
            await exchange.answer(f"{head}\n{rows}\n".encode())

    async with (
        scripted_upstream(echo) as fake,
        connected(make_settings(fake.url, access_token=TOKEN, cas_cookie=COOKIE)) as client,
    ):
        export = (await call(client, "export_csv"))["export"]["id"]
        said = [
            (await client.call_tool(tool, arguments)).model_dump_json()
            for tool, arguments in (
                ("get_credits", {}),
                ("list_tokens", {}),
                ("query_export", {"export_id": export, "sql": "SELECT * FROM usage"}),
                ("query_usage", {"metrics": ["searches"], "group_by": ["client", "user"], "period": "all_time"}),
                ("list_inactive_users", {}),
            )
        ]
        said += [await read(client, f"analytics://exports/{export}{part}") for part in ("", "/rows", "/data.csv")]
    assert all("[secret]" in text for text in said)
    assert [found for text in said for found in leaks(text)] == []


AWKWARD = r"""Awk*ward|Cook[ie]<`x`>"quo'te\www.http://0123456789"""


async def test_a_secret_that_markdown_escapes_or_a_cut_shortens_is_masked(
    make_settings: Callable[..., Settings],
) -> None:
    async def echo(exchange: Exchange) -> None:
        if "credits" in exchange.target:
            nested = {"note": AWKWARD, "more": [AWKWARD], "cut": "x" * 170 + AWKWARD}
            await exchange.answer(json.dumps([nested]).encode(), content_type="application/json")
        else:
            name = ("x" * 170 + AWKWARD).replace('"', '""')
            await exchange.answer(f'Instance user ID,Username,Searches\n1,"{name}",2\n'.encode())

    async with (
        scripted_upstream(echo) as fake,
        connected(make_settings(fake.url, access_token=TOKEN, cas_cookie=AWKWARD)) as client,
    ):
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        long = {"export_id": export, "sql": "SELECT repeat('x', 470) || substr(username, 171) AS u FROM usage"}
        said = [
            (await client.call_tool(tool, arguments)).model_dump_json()
            for tool, arguments in (("get_credits", {}), ("query_export", long))
        ]
        said.append(await read(client, f"analytics://exports/{export}/rows"))
    assert all("[secret]" in text for text in said)
    assert [text for text in said if "Cook" in text or "0123456789" in text] == []


@pytest.mark.parametrize("cookie", ['Quo"ted%2Fword+25%25/and%more"\'of-the-kind', COOKIE])
async def test_a_secret_that_is_quoted_or_spelled_for_addresses_is_masked(
    make_settings: Callable[..., Settings], cookie: str
) -> None:
    """As it is, as part of an address in either case, as what an address that it is part of says; each to its end."""
    address = quote(cookie, safe="")
    lower = re.sub("%..", lambda found: found[0].lower(), address)
    spelled = [cookie, address, lower, quote(cookie), unquote(cookie)]

    async def echo(exchange: Exchange) -> None:
        if "credits" in exchange.target:
            await exchange.answer(json.dumps(spelled).encode(), content_type="application/json")
        else:
            quoted = [text.replace('"', '""') for text in spelled]
            rows = "".join(f'{n},"x {text}",1\n' for n, text in enumerate(quoted))
            await exchange.answer(f"Instance user ID,Username,Searches\n{rows}".encode())

    async with (
        scripted_upstream(echo) as fake,
        connected(make_settings(fake.url, access_token=TOKEN, cas_cookie=cookie)) as client,
    ):
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        assert (await call(client, "get_credits"))["credits"] == ["[secret]"] * len(spelled)
        rows = (await call(client, "query_export", export_id=export, sql="SELECT username FROM usage"))["rows"]
        assert rows == [["x [secret]"]] * len(spelled)
        assert (await read(client, f"analytics://exports/{export}/rows")).count("| x [secret] |") == len(spelled)
        assert (await read(client, f"analytics://exports/{export}/data.csv")).count(',"x [secret]",') == len(spelled)


async def test_masked_keys_are_told_apart_so_that_no_figure_is_lost(make_settings: Callable[..., Settings]) -> None:
    inner = [{"sams_at_E.f": 1, TOKEN: 2}, {TOKEN: 3}]
    given = {"sams_at_A.b": 1, "sams_at_C.d": inner, "[secret] 2": 3, "sams_at_E.f": 4, "left": 5}
    fields = [{"[secret]": 1, "[secret] 3": 2}, {"[secret] 3": 3}]
    shown = {"[secret] 4": 1, "[secret] 5": fields, "[secret] 2": 3, "[secret]": 4, "left": 5}

    async def echo(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(given).encode(), content_type="application/json")

    async with scripted_upstream(echo) as fake, connected(make_settings(fake.url)) as client:
        result = await client.call_tool("get_credits", {})
    assert (result.structured_content or {})["credits"] == shown
    rest, table = text_of(result).replace("\\", "").split("\n\n[secret] 5:\n\n")
    assert rest.endswith(json.dumps({key: value for key, value in shown.items() if value is not fields}))
    assert table.splitlines()[0::2] == ["| [secret] | [secret] 3 |", "| 1 | 2 |"]
    assert table.endswith("|  | 3 |")


async def test_where_a_new_secret_is_revealed_no_other_is(make_settings: Callable[..., Settings]) -> None:
    new = 'New"Secret`of/another-form+0123456789'

    async def echo(exchange: Exchange) -> None:
        if exchange.method == "POST":
            name = f"{TOKEN} and {COOKIE} and {new}"
            made = {"id": "1", "displayName": name, "createdAt": "2026-01-01T00:00:00Z", "secret": new}
            await exchange.answer(json.dumps(made).encode(), "201 Created", "application/json")
        elif "access-tokens" in exchange.target:
            await exchange.answer(b'{"tokens": []}', content_type="application/json")
        else:
            await exchange.answer(b"{}", content_type="application/json")

    async with (
        scripted_upstream(echo) as fake,
        connected(make_settings(fake.url, access_token=TOKEN, cas_cookie=COOKIE, secret_delivery="reveal")) as client,
    ):
        result = await client.call_tool("create_token", {})
    assert result.structured_content is not None
    assert result.structured_content["secret"] == new
    assert result.structured_content["token"]["display_name"] == "[secret] and [secret] and [secret]"
    assert text_of(result).endswith(f"Secret: `{new}`")
    assert text_of(result).count(new) == 1
    assert leaks(result.model_dump_json()) == []


async def test_a_secret_that_was_just_made_is_masked_whatever_its_form(
    make_settings: Callable[..., Settings], capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where it is not the one in use, and in the log, which a library may give what a client sent."""
    new = "Another/form+0123456789abcdefg"

    async def echo(exchange: Exchange) -> None:
        if exchange.method == "POST":
            made = {"id": "1", "displayName": new, "createdAt": "2026-01-01T00:00:00Z", "secret": new}
            await exchange.answer(json.dumps(made).encode(), "201 Created", "application/json")
        elif "access-tokens" in exchange.target:
            await exchange.answer(b'{"tokens": []}', content_type="application/json")
        else:
            await exchange.answer(json.dumps([new]).encode(), content_type="application/json")

    settings = make_settings("http://127.0.0.1:9", access_token=TOKEN)
    configure_log(settings)
    async with (
        scripted_upstream(echo) as fake,
        connected(make_settings(fake.url, access_token=TOKEN, cas_cookie=COOKIE)) as client,
    ):
        created = await call(client, "create_token")
        assert created["token"]["display_name"] == "[secret]"
        assert (await call(client, "get_credits"))["credits"] == ["[secret]"]
        logging.getLogger("anything").warning("refused %s", new)
    flush_log()
    logged = capfd.readouterr().err
    assert "refused [secret]" in logged
    assert "0123456789abcdefg" not in logged


@pytest.mark.parametrize("secret", [TOKEN, COOKIE])
async def test_what_a_client_says_is_not_said_back_with_a_secret_in_it(
    make_settings: Callable[..., Settings], secret: str
) -> None:
    async def said_of(asked: Awaitable[object]) -> str:
        try:
            return repr(await asked)
        except MCPError as error:
            return repr(error.error)

    async with (
        scripted_upstream(answer_with("ok")) as fake,  # type: ignore[arg-type]
        connected(make_settings(fake.url, access_token=TOKEN, cas_cookie=COOKIE)) as client,
    ):
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        reference = PromptReference(name=secret)
        said = [
            await said_of(asked)
            for asked in (
                client.call_tool(secret, {}),
                client.call_tool("list_exports", {secret: 1}),
                client.call_tool("query_export", {"export_id": export, "sql": f"SELECT {secret}"}),
                client.call_tool("query_export", {"export_id": export, "sql": f"SELECT '{secret}'::INT"}),
                client.call_tool("query_usage", {"metrics": ["searches"], "languages": [secret]}),
                client.get_prompt(secret, {}),
                client.get_prompt("time_saved", {secret: "x"}),
                client.get_prompt("time_saved", {"period": secret}),
                client.read_resource(f"x://{secret}"),
                client.read_resource(f"analytics://exports/{secret}"),
                client.complete(reference, {"name": secret, "value": secret}),
            )
        ]
    assert [text for text in said if leaks(text)] == []


def test_what_looks_like_a_token_is_masked_to_its_end_though_nobody_knows_it() -> None:
    redactor = Redactor(())
    assert redactor.text(f"a {MADE}, b") == "a [secret], b"
    assert redactor.data({MADE: [{"a": MADE}]}) == {"[secret]": [{"a": "[secret]"}]}


@pytest.mark.parametrize("known", [f"{MADE[:20]}-another.OtherHalf", f"{MADE[5:40]}!more", f"x{MADE[:12]}", MADE])
def test_a_secret_that_begins_like_another_is_masked_to_its_end(known: str) -> None:
    """What was cut of the one may be the beginning of the other; a mask in its middle would leave the rest."""
    redactor = Redactor((known, MADE[:16] + "yet another one"))
    assert redactor.text(f"a {MADE}, b {known}, c") == "a [secret], b [secret], c"
    assert redactor.data([f"{known} {MADE}"]) == ["[secret] [secret]"]


@pytest.mark.parametrize("at", range(SHORTEST - 2, SHORTEST + 2))
def test_a_sign_of_percent_anywhere_in_a_secret_leaves_nothing_of_it_in_an_address(at: int) -> None:
    secret = "session-abcdefgh"[:at] + "%2Fxyzw.QWERTYUIOP"
    assert Redactor((secret,)).text(f"x={quote(secret, safe='')}&y={secret}") == "x=[secret]&y=[secret]"


@pytest.mark.parametrize("letter", ["é", "—"])
def test_a_secret_that_is_not_ascii_is_masked_as_addresses_have_it(letter: str) -> None:
    masked = Redactor((quote(f"{letter}abcdefghijklmnop"),)).text
    secret = f"{letter}abcdefghijklmnop"
    assert masked(f"{secret} {quote(secret)} {quote(secret).lower()}") == "[secret] [secret] [secret]"
    assert masked(f"%{ord(letter):02X}abcdefghijklmnop").endswith("[secret]" if letter == "é" else "abcdefghijklmnop")


def test_the_log_masks_secrets_and_keeps_each_event_on_one_line(
    make_settings: Callable[..., Settings], capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log(make_settings("http://127.0.0.1:9", access_token=TOKEN, cas_cookie=COOKIE))
    logging.getLogger("anything").warning("told %s\n2026-01-01 INFO forged %s", COOKIE, MADE)
    flush_log()
    logged = capfd.readouterr().err
    assert leaks(logged) == []
    assert logged.count("[secret]") == 2
    assert logged.count("\n") == 1


def test_lines_of_the_log_are_gathered_and_each_is_written_whole(make_settings: Callable[..., Settings]) -> None:
    pieces: list[bytes] = []

    def write(piece: bytes) -> int:
        pieces.append(piece)
        return len(piece)

    configure_log(make_settings("http://127.0.0.1:9"), write)
    for number in range(300):
        logging.getLogger("anything").warning("line %d %s", number, "x" * (5000 if number == 200 else 20))
    flush_log()
    assert [int(line.split()[-2]) for line in b"".join(pieces).splitlines()] == list(range(300))
    assert [piece for piece in pieces if not piece.endswith(b"\n")] == []
    assert [len(piece) for piece in pieces if len(piece) > 4096 and piece.count(b"\n") > 1] == []
    assert len(pieces) < 300


def test_the_log_says_where_an_error_came_from_and_nothing_that_it_says(
    make_settings: Callable[..., Settings], capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log(make_settings("http://127.0.0.1:9"))
    try:
        Path("/nowhere/of/anybody@example.com").read_text()
    except OSError as error:
        told = ValueError("anybody@example.com")
        told.__cause__ = error
        logging.getLogger("anything").error("in a way nobody foresaw", exc_info=told)
    flush_log()
    logged = capfd.readouterr().err
    assert "ValueError at" in logged
    assert re.search(r"FileNotFoundError at test_secrets.py:\d+ > pathlib.py:\d+", logged)
    assert "anybody" not in logged
    assert logged.count("\n") == 1


UNFORESEEN = {
    "uncaught": "raise ValueError(planted)",
    "in a thread": "thread = threading.Thread(target=int, args=[planted]); thread.start(); thread.join()",
    "a warning": "warnings.warn(planted)",
    "a task that nobody waits for": "async def task(): raise ValueError(planted)\n"
    "async def main(): asyncio.ensure_future(task()); await asyncio.sleep(0)\nasyncio.run(main()); gc.collect()",
}


@pytest.mark.parametrize("happens", UNFORESEEN)
@pytest.mark.long
def test_what_python_itself_would_print_is_one_line_that_says_where(happens: str) -> None:
    code = (
        "import asyncio, gc, threading, warnings\n"
        "from sourcegraph_analytics_mcp.cli.log import configure_log, flush_log, log_the_unforeseen\n"
        "from sourcegraph_analytics_mcp.settings import Settings\n"
        "configure_log(Settings.from_env({})); log_the_unforeseen()\n"
        f"planted = 'anybody@example.com\\nat /nowhere'\n{UNFORESEEN[happens]}\nflush_log()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    (line,) = ended.stderr.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d [\d:,]+ (CRITICAL|ERROR|WARNING) \S+ \S", line)
    assert re.search(r"(ValueError|UserWarning) at \S+:\d", line)
    assert "anybody" not in line
    assert "nowhere" not in line


@pytest.mark.long
def test_the_first_line_of_the_log_needs_no_file() -> None:
    code = (
        "import logging, resource\n"
        "from sourcegraph_analytics_mcp.cli.log import configure_log, flush_log\n"
        "from sourcegraph_analytics_mcp.settings import Settings\n"
        "configure_log(Settings.from_env({})); resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
        "logging.error('said'); logging.error('%d', 'anybody'); flush_log()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    (line,) = ended.stderr.splitlines()  # of what cannot be formed nothing is printed
    assert line.endswith("said")


def test_the_search_would_find_a_leak() -> None:
    for secret in (TOKEN, COOKIE, MADE):
        middle = secret[20:]
        for text in (secret, secret.lower(), quote(secret, safe=""), secret.encode().hex(), secret[::-1]):
            assert leaks(f"… {text} …")
        for shift in range(3):
            assert leaks(base64.b64encode(b"ab"[:shift] + secret.encode() + b"tail").decode())
        assert leaks(f"x{middle}x")


def test_the_repository_holds_no_real_token() -> None:
    places = [place for place in ROOT.iterdir() if place.name not in MADE_ELSEWHERE and "cache" not in place.name]
    files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
    assert {"README.md", "mcp.json", "run", "test_secrets.py"} <= {file.name for file in files}
    assert [str(file) for file in files if REAL.search(file.read_bytes().decode("latin-1"))] == []


def test_the_search_for_real_tokens_would_find_one() -> None:
    company = Company.made_up(date(2026, 1, 1), people=1, days=1)
    minted = Upstream(company, lambda: datetime.now(UTC)).desk.issue().secret
    assert REAL.search(f"SRC_ANALYTICS_ACCESS_TOKEN={minted}")
