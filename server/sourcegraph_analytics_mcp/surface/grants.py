"""What each caller over HTTP may use, as the operator's file says; whoever is not in it may nothing."""

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ..errors import AnalyticsError
from ..pasted import said_back
from ..settings import PREFIX, Settings, SettingsError, bare_host
from .tools import TOOLS

ANY = "*"  # as an instance or tool; as a caller, everybody who is not listed
_SETTING = f"{PREFIX}CALLERS_FILE"
_TOOLS = (ANY, *(tool.name for tool in TOOLS))


def named(issuer: str | None, subject: str) -> str:
    """A caller as a name that can stand in a path and a log, and does not say who it is."""
    return hashlib.sha256(f"{issuer}\n{subject}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _instance(text: str) -> str:
    if text == ANY:
        return text
    try:
        return bare_host(text)
    except AnalyticsError:
        raise ValueError("it must be a bare host like example.sourcegraphcloud.com, or *") from None


def _tool(text: str) -> str:
    if text not in _TOOLS:
        raise ValueError(f"it must be one of {', '.join(_TOOLS)}")
    return text


def _some(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("name at least one, or * for all of them")
    return names


class Grant(BaseModel):
    """The instances that somebody may ask about, and the tools for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    instances: Annotated[tuple[Annotated[str, AfterValidator(_instance)], ...], AfterValidator(_some)]
    tools: Annotated[tuple[Annotated[str, AfterValidator(_tool)], ...], AfterValidator(_some)]

    def covers(self, tool: str) -> bool:
        return ANY in self.tools or tool in self.tools

    def narrowed(self, settings: Settings) -> Settings:
        """The settings with these instances alone; the only one is the default."""
        if ANY in self.instances:
            return settings
        only = self.instances[0] if len(self.instances) == 1 else None
        default = settings.instance if settings.instance in self.instances else only
        return settings.model_copy(update={"instances": self.instances, "instance": default})


class Grants:
    """Who may use what.

    Args:
        by_name: what each caller may use, by the name that `named` gives.
        others: what everybody else may use; None for nothing.
    """

    def __init__(self, by_name: Mapping[str, Grant], others: Grant | None) -> None:
        self._by_name = by_name
        self._others = others

    def of(self, name: str) -> Grant:
        """What a caller may use.

        Raises:
            AnalyticsError: `forbidden` for who may use nothing.
        """
        grant = self._by_name.get(name, self._others)
        if grant is None:
            raise AnalyticsError(
                "forbidden", "You are not among the callers of this server.", "Ask its operator to list you."
            )
        return grant


def read_grants(settings: Settings) -> Grants | None:
    """Read `SRC_ANALYTICS_CALLERS_FILE`; None where everybody may use everything.

    Raises:
        SettingsError: with what is wrong and in which entry, without a person's name.
    """
    if settings.callers_file is None:
        return None
    entries = _entries(_private(settings.callers_file))
    granted = {subject: _grant(entry, n, settings) for n, (subject, entry) in enumerate(entries.items(), 1)}
    others = granted.pop(ANY, None)
    return Grants({named(settings.oauth_issuer, subject): grant for subject, grant in granted.items()}, others)


def _private(path: Path) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{_SETTING} cannot be read: {said_back(path)}.") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{_SETTING} can be read by others; run: chmod 600 {path}.")
    return text


def _entries(text: str) -> dict[str, Any]:
    try:
        entries = json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{_SETTING}, line {error.lineno}: that is not JSON.") from None
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict) or not entries:
        raise SettingsError(f"{_SETTING} must hold a JSON object with an entry for each caller.")
    return entries


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise SettingsError(f"{_SETTING} holds a name twice.")
    return dict(pairs)


def _grant(entry: object, number: int, settings: Settings) -> Grant:
    try:
        grant = Grant.model_validate_json(json.dumps(entry))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ", ".join([f"entry {number}", *map(str, first["loc"][:1])])
        raise SettingsError(f"{_SETTING}, {where}: {first['msg'].removeprefix('Value error, ')}.") from None
    if settings.instances and not {*grant.instances} <= {ANY, *settings.instances}:
        raise SettingsError(f"{_SETTING}, entry {number}, instances: each must be one of {PREFIX}INSTANCES.")
    return grant
