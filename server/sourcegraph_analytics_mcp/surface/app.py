"""The parts of a running server, put together once for stdio, and over HTTP for each caller."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskStatus

from ..access.credentials import Configured
from ..access.secret_store import SecretStore
from ..access.tokens import TokenDesk
from ..at_leave import at_leave
from ..disk import in_thread
from ..errors import UNFORESEEN, AnalyticsError
from ..exports.downloads import Downloads
from ..exports.engine.forks import forks
from ..exports.engine.queries import Sandbox
from ..exports.engine.questions import Questions
from ..exports.identities import Pseudonyms
from ..exports.store import Store
from ..exports.wishes import Wishes
from ..files import give_up
from ..redaction import Redactor
from ..settings import Settings
from ..upstream.analytics import Analytics
from ..upstream.http import Http
from ..upstream.policy import RetryBudget
from ..usage.answers import Answers
from ..usage.metrics import Minutes
from ..usage.people import People
from ..usage.summary import Summaries
from .events import log_end
from .kept import stores, whose
from .notices import Notices
from .text import cell

_LONGEST_NAME = 60  # characters of a name in a sentence
_HOUR = 3600.0  # seconds
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class App:
    """What tools, resources and completions work with."""

    settings: Settings
    credentials: Configured
    analytics: Analytics
    tokens: TokenDesk
    store: Store
    downloads: Downloads
    wishes: Wishes
    questions: Questions
    sandbox: Sandbox
    summaries: Summaries
    answers: Answers
    seats: tuple[str, ...] | None
    notices: Notices
    redactor: Redactor
    remote: bool  # whoever calls is not on this machine

    @property
    def masked(self) -> bool:
        """Whether people are shown by pseudonym."""
        return self.questions.pseudonyms is not None

    @property
    def shows_paths(self) -> bool:
        """Whether the path of a file means something to whoever calls, and gives away nothing."""
        try:
            str(self.settings.home).encode()
        except UnicodeEncodeError:  # no text can say what it is
            return False
        return not (self.masked or self.remote)


@dataclass(frozen=True)
class Shared:
    """What the callers of one server share; over stdio there is but one.

    Args:
        home: the operator's data directory, with the key of pseudonyms and the tokens that serve all; None for the one
            of the settings.
        places: for queries of query_export.
        budget: of retries.
        admit: called before a download begins, in the context of who asks.
        people: what the operator's files say of teams and seats.
        looked: on which day it was looked when a token expires, by its fingerprint.
        covers: whether whoever calls may use the tool of that name.
        who: gives the name of whoever calls for the log, None where there is but one.
    """

    home: Path | None = None
    places: anyio.CapacityLimiter | None = None
    budget: RetryBudget | None = None
    admit: Callable[[], None] = lambda: None
    people: People = field(default_factory=People)
    looked: dict[str, date] = field(default_factory=dict)
    who: Callable[[], str] | None = None
    covers: Callable[[str], bool] = lambda _: True


@asynccontextmanager
async def open_app(
    settings: Settings,
    notices: Notices,
    upstream: Callable[..., Any] | None = None,
    shared: Shared = Shared(),
    *,
    remote: bool = False,
) -> AsyncIterator[App]:
    """Put the parts together; leaving ends downloads, processes and connections.

    Args:
        upstream: an ASGI application in place of the network (the demo).
        remote: whether whoever calls is not on this machine.
    """
    operators = shared.home or settings.home
    secrets, shared_secrets = (
        SecretStore(home, settings.url, keyring=not settings.demo) for home in (settings.home, operators)
    )
    may_create = partial(shared.covers, "create_token") if remote else None
    credentials = Configured(settings, secrets, shared_secrets, shared.looked, may_create)
    http = Http(settings, upstream, shared.budget)
    analytics = Analytics(http, credentials)
    store = Store(settings.home, settings.retention_days, settings.max_store_bytes, settings.instances)
    pseudonyms = Pseudonyms(operators / "keys") if settings.identities == "pseudonyms" else None
    questions = Questions(store.scratch, pseudonyms)
    sandbox = Sandbox(store.staging, settings.sql_timeout, settings.sql_memory_mb, questions, shared.places)
    minutes = assumed(settings)
    shown = partial(cell, widest=_LONGEST_NAME)
    async with _put_away(questions, http), anyio.create_task_group() as tasks:
        downloads = Downloads(
            analytics,
            store,
            settings.url,
            settings.max_export_bytes,
            tasks,
            notices.exports_changed,
            partial(log_end, who=shared.who),
            shared.admit,
        )
        desk = TokenDesk(analytics, credentials, secrets, shared_secrets, settings)
        await tasks.start(_sweep_now_and_hourly, store, notices)
        wishes = Wishes()
        yield App(
            settings=settings,
            credentials=credentials,
            analytics=analytics,
            tokens=desk,
            store=store,
            downloads=downloads,
            wishes=wishes,
            questions=questions,
            sandbox=sandbox,
            summaries=Summaries(questions, minutes),
            answers=Answers(store, wishes, questions, settings.url, minutes, shared.people.teams, shown),
            seats=shared.people.seats,
            notices=notices,
            redactor=Redactor(credentials.known),
            remote=remote,
        )
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _put_away(questions: Questions, http: Http) -> AsyncIterator[None]:
    """Have a fork server for engines, and leave neither it nor engines nor connections behind."""
    with forks.used():
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await questions.aclose()
                await http.aclose()


def _leave_nothing() -> None:
    """End all engines and remove what is half made, whoever uses them.

    It takes a second at most, and then as long as files take to be removed.
    """
    forks.leave()
    give_up()


at_leave(_leave_nothing)  # here once for the process, whatever is opened


def assumed(settings: Settings) -> Minutes:
    """The minutes saved per action, as the operator sets them."""
    return Minutes(
        searches=settings.minutes_per_search,
        chats=settings.minutes_per_chat,
        commands=settings.minutes_per_command,
        completions=settings.minutes_per_completion,
        autoedits=settings.minutes_per_autoedit,
        code_navigation=settings.minutes_per_code_navigation,
    )


async def _sweep(store: Store) -> bool:
    """Remove what is too old or abandoned, and whether exports went; nothing is made where nothing was kept."""
    try:
        return store.there and await in_thread(store.prepare)
    except AnalyticsError:  # logged by then, and said by whatever needs the store
        return False
    except UNFORESEEN:  # a bug, or an odd file, must not end the server, nor the sweep of others
        _log.exception("A sweep failed in a way nobody foresaw")
        return False


async def _sweep_now_and_hourly(store: Store, notices: Notices, *, task_status: TaskStatus[None]) -> None:
    await _sweep(store)
    task_status.started()
    while True:
        await anyio.sleep(_HOUR)
        if await _sweep(store):
            await notices.exports_changed()


async def sweep_callers(settings: Settings, notices: Notices) -> None:
    """Over HTTP: sweep for callers who do not come back, too; now and every hour."""
    while True:
        with suppress(AnalyticsError):  # logged by then
            for store in stores(settings):
                if await _sweep(store):
                    await notices.exports_changed_of(whose(store, settings))
        await anyio.sleep(_HOUR)
