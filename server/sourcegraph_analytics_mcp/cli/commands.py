"""The commands besides serving. Each talks to the server in this process as any MCP client would."""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from pydantic import SecretStr

from ..disk import in_thread
from ..errors import AnalyticsError
from ..pasted import said_back
from ..settings import PREFIX, Settings, SettingsError, header_safe
from .leaving import asking, run
from .log import configure_log, log_the_unforeseen
from .saying import Parser, masked, say
from .start import check_files, serve, with_upstream
from .wording import for_a_person

_LONGEST_LINE = 1 << 16  # characters
_FLAGS = {"expires_in_days": "--days", "display_name": "--name", "token_id": "id"}


def dispatch(arguments: Sequence[str]) -> int:
    """Parse the arguments and run the command they name."""
    options = _parser().parse_args(list(arguments))
    overrides = {name: True for name in ("demo", "read_only") if getattr(options, name)}
    settings = Settings.from_env(os.environ, **overrides)
    if settings.read_only and options.changes_tokens:
        raise SettingsError(f"{PREFIX}READ_ONLY (or --read-only) leaves out what changes tokens.")
    try:
        return int(_COMMANDS[options.command or "serve"](settings, options))
    except AnalyticsError as error:
        say(for_a_person(error.text, {"instance_url": "--instance"}))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sourcegraph-analytics-mcp",
        description="MCP server for Sourcegraph Analytics. Without a command it serves one client over stdio.",
        epilog=f"Settings come from the environment ({PREFIX}...); README.md lists them.",
    )
    number = version("sourcegraph-analytics-mcp")
    parser.add_argument("--version", action="version", version=f"%(prog)s {number}", help="print the version and end")
    parser.add_argument("--demo", action="store_true", help="serve a made-up company: no account, no network")
    parser.add_argument("--read-only", action="store_true", help="leave out the tools that change something upstream")
    parser.set_defaults(changes_tokens=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serving = commands.add_parser("serve", help="serve one client over stdio (the default), or many over HTTP")
    serving.add_argument("--http", metavar="HOST:PORT", help="serve over streamable HTTP, like 127.0.0.1:8080")
    commands.add_parser("demo", help="watch the whole job on a made-up company")
    commands.add_parser("doctor", help="say what is configured and whether it works")
    login = commands.add_parser("login", help="make and store an access token from a session cookie")
    login.add_argument("--days", type=int, default=90, help="days until the token expires (90)")
    login.set_defaults(changes_tokens=True)
    install = commands.add_parser("install", help="print the entry for a client's configuration")
    install.add_argument("client", choices=("claude-desktop", "claude-code", "cursor", "vscode"))
    token = commands.add_parser("token", help="list, create, revoke or reveal access tokens")
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list access tokens")
    create = actions.add_parser("create", help="create a token and store its secret")
    create.add_argument("--name", help="what the token is for")
    create.add_argument("--days", type=int, default=90, help="days until it expires (90)")
    create.set_defaults(changes_tokens=True)
    revoke = actions.add_parser("revoke", help="revoke a token")
    revoke.add_argument("id")
    revoke.add_argument("--yes", action="store_true", help="do not ask")
    revoke.set_defaults(changes_tokens=True)
    reveal = actions.add_parser("reveal", help="print the secret of a token made here")
    reveal.add_argument("id")
    export = commands.add_parser("export", help="list or delete the exports that are kept on this machine")
    actions = export.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list exports, of every caller")
    delete = actions.add_parser("delete", help="delete every copy of exports; upstream keeps its data")
    which = delete.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", help="one export")
    which.add_argument("--instance", metavar="HOST", help="those of one instance")
    which.add_argument("--all", action="store_true", help="all of them, also those that cannot be read")
    return parser


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    address = getattr(options, "http", None)
    if address is None:
        return serve(settings)
    from .http.serving import serve_http

    check_files(settings)
    configure_log(settings)
    log_the_unforeseen()
    return serve_http(*with_upstream(settings), address)


def _demo(settings: Settings, options: argparse.Namespace) -> int:
    from .walkthrough import walk

    return run(walk)


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    flags = {"instance_url": "instance_url with each call"}  # which the assistants do that this is about
    if settings.access_token_file is not None:
        flags["that file"] = masked(said_back(settings.access_token_file))  # which no assistant needs to know
    return _tool(settings, "check_connection", {}, flags=flags, succeeded=lambda data: bool(data["ok"]))


def _login(settings: Settings, options: argparse.Namespace) -> int:
    try:
        typed = _asked(f"Session cookie `{settings.cookie_name}` of {settings.url} (hidden): ")
        cookie = header_safe(typed, cookie=settings.cookie_name)
    except (EOFError, UnicodeDecodeError):
        raise SettingsError("No cookie was given: run `login` at a terminal, or pipe the cookie in.") from None
    except ValueError as error:
        raise SettingsError(f"The cookie cannot be used: {error}.") from None
    known = settings.model_copy(update={"cas_cookie": SecretStr(cookie)})
    return _tool(
        known, "create_token", {"display_name": _machine_name(), "expires_in_days": options.days}, flags=_FLAGS
    )


def _asked(prompt: str) -> str:
    """What the person at the terminal types unseen; the line that is piped in where there is none.

    Raises:
        EOFError: when nobody is there to ask.
    """
    if sys.stdin.isatty():
        with asking():  # so that the terminal shows again what is typed
            return getpass.getpass(prompt)
    line = sys.stdin.readline(_LONGEST_LINE)
    if not line.strip():
        raise EOFError
    return line


def _machine_name() -> str:
    return f"sourcegraph-analytics-mcp on {os.uname().nodename}"[:200]


def _token(settings: Settings, options: argparse.Namespace) -> int:
    match options.action:
        case "list":
            return _tool(settings, "list_tokens", {})
        case "create":
            named = {"display_name": options.name} if options.name else {}
            return _tool(settings, "create_token", {**named, "expires_in_days": options.days}, flags=_FLAGS)
        case "revoke":
            return _tool(settings, "revoke_token", {"token_id": options.id}, flags=_FLAGS, assume_yes=options.yes)
        case _:
            return _reveal(settings, options.id)


def _reveal(settings: Settings, token_id: str) -> int:
    from ..access.secret_store import SecretStore

    settings, _ = with_upstream(settings)
    store = SecretStore(settings.home, settings.url, keyring=not settings.demo)

    def looked_up() -> SecretStr | None:
        kept = ((one, token) for one in store.with_callers() for token in one.tokens() if token.id == token_id)
        return next(filter(None, (one.secret(token) for one, token in kept)), None)

    secret = run(partial(in_thread, looked_up))
    if secret is None:
        raise AnalyticsError("not_found", "No secret of that token is stored here.", "`token list` shows all tokens.")
    print(secret.get_secret_value())  # noqa: T201 - the one place that shows a secret, to the person who asked
    return 0


def _tool(settings: Settings, name: str, arguments: dict[str, Any], *, assume_yes: bool = False, **how: Any) -> int:
    from .client import TerminalClient

    configure_log(settings.model_copy(update={"log_level": "ERROR"}))
    settings, upstream = with_upstream(settings)
    return run(lambda: TerminalClient(settings, upstream, assume_yes=assume_yes).show(name, arguments, **how))


def _export(settings: Settings, options: argparse.Namespace) -> int:
    from ..surface.kept import listed, purge, unreadable
    from ..surface.text import plural
    from .console import Terminal, show

    configure_log(settings.model_copy(update={"log_level": "ERROR"}))
    if options.action == "list":
        show(Terminal(), run(partial(in_thread, listed, settings)))
        return 0
    count = run(partial(in_thread, purge, settings, options.id, options.instance))
    print(f"{plural(count, 'export')} deleted, every copy.{unreadable(settings)}")  # noqa: T201
    return 0


def _install(settings: Settings, options: argparse.Namespace) -> int:
    from .install import entry

    print(entry(options.client, demo=settings.demo, read_only=settings.read_only))  # noqa: T201
    return 0


_COMMANDS = {
    "serve": _serve,
    "demo": _demo,
    "doctor": _doctor,
    "login": _login,
    "install": _install,
    "token": _token,
    "export": _export,
}
