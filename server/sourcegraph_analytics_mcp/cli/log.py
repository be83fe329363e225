"""The log: one line per event on stderr, without secrets and without people."""

import logging
import re
import sys

from ..redaction import Redactor
from ..settings import Settings

_SESSION = re.compile(r"(?<=\bsession )([0-9a-f]{8})[0-9a-f]{24}\b", re.IGNORECASE)  # whole, it is as good as a key


class _OneLine(logging.Formatter):
    """Keeps every event on one line and masks what looks like, or is, a secret."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        text = _SESSION.sub(r"\1...", self._redactor.text(super().format(record)))
        return text.encode("unicode_escape").decode("ascii")


def configure_log(settings: Settings) -> None:
    """Send the log to stderr; libraries that log addresses or headers are held at WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(Redactor(settings.secrets)))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "mcp", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
