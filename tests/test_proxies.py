"""Which proxy a request goes through: the one of HTTPS_PROXY before https, and none that anything else names."""

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.streams.tls import TLSStream

from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.upstream.document import fetch_document
from sourcegraph_analytics_mcp.upstream.proxies import proxy_for
from support.certificates import self_signed
from support.client import connected, refused
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio
Make = Callable[..., Settings]
NOWHERE = "https://127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the variables of proxies; no other is there."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


async def decline(exchange: Exchange) -> None:
    await exchange.answer(b"", "403 Forbidden")


async def ask_both(settings: Settings, keys: str) -> dict[str, object]:
    """Ask upstream and for a document, neither with success; upstream's error."""
    async with connected(settings) as client:
        error = await refused(client, "get_credits")
    with pytest.raises(AnalyticsError):
        await fetch_document(settings, keys)
    return error


async def test_plain_requests_on_this_machine_go_through_no_proxy(
    make_settings: Make, environment: Callable[..., None]
) -> None:
    async with scripted_upstream(decline) as proxy, scripted_upstream(decline) as fake:
        environment(HTTP_PROXY=proxy.url, HTTPS_PROXY=proxy.url, ALL_PROXY="socks5://127.0.0.1:9")
        await ask_both(make_settings(fake.url), f"{fake.url}/keys")
    assert ([e.target for e in proxy.exchanges], len(fake.exchanges)) == ([], 2)


@pytest.mark.parametrize(
    ("variables", "through"),
    [
        ({"HTTPS_PROXY": ""}, True), ({"https_proxy": ""}, True), ({"HTTPS_PROXY": "no://http"}, True),
        ({"HTTP_PROXY": "", "ALL_PROXY": "", "all_proxy": ""}, False),
        ({"HTTPS_PROXY": "", "NO_PROXY": "a.example, 127.0.0.1"}, False),
        ({"HTTPS_PROXY": "", "no_proxy": "127.0.0.1:9"}, False), ({"HTTPS_PROXY": "", "NO_PROXY": "*"}, False),
        ({"HTTPS_PROXY": "", "NO_PROXY": "0.0.1.example,27.0.0.1"}, True),
    ],
)  # fmt: skip
async def test_an_https_address_is_asked_through_https_proxy_unless_no_proxy_covers_it(
    variables: dict[str, str], through: bool, make_settings: Make, environment: Callable[..., None]
) -> None:
    async with scripted_upstream(decline) as proxy:
        bare = proxy.url.removeprefix("http://")
        spelled = {"": proxy.url, "no://http": bare}
        environment(**{name: spelled.get(value, value) for name, value in variables.items()})
        error = await ask_both(make_settings(NOWHERE, retry_base_delay=0), f"{NOWHERE}/keys")
    assert error["code"] == "upstream_unavailable"
    asked = [(e.method, e.target, e.headers.get("authorization")) for e in proxy.exchanges]
    assert asked == ([("CONNECT", "127.0.0.1:9", None)] * 5 if through else [])


async def test_a_proxy_sees_nothing_of_what_it_passes_on(
    make_settings: Make, environment: Callable[..., None], tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    inside = bytearray()

    async def tunnel(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        secured = await TLSStream.wrap(
            exchange.stream, server_side=True, ssl_context=context, standard_compatible=False
        )
        while b"\r\n\r\n" not in inside:
            inside.extend(await secured.receive())
        await secured.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")

    async with scripted_upstream(tunnel) as proxy:
        environment(HTTPS_PROXY=proxy.url.replace("//", "//me:pw@"), SSL_CERT_FILE=str(certificate))
        async with connected(make_settings(NOWHERE, access_token="planted-token")) as client:
            result = await client.call_tool("get_credits", {})
    assert not result.is_error
    (seen,) = proxy.exchanges
    assert seen.headers["proxy-authorization"] == "Basic bWU6cHc="
    assert "planted" not in str(seen.headers)
    assert b"Authorization: Bearer planted-token\r\n" in inside
    assert b"proxy-authorization" not in inside.lower()


async def test_a_file_of_certificates_that_can_be_read_only_once_serves_every_call(
    make_settings: Make, environment: Callable[..., None], tmp_path: Path
) -> None:
    """As `SSL_CERT_FILE=<(cat ca.pem)` in a shell."""
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        with suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            secured = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
            await secured.receive()
            await secured.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")
        await stream.aclose()

    reading, writing = os.pipe()
    os.write(writing, certificate.read_bytes())
    os.close(writing)
    environment(SSL_CERT_FILE=f"/dev/fd/{reading}")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        url = f"https://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        async with connected(make_settings(url, access_token="planted-token")) as client:
            result = await client.call_tool("get_credits", {})
        document = await fetch_document(make_settings(url), f"{url}/keys")
        tasks.cancel_scope.cancel()
    os.close(reading)
    assert (result.is_error, document) == (False, b"[]")


async def test_a_certificate_that_is_taken_out_of_its_file_is_trusted_no_more(
    make_settings: Make, environment: Callable[..., None], tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    (tmp_path / "others").mkdir()
    another = self_signed(tmp_path / "others")

    async def serve(stream: anyio.abc.SocketStream) -> None:
        with suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            secured = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
            await secured.receive()
            await secured.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")
        await stream.aclose()

    file = tmp_path / "trusted.pem"
    file.write_bytes(certificate.read_bytes())
    environment(SSL_CERT_FILE=str(file))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        url = f"https://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        before = await fetch_document(make_settings(url), f"{url}/keys")
        another.replace(file)
        with pytest.raises(AnalyticsError, match="document cannot be read"):
            await fetch_document(make_settings(url), f"{url}/keys")
        certificate.replace(file)
        again = await fetch_document(make_settings(url), f"{url}/keys")
        tasks.cancel_scope.cancel()
    assert (before, again) == (b"[]", b"[]")


@pytest.mark.parametrize("file", ["nowhere.pem", "garbage.pem", "directory", "right.pem", ""])
async def test_a_file_of_certificates_that_cannot_be_read_is_said(
    make_settings: Make, environment: Callable[..., None], tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the error that advises to set it, and in the log."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "garbage.pem").write_text("no certificate")
    (tmp_path / "others").mkdir()
    self_signed(tmp_path / "others").rename(tmp_path / "right.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))

    async def greet(stream: anyio.abc.SocketStream) -> None:
        with suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            await TLSStream.wrap(stream, server_side=True, ssl_context=context)
        await stream.aclose()

    environment(SSL_CERT_FILE=str(tmp_path / file) if file else "")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, greet)
        url = f"https://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        async with connected(make_settings(url, retry_base_delay=0)) as client:
            error = await refused(client, "get_credits")
        tasks.cancel_scope.cancel()
    bad = file not in ("right.pem", "")
    assert "is not trusted here." in error["message"]
    assert ("SSL_CERT_FILE is set but cannot be read." in error["message"]) == bad
    assert ("SSL_CERT_FILE is set but cannot be read" in caplog.text) == bad


async def test_a_netrc_says_nothing_to_anybody(
    make_settings: Make, environment: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / ".netrc"
    file.write_text("machine 127.0.0.1 login planted password planted\n")
    file.chmod(0o600)
    environment(NETRC=str(file), HOME=str(tmp_path))
    async with scripted_upstream(decline) as fake:
        await ask_both(make_settings(fake.url, access_token="ours-made-up"), f"{fake.url}/keys")
    assert [e.headers.get("authorization") for e in fake.exchanges] == ["Bearer ours-made-up", None]


def test_a_proxy_that_speaks_socks_needs_its_library(
    environment: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "socksio.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    environment(HTTPS_PROXY="socks5h://127.0.0.1:9")
    assert proxy_for(NOWHERE) == "socks5h://127.0.0.1:9"
