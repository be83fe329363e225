"""Whose certificates are trusted."""

import logging
import os
import ssl

_FILE = "SSL_CERT_FILE"
_log = logging.getLogger(__name__)


def trust() -> ssl.SSLContext:
    """The system's trust store, which holds a company's own CA, and SSL_CERT_FILE, which macOS leaves out of it."""
    import truststore

    trusted = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if unread():
        _log.warning("%s is set but cannot be read; it adds nothing to what is trusted", _FILE)
    elif file := os.environ.get(_FILE):
        trusted.load_verify_locations(file)
    return trusted


def unread() -> bool:
    """Whether SSL_CERT_FILE is set and cannot be read, or holds no certificate."""
    file = os.environ.get(_FILE)
    if not file:
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError:
        return True
    return False
