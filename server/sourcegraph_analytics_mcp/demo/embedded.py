"""The demo's upstream inside this process: no account, no network."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from ..settings import Settings


def demo_settings(settings: Settings) -> Settings:
    """The settings with the made-up company's address and credentials."""
    from .upstream import DEMO_COOKIE, DEMO_INSTANCE, DEMO_TOKEN

    return settings.model_copy(
        update={
            "url": "http://127.0.0.1:1",  # never dialled: requests go to the embedded application
            "instance": DEMO_INSTANCE,
            "instances": (),
            "cas_cookie": SecretStr(DEMO_COOKIE),
            "cookie_name": "cas",
            "access_token": SecretStr(DEMO_TOKEN),
            "access_token_file": None,
            "demo": True,
        }
    )


def embedded_upstream() -> Callable[..., Any]:
    """The application, made with its company by the first request, and its company anew on every day."""
    made: list[Callable[..., Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if not made:
            made.append(_make())
        await made[0](scope, receive, send)

    return application


def _make() -> Callable[..., Any]:
    from .company import Company
    from .upstream import Upstream

    def clock() -> datetime:
        return datetime.now(UTC)

    upstream = Upstream(Company.made_up(clock().date()), clock)
    app = upstream.app()

    async def of_today(scope: Any, receive: Any, send: Any) -> None:
        today = clock().date()
        if upstream.company.today != today:  # what was made up ends with its day, and a server may stay up for many
            upstream.company = Company.made_up(today)
        await app(scope, receive, send)

    return of_today
