"""The operator's settings: environment variables, checked once, at start."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from .errors import AnalyticsError, invalid
from .pasted import COOKIE, CookieName, is_token, refuse_more_than_a_value, secret_of
from .redaction import SHORTEST

PREFIX = "SRC_ANALYTICS_"
DEFAULT_URL = "https://analytics.sourcegraph.com"
DEMO_TOKEN_ID = "00000000-0000-0000-0000-000000000003"  # noqa: S105 - of the token that the demo starts with
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*(:\d{1,5})?\Z"
)
PORTS = {"https": 443, "http": 80}

_SECRET = ("access_token", "cas_cookie", "state_key")

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Minutes = Annotated[float, Field(ge=0, le=1440, allow_inf_nan=False)]


class SettingsError(Exception):
    """A setting that cannot be used; the text is one sentence that names the variable and never shows a secret."""


def bare_host(text: str) -> str:
    """Return `text` as the bare lower-case host that upstream calls `instanceURL`.

    Raises:
        AnalyticsError: `invalid_argument` when it is not a host.
    """
    host = text.strip().lower().removeprefix("https://").removeprefix("http://").removesuffix("/")
    if not _HOST.match(host):
        raise invalid(
            "instance_url is not a host name.", "Send the bare host of the instance, like example.sourcegraphcloud.com."
        )
    return host


class Settings(BaseModel):
    """Everything that can be set; each field is `SRC_ANALYTICS_<NAME>` in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(DEFAULT_URL, description="Address of Sourcegraph Analytics (https, or http on loopback)")
    instance: str | None = Field(None, description="Default Sourcegraph instance, a bare host")
    instances: tuple[str, ...] = Field((), description="Instances that may be asked about, separated by commas (any)")
    cookie_name: CookieName = Field(COOKIE, description="Name of the session cookie")
    access_token: SecretStr | None = Field(None, description="Access token for exports")
    access_token_file: Path | None = Field(None, description="File that holds the access token, readable by you alone")
    cas_cookie: SecretStr | None = Field(None, description="Session cookie, needed only to manage tokens")
    demo: bool = Field(False, description="Serve a made-up company from an embedded upstream")
    data_dir: Path | None = Field(
        None, description="Where exports and token records are kept; those of the demo in its folder `demo`"
    )
    read_only: bool = Field(False, description="Leave out the tools that change something upstream")
    secret_delivery: Literal["store", "reveal"] = Field(
        "store", description="`reveal` also shows a new token's secret to the assistant"
    )
    identities: Literal["names", "pseudonyms"] = Field(
        "names", description="`pseudonyms` keeps every name, e-mail and user id out of every answer"
    )
    retention_days: float = Field(30, gt=0, description="Exports older than this are deleted")
    max_store_bytes: int = Field(
        10 * 2**30, gt=0, description="Size of the store; from the newest on, what no longer fits goes"
    )
    max_export_bytes: int = Field(4 * 2**30, gt=0, description="Largest export that is accepted, decoded")
    teams_file: Path | None = Field(None, description="CSV of person (e-mail, username or user id) and team")
    seats_file: Path | None = Field(None, description="CSV of licensed e-mails or usernames, one per line")
    minutes_per_search: Minutes = Field(5, description="Minutes saved per search, for hours_saved")
    minutes_per_chat: Minutes = Field(5, description="Minutes saved per chat")
    minutes_per_command: Minutes = Field(5, description="Minutes saved per command")
    minutes_per_completion: Minutes = Field(2, description="Minutes saved per accepted completion")
    minutes_per_autoedit: Minutes = Field(2, description="Minutes saved per accepted auto-edit")
    minutes_per_code_navigation: Minutes = Field(0, description="Minutes saved per code navigation; not documented")
    connect_timeout: Seconds = Field(10, description="Seconds to connect")
    read_timeout: Seconds = Field(
        120,
        description="Seconds without a byte before an export is given up (anything else: 30 at most); "
        "so is a body below 1 KiB/s over twice that",
    )
    deadline: Seconds = Field(
        900,
        description="Seconds for a whole export, retries included (anything else: twice CONNECT_TIMEOUT + 30 at most)",
    )
    answer_within: Seconds = Field(45, description="Seconds after which an export goes on in the background")
    retry_base_delay: Annotated[float, Field(ge=0, le=60)] = Field(
        0.5, description="Seconds before the first retry; doubles, with jitter"
    )
    resource_links: bool = Field(True, description="Add resource_link blocks to answers (some clients choke on them)")
    sql_timeout: Seconds = Field(10, description="Seconds after which a query of query_export is stopped")
    sql_memory_mb: int = Field(512, ge=64, le=65_536, description="Memory of one such query, in MB")
    public_url: str | None = Field(None, description="Over HTTP, the address callers use: https://HOST/mcp")
    oauth_issuer: str | None = Field(None, description="Over HTTP, who issues callers' access tokens (OAuth 2.1)")
    oauth_keys_url: str | None = Field(
        None, validate_default=True, description="Where that issuer publishes its keys (JWKS)"
    )
    callers_file: Path | None = Field(
        None, description="Over HTTP, JSON file of the instances and tools that each caller may use (all of them)"
    )
    state_key: SecretStr | None = Field(None, description="Over HTTP, what replicas sign confirmations with (32+)")
    calls_per_minute: int = Field(60, gt=0, description="Over HTTP, tool calls of one caller in a minute")
    queries_per_minute: int = Field(20, gt=0, description="Over HTTP, questions of one caller in a minute")
    exports_per_hour: int = Field(20, gt=0, description="Over HTTP, downloads for one caller in an hour, whatever asks")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Level of the log on stderr")

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: object) -> "Settings":
        """Read the settings from an environment; `overrides` (command line flags) win.

        Raises:
            SettingsError: naming the variable at fault.
        """
        known = {PREFIX + name.upper(): name for name in cls.model_fields}
        unknown = sorted(key for key in environ if key.startswith(PREFIX) and key not in known)
        if unknown:
            raise SettingsError(f"{unknown[0]} is not a setting of this server; README.md lists those that are.")
        given: dict[str, object] = {
            known[key]: value for key, value in environ.items() if key in known and value.strip() != ""
        }
        try:
            return cls.model_validate(given | overrides)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise SettingsError(f"{name} cannot be used: {first['msg'].removeprefix('Value error, ')}.") from None

    @field_validator("instances", mode="before")
    @classmethod
    def _split_instances(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not (hosts := tuple(part for part in value.split(",") if part.strip())):  # none would mean any
            raise ValueError("it must name at least one host")
        return hosts

    @field_validator("instances")
    @classmethod
    def _check_instances(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_host_setting(host) for host in value)

    @field_validator("instances")
    @classmethod
    def _check_default(cls, value: tuple[str, ...], known: ValidationInfo) -> tuple[str, ...]:
        default = known.data.get("instance")
        if value and default is not None and default not in value:
            raise ValueError(f"the default, {PREFIX}INSTANCE, must be among them")
        return value

    @field_validator("instance")
    @classmethod
    def _check_instance(cls, value: str | None) -> str | None:
        return None if value is None else _host_setting(value)

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = parts_of(value.strip())
        if parts is None or "@" in parts.netloc or parts.query or parts.fragment or parts.path.strip("/"):
            raise ValueError("it must be a bare address like https://analytics.sourcegraph.com")
        if not _private(parts):
            raise ValueError("it must be an https address (http only on loopback)")
        return one_spelling(value.strip())

    @field_validator("data_dir", "access_token_file", "teams_file", "seats_file", "callers_file")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        if value is not None and is_token(str(value)):
            raise ValueError("that is a token, not a file: set SRC_ANALYTICS_ACCESS_TOKEN")
        try:
            return None if value is None else Path(str(value).strip()).expanduser().absolute()
        except FileNotFoundError:  # where this was started from
            raise ValueError("the directory that it begins from is not there any more; write the whole path") from None
        except RuntimeError:  # nobody of that name, or HOME is not set and the user has no entry
            raise ValueError("whose home directory its ~ stands for is not known; write the whole path") from None

    @field_validator("data_dir")
    @classmethod
    def _apart(cls, value: Path | None, known: ValidationInfo) -> Path | None:
        return value / "demo" if value is not None and known.data.get("demo") else value

    @field_validator("public_url", "oauth_issuer", "oauth_keys_url")
    @classmethod
    def _check_address(cls, value: str | None) -> str | None:
        parts = parts_of(value or "https://a.example")
        if parts is None or "@" in parts.netloc or parts.query or parts.fragment or not _private(parts):
            raise ValueError("it must be an https address (http only on loopback)")
        return value

    @field_validator("callers_file")
    @classmethod
    def _check_callers(cls, value: Path | None, known: ValidationInfo) -> Path | None:
        if value is not None and known.data.get("oauth_issuer") is None:
            raise ValueError("it tells callers apart, which needs OAUTH_ISSUER, OAUTH_KEYS_URL and PUBLIC_URL")
        return value

    @field_validator("state_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        key = "" if value is None else value.get_secret_value()
        if value is not None and (re.search(r"[\ud800-\udfff]", key) or len(key.encode()) < 32):
            raise ValueError("it must be at least 32 bytes long, in UTF-8")
        return value

    @field_validator("public_url")
    @classmethod
    def _check_path(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).path != "/mcp":  # the metadata of another would be elsewhere
            raise ValueError("it must end with /mcp and have no other path, as in https://HOST/mcp")
        return value

    @field_validator("oauth_keys_url")  # the last of the three, so that the others are known
    @classmethod
    def _check_issuer(cls, value: str | None, known: ValidationInfo) -> str | None:
        given = [value, *(known.data.get(name) for name in ("public_url", "oauth_issuer"))]
        if any(given) and not all(given):
            raise ValueError("PUBLIC_URL, OAUTH_ISSUER and OAUTH_KEYS_URL belong together: set all three")
        return value

    @field_validator("access_token", "cas_cookie")
    @classmethod
    def _check_secret(cls, value: SecretStr | None, known: ValidationInfo) -> SecretStr | None:
        name = known.data.get("cookie_name", COOKIE)  # it is before them; what it cannot be is told first
        return None if value is None else SecretStr(header_safe(value.get_secret_value(), cookie=name))

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets among the settings."""
        given: list[SecretStr | None] = [getattr(self, name) for name in _SECRET]
        return frozenset(secret.get_secret_value() for secret in given if secret is not None)

    @property
    def home(self) -> Path:
        """The directory everything is kept in; the demo has its own.

        Raises:
            SettingsError: when none is set and this user has no home directory.
        """
        if self.data_dir is not None:
            return self.data_dir
        from platformdirs import user_data_path  # only needed without DATA_DIR

        with suppress(RuntimeError):
            users = user_data_path("sourcegraph-analytics-mcp", appauthor=False)
            if users.parts[0] != "~":  # from older versions of it: a directory of that name, here
                return users / ("demo" if self.demo else "live")
        raise SettingsError(f"{PREFIX}DATA_DIR must be set, as this user has no home directory.")

    def resolve_instance(self, asked: str | None) -> str:
        """Return the instance to ask about: the argument, else the configured default.

        Raises:
            AnalyticsError: `invalid_argument` without either, `forbidden` when it is not on the operator's list.
        """
        if asked is None and self.instance is None:
            known = f" (one of: {', '.join(self.instances)})" if self.instances else ""
            raise invalid("No instance was named.", f"Pass instance_url{known}, or set {PREFIX}INSTANCE for a default.")
        host = self.instance if asked is None else bare_host(asked)
        assert host is not None
        if self.instances and host not in self.instances:
            raise AnalyticsError(
                "forbidden",
                "That instance is not on this server's list.",
                f"Use one of: {', '.join(self.instances)}; the operator decides, by {PREFIX}INSTANCES or CALLERS_FILE.",
            )
        return host


def secrets_in(environ: Mapping[str, str]) -> frozenset[str]:
    """The secrets among what is set, before it is known whether they can be used."""
    cookie = environ.get(f"{PREFIX}COOKIE_NAME", COOKIE)
    given = (secret_of(environ.get(PREFIX + name.upper(), "").strip(), cookie) for name in _SECRET)
    return frozenset(secret for secret in given if len(secret) >= SHORTEST)


def parts_of(address: str) -> SplitResult | None:
    """The parts of an address with a host that can be dialled; None for what is no such address."""
    try:
        parts = urlsplit(address)
        dialled = parts.hostname and parts.port != 0
    except ValueError:  # whose text shows what was given, which may be a password
        return None
    return parts if dialled and address.isprintable() and " " not in address else None


def one_spelling(address: str) -> str:
    """An address as all are spelled that mean the same: in lower case, without the port that goes without saying."""
    parts = parts_of(address)
    if parts is None or parts.hostname is None:
        return address
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _private(parts: SplitResult) -> bool:
    """Whether nobody on the way can read what is sent there."""
    loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    return parts.scheme == "https" or (parts.scheme == "http" and loopback)


def _host_setting(text: str) -> str:
    try:
        return bare_host(text)
    except AnalyticsError:
        raise ValueError("it must be a bare host like example.sourcegraphcloud.com") from None


def header_safe(secret: str, *, cookie: str = COOKIE) -> str:
    """Strip a pasted secret and check that it can stand in a header, and holds no name, without ever echoing it.

    Raises:
        ValueError: for an empty value, a path, one with a name or quotes around it, control characters, spaces inside,
            characters beyond ASCII, or less than any credential has.
    """
    value = secret.strip()
    refuse_more_than_a_value(value, cookie)
    if not value or not value.isascii() or any(c <= " " or c == "\x7f" or c == ";" for c in value):
        raise ValueError("it holds characters that cannot be part of a token or cookie")
    if len(value) < SHORTEST:  # 64 bits, the least for a session, take 16 digits or 12 of Base64; tokens are far longer
        raise ValueError(f"it is too short for a token or cookie, which has at least {SHORTEST} characters")
    return value
