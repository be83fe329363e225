"""The prompts: one Markdown file each in `prompts/`, with TOML front matter for title, description and arguments.

+++
title = "Monthly adoption report"
description = "…"
[arguments.month]
description = "…"
default = "last_month"     # without a default the argument is required
choices = ["last_month"]   # offered as completions; no others are taken but, where all are numbers, numbers up to 999
also = "YYYY-MM"           # a form that is taken besides the choices
longest = 200              # characters that are taken (1000)
+++
Text with $month in it; $$ is a dollar sign.

A prompt is offered where every tool is that its text names.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Literal, Self

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, GetPromptResult, PromptArgument, PromptMessage, TextContent
from mcp_types import Prompt as ListedPrompt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..spelling import safe
from .words import either, folded

_LONGEST_ECHO = 40
_Form = Literal["YYYY-MM", "a whole number up to 999"]
_FORMS: dict[_Form, str] = {"YYYY-MM": r"\d{4}-(0[1-9]|1[0-2])", "a whole number up to 999": r"[1-9]\d{0,2}"}


class _Front(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Argument(_Front):
    description: str
    default: str | None = None
    choices: list[str] = Field(default=[])
    also: _Form | None = None
    longest: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _takes_its_default(self) -> Self:
        if self.default is not None:
            self.meant(self.default)
        return self

    def meant(self, value: str) -> str:
        """A value as it is meant.

        Raises:
            ValueError: for one that is too long or none of the choices, saying what is taken.
        """
        if len(value) > self.longest:
            raise ValueError(f"is too long; {self.longest} characters are taken")
        numbers = bool(self.choices) and all(choice.isdecimal() for choice in self.choices)
        also = self.also or ("a whole number up to 999" if numbers else None)
        if not self.choices or (also is not None and re.fullmatch(_FORMS[also], value, re.ASCII)):
            return value
        taken = {folded(choice): choice for choice in self.choices}.get(folded(value))
        if taken is None:
            known = either([*self.choices, *filter(None, [also])])
            raise ValueError(f"cannot be {safe(value)[:_LONGEST_ECHO]!r}; send {known}")
        return taken


class _Head(_Front):
    title: str
    description: str
    arguments: dict[str, Argument] = Field(default={})


@dataclass(frozen=True)
class Prompt:
    """One file."""

    name: str
    title: str
    description: str
    arguments: dict[str, Argument]
    text: str

    def listed(self) -> ListedPrompt:
        arguments = [
            PromptArgument(name=name, description=argument.description, required=argument.default is None)
            for name, argument in self.arguments.items()
        ]
        return ListedPrompt(name=self.name, title=self.title, description=self.description, arguments=arguments)

    def filled(self, given: dict[str, str]) -> GetPromptResult:
        """The prompt with its arguments put in.

        Raises:
            MCPError: invalid params, naming what is missing, unknown or not taken.
        """
        for name in given:
            if name not in self.arguments:
                raise _refused(
                    f"There is no argument {safe(name)[:40]!r}; valid are: {', '.join(self.arguments) or 'none'}."
                )
        values: dict[str, str] = {}
        for name, argument in self.arguments.items():
            value = given.get(name, "").strip() or argument.default
            if value is None:
                raise _refused(f"The argument {name!r} is required: {argument.description}.")
            try:
                values[name] = safe(argument.meant(value))
            except ValueError as wrong:
                raise _refused(f"The argument {name!r} {wrong}.") from None
        text = Template(self.text).substitute(values)
        return GetPromptResult(
            description=self.description, messages=[PromptMessage(role="user", content=TextContent(text=text))]
        )


@cache
def prompts() -> dict[str, Prompt]:
    """Every prompt by name, in the order of their files."""
    folder = files("sourcegraph_analytics_mcp.prompts")
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".md")), key=lambda entry: entry.name)
    return {p.name: p for p in (parse(e.name.removesuffix(".md"), e.read_text(encoding="utf-8")) for e in found)}


def parse(name: str, source: str) -> Prompt:
    """Read one prompt file.

    Raises:
        ValueError: naming the file; for front matter that is missing, or not as it is described above, a `$name` that
            is no argument, or another `$`.
    """
    match = re.fullmatch(r"\+\+\+\n(.*?)\n\+\+\+\n(.*)", source, re.DOTALL)
    if match is None:
        raise ValueError(f"prompts/{name}.md must begin with TOML front matter between +++ lines")
    head = _head(name, match[1])
    text = match[2].strip()
    if not Template(text).is_valid():
        raise ValueError(f"prompts/{name}.md has a $ that begins no name; write $$ for a dollar sign")
    unknown = set(Template(text).get_identifiers()) - set(head.arguments)
    if unknown:
        raise ValueError(f"prompts/{name}.md uses ${min(unknown)}, which is not among its arguments")
    return Prompt(name, head.title, head.description, head.arguments, text)


def _head(name: str, front: str) -> _Head:
    try:
        return _Head.model_validate(tomllib.loads(front))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ValueError(f"prompts/{name}.md: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"prompts/{name}.md: {error}") from None


def without_tools(missing: Set[str]) -> dict[str, Prompt]:
    """The prompts that can be followed where some tools are not offered."""
    return {name: p for name, p in prompts().items() if missing.isdisjoint(re.findall(r"\w+", p.text))}


def find(name: str, offered: Mapping[str, Prompt]) -> Prompt:
    """Look a prompt up among those that are offered.

    Raises:
        MCPError: invalid params, with the nearest name.
    """
    if name not in offered:
        near = difflib.get_close_matches(name, offered, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(offered)}."
        raise _refused(f"There is no prompt {safe(name)[:60]!r}. {hint}")
    return offered[name]


def _refused(message: str) -> MCPError:
    return MCPError(code=INVALID_PARAMS, message=message)
