"""Fixtures that every test may use."""

import compileall
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import sourcegraph_analytics_mcp
from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.upstream import DEMO_COOKIE, DEMO_INSTANCE, DEMO_TOKEN
from sourcegraph_analytics_mcp.exports.engine.forks import forks
from sourcegraph_analytics_mcp.settings import Settings
from support.client import schemas_checked_once
from support.upstreams import Served, serve_company

_HEARD = ("sourcegraph_analytics_mcp", "uvicorn.error")
_HOOKS = ((sys, "excepthook"), (threading, "excepthook"), (warnings, "showwarning"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as there are cores; one more for long tests, which wait for processes and for what takes too long."""
    some_are_long = bool(config.option.markexpr != "not long")
    return (os.cpu_count() or 1) + some_are_long


@pytest.fixture(autouse=True)
def reporting() -> Iterator[None]:
    """Put back how the process reports, which a command sets once and for all; another test may look at it."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = [(logger, logger.level) for logger in map(logging.getLogger, (None, *_HEARD))]
    hooks = [(place, name, getattr(place, name)) for place, name in _HOOKS]
    yield
    root.handlers[:] = handlers
    for logger, level in levels:
        logger.setLevel(level)
    for place, name, hook in hooks:
        setattr(place, name, hook)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def checked() -> Iterator[None]:
    with schemas_checked_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def forking() -> Iterator[None]:
    """One fork server for all servers within this process: each would start another."""
    with forks.used():
        yield


@pytest.fixture(scope="session")
def company() -> Company:
    """A small company whose last day is today."""
    return Company.made_up(datetime.now(UTC).date(), people=40, days=130)


@pytest.fixture(scope="session")
def served(company: Company) -> Iterator[Served]:
    with serve_company(company) as served:
        yield served


@pytest.fixture
def upstream(served: Served) -> Served:
    """The made-up company's upstream on a socket, as if it had just started."""
    served.upstream.restart()
    return served


@pytest.fixture(scope="session")
def compiled() -> None:
    """Have every module compiled: Python 3.11 in a process without room leaves it cut, and no other can load it."""
    compileall.compile_dir(Path(sourcegraph_analytics_mcp.__file__).parent, quiet=2)


@pytest.fixture
def make_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings for an upstream, with its credentials and short waits; keywords are settings by name."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")

    def make(url: str, **more: Any) -> Settings:
        given = {
            "URL": url,
            "INSTANCE": DEMO_INSTANCE,
            "ACCESS_TOKEN": DEMO_TOKEN,
            "CAS_COOKIE": DEMO_COOKIE,
            "DATA_DIR": str(tmp_path / "data"),
            "RETRY_BASE_DELAY": "0.01",
            "READ_TIMEOUT": "5",
            "LOG_LEVEL": "DEBUG",
        } | {name.upper(): str(value) for name, value in more.items()}
        return Settings.from_env({f"SRC_ANALYTICS_{name}": value for name, value in given.items() if value})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings], upstream: Served) -> Settings:
    return make_settings(upstream.url)
