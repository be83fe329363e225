"""Whose certificates are trusted."""

import logging
import os
import ssl

_FILE = "SSL_CERT_FILE"
_log = logging.getLogger(__name__)
_made: dict[str, ssl.SSLContext] = {}  # by the file that went into it, as a pipe can be read only once


def trust() -> ssl.SSLContext:
    """The system's trust store, which holds a company's own CA, and SSL_CERT_FILE, which macOS leaves out of it."""
    file = os.environ.get(_FILE, "")
    return _made[file] if file in _made else _make(file)


def context_for(address: str) -> ssl.SSLContext:
    """What a client needs for an address; for one without TLS an empty one, as reading the store takes its time."""
    return trust() if address.startswith("https") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def unread() -> bool:
    """Whether SSL_CERT_FILE is set and could not be read, or held no certificate, whenever it was to be trusted."""
    file = os.environ.get(_FILE, "")
    return file != "" and file not in _made


def _make(file: str) -> ssl.SSLContext:
    """A context that is kept, unless its file cannot be read, which may be so for a while alone."""
    import truststore

    trusted = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if file:
            trusted.load_verify_locations(file)
    except (OSError, ValueError):
        _log.warning("%s is set but cannot be read; it adds nothing to what is trusted", _FILE)
    else:
        _made[file] = trusted
    return trusted
