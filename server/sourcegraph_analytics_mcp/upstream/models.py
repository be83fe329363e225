"""What goes to and comes from the Analytics API, as typed values.

Names and shapes are those of Sourcegraph's documentation of May to July 2025 (token endpoints) and of today (reports).
"""

from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

Granularity = Literal["by_user", "by_user_month", "by_user_day", "by_user_day_client_language"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
FINEST: Granularity = "by_user_day_client_language"  # upstream's own default


def utc(moment: datetime) -> datetime:
    """The same moment in UTC, which is meant where no zone is given.

    Raises:
        ValueError: where it has none (a last minute of the year 9999 in a zone west of it).
    """
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such moment in UTC") from None


Moment = Annotated[datetime, AfterValidator(utc)]


class Wire(BaseModel):
    """A value as upstream spells it; keys that are new to us are ignored."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True)


class Token(Wire):
    """An access token as upstream lists it; its secret is never listed."""

    id: str = Field(min_length=1, max_length=200)
    display_name: str | None = None
    created_at: Moment
    expires_at: Moment | None = None
    is_expired: bool = False


class NewToken(Wire):
    """The answer to a create: the only time the secret is shown."""

    id: str = Field(min_length=1, max_length=200)
    secret: SecretStr
    display_name: str | None = None
    created_at: Moment
    expires_at: Moment | None = None


class TokenList(Wire):
    """Every token of the signed-in user."""

    tokens: tuple[Token, ...]
    next_page: Any = None  # not documented: where there is one, the list is not whole

    @property
    def whole(self) -> bool:
        return not self.next_page


class TokenRequest(Wire):
    """The body of a create."""

    display_name: str | None = None
    expires_at: Moment | None = None

    def body(self) -> dict[str, str]:
        """The JSON to send: only what was given, times as `2025-12-31T23:59:59Z`."""
        given: dict[str, str] = {}
        if self.display_name is not None:
            given["displayName"] = self.display_name
        if self.expires_at is not None:
            given["expiresAt"] = self.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        return given


class ReportRequest(BaseModel):
    """One usage report: which instance, how fine, which days (inclusive; none means without that bound)."""

    model_config = ConfigDict(frozen=True)

    instance_url: str
    granularity: Granularity = FINEST
    start_date: date | None = None
    end_date: date | None = None

    def query(self) -> dict[str, str]:
        """The query string as documented, exactly one of each key."""
        return dated_query(self.instance_url, self.start_date, self.end_date) | {"granularity": self.granularity}


def dated_query(instance_url: str, start: date | None, end: date | None) -> dict[str, str]:
    """The query that reports and credits share."""
    query = {"instanceURL": instance_url}
    if start is not None:
        query["startDate"] = start.isoformat()
    if end is not None:
        query["endDate"] = end.isoformat()
    return query


class Written(float):
    """A number of upstream's JSON that is no whole one, with how it was written: a float may hold fewer digits."""

    def __init__(self, written: str) -> None:
        self.written = written

    @property
    def exact(self) -> bool:
        """Whether the float says the same."""
        try:
            return Decimal(self.written) == Decimal(repr(float(self)))
        except InvalidOperation:  # an exponent of absurd length
            return False
