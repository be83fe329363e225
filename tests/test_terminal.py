"""The command as a person uses it: what it asks, what it says when something is wrong, and its exit status."""

import io
import json
import logging
import os
import pty
import re
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from rich.console import Console

from sourcegraph_analytics_mcp.__main__ import main
from sourcegraph_analytics_mcp.access.secret_file import read_secret_file
from sourcegraph_analytics_mcp.cli.console import Terminal, show
from sourcegraph_analytics_mcp.cli.main import run
from sourcegraph_analytics_mcp.cli.walkthrough import STEPS, Walk
from sourcegraph_analytics_mcp.demo.company import COUNTS, Company
from sourcegraph_analytics_mcp.demo.upstream import DEMO_COOKIE, DEMO_INSTANCE
from sourcegraph_analytics_mcp.settings import Settings, SettingsError
from sourcegraph_analytics_mcp.surface.text import table
from support.client import connected
from support.stdio import COMMAND, spawned
from support.upstreams import Served

ACTIVE = "00000000-0000-0000-0000-000000000002"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own; what the command changes in its process is put back."""
    monkeypatch.setenv("SRC_ANALYTICS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    handlers, mask = logging.root.handlers[:], os.umask(0o077)
    core = resource.getrlimit(resource.RLIMIT_CORE)
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_CORE, core)
    os.umask(mask)
    logging.root.handlers[:] = handlers


@pytest.mark.parametrize(
    ("typed", "status", "says"),
    [("y\n", 0, "confirms it"), ("n\n", 1, "did not confirm"), ("", 1, "did not confirm")],
    ids=["yes", "no", "nobody there"],
)
def test_a_revoke_asks_the_person_at_the_terminal(
    typed: str, status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert run(["--demo", "token", "revoke", ACTIVE]) == status
    shown = capsys.readouterr()
    assert "Revoke access token" in shown.out
    assert says in " ".join((shown.err if status else shown.out).split())


@pytest.mark.parametrize("command", [["--version"], ["--demo", "token", "list"], ["serve", "--http", "nowhere"]])
def test_a_crash_leaves_no_image_of_memory(command: list[str]) -> None:
    """Which would hold the token and the cookie. Raised again it can be: whoever debugs needs no other shell."""
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert most != 0, "the system lets nobody leave one, so this proves nothing"
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    run(command)
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, most)


@pytest.mark.parametrize(
    "command", ["token list", "token create", "token revoke x --yes", "token reveal x", "export delete x", "login"]
)
def test_an_error_is_nothing_that_a_script_captures(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRC_ANALYTICS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SRC_ANALYTICS_CAS_COOKIE", SESSION)
    monkeypatch.setenv("SRC_ANALYTICS_RETRY_BASE_DELAY", "0")
    monkeypatch.setattr(sys, "stdin", io.StringIO(SESSION + "\n"))
    assert run(command.split()) == 1
    shown = capsys.readouterr()
    assert "[" in shown.err
    assert "yes" in shown.out if "--yes" in command else shown.out == ""


def test_a_check_names_the_token_file_to_who_can_mend_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private(home / "its-token", b"\xff\xfe")
    monkeypatch.setenv("SRC_ANALYTICS_ACCESS_TOKEN_FILE", str(home / "its-token"))
    monkeypatch.setenv("COLUMNS", "500")
    assert run(["doctor"]) == 1
    shown = capsys.readouterr()
    assert f"SRC_ANALYTICS_ACCESS_TOKEN_FILE cannot be read: {home / 'its-token'}." in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("command", [[], ["doctor"], ["token", "list"]], ids=" ".join)
@pytest.mark.parametrize("variable", ["ACCESS_TOKEN_FILE", "TEAMS_FILE", "SEATS_FILE"])
@pytest.mark.parametrize("given", ["MTcxNzAw_DAwMHx", "cas=MTcxNzAw_DAwMHx", "a/MTcxNzAw_DAwMHx", "MTcxNzAw_DAwMHx/a"])
def test_what_is_no_file_is_not_said_back(
    given: str,
    variable: str,
    command: list[str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A cookie, for one, that looks like nothing: only where it was looked for."""
    monkeypatch.chdir(home)
    monkeypatch.setenv(f"SRC_ANALYTICS_{variable}", given)
    monkeypatch.setenv("SRC_ANALYTICS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "500")
    status = run(command)
    shown = "".join(capsys.readouterr())
    says = f"SRC_ANALYTICS_{variable} cannot be read: nothing of that name can be found in {home}."
    assert "MTcxNzAw" not in shown
    read = variable != "ACCESS_TOKEN_FILE" or command != ["token", "list"]
    assert (status != 0, says in shown) == (True, read)


def test_a_file_in_a_folder_that_may_not_be_entered_is_not_said_to_be_missing() -> None:
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as top:
        shut = Path(top) / "shut"
        shut.mkdir()
        (shut / "token").touch()
        shut.chmod(0)
        Path(top).chmod(0o755)
        try:
            if root:  # who may enter all
                os.seteuid(65534)
            with pytest.raises(SettingsError) as error:
                read_secret_file(shut / "token")
        finally:
            if root:
                os.seteuid(0)
            shut.chmod(0o700)
    says = f"SRC_ANALYTICS_ACCESS_TOKEN_FILE cannot be read: this user may not look into {shut}."
    assert str(error.value) == says


def test_a_secret_that_is_not_kept_here_cannot_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--demo", "token", "reveal", ACTIVE]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "No secret of that token is stored here" in shown.err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["--demo", "token", "create", "--days", "400"], "`token create`: --days: Input should be less than"),
        (["--demo", "token", "revoke", "nope", "--yes"], "There is no token with that id. `token list` shows those"),
        (["--demo", "export", "delete", "--instance", "a b"], "--instance is not a host name."),
        (["doctor"], "Run token create (needs the session cookie)"),
        (["doctor"], "Pass instance_url with each call, or set SRC_ANALYTICS_INSTANCE"),
    ],
    ids=["a flag", "a command", "refused before a tool", "a command in a table", "an argument that only tools have"],
)
def test_a_person_is_told_of_commands_and_flags_instead_of_tools_and_arguments(
    command: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 1
    shown = capsys.readouterr()
    assert says in shown.out + shown.err


@pytest.mark.parametrize("name", ["create_token", "[ci] create_token job"])
@pytest.mark.long
def test_the_name_of_a_token_is_shown_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--demo", "token", "create", "--name", name]) == 0
    assert re.search(rf"name +{re.escape(name)}$", capsys.readouterr().out, re.MULTILINE)


def test_a_terminal_that_says_it_has_no_columns_shows_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("COLUMNS", "0"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    assert run(["--demo", "token", "list"]) == 0
    assert ACTIVE in capsys.readouterr().out


@pytest.mark.long
def test_a_path_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "list_exports" / "instance_url"
    monkeypatch.setenv("SRC_ANALYTICS_DATA_DIR", str(folder))
    assert run(["--demo", "doctor"]) == 0
    assert str(folder) in capsys.readouterr().out


@pytest.mark.parametrize("command", [["--version"], ["--demo", "token", "list"], ["--demo", "export", "list"]])
@pytest.mark.long
def test_output_that_nobody_reads_ends_a_command_as_shells_know_it(command: list[str], tmp_path: Path) -> None:
    reading, unread = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *command],
        env={"HOME": str(tmp_path)},
        stdout=unread,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(unread)
    assert (done.returncode, done.stderr) == (141, b"")


def installed(folder: Path) -> Path:
    """The command in a directory of its own, as pip makes it."""
    folder.mkdir()
    command = folder / "sourcegraph-analytics-mcp"
    command.write_text(f"#!{sys.executable}\nfrom sourcegraph_analytics_mcp.__main__ import main\n\nmain()\n")
    command.chmod(0o755)
    return command


@pytest.mark.parametrize("flags", [[], ["--demo"], ["--read-only"], ["--demo", "--read-only"]])
@pytest.mark.parametrize("client", ["claude-code", "claude-desktop"])
def test_the_entry_for_a_client_starts_what_was_asked_for(
    flags: list[str], client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = installed(tmp_path / "o'brien & son")
    monkeypatch.setattr(sys, "argv", [str(called)])
    assert run([*flags, "install", client]) == 0
    shown = capsys.readouterr().out
    if client == "claude-code":
        *command, text = shlex.split(shown)
        assert command == ["claude", "mcp", "add-json", "sourcegraph-analytics"]
        entry = json.loads(text)
    else:
        entry = json.loads(shown[shown.index("{") :])["mcpServers"]["sourcegraph-analytics"]
    assert entry["command"] == str(called)
    assert entry["args"] == flags
    assert ("SRC_ANALYTICS_INSTANCE" in entry["env"]) != ("--demo" in flags)


def private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("variable", "make", "says"),
    [
        ("ACCESS_TOKEN_FILE", lambda path: None, "cannot be read"),
        ("ACCESS_TOKEN_FILE", lambda path: private(path, b"\xff\xfe"), "cannot be read"),
        ("ACCESS_TOKEN_FILE", lambda path: private(path, b"two words"), "cannot be part of a token"),
        ("ACCESS_TOKEN_FILE", lambda path: private(path, b"token\n"), "at least 12 characters"),
        ("TEAMS_FILE", lambda path: private(path, b"ann@example.com\n"), "line 1"),
        ("SEATS_FILE", lambda path: private(path, b"username\nann\nann\n"), "line 3"),
    ],
    ids=["no token file", "no text", "no token", "too short", "teams", "seats"],
)
def test_a_wrong_file_stops_the_start(
    variable: str,
    make: Callable[[Path], None],
    says: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(home / "file")
    monkeypatch.setenv(f"SRC_ANALYTICS_{variable}", str(home / "file"))
    assert run([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"SRC_ANALYTICS_{variable}" in shown.err
    assert says in shown.err
    assert "two words" not in shown.err


PASTED = "sams_at_Zk3-x9_Qw.7hTbVn2mLp0"
SESSION = "s3ssi0n-Of.n0body"


@pytest.mark.parametrize("secret", [PASTED, SESSION])
@pytest.mark.parametrize(
    "command",
    ["", "login SECRET", "--token=SECRET doctor", "SECRET", "login --days SECRET", "install SECRET", "--demo=SECRET",
     "login -SECRET", "export list a SECRET"],
)  # fmt: skip
def test_no_secret_in_the_wrong_place_is_said_back(
    command: str, secret: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRC_ANALYTICS_CAS_COOKIE", SESSION)
    monkeypatch.setenv("SRC_ANALYTICS_TEAMS_FILE", str(home / f"{secret}.csv"))  # which is told where all else is right
    try:
        status = run(command.replace("SECRET", secret).split())
    except SystemExit as ended:
        status = int(ended.code or 0)
    shown = capsys.readouterr()
    assert (status, shown.out) == (2, "")
    assert shown.err
    assert not any(piece in shown.err for piece in (secret, secret[8:], secret.partition(".")[2]))


@pytest.mark.parametrize("sure", [[], ["--yes"]], ids=["asked", "sure"])
def test_a_question_does_not_say_back_a_secret(
    sure: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cookie = "s3ssi0n-Of-n0body"
    monkeypatch.setenv("SRC_ANALYTICS_CAS_COOKIE", cookie)
    monkeypatch.setenv("SRC_ANALYTICS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SRC_ANALYTICS_RETRY_BASE_DELAY", "0")
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert run(["token", "revoke", cookie, *sure]) == 1
    shown = capsys.readouterr()
    assert "Revoke access token [secret]?" in shown.out
    assert cookie not in shown.out + shown.err


def test_arguments_that_are_wrong_are_told_by_what_is_known_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    for command, says in {
        "--readonly doctor": "an argument is not known (--readonly);",
        "token list Xy12ZZ99ab-correcthorse Xy12ZZ99ab--correcthorse": "an argument is not known;",
        "token list correct-horse-battery-staple --all": "an argument is not known (--all);",
        "doctor --cookie A7f-_9Qx3-abcdefgh": "an argument is not known (--cookie);",
        "doctor -correct -v": "an argument is not known (-v);",
        "install emacs": "argument client: that is none of them (choose from ",
        "login --days x": "argument --days: its value cannot be used",
        "login --days": "argument --days: expected one argument",
        "token revoke": "the following arguments are required: id",
    }.items():
        with pytest.raises(SystemExit):
            run(command.split())
        assert f"error: {says}" in capsys.readouterr().err


def test_what_nobody_foresaw_is_one_line_without_what_it_says(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path, for one, which Python would print with its traceback."""
    (home / "data").write_text("")
    assert run(["--version"]) == 0
    try:
        (home / "data" / PASTED).stat()
    except OSError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    complained = capsys.readouterr().err
    assert (complained.count("\n"), complained.count("NotADirectoryError")) == (1, 1)
    assert PASTED not in complained


@pytest.mark.parametrize("variable", ["ACCESS_TOKEN", "CAS_COOKIE", "the file", "login"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (f"SRC_ANALYTICS_ACCESS_TOKEN={PASTED}", "begins with a name"),
        (f"TOKEN={PASTED}", "begins with a name"),
        (f"cas={SESSION}", "begins with a name"),
        (f"cas={SESSION}==", "begins with a name"),
        ("SRC_ANALYTICS_CAS_COOKIE", "begins with a name"),
        (f"Cookie:{SESSION}", "begins with a name"),
        (f"/etc/{SESSION}", "is the path of a file"),
        (f"~/{SESSION}", "is the path of a file"),
        (f'"{PASTED}"', "stands in quotes"),
        (f"'{SESSION}'", "stands in quotes"),
        (f'"{SESSION}', "stands in quotes"),
        (f'{SESSION}"', "stands in quotes"),
        (f"src_analytics_cas_cookie={SESSION}", "begins with a name"),
        (f"SRC_ANALYTICS_CAS_COOKIE:{SESSION}", "begins with a name"),
        (f"cas:{SESSION}", "begins with a name"),
        (f"accounts_session_v2={SESSION}", "begins with a name"),
        (f"__Host-cas={SESSION}", "begins with a name"),
        (f"Bearer:{PASTED}", "begins with a name"),
        (f"./{SESSION}", "is the path of a file"),
        (f"../{SESSION}", "is the path of a file"),
        (f"$HOME/{SESSION}", "is the path of a file"),
        (f"${{HOME}}/{SESSION}", "is the path of a file"),
        (f"file:///{SESSION}", "is the path of a file"),
    ],
)
def test_more_than_a_secret_is_refused(
    variable: str,
    given: str,
    says: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command: list[str] = []
    name = {"the file": "SRC_ANALYTICS_ACCESS_TOKEN_FILE", "login": "The cookie"}.get(variable)
    if variable == "login":
        monkeypatch.setattr(sys, "stdin", io.StringIO(given + "\n"))
        command = ["login"]
    elif variable == "the file":
        private(home / "token", given.encode())
        monkeypatch.setenv("SRC_ANALYTICS_ACCESS_TOKEN_FILE", str(home / "token"))
    else:
        monkeypatch.setenv(f"SRC_ANALYTICS_{variable}", given)
    assert run(command) == 2
    complained = capsys.readouterr().err
    assert complained.startswith(f"{name or f'SRC_ANALYTICS_{variable}'} cannot be used: it")
    assert says in complained
    assert complained.count("\n") == 1
    assert SESSION not in complained
    assert PASTED not in complained


@pytest.mark.parametrize("variable", ["CAS_COOKIE", "login"])
@pytest.mark.parametrize("given", [f"Session={SESSION}", f"cookie: session={SESSION}", f"CAS={SESSION}"])
def test_a_cookie_is_refused_with_its_name(
    variable: str, given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a setting says that it is."""
    monkeypatch.setenv("SRC_ANALYTICS_COOKIE_NAME", "session")
    monkeypatch.setattr(sys, "stdin", io.StringIO(given + "\n"))
    if variable != "login":
        monkeypatch.setenv(f"SRC_ANALYTICS_{variable}", given)
    assert run(["login"] if variable == "login" else []) == 2
    complained = capsys.readouterr().err
    assert "cannot be used: it begins with a name" in complained
    assert SESSION not in complained


@pytest.mark.parametrize(
    "secret",
    [
        "ABCDEFGHIJKLMNOP==",
        "casABCDEFGHIJ=",
        "id=0123456789abc",
        "a'0123456789abc'",
        "/nowhere/3456789",
        "/0123456789abc",
        "s:0123456789abc",
        "MTcx/.0123456789",
        "s%3Aabc.d=e=0123456",
        "mycas=0123456789",
    ],
)
def test_a_secret_is_what_may_be_one(secret: str) -> None:
    settings = Settings.from_env({"SRC_ANALYTICS_CAS_COOKIE": secret})
    assert settings.cas_cookie is not None
    assert settings.cas_cookie.get_secret_value() == secret


@pytest.mark.parametrize("command", [["doctor"], ["token", "list"], ["serve", "--http", "127.0.0.1:0"]], ids=" ".join)
@pytest.mark.parametrize("variable", ["TEAMS_FILE", "SEATS_FILE"])
def test_a_wrong_file_about_people_is_one_sentence_in_every_command_that_reads_it(
    variable: str, command: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"SRC_ANALYTICS_{variable}", str(home / "file"))
    monkeypatch.setenv("SRC_ANALYTICS_URL", "http://127.0.0.1:9")
    private(home / "file", b'"ann\n')
    assert run(command) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"SRC_ANALYTICS_{variable}, line 1: its quotes do not match.\n")


@pytest.mark.parametrize(
    "proxy",
    ["socks5://me:planted@127.0.0.1:9", "gopher://a", "http://", "me:planted@a:port", "http://a b", "http://planted]:1",
     "http://a:0"],
)  # fmt: skip
@pytest.mark.parametrize("command", [[], ["doctor"], ["serve", "--http", "127.0.0.1:0"]], ids=" ".join)
def test_a_proxy_that_cannot_be_used_stops_the_start(
    proxy: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}.items():
        monkeypatch.setenv(name, value)
    assert run(command) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("HTTPS_PROXY cannot be used: ")
    assert "planted" not in shown.err


def test_the_demo_asks_nobody_and_minds_no_proxy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://a")
    monkeypatch.setenv("https_proxy", "gopher://a")
    assert run(["--demo", "token", "list"]) == 0
    assert "3 tokens" in capsys.readouterr().out


def test_the_installed_command_is_the_module() -> None:
    (command,) = entry_points(group="console_scripts", name="sourcegraph-analytics-mcp")
    assert command.load() is main


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("PATH=mine:other sourcegraph-analytics-mcp", "mine"),
        ("PATH=other:mine mine/sourcegraph-analytics-mcp", "mine"),
        ("PATH=other:mine link/sourcegraph-analytics-mcp", "link"),
    ],
)
def test_the_entry_starts_what_was_called_from_any_directory(line: str, command: str, tmp_path: Path) -> None:
    for folder in ("mine", "other"):
        installed(tmp_path / folder)
    (tmp_path / "link").symlink_to("mine")
    done = as_a_shell_would(f"cd {shlex.quote(str(tmp_path))}; {line} --demo install cursor", tmp_path)
    entry = json.loads(done.stdout[done.stdout.index("{") :])["mcpServers"]["sourcegraph-analytics"]
    assert (entry["command"], entry["args"]) == (str(tmp_path / command / "sourcegraph-analytics-mcp"), ["--demo"])


@pytest.mark.long
def test_the_entry_of_a_module_that_was_called_starts_this_installation(tmp_path: Path) -> None:
    installed(tmp_path / "other")
    done = as_a_shell_would(f"cd {shlex.quote(str(tmp_path))}; PATH=other:$PATH $IT install cursor", tmp_path)
    entry = json.loads(done.stdout[done.stdout.index("{") :])["mcpServers"]["sourcegraph-analytics"]
    assert Path(entry["command"]).parent == Path(sys.executable).parent
    started = as_a_shell_would(f"cd /; {shlex.join([entry['command'], *entry['args'], '--version'])}", tmp_path)
    assert version("sourcegraph-analytics-mcp") in started.stdout


@pytest.mark.long
def test_the_demo_ends_with_a_line_that_works_anywhere(tmp_path: Path) -> None:
    line = as_a_shell_would("$IT demo", tmp_path).stdout.splitlines()[-1]
    done = as_a_shell_would(f"cd /; {line}", tmp_path, PATH="/nowhere")
    assert (done.returncode, '"--demo"' in done.stdout) == (0, True)


@pytest.mark.anyio
async def test_the_chart_of_the_demo_is_of_whole_weeks(settings: Settings, company: Company, tmp_path: Path) -> None:
    chart = next(step for step in STEPS if step.__name__ == "_chart")
    shown = Console(file=io.StringIO(), width=100)
    async with connected(settings) as client:
        await chart(Walk(client, shown, tmp_path))
    drawn = re.findall(r"^(\d{4}-\d\d-\d\d) +([\d,]+) ", shown.file.getvalue(), re.MULTILINE)  # type: ignore[attr-defined]
    chats: Counter[str] = Counter()
    for one in company.activities:
        chats[str(one.day - timedelta(days=one.day.weekday()))] += one.counts[COUNTS.index("chats")] or 0
    today = datetime.now(UTC).date()
    weeks = [str(today - timedelta(days=today.weekday(), weeks=ago)) for ago in range(13, 0, -1)]
    assert drawn == [(week, f"{chats[week]:,}") for week in weeks]


def test_a_table_breaks_no_name_or_day_whatever_a_letter_takes() -> None:
    """Letters of East Asia take two columns each; at a width where the table has no room, there are blocks."""
    words = ["\u6771\u4eac\u672c\u793e\u5206\u6790\u7528\u30c8\u30fc\u30af\u30f3", "2026-11-26", "2027-11-26"]
    for width in range(40, 100):
        shown = io.StringIO()
        console = Terminal(file=shown, width=width, force_terminal=True, color_system=None)
        show(console, table(["id", "name", "created", "expires", "in use"], [["tok_0123456789abcdef", *words, "yes"]]))
        assert [word for word in words if word not in shown.getvalue()] == [], width


def test_a_table_breaks_no_name_or_day_whatever_is_beside_it() -> None:
    """However many words the other cells have, and whichever of them are long."""
    names = ["2026-11-26", "ann@example.com", "exp-62e991a778cd"]
    for width in range(40, 120):
        shown = io.StringIO()
        console = Terminal(file=shown, width=width, force_terminal=True, color_system=None)
        rows = [[names[2], "a b c d e f g h i j k l m n o p", "a b", names[0], "x y z " * 3, names[1]]]
        show(console, table(["id", "note", "Name of it", "day", "Name of it", "e-mail"], rows))
        assert [name for name in names if name not in shown.getvalue()] == [], width


def test_a_table_cuts_and_breaks_no_words_of_its_first_column() -> None:
    firsts = ["Ann Maria Example of the team Platform", "00000000-0000-0000-0000-000000000002"]
    for width in range(36, 120):
        shown = io.StringIO()
        console = Terminal(file=shown, width=width, force_terminal=True, color_system=None)
        rows = [[first, "a b c d e f g h i j k l m", "2026-11-26"] for first in firsts]
        show(console, table(["what it is", "note", "day"], rows))
        words = Counter(" ".join(firsts).split())
        assert not words - Counter(shown.getvalue().split()), width


def test_the_help_names_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["--help"])
    assert "--version" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run(["--demo", "--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sourcegraph-analytics-mcp {version('sourcegraph-analytics-mcp')}\n"


def test_the_version_is_that_of_the_package_whatever_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRC_ANALYTICS_LOG_LEVEL", "LOUD")
    assert run(["--version"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"sourcegraph-analytics-mcp {version('sourcegraph-analytics-mcp')}\n", "")


def test_serve_is_what_it_does_without_a_command(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo", "serve") as raw:
        raw.handshake()
        assert raw.process.stdin is not None
        raw.process.stdin.close()
        assert raw.process.wait(5) == 0


@pytest.mark.parametrize(("cookie", "status"), [(DEMO_COOKIE, 0), ("two words", 2), ("shrt-sessn", 2)])
@pytest.mark.long
def test_login_takes_the_cookie_unseen_and_keeps_a_token(
    tmp_path: Path, upstream: Served, cookie: str, status: int
) -> None:
    environment = {
        "HOME": str(tmp_path),
        "SRC_ANALYTICS_URL": upstream.url,
        "SRC_ANALYTICS_INSTANCE": DEMO_INSTANCE,
        "SRC_ANALYTICS_DATA_DIR": str(tmp_path / "data"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "login", "--days", "7"], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        asked = b""
        while not asked.endswith(b"(hidden): "):
            asked += process.stderr.read(1)
        os.write(keyboard, f"{cookie}\n".encode())
        shown, complained = process.communicate(timeout=20)
    os.set_blocking(keyboard, False)
    with pytest.raises(BlockingIOError):  # nothing was echoed
        os.read(keyboard, 1000)
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode == status, complained
    assert cookie.encode() not in shown + complained
    assert len(list((tmp_path / "data").glob("secrets/*"))) == (0 if status else 1)
    assert len(upstream.sent("POST")) == (0 if status else 1)


@pytest.mark.parametrize("command", ["login", "token create", "token revoke x"])
def test_read_only_no_command_changes_tokens(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--demo", "--read-only", *command.split()]) == 2
    assert capsys.readouterr().err == "SRC_ANALYTICS_READ_ONLY (or --read-only) leaves out what changes tokens.\n"


def test_login_without_anybody_to_ask_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "login"], env={"HOME": str(tmp_path)}, stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
        check=False, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.decode().endswith("No cookie was given: run `login` at a terminal, or pipe the cookie in.\n")
    assert b"Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("room", "begins"),
    [
        (10, "The demo ended early: [secret_store_unavailable] "),  # bytes; no secret fits
        (0, "[store_corrupt] The demo has no place for its files. Set TMPDIR "),
    ],
)
def test_a_walk_that_goes_wrong_ends_there_with_one_sentence(tmp_path: Path, room: int, begins: str) -> None:
    done = subprocess.run(
        [*COMMAND, "demo"], env={"HOME": str(tmp_path)}, capture_output=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    assert done.returncode == 1
    (sentence,) = done.stderr.decode().splitlines()
    assert sentence.startswith(begins)
    assert "Export the usage" not in done.stdout.decode()


def as_a_shell_would(line: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line in which `$IT` is the command; its exit status is that of the last in a pipe."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "IT": shlex.join(COMMAND)} | more
    return subprocess.run(
        ["/bin/sh", "-c", line], env=environment, capture_output=True, text=True,
        timeout=60, check=False, encoding="latin-1", start_new_session=True,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "status", "complaint"),
    [
        ("$IT --version | true", 141, ""),
        ("$IT --demo token list | true", 1, ""),
        ("$IT demo | true", 141, ""),
        ("$IT --version > /dev/full", 1, "The output could not be written: No space left on device.\n"),
        ("$IT --help > /dev/full", 1, "The output could not be written: No space left on device.\n"),
        ("$IT demo > /dev/full", 1, "The output could not be written: No space left on device.\n"),
        ("$IT --demo token list <&-", 0, ""),
        ("$IT --demo doctor >&-", 0, ""),
        ("$IT --demo token list 2>&-", 0, ""),
        ("$IT --demo <&-", 0, ""),
        ("$IT --demo >&- </dev/null", 0, ""),
        ("$IT <&- >&- 2>&-", 0, ""),
        ("$IT login <&-", 2, "No cookie was given: run `login` at a terminal, or pipe the cookie in.\n"),
    ],
)
def test_streams_that_are_closed_full_or_read_by_nobody_leave_no_traceback(
    line: str, status: int, complaint: str, tmp_path: Path
) -> None:
    done = as_a_shell_would(line, tmp_path, SRC_ANALYTICS_LOG_LEVEL="ERROR")
    assert done.stderr == complaint
    if "|" not in line:  # what nobody reads may be written before they leave
        assert done.returncode == status


@pytest.mark.long
@pytest.mark.parametrize(
    ("encoding", "command", "last"),
    [("ascii", "demo", "Everything above came from a made-up company"), ("latin-1", "--demo token list", "expired")],
)
def test_a_terminal_of_another_encoding_is_shown_everything(
    encoding: str, command: str, last: str, tmp_path: Path
) -> None:
    done = as_a_shell_would(f"$IT {command}", tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert last in done.stdout


@pytest.mark.long
def test_a_cookie_that_is_piped_in_is_taken_without_a_word(tmp_path: Path, upstream: Served) -> None:
    more = {
        "SRC_ANALYTICS_URL": upstream.url,
        "SRC_ANALYTICS_INSTANCE": DEMO_INSTANCE,
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
    done = as_a_shell_would(f"echo {DEMO_COOKIE} | $IT login", tmp_path, **more)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The token was created" in done.stdout
    assert f"sourcegraph-analytics-mcp on {os.uname().nodename}" in done.stdout
    more |= {"SRC_ANALYTICS_CAS_COOKIE": DEMO_COOKIE, "SRC_ANALYTICS_IDENTITIES": "pseudonyms"}
    listed = as_a_shell_would("COLUMNS=200 $IT token list", tmp_path, **more)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "sourcegraph-analytics-mcp on (hidden)" in listed.stdout
    assert os.uname().nodename not in listed.stdout


def interrupted(command: list[str], asked: bytes, environment: dict[str, str], wait: Callable[[], object]) -> int:
    """How many interrupts it takes to end a command, once it has asked; one right before a read is not heard."""
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *command], stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    ) as process:
        os.close(terminal)
        too_long = threading.Timer(20, process.kill)
        too_long.start()
        shown = b""
        if not asked:
            wait()
        while asked not in shown:
            shown += os.read(keyboard, 4096)
        sent, more = 0, b"shown"
        while more:
            process.send_signal(signal.SIGINT)
            sent += 1
            assert sent < 5
            while more and select.select([keyboard], [], [], 10)[0]:
                try:
                    more = os.read(keyboard, 4096)
                except OSError:  # nobody writes any more
                    more = b""
                shown += more
        assert process.wait(20) == 130
        too_long.cancel()
    os.close(keyboard)
    assert b"Traceback" not in shown
    assert b"CRITICAL" not in shown
    return sent


@pytest.mark.parametrize(
    ("command", "asked"),
    [(["login"], b"(hidden): "), (["--demo", "token", "revoke", ACTIVE], b"(n)"), (["doctor"], b"")],
    ids=["a secret", "yes or no", "nothing"],
)
@pytest.mark.long
def test_an_interrupt_ends_a_command_without_a_traceback(command: list[str], asked: bytes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "HOME": str(tmp_path),
            "SRC_ANALYTICS_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "SRC_ANALYTICS_INSTANCE": DEMO_INSTANCE,
            "SRC_ANALYTICS_ACCESS_TOKEN": "sams_at_never-answered",
        }
        assert any(interrupted(command, asked, environment, silent.accept) == 1 for _ in range(3))
