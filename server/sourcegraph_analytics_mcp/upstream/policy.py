"""What to do about each outcome of each call: how often at most, how long to wait, which error in the end.

This table is the only place that decides about retries, and `refusal` the only place that turns a status into an error.
"""

import math
import random
import re
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

from ..errors import AnalyticsError, Code

Call = Literal["report", "read", "list", "create", "revoke"]  # read: credits and the user registry
CALLS: tuple[Call, ...] = ("report", "read", "list", "create", "revoke")
Outcome = Literal[
    "unsent", "certificate", "silent", "late", "broken", "misread", "empty", "redirect", "refused", "conflict",
    "asked_to_wait", "busy", "failing", "gateway", "odd", "too_large",
]  # fmt: skip

# The most requests one call may send when it keeps meeting this outcome. A create that may have left is never repeated.
ATTEMPTS: dict[Outcome, tuple[int, int, int, int, int]] = {
    #                report read list create revoke
    "unsent":        (4,     4,   4,   2,     3),   # name, connection or TLS handshake failed: nothing left
    "certificate":   (1,     1,   1,   1,     1),   # nobody we can trust answered
    "silent":        (3,     3,   3,   1,     3),   # sent, and no (whole) answer head came
    "late":          (2,     1,   1,   1,     1),   # the same, after all the time that a client waits
    "broken":        (3,     3,   3,   1,     1),   # the body ended before its proven end
    "misread":       (1,     1,   1,   1,     1),   # whole, but not what was asked for
    "empty":         (2,     1,   1,   1,     1),   # no body where a report should be
    "redirect":      (1,     1,   1,   1,     1),
    "refused":       (1,     1,   1,   1,     1),   # 4xx that will not change by itself
    "conflict":      (1,     1,   1,   1,     1),   # 409: after a create, only the list knows
    "asked_to_wait": (3,     3,   3,   1,     2),   # 429
    "busy":          (3,     3,   3,   1,     3),   # 408, 425
    "failing":       (2,     3,   3,   1,     3),   # 500
    "gateway":       (4,     4,   4,   1,     3),   # 502, 503, 504, 520-524
    "odd":           (2,     2,   2,   1,     2),   # any other 5xx that may change by itself
    "too_large":     (1,     1,   1,   1,     1),
}  # fmt: skip

_LASTING = (501, 505, 525, 526)  # not implemented, wrong HTTP, no TLS behind the edge: nothing was done, nor will be

LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is handed back instead
MOST_WAITING = 120.0  # seconds between the requests of one call, in all
_LONGEST_TOLD = 86_400.0  # seconds; who is told to wait for longer may as well ask again
_CAP = 20.0  # seconds; largest backoff
_BUDGET, _PER = 10, 60.0  # retries a minute, over all calls of the process

_WEB_PAGE = (
    "Tokens can be made on the page /access-tokens of Sourcegraph Analytics; set it as SRC_ANALYTICS_ACCESS_TOKEN."
)
_NEW_COOKIE = "Sign in to Sourcegraph Analytics again and set SRC_ANALYTICS_CAS_COOKIE to the new cookie."
_ANOTHER = "Make a new access token (create_token, or the page /access-tokens of Sourcegraph Analytics) and set it."
_LESS = (
    "Ask for fewer days or a coarser granularity; list_inactive_users and questions by month or quarter read all time "
    "whatever is asked, so for them the operator must raise SRC_ANALYTICS_MAX_EXPORT_BYTES."
)
# Where a path leads to a login; the host says nothing, as a company signs in elsewhere.
_LOGIN = re.compile(r"(?:^|/)((log|sign)[-_]?in|sso|saml2?|oauth2?|auth|authorize)(?=[/.]|\Z)", re.IGNORECASE)


class Failed(Exception):
    """One request that did not succeed: its outcome, the error it ends in, and a wait that upstream asked for."""

    def __init__(self, outcome: Outcome, error: AnalyticsError, wait: float | None = None) -> None:
        self.outcome: Outcome = outcome
        self.error = error
        self.wait = wait
        super().__init__(error.text)


def may_retry(call: Call, outcome: Outcome, sent: int) -> bool:
    """Whether a call that has sent `sent` requests may send one more after this outcome."""
    return sent < ATTEMPTS[outcome][CALLS.index(call)]


@dataclass
class RetryBudget:
    """Ten retries a minute over all who share it, so that a dead upstream is not hammered by many calls."""

    spent: deque[float] = field(default_factory=deque)

    def take(self) -> bool:
        now = time.monotonic()
        while self.spent and now - self.spent[0] > _PER:
            self.spent.popleft()
        if len(self.spent) >= _BUDGET:
            return False
        self.spent.append(now)
        return True


def backoff(base: float, sent: int) -> float:
    """Full jitter: a random wait in seconds below `base` doubled per request sent, capped."""
    return random.uniform(0, min(_CAP, base * 2 ** (sent - 1)))  # noqa: S311 - spreads load, guards nothing


def retry_after(header: str | None) -> float | None:
    """Read Retry-After as seconds from now; None when it is absent or makes no sense."""
    if header is None:
        return None
    try:
        seconds = float(header) if header.strip().isdigit() else _until(header)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds < math.inf else None


def _until(http_date: str) -> float:
    moment = parsedate_to_datetime(http_date)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def refusal(call: Call, status: int, wait: float | None, location: str = "") -> Failed:
    """Turn a status that is not the documented success into what it means for this call.

    Args:
        location: where a redirect leads; only the shape of its path is looked at, and none of it is shown.
    """
    if status < 300 or status == 304:  # 304 answers a condition, and none was set
        return Failed("misread", _error("upstream_not_csv", f"Upstream answered with status {status} and no data."))
    if status < 400:
        return Failed("redirect", _redirected(call, status, login=_leads_to_login(location)))
    if status == 429:
        return Failed("asked_to_wait", _rate_limited(wait), wait)
    if status in (408, 425):
        return Failed("busy", _unavailable(status, wait), wait)
    if status == 500:
        return Failed("failing", _unavailable(status, wait), wait)
    if status in (502, 503, 504, 520, 521, 522, 523, 524):
        return Failed("gateway", _unavailable(status, wait), wait)
    if status >= 500:
        return Failed("refused" if status in _LASTING else "odd", _unavailable(status, wait), wait)
    return Failed("conflict" if status == 409 else "refused", _client_error(call, status))


def _error(code: Code, message: str, next_step: str = "Try again later; if it stays so, tell Sourcegraph support.",
           *, retryable: bool = False, after: float | None = None) -> AnalyticsError:  # fmt: skip
    return AnalyticsError(code, message, next_step, retryable=retryable, retry_after_seconds=after)


def _leads_to_login(location: str) -> bool:
    try:
        return _LOGIN.search(urlsplit(location).path) is not None
    except ValueError:
        return False


def _redirected(call: Call, status: int, *, login: bool) -> AnalyticsError:
    where = f"Upstream redirects {'to a login' if login else 'elsewhere'} (status {status})"
    if call in ("list", "create", "revoke"):
        return _error("session_expired", f"{where}: the session has expired or token management has moved.",
                      f"{_NEW_COOKIE} {_WEB_PAGE}")  # fmt: skip
    if login:
        return _error("auth_rejected", f"{where} instead of taking the access token.", _ANOTHER)
    return _error("upstream_redirect", f"{where}, which is never followed.",
                  "Check SRC_ANALYTICS_URL and the access token.")  # fmt: skip


def _rate_limited(wait: float | None) -> AnalyticsError:
    return _error("rate_limited", "Upstream limits the rate of requests.", _when(wait) or "Wait a few minutes, then "
                  "call again.", retryable=True, after=_told(wait))  # fmt: skip


def _unavailable(status: int, wait: float | None) -> AnalyticsError:
    later = _when(wait) or "Try again later; if it stays so, tell Sourcegraph support."
    return _error("upstream_unavailable", f"Sourcegraph Analytics fails with status {status}.", later, retryable=True,
                  after=_told(wait))  # fmt: skip


def _when(wait: float | None) -> str:
    return f"Wait {_told(wait):.0f} seconds, then call again." if wait else ""


def _told(wait: float | None) -> float | None:
    return None if wait is None else min(wait, _LONGEST_TOLD)


def _client_error(call: Call, status: int) -> AnalyticsError:
    if call in ("list", "create", "revoke"):
        return _token_error(status)
    if status == 401:
        return _error("auth_rejected", "Upstream rejects the access token: it is wrong, expired or revoked.", _ANOTHER)
    if status in (403, 404):
        return _error("instance_denied", f"This access token cannot see that instance (status {status}).",
                      "Check instance_url, and that the token's owner is an admin there.")  # fmt: skip
    if status == 410:
        return _error("unsupported", "Upstream no longer offers this report.", "Update this server.")
    return _error("invalid_argument", f"Upstream refuses the request (status {status}).",
                  "Check instance_url, granularity and dates.")  # fmt: skip


def _token_error(status: int) -> AnalyticsError:
    if status == 401:
        return _error(
            "session_expired", "Upstream rejects the session cookie: it is wrong or has expired.", _NEW_COOKIE
        )
    if status == 403:
        return _error("forbidden", "The signed-in user may not manage access tokens.", "Ask a Sourcegraph admin.")
    if status in (404, 405, 410):
        return _error("unsupported", "Upstream does not offer token management here.", _WEB_PAGE)
    return _error("invalid_argument", f"Upstream refuses the request (status {status}).",
                  "Check the display name and the expiry.")  # fmt: skip


def login_page(call: Call) -> Failed:
    """HTML where data was expected: a login page, whatever the status says."""
    if call in ("list", "create", "revoke"):
        return Failed("misread", _error("session_expired", "Upstream answered with a web page, not with data: "
                                        "the session has expired or token management has moved.",
                                        f"{_NEW_COOKIE} {_WEB_PAGE}"))  # fmt: skip
    return Failed("misread", _error("auth_rejected", "Upstream answered with a web page instead of data.", _ANOTHER))


def misread(message: str, code: Code = "upstream_not_csv") -> Failed:
    """A whole answer that is not what was asked for."""
    return Failed("misread", _error(code, message))


def empty() -> Failed:
    """A whole answer with nothing in it, where a header line is the least there can be."""
    return Failed("empty", _error("upstream_not_csv", "Upstream answered with an empty body, which is not a report."))


def broken(message: str) -> Failed:
    """A body whose end is not proved."""
    return Failed("broken", _error("upstream_incomplete", message, "Nothing was kept. Try again.", retryable=True))


def silent(code: Code, message: str) -> Failed:
    """Sent, and no whole answer; after a timeout a report is asked for once more, not twice."""
    outcome: Outcome = "late" if code == "upstream_timeout" else "silent"
    return Failed(outcome, _error(code, message, retryable=True))


def unsent(message: str, next_step: str) -> Failed:
    """Nothing has left this machine."""
    return Failed("unsent", _error("upstream_unavailable", message, next_step, retryable=True))


def untrusted(host: str, *, unread: bool) -> Failed:
    """TLS works, but the certificate is not one this machine trusts.

    Args:
        unread: whether SSL_CERT_FILE is set and could not be read.
    """
    also = " SSL_CERT_FILE is set but cannot be read." if unread else ""
    return Failed("certificate", _error("upstream_unavailable", f"The certificate of {host} is not trusted here.{also}",
                  "Add your company's CA to the system's trust store, or point SSL_CERT_FILE at it."))  # fmt: skip


def too_large(call: Call, limit: int) -> Failed:
    """More bytes than are accepted; of a report, than the operator allows."""
    step = {"report": _LESS, "read": "Ask for fewer days."}.get(call, "Tell Sourcegraph support.")
    return Failed("too_large", _error("upstream_too_large", f"The answer is larger than {limit:,} bytes.", step))


def bomb(ratio: int) -> Failed:
    """A body that would fill the disk from a few bytes."""
    return Failed("too_large", _error("upstream_too_large", f"Upstream's compressed answer grows over {ratio} times "
                  "when it is inflated, as no report does."))  # fmt: skip
