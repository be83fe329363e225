"""Create, list and revoke access tokens. A secret goes to the secret store, never to the model."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from mcp_types import InputRequiredResult
from pydantic import AwareDatetime, BeforeValidator, Field

from ...access.tokens import Created
from ...errors import AnalyticsError, invalid
from ...spelling import safe
from ...upstream.models import Token
from ..app import App
from ..call import Call
from ..nameless import nameless_token
from ..text import fitting, iso, plural, short, table
from ..tool import Answer, Arguments, Hints, Reply, tool

_LONGEST = timedelta(days=366)
_LEFT = {
    None: "",
    "entry": " Its entry in this server's index of tokens could not be removed, which does no harm; check that "
    "SRC_ANALYTICS_DATA_DIR is writable.",
    "secret": " Its secret, which no longer works, may still be where this server kept it: the place could not be "
    "changed (a keyring that is locked, a system without threads, or SRC_ANALYTICS_DATA_DIR that is not writable).",
    "unanswered": " Its secret, which no longer works, may still be in the system's keyring, which has not answered in "
    "time: it may be asking somebody. Call revoke_token again to have it removed.",
}
_HIDDEN_NAMES = (
    "Names of tokens are hidden, as they may name people (SRC_ANALYTICS_IDENTITIES=pseudonyms); ids tell them apart."
)
_WARNINGS = {
    True: " It is the one that exports here use.",
    None: " It may be the one that exports here use: that was set by the operator, and which it is, is not known.",
    False: "",
}
_MAY_BE_OTHERS = " It was not made by you here, so others here may use it: ask the operator of this server."


def _iso_time(value: object) -> object:
    if not (isinstance(value, str) and re.match(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:", value, re.ASCII)):
        raise ValueError("send a time with its zone, like 2026-12-31T23:59:59Z")
    return value


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_iso_time)]


class TokenEntry(Answer):
    id: str
    display_name: str | None
    created_at: str
    expires_at: str | None
    is_expired: bool


class ListedToken(TokenEntry):
    in_use: bool | None


class CreateTokenArguments(Arguments):
    """A name and when it ends."""

    display_name: Annotated[str | None, Field(min_length=1, max_length=200, description="What the token is for")] = None
    expires_at: Annotated[Time | None, Field(description="RFC 3339 time of expiry")] = None
    expires_in_days: Annotated[int | None, Field(ge=1, le=366, description="Days until expiry (90)")] = None
    never_expires: Annotated[bool, Field(description="Only if the user insists")] = False


class CreateTokenAnswer(Answer):
    token: TokenEntry
    secret: str | None
    secret_fingerprint: str
    secret_stored_in: str
    notes: list[str]


@tool(title="Create access token", answer=CreateTokenAnswer, hints=Hints(), changes_upstream=True)
async def create_token(app: App, arguments: CreateTokenArguments, call: Call) -> Reply:
    """Create a Sourcegraph Analytics access token. Its secret is stored for this server, which uses it from then on,
    unless the operator set SRC_ANALYTICS_ACCESS_TOKEN or its _FILE: that one stays in use."""
    notes = await app.tokens.settled()
    created = await app.tokens.create(arguments.display_name, _expiry(arguments))
    notes = [*notes, *created.notes]
    token = created.token
    name = _name(app, token.display_name, arguments.display_name)
    if name != token.display_name:
        notes = [*notes, _HIDDEN_NAMES]
    entry = TokenEntry(
        id=token.id,
        display_name=name,
        created_at=iso(token.created_at),
        expires_at=iso(token.expires_at) if token.expires_at else None,
        is_expired=False,
    )
    reveal = app.settings.secret_delivery == "reveal"  # noqa: S105
    answer = CreateTokenAnswer(
        token=entry,
        secret=None,
        secret_fingerprint=created.stored.fingerprint,
        secret_stored_in=_place(app, created),
        notes=notes,
    )
    told = await _told(app, answer, created) + _noted(notes)
    return Reply(told, answer, reveals=token.secret if reveal else None)


def _name(app: App, name: str | None, sent: str | None = None) -> str | None:
    return nameless_token(name, sent) if app.masked else name


def _expiry(arguments: CreateTokenArguments) -> datetime | None:
    given = (arguments.expires_at is not None, arguments.expires_in_days is not None, arguments.never_expires)
    if sum(given) > 1:
        raise invalid("More than one expiry was given.", "Send one of expires_at, expires_in_days, never_expires.")
    if arguments.never_expires:
        return None
    now = datetime.now(UTC)
    expiry = arguments.expires_at or now + timedelta(days=arguments.expires_in_days or 90)
    if not now < expiry <= now + _LONGEST:
        raise invalid("expires_at is not within the next 366 days.", "Send a later or earlier time.")
    return expiry.astimezone(UTC).replace(microsecond=0)


def _place(app: App, created: Created) -> str:
    if created.stored.place == "keyring":
        return "the system's keyring"
    folder = f", in {app.settings.home / 'secrets'}" if app.shows_paths else ""
    why = "the demo uses no keyring" if app.settings.demo else "this system has no keyring"
    return f"a file only this server's user can read{folder} ({why})"


async def _told(app: App, answer: CreateTokenAnswer, created: Created) -> str:
    source = await app.credentials.source()
    use = "this server uses it from now on" if source == "secret store" else f"this server goes on using {source}"
    end = answer.token.expires_at or "never"
    name = answer.token.display_name or "(no name)"
    facts = [("id", answer.token.id), ("name", name), ("expires", end), ("fingerprint", answer.secret_fingerprint)]
    return f"The token was created; its secret is in {answer.secret_stored_in}; {use}.\n\n{table(('', ''), facts)}"


class ListTokensArguments(Arguments):
    include_expired: Annotated[bool, Field(description="Also list expired and revoked ones")] = True


class ListTokensAnswer(Answer):
    tokens: list[ListedToken]
    total: int
    active: int
    expired: int
    notes: list[str]


@tool(title="List access tokens", answer=ListTokensAnswer, hints=Hints(read_only=True, idempotent=True))
async def list_tokens(app: App, arguments: ListTokensArguments, call: Call) -> Reply:
    """List the signed-in user's access tokens; expired and revoked look alike upstream. Secrets are never listed."""
    notes = await app.tokens.settled()
    listed = await app.tokens.listed()
    notes = [*notes, *await app.tokens.ended(listed)]
    every = listed.tokens
    if not listed.whole:
        notes = [*notes, "Upstream lists only a part of the tokens here (it names a next page); the counts are of it."]
    expired = sum(token.is_expired for token in every)
    shown = [token for token in every if arguments.include_expired or not token.is_expired]
    in_use = await app.credentials.in_use(*(token.id for token in shown))
    entries = [_entry(token, _name(app, token.display_name), in_use=in_use[token.id]) for token in shown]
    if any(_name(app, token.display_name) != token.display_name for token in shown):
        notes = [*notes, _HIDDEN_NAMES]
    if any(entry.in_use is None for entry in entries):
        notes = [*notes, await _unknown(app)]
    count = fitting(list(entry.model_dump().values()) for entry in entries)
    if count < len(entries):
        notes = [*notes, f"Listed: the first {count} of {len(entries):,}; the counts are over all."]
    answer = ListTokensAnswer(
        tokens=entries[:count], total=len(every), active=len(every) - expired, expired=expired, notes=notes
    )
    head = f"{plural(len(every), 'token')}: {answer.active} active, {expired} expired or revoked."
    rows = [(t.id, t.display_name, t.created_at[:10], (t.expires_at or "never")[:10], _state(t)) for t in answer.tokens]
    body = f"\n\n{table(('id', 'name', 'created', 'expires', 'state'), rows)}" if rows else ""
    return Reply(head + body + _noted(notes), answer, rows=count)


def _noted(notes: list[str]) -> str:
    return "".join(f"\n\nNote: {safe(note)}" for note in notes)


async def _unknown(app: App) -> str:
    """Why nobody here knows which token is in use."""
    if app.remote:
        return (
            "Tokens that you did not make here may be used by others here, so in_use is null. "
            "Ask the operator of this server before revoking one."
        )
    source = await app.credentials.source()
    return (
        f"Which token exports use is not known: {source} holds one that was not made here, so in_use is null. "
        "Ask whoever set it before revoking any."
    )


def _entry(token: Token, name: str | None, *, in_use: bool | None) -> ListedToken:
    return ListedToken(
        id=token.id,
        display_name=short(name),
        created_at=iso(token.created_at),
        expires_at=iso(token.expires_at) if token.expires_at else None,
        is_expired=token.is_expired,
        in_use=bool(in_use) if token.is_expired else in_use,  # one that does not work is not perhaps in use
    )


def _state(token: ListedToken) -> str:
    if token.is_expired:
        return "expired; in use here" if token.in_use else "expired"
    return {True: "in use here", False: "active", None: "active; use unknown"}[token.in_use]


class RevokeTokenArguments(Arguments):
    token_id: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$", description="Id from list_tokens")]
    confirm: Annotated[bool, Field(description="True once the user agreed, where no dialog can be shown")] = False


class RevokeTokenAnswer(Answer):
    token_id: str
    outcome: Literal["revoked", "already_expired"]
    verified: bool


@tool(
    title="Revoke access token",
    answer=RevokeTokenAnswer,
    hints=Hints(destructive=True, idempotent=True),
    changes_upstream=True,
)
async def revoke_token(app: App, arguments: RevokeTokenArguments, call: Call) -> Reply | InputRequiredResult:
    """Revoke an access token for good, after the user confirms; whatever uses it stops working."""
    token_id = arguments.token_id
    in_use = (await app.credentials.in_use(token_id))[token_id]
    warning = _MAY_BE_OTHERS if in_use is None and app.remote else _WARNINGS[in_use]
    agreed = await call.confirmed(
        f"Revoke access token {token_id}? Whatever uses it stops working; this is for good.{warning}"
    )
    if isinstance(agreed, InputRequiredResult):
        return agreed
    if agreed is None and not arguments.confirm:
        raise AnalyticsError(
            "forbidden",
            f"Nothing was revoked: this client cannot ask the user to confirm.{warning}",
            "Ask the user; if they agree, call again with confirm=true.",
        )
    if agreed is False:
        raise AnalyticsError("cancelled", "Nothing was revoked: the user did not confirm.", "Leave it at that.")
    revoked = await app.tokens.revoke(token_id)
    outcome = revoked.outcome
    answer = RevokeTokenAnswer(token_id=token_id, outcome=outcome, verified=outcome == "revoked")
    if outcome == "already_expired":
        done = f"Token {safe(token_id)} had already expired or been revoked; nothing was changed upstream."
    else:
        done = f"Token {safe(token_id)} was revoked, and the token list confirms it."
    return Reply(f"{done}{await _next(app, in_use)}{_LEFT[revoked.left]}", answer)


async def _next(app: App, in_use: bool | None) -> str:
    """What exports use after a token has gone that they used, or perhaps used."""
    if in_use is None:
        return " Exports may have used it: check_connection says whether they still work."
    if not in_use:
        return ""
    try:
        left = await _left_to_exports(app)
    except AnalyticsError:  # which must not hide that the token was revoked
        left = "check_connection says what exports use now"
    return f" It was the one this server used; {left}."


async def _left_to_exports(app: App) -> str:
    if app.credentials.setting is not None:
        return f"exports need another now, in {app.credentials.setting}"
    if await app.credentials.source() is None:
        return "exports need another now"
    used = await app.credentials.token_in_use()
    return f"exports use {f'the older token {used}' if used else 'the one that the operator made'} from now on"
