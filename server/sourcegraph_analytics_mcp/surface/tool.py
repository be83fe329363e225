"""What a tool is: a typed function with a title, hints and models, from which its schemas are generated."""

import difflib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from inspect import cleandoc
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from mcp_types import CallToolResult, ContentBlock, InputRequiredResult, TextContent, ToolAnnotations
from mcp_types import Tool as ListedTool
from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, ValidationError, WithJsonSchema

from ..errors import AnalyticsError, invalid
from ..redaction import Redactor
from ..spelling import safe, safe_data, visible

if TYPE_CHECKING:
    from .app import App
    from .call import Call

_MOST_ARGUMENTS = 100  # each unknown one costs a kilobyte
_MOST_PROBLEMS = 5  # that one refusal names


class Arguments(BaseModel):
    """Base of every tool's arguments: nothing unknown, nothing coerced, nothing echoed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """Base of every tool's structured answer."""

    model_config = ConfigDict(frozen=True)


def _iso_day(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise ValueError("send a date as YYYY-MM-DD")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError("there is no such day") from None


Day = Annotated[date, BeforeValidator(_iso_day), WithJsonSchema({"type": "string", "format": "date"})]


# A value in a table; spelled out because some clients take a schema without a type for a mistake.
Cell = Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean", "array", "object", "null"]})]
Figure = Annotated[Any, WithJsonSchema({"type": ["string", "number", "null"]})]


@dataclass(frozen=True)
class Reply:
    """What a tool says: a text that stands alone, the same as data, and further content blocks.

    Args:
        rows: how many rows of data the answer stands for, for the log.
        outcome: how the call ended, for the log.
        spell: how the data are made safe: `visible` where every value in them is spelled already.
        reveals: a secret that is meant to be there, as the field `secret`; whatever else looks like one is masked.
    """

    text: str
    data: Answer
    extra: list[ContentBlock] = field(default_factory=list)
    rows: int = 0
    spell: Callable[[str], str] = safe
    reveals: SecretStr | None = None
    outcome: str = "ok"

    def result(self, redactor: Redactor) -> CallToolResult:
        """The answer as the protocol has it, with nothing in it that must not leave."""
        text, data = self.text, safe_data(self.data.model_dump(mode="json"), self.spell)
        text, data = redactor.text(text), redactor.data(data)
        if self.reveals is not None:
            secret = self.reveals.get_secret_value()
            text, data = f"{text}\n\nSecret: `{secret}`", data | {"secret": secret}
        return CallToolResult(content=[TextContent(text=text), *self.extra], structured_content=data)


A = TypeVar("A", bound=Arguments)
Outcome = Reply | InputRequiredResult


@dataclass(frozen=True)
class Hints:
    """The four hints of the protocol."""

    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = True


@dataclass(frozen=True)
class Tool:
    """One tool as the server offers it."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    answer: type[Answer]
    hints: Hints
    changes_upstream: bool
    run: Callable[["App", Any, "Call"], Awaitable[Outcome]]

    @cached_property
    def listed(self) -> ListedTool:
        """The entry of `tools/list`, made once in a process."""
        hints = self.hints
        return ListedTool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=compact_schema(self.arguments, answer=False),
            output_schema=compact_schema(self.answer, answer=True),
            annotations=ToolAnnotations(
                read_only_hint=hints.read_only,
                destructive_hint=hints.destructive,
                idempotent_hint=hints.idempotent,
                open_world_hint=hints.open_world,
            ),
        )

    def parse(self, arguments: dict[str, Any]) -> Arguments:
        """Check the arguments of a call; null for an optional one is the same as leaving it out, as models send it so.

        Raises:
            AnalyticsError: `invalid_argument`, saying for each what to send instead, without echoing a value.
        """
        looked_at = dict(islice(arguments.items(), _MOST_ARGUMENTS))  # of so many, one at least is unknown
        optional = {name for name, field in self.arguments.model_fields.items() if not field.is_required()}
        given = {name: value for name, value in looked_at.items() if value is not None or name not in optional}
        try:
            return self.arguments.model_validate_json(json.dumps(given))
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems = [_problem(cast(dict[str, Any], e), self.arguments) for e in found[:_MOST_PROBLEMS]]
            more = f"; and {len(found) - _MOST_PROBLEMS} more" if len(found) > _MOST_PROBLEMS else ""
            raise invalid(f"{self.name}: {'; '.join(problems)}{more}.") from None


def tool(
    *, title: str, answer: type[Answer], hints: Hints, changes_upstream: bool = False
) -> Callable[[Callable[["App", A, "Call"], Awaitable[Outcome]]], Tool]:
    """Make a tool of a function `(app, arguments, call)`: its name and docstring become the tool's."""

    def make(run: Callable[["App", A, "Call"], Awaitable[Outcome]]) -> Tool:
        arguments = cast(type[Arguments], run.__annotations__["arguments"])
        description = re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(run.__doc__ or ""))
        return Tool(run.__name__, title, description, arguments, answer, hints, changes_upstream, run)

    return make


def failed(error: AnalyticsError, redactor: Redactor) -> CallToolResult:
    """A failure as a model reads it."""
    text, data = redactor.text(visible(error.text)), redactor.data(safe_data(error.structured(), visible))
    return CallToolResult(content=[TextContent(text=text)], structured_content=data, is_error=True)


def _problem(error: dict[str, Any], model: type[Arguments]) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the arguments"
    names = list(model.model_fields)
    match error["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(where, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"valid are: {', '.join(names) or 'none'}"
            return f'there is no argument "{safe(where)[:40]}" ({hint})'
        case "missing":
            return f'"{where}" is required'
        case "literal_error":
            return f'"{where}" must be one of {error["ctx"]["expected"]}'
        case "list_type":
            items = model.model_json_schema()["properties"][where]["items"]
            return f'"{where}" must be a list, like ["{items.get("enum", ["…"])[0]}"]'
        case "too_long":
            return f'"{where}" takes at most {error["ctx"]["max_length"]}, not {error["ctx"]["actual_length"]}'
        case "string_pattern_mismatch":  # a form is for machines; the description says what has it
            return f'"{where}" cannot be that; send: {model.model_fields[str(error["loc"][0])].description}'
        case "json_invalid":
            return "the arguments are not valid JSON"
        case _:
            return f'"{safe(where)[:60]}": {error["msg"].removeprefix("Value error, ")}'


def compact_schema(model: type[BaseModel], *, answer: bool) -> dict[str, Any]:
    """A model's JSON schema without references, titles and null defaults.

    In arguments `T | None` is listed as `T` (leave it out); in answers as `[T, "null"]`, because null is sent.
    """
    schema = model.model_json_schema(mode="serialization" if answer else "validation")
    schema.pop("description", None)  # the docstring is for readers of the code
    compact: dict[str, Any] = _compact(schema, schema.get("$defs", {}), answer=answer)
    return compact


def _compact(node: Any, definitions: dict[str, Any], *, answer: bool) -> Any:
    if isinstance(node, list):
        return [_compact(item, definitions, answer=answer) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _compact(definitions[node["$ref"].rsplit("/", 1)[1]] | rest, definitions, answer=answer)
    kept = {key: value for key, value in node.items() if not _noise(key, value, answer=answer)}
    out = {
        key: {name: _compact(s, definitions, answer=answer) for name, s in value.items()}
        if key == "properties"
        else _compact(value, definitions, answer=answer)
        for key, value in kept.items()
    }
    return _without_null(out, answer=answer)


def _noise(key: str, value: Any, *, answer: bool) -> bool:
    if key in ("$defs", "title"):
        return not isinstance(value, dict) or key == "$defs"
    if key in ("minLength", "maxLength", "minItems", "maxItems", "pattern"):
        return True  # checked all the same, with a sentence; not worth a model's tokens
    if answer and key in ("default", "description", "format", "required", "additionalProperties"):
        return True
    return key == "default" and value in (None, [], ())


def _without_null(node: dict[str, Any], *, answer: bool) -> dict[str, Any]:
    choices = node.get("anyOf", [])
    if {"type": "null"} not in choices or len(choices) != 2:
        return node
    chosen = next(choice for choice in choices if choice != {"type": "null"})
    merged: dict[str, Any] = chosen | {key: value for key, value in node.items() if key != "anyOf"}
    if answer and "type" in merged:
        merged["type"] = [merged["type"], "null"]
        if "enum" in merged:
            merged["enum"] = [*merged["enum"], None]
    return merged
