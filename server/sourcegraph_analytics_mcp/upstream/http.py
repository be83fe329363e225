"""The one shared HTTP client, by httpx (the SDK brings httpx2, a different package).

It sends to the configured upstream and nowhere else: no redirects, no cookie jar, no .netrc, and it is opened by the
first request, so that nothing is loaded or contacted before it is asked.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import anyio

from ..errors import AnalyticsError, used_up
from ..settings import Settings
from .body import decoded, steady
from .markup import refuse_markup
from .policy import (
    LONGEST_WAIT,
    MOST_WAITING,
    Call,
    Failed,
    RetryBudget,
    backoff,
    broken,
    may_retry,
    refusal,
    retry_after,
    silent,
    unsent,
    untrusted,
)
from .proxies import proxy_for
from .trust import context_for, unread
from .wire import Wire, refuse_absurd

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_READ = 1 << 18  # bytes
CALLED = "sourcegraph-analytics-mcp"  # what it tells every server that it asks
_FIRST_BYTE = 30.0  # seconds without a byte that anything but a report is given, as somebody waits for it


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a caller describes it: relative to upstream's address, with its one credential header."""

    call: Call
    method: str
    path: str
    credential: tuple[str, str]
    query: Mapping[str, str] | None = None
    json: Mapping[str, str] | None = None
    success: frozenset[int] = frozenset({200})
    limit: int = 10 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of a successful answer, and its decoded body still to be read.

    Args:
        length: bytes on the wire, None when upstream does not say.
        packed: whether the body is longer than that, because it is compressed.
        framed: whether the end can be proved, by length or chunks; else it ends with the connection, and a gzip
            trailer proves nothing then, as another member may have been cut off.
        wire_bytes: bytes received so far, for progress.
    """

    length: int | None
    packed: bool
    framed: bool
    body: AsyncIterator[bytes]
    wire_bytes: Callable[[], int]


class Http:
    """Sends requests by the retry table.

    Args:
        settings: address, timeouts and retry delay.
        app: an ASGI application to talk to in process instead of the network (the demo's upstream).
        budget: of retries, when others share it.
    """

    def __init__(
        self, settings: Settings, app: Callable[..., Any] | None = None, budget: RetryBudget | None = None
    ) -> None:
        self._settings = settings
        self._app = app
        self._budget = RetryBudget() if budget is None else budget
        self._opened: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def send(self, request: Request, receive: Callable[[Answer], Awaitable[T]]) -> T:
        """Send until `receive` has read a whole answer or the table says stop.

        `receive` is called once per attempt and starts from nothing each time.

        Raises:
            Failed: with the outcome and the error of the last attempt.
        """
        within = self._within(request.call)
        try:
            with anyio.fail_after(within) as scope:
                return await self._attempts(request, receive, scope.deadline)
        except TimeoutError:
            raise silent("upstream_timeout", f"The request was not done after {within:g} seconds.") from None

    def _patience(self, call: Call) -> float:
        """Seconds without a byte after which an answer is given up."""
        longest = self._settings.read_timeout
        return longest if call == "report" else min(longest, _FIRST_BYTE)

    def _within(self, call: Call) -> float:
        """Seconds for a request with its retries: a report goes on in the background, for all else a client waits."""
        longest = self._settings.deadline
        return longest if call == "report" else min(longest, 2 * self._settings.connect_timeout + self._patience(call))

    async def _attempts(self, request: Request, receive: Callable[[Answer], Awaitable[T]], until: float) -> T:
        sent, waited = 0, 0.0
        while True:
            sent += 1
            try:
                return await self._once(request, receive)
            except Failed as failed:
                if not may_retry(request.call, failed.outcome, sent):
                    raise
                wait = backoff(self._settings.retry_base_delay, sent) if failed.wait is None else failed.wait
                waited += wait
                late = anyio.current_time() + wait > until
                if wait > LONGEST_WAIT or waited > MOST_WAITING or late or not self._budget.take():
                    raise
            await anyio.sleep(wait)

    async def _once(self, request: Request, receive: Callable[[Answer], Awaitable[T]]) -> T:
        import httpcore
        import httpx

        head_seen, wire, patience = False, Wire(httpcore.NetworkError), self._patience(request.call)
        try:
            async with AsyncExitStack() as opened:
                response = await self._head(request, opened, wire)
                head_seen = True
                refuse_absurd(response.headers.raw)
                if response.status_code not in request.success:
                    wait, leads_to = retry_after(response.headers.get("retry-after")), response.headers.get("location")
                    raise refusal(request.call, response.status_code, wait, leads_to or "")
                window = 2 * patience  # so that a pause that is allowed is never a drip by itself
                return await receive(_answer(response, request, window, None if self._app else wire))
        except httpx.TransportError as error:
            raise (_cut(error, patience) if head_seen else self._unanswered(error, patience)) from None
        except (OSError, RuntimeError) as error:  # of a connection not opened yet: to look a name up takes a thread
            if head_seen or (busy := used_up(error)) is None:
                raise
            raise Failed("unsent", busy) from error

    async def _head(self, request: Request, opened: AsyncExitStack, wire: Wire) -> "httpx.Response":
        """Send, and wait for the head of the answer: a drip of headers or interim answers does not hold it open."""
        import httpx

        name, value = request.credential
        connect, patience = self._settings.connect_timeout, self._patience(request.call)
        sent = self._client().stream(
            request.method,
            request.path,
            params=request.query,
            json=request.json,
            headers={name: value},
            timeout=httpx.Timeout(patience, connect=connect),
            extensions={"trace": wire.trace},
        )
        try:
            with anyio.fail_after(connect + patience):
                return await opened.enter_async_context(sent)
        except TimeoutError:
            host = urlsplit(self._settings.url).netloc
            raise silent("upstream_timeout", f"{host} did not finish the head of its answer in time.") from None

    def _client(self) -> "httpx.AsyncClient":
        if self._opened is None:
            import httpcore
            import httpx

            # Reads of 64 KiB split what the loop receives in quarters: a third of a download's CPU time (measured).
            httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = _READ
            logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every URL at INFO
            logging.getLogger("httpcore").setLevel(logging.WARNING)  # it logs every header at DEBUG
            settings = self._settings
            self._opened = httpx.AsyncClient(
                base_url=settings.url,
                headers={
                    "Accept-Encoding": "gzip",
                    "Connection": "close",  # used once: what is left behind an answer would answer the next request
                    "User-Agent": CALLED,
                },
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # nothing upstream sets is ever sent back
                limits=httpx.Limits(max_connections=16, max_keepalive_connections=0),
                follow_redirects=False,
                trust_env=False,
                proxy=None if self._app else proxy_for(settings.url),
                verify=context_for(settings.url),
                transport=httpx.ASGITransport(self._app) if self._app else None,
            )
        return self._opened

    def _unanswered(self, error: "httpx.TransportError", patience: float) -> Failed:
        import httpx

        host = urlsplit(self._settings.url).netloc
        if _certificate(error):
            return untrusted(host, unread=unread())
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
            for cause in _causes(error):
                if (busy := used_up(cause)) is not None:
                    return Failed("unsent", busy)
            check = "Check the network, HTTPS_PROXY and SRC_ANALYTICS_URL."
            return unsent(f"{host} cannot be reached.", check)
        if isinstance(error, httpx.TimeoutException):
            return silent("upstream_timeout", f"{host} did not answer in {patience:g} seconds.")
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):  # our own words, never the header's
            return Failed("refused", AnalyticsError("internal", "The request could not be formed.", "Report this."))
        return silent("upstream_unavailable", f"{host} closed the connection without an answer.")


def _cut(error: "httpx.TransportError", patience: float) -> Failed:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return silent("upstream_timeout", f"The answer stopped coming for {patience:g} seconds.")
    return broken("The connection ended before the answer did.")


def _answer(response: "httpx.Response", request: Request, window: float, wire: Wire | None) -> Answer:
    """The answer to be read; `wire` is the connection it comes by, None in process."""
    length = response.headers.get("content-length", "")
    encoding = response.headers.get("content-encoding", "").strip().lower()
    chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
    raw = response.aiter_raw()
    if wire is not None and length.isdigit() and not chunked:
        raw = wire.ended(raw, int(length))
    return Answer(
        length=int(length) if length.isdigit() else None,
        packed=encoding == "gzip",
        framed=wire is None or length.isdigit() or chunked,
        body=decoded(steady(raw, window), encoding, request.limit, request.call),
        wire_bytes=lambda: response.num_bytes_downloaded,
    )


def _certificate(error: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, of a name with several addresses what each of them led to."""
    while error is not None:
        yield error
        for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
            yield from _causes(one)
        error = error.__cause__ or error.__context__


async def read_whole(answer: Answer, call: Call) -> bytes:
    """Read a bounded answer into memory, refusing markup."""
    body = b"".join([piece async for piece in answer.body])
    refuse_markup(body, call)
    return body
