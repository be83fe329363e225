"""An OAuth 2.1 issuer as servers see it: published keys, and tokens signed with one of them."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ISSUER, AUDIENCE = "https://issuer.example", "https://analytics-mcp.example/mcp"


SHARED = "published-by-mistake-" * 3


class _Keys(BaseHTTPRequestHandler):
    """The key `k1`, and two that nobody should accept a signature with: `rs512`, and the shared secret `hs256`."""

    def do_GET(self) -> None:
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key())) | {"use": "sig"}
        shared = json.loads(jwt.algorithms.HMACAlgorithm.to_jwk(SHARED))
        keys = [key | {"kid": "k1"}, key | {"kid": "rs512", "alg": "RS512"}, shared | {"kid": "hs256", "alg": "HS256"}]
        body = json.dumps({"keys": keys}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def published() -> Iterator[dict[str, str]]:
    """Publish the keys; the settings of servers that accept their tokens."""
    keys = HTTPServer(("127.0.0.1", 0), _Keys)
    thread = threading.Thread(target=keys.serve_forever, args=(0.05,))
    thread.start()
    address = f"http://127.0.0.1:{keys.server_port}/keys"
    try:
        yield {"public_url": AUDIENCE, "oauth_issuer": ISSUER, "oauth_keys_url": address}
    finally:
        keys.shutdown()
        thread.join()
        keys.server_close()


def token(subject: str = "alice", *, key: Any = KEY, algorithm: str = "RS256", kid: str = "k1", **claims: Any) -> str:
    """A token for ten minutes with the scope to read; a claim that is None is left out."""
    body = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": int(time.time()) + 600, "scope": "analytics:read"
    } | claims  # fmt: skip
    kept = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid})
