"""Whose certificates are trusted."""

import logging
import os
import ssl
import stat
from pathlib import Path

_FILE = "SSL_CERT_FILE"
_log = logging.getLogger(__name__)
_Key = tuple[str, int, int]
_made: dict[_Key, ssl.SSLContext] = {}  # the newest, by the file that went into it, as a pipe can be read only once


def trust() -> ssl.SSLContext:
    """The system's trust store, which holds a company's own CA, and SSL_CERT_FILE, which macOS leaves out of it."""
    file = os.environ.get(_FILE, "")
    key = _as_it_is(file)
    return _made[key] if key in _made else _make(file, key)


def context_for(address: str) -> ssl.SSLContext:
    """What a client needs for an address; for one without TLS an empty one, as reading the store takes its time."""
    return trust() if address.startswith("https") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def unread() -> bool:
    """Whether SSL_CERT_FILE is set and could not be read, or held no certificate, whenever it was to be trusted."""
    file = os.environ.get(_FILE, "")
    return file != "" and all(name != file for name, _, _ in _made)


def _as_it_is(file: str) -> _Key:
    """A file's name and, where it can change, what changes with it: a CA that was taken out is trusted no more."""
    try:
        seen = Path(file).stat()
    except (OSError, ValueError):
        return file, 0, 0
    return (file, seen.st_ino, seen.st_mtime_ns) if stat.S_ISREG(seen.st_mode) else (file, 1, 0)


def _make(file: str, key: _Key) -> ssl.SSLContext:
    """A context that is kept, unless its file cannot be read, which may be so for a while alone."""
    import truststore

    trusted = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if file:
            trusted.load_verify_locations(file)
    except (OSError, ValueError):
        _log.warning("%s is set but cannot be read; it adds nothing to what is trusted", _FILE)
    else:
        _made.clear()
        _made[key] = trusted
    return trusted
