"""Which proxy stands before an address: HTTPS_PROXY before https unless NO_PROXY covers the host, and no other ever."""

from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from ..settings import SettingsError, parts_of


def proxy_for(address: str) -> str | None:
    """The proxy that requests to this address go through; None for a direct connection.

    Raises:
        SettingsError: when it cannot be used; the text shows nothing of it, as it may hold a password.
    """
    known, asked = getproxies_environment(), urlsplit(address)
    if asked.scheme != "https" or "https" not in known or proxy_bypass_environment(asked.netloc, known):
        return None
    proxy = known["https"] if "://" in known["https"] else f"http://{known['https']}"
    parts = parts_of(proxy)
    if parts is None or not _spoken(parts.scheme):
        raise SettingsError("HTTPS_PROXY cannot be used: it must be an address like http://proxy.example:8080.")
    return proxy


def _spoken(scheme: str) -> bool:
    return scheme in ("http", "https") or (scheme in ("socks5", "socks5h") and find_spec("socksio") is not None)
