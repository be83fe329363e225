"""The log: one line per event on stderr, without secrets and without people."""

import logging
import re
import sys

from ..settings import Settings

_SESSION = re.compile(r"(?<=\bsession )([0-9a-f]{8})[0-9a-f]{24}\b", re.IGNORECASE)  # whole, it is as good as a key
_SECRET = re.compile(r"sams_at_[A-Za-z0-9._~+/=-]+")


class _OneLine(logging.Formatter):
    """Keeps every event on one line and masks what looks like, or is, a secret."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        text = _SESSION.sub(r"\1...", _SECRET.sub("[secret]", text))
        return text.encode("unicode_escape").decode("ascii")


def configure_log(settings: Settings) -> None:
    """Send the log to stderr; libraries that log addresses or headers are held at WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    given = (settings.access_token, settings.cas_cookie)
    handler.setFormatter(_OneLine(tuple(secret.get_secret_value() for secret in given if secret)))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "mcp", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
