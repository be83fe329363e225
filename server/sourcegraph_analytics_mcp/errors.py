"""Every failure of the product: a code from a closed list, what happened, what to do next.

There is one class, because callers only ever do one thing with a failure: show it.
"""

import errno
import logging
from pathlib import Path
from typing import Literal, get_args

Code = Literal[
    "auth_missing",
    "auth_rejected",
    "session_expired",
    "instance_denied",
    "rate_limited",
    "upstream_unavailable",
    "upstream_timeout",
    "upstream_incomplete",
    "upstream_not_csv",
    "upstream_bad_csv",
    "upstream_schema_changed",
    "upstream_too_large",
    "upstream_redirect",
    "ambiguous",
    "unverified",
    "secret_store_unavailable",
    "store_full",
    "store_corrupt",
    "store_busy",
    "not_found",
    "invalid_argument",
    "sql_rejected",
    "sql_timeout",
    "sql_memory",
    "sql_failed",
    "result_too_large",
    "busy",
    "forbidden",
    "cancelled",
    "unsupported",
    "internal",
]
CODES: tuple[str, ...] = get_args(Code)
MAX_TEXT = 2000
_USED_UP = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # processes, memory, descriptors
_NO_THREAD = "can't start new thread"  # in the words of the interpreter, which has no number for it
_FRAMES = 12  # of an exception, the innermost
# What a bug may raise; signals have handlers of their own, so an exit in a call is nobody's wish.
UNFORESEEN = (Exception, SystemExit, KeyboardInterrupt)
_log = logging.getLogger(__name__)


class AnalyticsError(Exception):
    """A failure that a person or a model can act on.

    Args:
        code: one of the closed list above.
        message: what happened, in our words; never upstream's text, a secret, a path or a person.
        next_step: what to do about it, as one sentence.
        retryable: whether the same call can succeed later without a change.
        retry_after_seconds: how long to wait before that, where known.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        next_step: str = "",
        *,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.code: Code = code
        self.message = message
        self.next_step = next_step
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.text)

    @property
    def text(self) -> str:
        """The sentence a model reads: `[code] what happened. What to do.`"""
        return f"[{self.code}] {self.message} {self.next_step}".strip()[:MAX_TEXT]

    def structured(self) -> dict[str, object]:
        """The same as fields, for clients that read only structured content."""
        return {
            "error": {
                "code": self.code,
                "message": self.message[:MAX_TEXT],
                "next_step": self.next_step[:MAX_TEXT],
                "retryable": self.retryable,
                "retry_after_seconds": self.retry_after_seconds,
            }
        }


def invalid(message: str, next_step: str = "") -> AnalyticsError:
    """An argument that cannot be used as given."""
    return AnalyticsError("invalid_argument", message, next_step)


def no_thread(error: BaseException) -> bool:
    """Whether the system has no more threads."""
    return isinstance(error, RuntimeError) and str(error) == _NO_THREAD


def used_up(error: BaseException) -> AnalyticsError | None:
    """What to say, and what is logged, where the system has no more of something; None for an error of another kind."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(used_up, error.exceptions)), None)
    lacking = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _USED_UP)
    if not lacking and not no_thread(error):
        return None
    _log.warning("The system has no more threads, processes, memory or descriptors: %s", origin(error))
    return AnalyticsError(
        "busy",
        "The system has no more threads, processes, memory or open files for this server.",
        "Try again; if it stays so, the limits that the server runs under have to be raised.",
        retryable=True,
    )


def unforeseen(error: BaseException, what: str, message: str) -> AnalyticsError:
    """What to say of an exception that nobody expected, and what is logged.

    Args:
        what: the part of this server that failed, for the log.
        message: what happened, for who asked.
    """
    if (busy := used_up(error)) is not None:
        return busy
    _log.error("%s failed in a way nobody foresaw", what, exc_info=error)
    return AnalyticsError("internal", message, "Try again; if it stays so, report it.")


def origin(error: BaseException | None) -> str:
    """Which exceptions came from where, on one line; what they say may hold data, people and paths."""
    from traceback import extract_tb  # nothing that goes well needs it

    told = []
    while error is not None:
        frames = [f"{Path(f.filename).name}:{f.lineno}" for f in extract_tb(error.__traceback__)[-_FRAMES:]]
        told.append(f"{type(error).__name__} at {' > '.join(frames)}")
        error = error.__cause__ or error.__context__
    return " from ".join(told)
