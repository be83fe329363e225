"""One call, one trouble of upstream's, one moment: what came of it, held against what may never be.

A case is drawn from a seed and a number and is the same every time. The figures of a success, the ledger, the files,
the log and every message are looked at after each.
"""

import hashlib
import io
import json
import logging
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from sourcegraph_analytics_mcp.cli.log import configure_log, flush_log
from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.reports import report
from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE
from sourcegraph_analytics_mcp.errors import CODES
from sourcegraph_analytics_mcp.settings import Settings
from support.canaries import COOKIE, MADE, TOKEN, leaking_files, leaks
from support.troubles import WAITING, Meant, Trouble, drawn, healthy
from support.upstreams import Exchange, scripted_upstream
from support.wire import Wire, wired

LIVE, DEAD = str(uuid.UUID(int=7)), str(uuid.UUID(int=8))
CALLS: dict[
    str, tuple[dict[str, Any], int, float]
] = {  # arguments, how many requests it makes in peace, how often drawn
    "export_csv": ({"granularity": "by_user_day"}, 1, 5),
    "get_credits": ({}, 1, 4),
    "list_tokens": ({}, 1, 4),
    "create_token": ({"display_name": "made by a case"}, 3, 7),
    "revoke_token": ({"token_id": LIVE, "confirm": True}, 3, 6),
    "query_usage": ({"metrics": ["searches", "active_users"], "period": "last_30_days"}, 1, 1.5),
    "list_inactive_users": ({"days": 7}, 3, 1),
    "check_connection": ({}, 2, 3),
}
CREDITS = {"buckets": [{"name": "cody", "allocated": 5000, "consumed": 17}, {"name": "search", "allocated": 9}]}
TIMES = (1, 1, 2, 99)  # how many requests in a row meet trouble
_TODAY = datetime.now(UTC).date()
_COMPANY = Company.made_up(_TODAY, people=4, days=40)
_READ = 0.06  # seconds; for the troubles that only a timeout ends


@dataclass
class Desk:
    """Upstream's state: its tokens, and what it was asked."""

    tokens: list[dict[str, Any]] = field(default_factory=list)
    ledger: list["Asked"] = field(default_factory=list)

    def __post_init__(self) -> None:
        old = datetime.now(UTC) - timedelta(days=30)
        self.tokens = [
            {"id": LIVE, "displayName": "laptop", "createdAt": _time(old), "isExpired": False},
            {"id": DEAD, "createdAt": _time(old), "expiresAt": _time(old), "isExpired": True},
        ]

    @property
    def made(self) -> list[dict[str, Any]]:
        return self.tokens[2:]

    def live(self) -> set[str]:
        return {token["id"] for token in self.made if not token["isExpired"]}

    def meant(self, exchange: Exchange, *, act: bool) -> Meant:
        """The healthy answer; with `act` it has happened."""
        if exchange.method == "POST":
            token = {"id": str(uuid.uuid4()), "createdAt": _time(datetime.now(UTC)), "isExpired": False}
            token |= {key: value for key, value in json.loads(exchange.body).items() if key != "secret"}
            self.tokens += [token] if act else []
            return Meant("201 Created", "application/json", json.dumps(token | {"secret": MADE}).encode())
        if exchange.method == "DELETE":
            named = [token for token in self.tokens if token["id"] == exchange.target.rsplit("/", 1)[1]]
            for token in named if act else []:
                token["isExpired"] = True
            return Meant("204 No Content", "text/plain", b"")
        if kind(exchange.method, exchange.target) == "list":
            return Meant("200 OK", "application/json", json.dumps({"tokens": self.tokens}).encode())
        if "registry" in exchange.target:
            return Meant("200 OK", "text/csv", _COMPANY.user_registry().encode())
        if "credits" in exchange.target:
            return Meant("200 OK", "application/json", json.dumps(CREDITS).encode())
        return Meant("200 OK", "text/csv", body(exchange.target))


def body(target: str) -> bytes:
    """The report that an address asks for."""
    query = dict(part.split("=") for part in target.split("?")[1].split("&"))
    days = [datetime.fromisoformat(query[k]).date() if k in query else None for k in ("startDate", "endDate")]
    return "".join(report(_COMPANY, query["granularity"], *days)).encode()


def kind(method: str, target: str) -> str:
    """The column of the retry table."""
    if "access-tokens" in target:
        return {"GET": "list", "POST": "create", "DELETE": "revoke"}[method]
    return "report" if "by-user" in target else "read"


@dataclass(frozen=True)
class Asked:
    """One request as upstream saw it, and the trouble it met."""

    method: str
    target: str
    headers: dict[str, str]
    trouble: Trouble | None

    @property
    def kind(self) -> str:
        return kind(self.method, self.target)


@dataclass(frozen=True)
class Case:
    """A call, the troubles, the first request that meets one, and how many do."""

    tool: str
    troubles: tuple[Trouble, ...]
    first: int
    times: int
    revision: str

    def __str__(self) -> str:
        names = " then ".join(f"{t.name} ({t.row}{', after the fact' if t.effect else ''})" for t in self.troubles)
        return f"{self.tool}, request {self.first} x {self.times}: {names}"

    def trouble(self, number: int) -> Trouble | None:
        at = number - self.first
        return self.troubles[min(at, len(self.troubles) - 1)] if 0 <= at < self.times else None


def case(seed: int, number: int, elsewhere: str) -> Case:
    rng = random.Random(f"{seed}/{number}")
    tool = rng.choices(list(CALLS), [often for _, _, often in CALLS.values()])[0]
    secrets = (TOKEN, COOKIE, MADE)
    troubles = tuple(drawn(rng, secrets, elsewhere) for _ in range(rng.choice((1, 1, 1, 2))))
    first = rng.randrange(1, CALLS[tool][1] + 1 + (tool in ("create_token", "revoke_token")))
    return Case(tool, troubles, first, rng.choice(TIMES), rng.choice(("2026-07-28", "2025-11-25")))


@dataclass
class Outcome:
    """What came of a case."""

    desk: Desk
    home: Path
    result: dict[str, Any]
    wrong: list[str]
    seconds: float = 0

    @property
    def failed(self) -> bool:
        return bool(self.result.get("isError"))

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.result["structuredContent"]
        return data

    @property
    def text(self) -> str:
        return "\n".join(block.get("text", "") for block in self.result["content"])


def settings_of(url: str, home: Path, case: Case) -> Settings:
    slow = any(trouble.row in WAITING for trouble in case.troubles)
    given = {
        "URL": url, "ACCESS_TOKEN": TOKEN, "CAS_COOKIE": COOKIE, "DATA_DIR": str(home), "LOG_LEVEL": "DEBUG",
        "RETRY_BASE_DELAY": "0.001", "CONNECT_TIMEOUT": "5", "READ_TIMEOUT": str(_READ if slow else 5),
        "DEADLINE": "1.5" if any(t.row == "endless" for t in case.troubles) else "20", "INSTANCE": DEMO_INSTANCE,
    }  # fmt: skip
    return Settings.from_env({f"SRC_ANALYTICS_{name}": value for name, value in given.items()})


async def met(case: Case, home: Path, log: io.StringIO) -> Outcome:
    """Put the case to a fresh server and look at everything afterwards."""
    desk = Desk()

    async def answer(exchange: Exchange) -> None:
        trouble = case.trouble(exchange.number)
        desk.ledger.append(Asked(exchange.method, exchange.target, exchange.headers, trouble))
        meant = desk.meant(exchange, act=trouble is None or trouble.effect)
        await (healthy if trouble is None else trouble.answer)(exchange, meant)

    async with scripted_upstream(answer) as upstream:
        settings = settings_of(upstream.url, home, case)
        begun = time.monotonic()
        arguments = dict(CALLS[case.tool][0])
        async with wired(settings, case.revision) as wire:
            with anyio.fail_after(30):
                number = await wire.send("tools/call", {"name": case.tool, "arguments": arguments})
                result = (await wire.answer(number))["result"]
                seconds = time.monotonic() - begun
                asked = len(desk.ledger)
                await wire.ask("prompts/list", {})
            outcome = Outcome(desk, home, result, [], seconds)
            outcome.wrong += _messages(wire, number)
        outcome.wrong += [*_leaked(wire, home, log), *_said(outcome), *_ledger(case, desk), *_store(home)]
        outcome.wrong += [*_TRUTHS[case.tool](case, outcome), *_owed(case, outcome)]
        if len(desk.ledger) != asked:
            outcome.wrong.append("upstream was asked again after the answer")
        if outcome.failed and case.tool == "create_token":
            outcome.wrong += await _settled(case, outcome, upstream.url)
    return outcome


def _messages(wire: Wire, number: int) -> Iterator[str]:
    if wire.answers(number) != 1:
        yield f"{wire.answers(number)} answers"


def _leaked(wire: Wire, home: Path, log: io.StringIO) -> Iterator[str]:
    if leaks("\n".join(wire.received)):
        yield "a secret in an answer"
    flush_log()
    if leaks(log.getvalue()):
        yield "a secret in the log"
    log.seek(0)
    log.truncate()
    for name in leaking_files(home):
        yield f"a secret in {name}"


def _said(outcome: Outcome) -> Iterator[str]:
    """The rules for every failure."""
    if not outcome.failed:
        return
    error = outcome.data["error"]
    if error["code"] not in CODES or error["code"] == "internal":
        yield f"failed with {error['code']}"
    if not outcome.text.startswith(f"[{error['code']}] ") or len(outcome.text) >= 2000:
        yield "the text is not as every failure's"
    if not isinstance(error["retryable"], bool) or not error["message"]:
        yield "an error that does not say enough"


def _ledger(case: Case, desk: Desk) -> Iterator[str]:
    """Counts and credentials."""
    if sum(asked.method == "POST" for asked in desk.ledger) > 1:
        yield "posted more than once"
    run, before = 0, ""
    for asked in desk.ledger:
        key = f"{asked.method} {asked.target}"
        run = (run + 1 if key == before else 1) if asked.trouble and asked.trouble.row != "harmless" else 0
        before = key
        allowed = max((t.most(asked.kind) for t in case.troubles), default=1)
        if run > allowed:
            yield f"{run} requests of {asked.kind} in trouble, {allowed} allowed"
        signed = (asked.headers.get("cookie"), asked.headers.get("authorization"))
        token = {f"Bearer {TOKEN}", f"Bearer {MADE}"}
        if asked.kind in ("report", "read"):
            if signed[0] is not None or signed[1] not in token:
                yield f"wrong credentials for {asked.kind}"
        elif signed != (f"cas={COOKIE}", None):
            yield f"wrong credentials for {asked.kind}"


def _store(home: Path) -> Iterator[str]:
    """Whole exports, and nothing left."""
    for folder in (home / "exports").glob("*"):
        meta = json.loads((folder / "meta.json").read_text())
        data = (folder / "export.csv").read_bytes()
        if hashlib.sha256(data).hexdigest() != meta["sha256"] or len(data) != meta["byte_count"]:
            yield "an export that is not whole"
        if not list((folder / "parts").iterdir()):
            yield "an export without parts"
    for path in (home / "staging").glob("*"):
        yield f"left in staging: {path.name}"


def _owed(case: Case, outcome: Outcome) -> Iterator[str]:
    """A call that met nothing lasting must succeed."""
    met_here = [asked for asked in outcome.desk.ledger if asked.trouble is not None]
    passing = all(
        asked.trouble is not None and (asked.trouble.row == "harmless" or case.times < asked.trouble.most(asked.kind))
        for asked in met_here
    )
    lasting = ("endless", "unframed", "empty")  # what only the deadline ends, or need not be tried again
    if any(trouble.row in lasting for trouble in case.troubles):
        return
    if passing and len({a.trouble for a in met_here}) <= 1 and outcome.failed:
        yield f"a passing trouble ended the call: {outcome.text[:200]}"


def _exported(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.failed:
        if list((outcome.home / "exports").glob("*")):
            yield "failed, and kept"
        return
    export = outcome.data["export"]
    whole = body(outcome.desk.ledger[0].target)
    kept = Path(export["path"]).read_bytes()
    if kept != whole or export["byte_count"] != len(whole) or export["row_count"] != whole.count(b"\n") - 1:
        yield "FALSE SUCCESS: the export is not what upstream meant to send"


def _masked(body: bytes) -> bytes:
    """What may be passed on of a body: everything but secrets."""
    for secret in (TOKEN, COOKIE, MADE):
        body = body.replace(secret.encode(), b"[secret]")
    return body


def _credited(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.failed:
        return
    allowed: list[Any] = [CREDITS]
    last = outcome.desk.ledger[-1].trouble
    if last is not None and last.whole is not None:  # the shape is not documented, so a whole body is passed on
        try:
            allowed = [json.loads(_masked(last.whole))]
        except (ValueError, RecursionError):
            return
    if outcome.data["credits"] not in allowed:
        yield f"FALSE SUCCESS: credits {str(outcome.data['credits'])[:80]!r}"


def _listed(case: Case, outcome: Outcome) -> Iterator[str]:
    if not outcome.failed and (
        {t["id"]: t["is_expired"] for t in outcome.data["tokens"]} != {LIVE: False, DEAD: True}
        or (outcome.data["total"], outcome.data["active"]) != (2, 1)
    ):
        yield "FALSE SUCCESS: not upstream's tokens"


def _created(case: Case, outcome: Outcome) -> Iterator[str]:
    live = outcome.desk.live()
    kept = list((outcome.home / "secrets").glob("*"))
    if outcome.failed:
        code = outcome.data["error"]["code"]
        for token in live:
            if code not in ("ambiguous", "unverified") and token not in outcome.text:
                yield f"a live token nobody was told of: {outcome.text[:200]}"
        if not live and kept:
            yield "the secret of a dead token is kept"
        return
    token = outcome.data["token"]["id"]
    secrets = [path.read_text() for path in kept]
    print_ = hashlib.sha256(MADE.encode()).hexdigest()[:8]
    if live != {token} or secrets != [MADE] or outcome.data["secret_fingerprint"] != print_:
        yield "FALSE SUCCESS: no such live token with its secret kept"
    if list((outcome.home / "creates").glob("*")):
        yield "a finished create is still in the journal"


async def _settled(case: Case, outcome: Outcome, url: str) -> list[str]:
    """With upstream well again, the next start puts right what it can, and forgets it."""
    live, code = outcome.desk.live(), outcome.data["error"]["code"]
    if code not in ("ambiguous", "unverified"):
        return ["left in the journal"] if list((outcome.home / "creates").glob("*")) else []
    peace = Case("list_tokens", (), 99, 0, case.revision)
    desk, outcome.desk.ledger = outcome.desk, []

    async def answer(exchange: Exchange) -> None:
        await healthy(exchange, desk.meant(exchange, act=True))

    async with scripted_upstream(answer) as again:
        # The journal is of one address: the same one is served once more, by way of the file.
        for path in (outcome.home / "creates").glob("*.json"):
            note = json.loads(path.read_text().replace(url, again.url))
            aged = datetime.fromisoformat(note["asked_at"]) - timedelta(minutes=4)  # a list proves an absence by now
            path.write_text(json.dumps(note | {"asked_at": aged.isoformat()}))
        async with wired(settings_of(again.url, outcome.home, peace)) as wire:
            with anyio.fail_after(20):
                result = (await wire.ask("tools/call", {"name": "list_tokens", "arguments": {}}))["result"]
    if result.get("isError") or desk.live() or list((outcome.home / "creates").glob("*")):
        return [f"not put right at the next start: {len(live)} live before, {len(desk.live())} after"]
    return []


def _revoked(case: Case, outcome: Outcome) -> Iterator[str]:
    dead = {token["id"]: token["isExpired"] for token in outcome.desk.tokens}[LIVE]
    if not outcome.failed and not (dead and outcome.data["outcome"] == "revoked" and outcome.data["verified"]):
        yield "FALSE SUCCESS: the token lives"
    sent = any(asked.method == "DELETE" for asked in outcome.desk.ledger)
    if outcome.failed and sent and dead and "nothing was" in outcome.text.lower():
        yield "said that nothing was changed"


def _answered(case: Case, outcome: Outcome) -> Iterator[str]:
    counted = [a for a in _COMPANY.activities if 1 <= (_TODAY - a.day).days <= 30]
    searches = [a.counts[0] for a in counted if a.counts[0] is not None]
    wanted = [sum(searches), len({a.person.id for a in counted})]
    if not outcome.failed and outcome.data["totals"] != wanted:
        yield f"FALSE SUCCESS: {outcome.data['totals']} instead of {wanted}"


def _missed(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.failed:
        return
    known = outcome.desk.ledger[-1]
    told = known.trouble is None or known.trouble.row == "harmless"
    services = {p.id for p in _COMPANY.people if p.service_account} if "registry" in known.target and told else set()
    ever = {a.person.id for a in _COMPANY.activities} - services
    recent = {a.person.id for a in _COMPANY.activities if (_TODAY - a.day).days < 7}
    if (outcome.data["inactive"], outcome.data["seen"]) != (len(ever - recent), len(ever)):
        yield f"FALSE SUCCESS: {outcome.data['inactive']} of {outcome.data['seen']}"


def _checked(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.failed:
        yield "the check itself failed"
        return
    good = {check["name"]: check["ok"] for check in outcome.data["checks"]}
    for name, kinds in (("access token", "read"), ("session cookie", "list")):
        last = [asked for asked in outcome.desk.ledger if asked.kind == kinds][-1].trouble
        harmless = last is None or last.row in ("harmless", "unframed")
        harmless |= kinds == "read" and last is not None and last.whole is not None
        if good[name] and not harmless:
            yield f"FALSE SUCCESS: {name} said to work"
        if not good[name] and (last is None or last.row == "harmless"):
            yield f"{name} said not to work"


_TRUTHS = {
    "export_csv": _exported, "get_credits": _credited, "list_tokens": _listed, "create_token": _created,
    "revoke_token": _revoked, "query_usage": _answered, "list_inactive_users": _missed, "check_connection": _checked,
}  # fmt: skip


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What the product's own log writes, at its most talkative, meanwhile."""
    root, text = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    given = {
        "SRC_ANALYTICS_ACCESS_TOKEN": TOKEN,
        "SRC_ANALYTICS_CAS_COOKIE": COOKIE,
        "SRC_ANALYTICS_LOG_LEVEL": "DEBUG",
    }
    try:
        configure_log(Settings.from_env(given), lambda line: text.write(line.decode()))
        yield text
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
