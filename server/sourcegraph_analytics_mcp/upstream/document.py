"""Read a document that anybody may read, from an address that the operator set: never with a credential of ours."""

import anyio

from ..errors import AnalyticsError
from ..settings import Settings
from .http import CALLED
from .proxies import proxy_for
from .trust import context_for

_LARGEST = 1 << 20  # bytes


async def fetch_document(settings: Settings, address: str) -> bytes:
    """Read a small public document, without a credential, from an address that the operator set.

    Raises:
        AnalyticsError: `upstream_unavailable` when it cannot be read whole.
    """
    import httpx

    headers = {"Accept-Encoding": "identity", "User-Agent": CALLED}
    gone = AnalyticsError("upstream_unavailable", "The document cannot be read.", "Check its address.", retryable=True)
    try:
        async with httpx.AsyncClient(
            verify=context_for(address),
            timeout=settings.connect_timeout,
            follow_redirects=False,
            trust_env=False,
            proxy=proxy_for(address),
        ) as client:
            with anyio.fail_after(settings.connect_timeout):
                async with client.stream("GET", address, headers=headers) as response:
                    body = bytearray()
                    async for piece in response.aiter_raw():
                        body += piece
                        if len(body) > _LARGEST:
                            raise gone
    except (httpx.HTTPError, TimeoutError):
        raise gone from None
    if response.status_code != 200:
        raise gone
    return bytes(body)
