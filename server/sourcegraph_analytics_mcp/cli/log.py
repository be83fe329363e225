"""The log: one line per event on stderr, without secrets and without people, and never in anybody's way."""

import codecs
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from logging.handlers import QueueHandler
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ..errors import origin
from ..redaction import LEARNT, Redactor
from ..settings import Settings
from .descriptors import write

_SESSION = re.compile(r"(?<=\bsession )([0-9a-f]{8})[0-9a-f]{24}\b", re.IGNORECASE)  # whole, it is as good as a key
_MOST_WAITING = 1000  # lines
_GATHERED_FOR = 0.02  # seconds; a thread that is woken for each line costs a call as much as all else that we do for it
_AT_ONCE = 4096  # bytes, which a pipe takes whole though others write to it
_LAST_LINES_WITHIN = 0.5  # seconds for a log that nobody reads
# Who may say anything below WARNING; other libraries log addresses, headers and whole answers.
_HEARD = ("sourcegraph_analytics_mcp", "uvicorn.error")
_log = logging.getLogger(__name__)
_to_stderr = partial(write, 2)  # with no buffer, whose lock a thread that is held up would keep


class _OneLine(logging.Formatter):
    """Keeps every event on one line and masks what looks like, or is, a secret."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "asyncio":  # which goes on with what futures and exceptions hold
            record.msg, record.args = record.getMessage().partition("\n")[0], None
        text = _SESSION.sub(r"\1...", self._redactor.text(super().format(record)))
        record.exc_text = None  # which is kept for other formatters
        return text.encode("unicode_escape").decode("ascii")

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Where the exception came from, and nothing that it says."""
        return origin(ei[1])


class _Aside(QueueHandler):
    """Leaves the writing to a thread, since it takes as long as the reader likes; lines beyond the queue are dropped.

    Args:
        write: takes whole lines, in its time.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._lines: Queue[str] = Queue()
        super().__init__(self._lines)
        self._write = write
        self._dropped = 0
        self._hurry = threading.Event()
        threading.Thread(target=self._work, name="log", daemon=True).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() >= (_MOST_WAITING // 2 if self._dropped else _MOST_WAITING):
            self._dropped += 1
            return
        if self._dropped:
            told = "%d lines of the log were dropped, as nobody read it"
            about = logging.LogRecord(__name__, logging.WARNING, "", 0, told, (self._dropped,), None)
            self._lines.put(self.format(about))
            self._dropped = 0
        self._lines.put(record.getMessage())  # formatted by now

    def flush(self) -> None:
        """Wait until everything is written, but not for long."""
        lines = self._lines
        self._hurry.set()
        with lines.all_tasks_done:
            lines.all_tasks_done.wait_for(lambda: not lines.unfinished_tasks, _LAST_LINES_WITHIN)

    def _work(self) -> None:
        while True:
            first = self._lines.get()
            self._hurry.wait(_GATHERED_FOR)
            self._hurry.clear()
            self._put([first, *self._there()])

    def _there(self) -> Iterator[str]:
        """The lines that wait by now."""
        with suppress(Empty):
            while True:
                yield self._lines.get_nowait()

    def _put(self, lines: list[str]) -> None:
        """Write lines, in as few pieces as a pipe takes whole."""
        piece = b""
        for line in (f"{line}\n".encode() for line in lines):
            if len(piece) + len(line) > _AT_ONCE:
                self._written(piece)
                piece = b""
            piece += line
        self._written(piece)
        for _ in lines:
            self._lines.task_done()

    def _written(self, piece: bytes) -> None:
        with suppress(OSError):  # where nobody is there any more
            self._write(piece)


def configure_log(settings: Settings, write: Callable[[bytes], object] = _to_stderr) -> None:
    """Send the log to stderr: what we say from the level that is set on, and warnings of everybody."""
    codecs.lookup("unicode_escape")  # loaded now: at the first line there may be no file free to open
    logging.raiseExceptions = False  # a line that cannot be formed is lost, and nothing of it is printed
    handler = _Aside(write)
    LEARNT.update(settings.secrets)
    handler.setFormatter(_OneLine(Redactor(LEARNT)))
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for name in _HEARD:
        logging.getLogger(name).setLevel(level)


def log_the_unforeseen() -> None:
    """Have uncaught exceptions and warnings logged, too, where Python would print all that they say."""

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: object) -> None:
        _log.critical("What nobody foresaw was not caught either", exc_info=error)
        flush_log()

    def warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        _log.warning("%s at %s:%d", category.__name__, Path(filename).name, lineno)

    sys.excepthook = uncaught
    threading.excepthook = lambda hook: uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)
    warnings.showwarning = warned


def flush_log() -> None:
    """Write what waits to be written, where the process ends before the interpreter would do it."""
    for handler in logging.getLogger().handlers:
        handler.flush()
