"""The Analytics API, one method per call. Cookie and bearer never meet in one request."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from ..errors import AnalyticsError
from .http import Answer, Http, Request, read_whole
from .markup import ENOUGH_MARKUP, refuse_markup, visible
from .models import NewToken, ReportRequest, TokenList, TokenRequest, Written, dated_query
from .policy import Failed, empty, misread

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
_Get = Callable[..., Request]  # but for its credential
_TOKENS = "/api/service-access-tokens"
_DEEPEST = 50  # levels of an answer whose shape is not documented
_MOST_BLANK = 64 << 10  # bytes before the first visible one
_OTHER_FILES = (b"%PDF", b"PK\x03\x04", b"\x1f\x8b")  # PDF, ZIP, gzip inside of gzip


class Credentials(Protocol):
    """Where the two credentials come from; each raises `auth_missing` with how to set it."""

    def cookie(self) -> tuple[str, str]: ...

    async def bearer(self) -> str: ...

    def taken(self, secret: str) -> None:
        """Upstream took the access token."""

    def refused(self, secret: str, error: AnalyticsError) -> AnalyticsError:
        """Upstream did not take it: the error with what is known of that token; `bearer` looks for another then."""


class Analytics:
    """The typed client. Every failure is an `AnalyticsError`, except where a method says otherwise."""

    def __init__(self, http: Http, credentials: Credentials) -> None:
        self._http = http
        self._credentials = credentials

    async def list_tokens(self) -> TokenList:
        """List the signed-in user's access tokens, newest first as upstream gives them."""

        async def receive(answer: Answer) -> TokenList:
            return _parsed(TokenList, await read_whole(answer, "list"))

        return await self._send(Request("list", "GET", _TOKENS, self._cookie()), receive)

    async def create_token(self, request: TokenRequest) -> NewToken:
        """Create a token; sent at most once.

        Raises:
            Failed: with its outcome, because the caller must know whether a token may exist after it.
        """

        async def receive(answer: Answer) -> NewToken:
            return _parsed(NewToken, await read_whole(answer, "create"))

        post = Request("create", "POST", _TOKENS, self._cookie(), json=request.body(), success=frozenset({200, 201}))
        return await self._http.send(post, receive)

    async def revoke_token(self, token_id: str) -> None:
        """Ask upstream to revoke a token; only the token list proves that it did.

        Raises:
            Failed: with its outcome; 404 and lost answers are for the list to decide.
        """

        async def receive(answer: Answer) -> None:
            await read_whole(answer, "revoke")

        path = f"{_TOKENS}/{quote(token_id, safe='')}"
        success = frozenset({200, 202, 204})
        await self._http.send(Request("revoke", "DELETE", path, self._cookie(), success=success), receive)

    async def report(self, request: ReportRequest, limit: int, receive: Callable[[Answer], Awaitable[T]]) -> T:
        """Stream a usage report into `receive`, once per attempt, each from its first byte.

        Args:
            limit: the most decoded bytes that are accepted.
        """

        async def checked(answer: Answer) -> T:
            _refuse_endless(answer)
            return await receive(replace(answer, body=_csv_only(answer.body)))

        path = "/api/reports/by-user-client-date"
        get = partial(Request, "report", "GET", path, query=request.query(), limit=limit)
        return await self._with_bearer(get, checked)

    async def try_bearer(self, instance_url: str, secret: str | None = None) -> None:
        """Make one cheap call with a given secret, or with the access token in use.

        Raises:
            AnalyticsError: what upstream says to it; `auth_rejected` when the secret does not work.
        """

        async def receive(answer: Answer) -> None:
            await read_whole(answer, "read")

        get = partial(Request, "read", "GET", "/api/credits", query={"instanceURL": instance_url})
        await (self._with_bearer(get, receive) if secret is None else self._as_bearer(get, secret, receive))

    async def credits(self, instance_url: str, start: date | None, end: date | None) -> Any:
        """The credit buckets as upstream gives them: JSON where it is JSON, else text (the shape is not documented)."""

        async def receive(answer: Answer) -> Any:
            _refuse_endless(answer)
            return _json_or_text(await read_whole(answer, "read"))

        get = partial(Request, "read", "GET", "/api/credits", query=dated_query(instance_url, start, end))
        return await self._with_bearer(get, receive)

    async def user_registry(self, instance_url: str) -> str | None:
        """The user registry as CSV text, or None where upstream does not have it (it is not documented)."""

        async def receive(answer: Answer) -> str:
            _refuse_endless(answer)
            return (await read_whole(answer, "read")).decode("utf-8-sig", errors="replace")

        query = {"instanceURL": instance_url}
        path = "/api/reports/user-registry"
        try:
            return await self._with_bearer(partial(Request, "read", "GET", path, query=query), receive)
        except AnalyticsError as error:
            if error.code in ("instance_denied", "unsupported"):
                return None
            raise

    async def _send(self, request: Request, receive: Callable[[Answer], Awaitable[T]]) -> T:
        try:
            return await self._http.send(request, receive)
        except Failed as failed:
            raise failed.error from None

    async def _with_bearer(self, get: _Get, receive: Callable[[Answer], Awaitable[T]]) -> T:
        """Send with the access token in use; while upstream refuses it and another is in use by now, with that one."""
        secret = await self._credentials.bearer()
        tried = {secret}
        while True:
            try:
                return await self._as_bearer(get, secret, receive)
            except AnalyticsError as error:
                another = await self._another_than(tried) if error.code == "auth_rejected" else None
                if another is None:
                    raise
            tried.add(secret := another)

    async def _another_than(self, tried: set[str]) -> str | None:
        """The access token in use where it is none of these; None without one."""
        try:
            now = await self._credentials.bearer()
        except AnalyticsError:  # of the one that was refused more is known
            return None
        return None if now in tried else now

    async def _as_bearer(self, get: _Get, secret: str, receive: Callable[[Answer], Awaitable[T]]) -> T:
        """Send with an access token, and keep account of whether upstream takes it."""
        try:
            answer = await self._send(get(credential=("Authorization", f"Bearer {secret}")), receive)
        except AnalyticsError as error:
            raise self._credentials.refused(secret, error) if error.code == "auth_rejected" else error from None
        self._credentials.taken(secret)
        return answer

    def _cookie(self) -> tuple[str, str]:
        name, value = self._credentials.cookie()
        return "Cookie", f"{name}={value}"


async def _csv_only(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass a body on once its first visible bytes can begin a CSV header."""
    head = await _head(body)
    if not visible(head):
        raise empty()
    _refuse_other_than_csv(head)
    yield head
    async for piece in body:
        yield piece


async def _head(body: AsyncIterator[bytes]) -> bytes:
    """Read as much of a body as tells what it is."""
    head = b""
    async for piece in body:
        head += piece
        seen = visible(head)
        if len(head) - len(seen) > _MOST_BLANK:
            raise misread("Upstream answered with blank lines instead of a CSV report.")
        if len(seen) >= (ENOUGH_MARKUP if seen[:1] == b"<" else max(map(len, _OTHER_FILES))):
            break
    return head


def _refuse_endless(answer: Answer) -> None:
    """Refuse a body that ends with the connection; JSON of ours proves its own end."""
    if not answer.framed:
        raise misread(
            "Upstream does not say where its answer ends, so a cut one would look whole.", "upstream_incomplete"
        )


def _refuse_other_than_csv(head: bytes) -> None:
    refuse_markup(head, "report")
    if visible(head)[:1] in (b"{", b"["):
        raise misread("Upstream answered with JSON instead of a CSV report, usually an error message of its own.")
    if visible(head).startswith(_OTHER_FILES):
        raise misread("Upstream answered with a file of another kind instead of a CSV report.")


def _parsed(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        raise misread("Upstream's answer does not have the documented shape.", "upstream_schema_changed") from None


def _json_or_text(body: bytes) -> Any:
    text = body.decode("utf-8-sig", errors="replace")
    try:
        value = json.loads(text, parse_float=Written, object_pairs_hook=_of_different_keys)
    except ValueError:
        return text
    except RecursionError:
        raise _too_deep() from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise _too_deep()


def _of_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one that has a key twice would lose a value, so its document is no more than text."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in one object twice")
    return found


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep() -> Failed:
    return misread("Upstream's answer is nested too deeply to be data.", "upstream_schema_changed")
