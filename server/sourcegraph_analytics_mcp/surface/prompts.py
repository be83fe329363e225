"""The prompts: one Markdown file each in `prompts/`, with TOML front matter for title, description and arguments.

+++
title = "Monthly adoption report"
description = "…"
[arguments.month]
description = "…"
default = "last month"     # without a default the argument is required
choices = ["a", "b"]       # offered as completions; no others are taken, where all are numbers any whole number is
also = "YYYY-MM"           # a form that is taken besides the choices
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
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, GetPromptResult, PromptArgument, PromptMessage, TextContent
from mcp_types import Prompt as ListedPrompt

from .text import safe
from .words import either, folded

_LONGEST_ARGUMENT = 1000
_LONGEST_ECHO = 40
_FORMS = {"YYYY-MM": r"\d{4}-(0[1-9]|1[0-2])", "a whole number up to 999": r"[1-9]\d{0,2}"}


@dataclass(frozen=True)
class Argument:
    description: str
    default: str | None
    choices: tuple[str, ...]
    also: str | None = None

    def taken(self, value: str) -> str | None:
        """A value as it is meant; None where it is none of the choices."""
        if not self.choices or (self.also is not None and re.fullmatch(_FORMS[self.also], value, re.ASCII)):
            return value
        return {folded(choice): choice for choice in self.choices}.get(folded(value))


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
            MCPError: invalid params, naming what is missing or unknown.
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
            if len(value) > _LONGEST_ARGUMENT:
                raise _refused(f"The argument {name!r} is too long.")
            if (taken := argument.taken(value)) is None:
                known = either([*argument.choices, *filter(None, [argument.also])])
                raise _refused(f"The argument {name!r} cannot be {safe(value)[:_LONGEST_ECHO]!r}; send {known}.")
            values[name] = safe(taken)
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
        ValueError: for front matter that is missing or incomplete, a form that is not known, a `$name` that is no
            argument, or another `$`.
    """
    match = re.fullmatch(r"\+\+\+\n(.*?)\n\+\+\+\n(.*)", source, re.DOTALL)
    if match is None:
        raise ValueError(f"prompts/{name}.md must begin with TOML front matter between +++ lines")
    head = tomllib.loads(match[1])
    arguments = {key: _argument(a) for key, a in head.get("arguments", {}).items()}
    wrong = next((a for a in arguments.values() if a.also not in (None, *_FORMS)), None)
    if wrong is not None:
        raise ValueError(f"prompts/{name}.md: also can be {either(list(_FORMS))}")
    text = match[2].strip()
    if not Template(text).is_valid():
        raise ValueError(f"prompts/{name}.md has a $ that begins no name; write $$ for a dollar sign")
    unknown = set(Template(text).get_identifiers()) - set(arguments)
    if unknown:
        raise ValueError(f"prompts/{name}.md uses ${min(unknown)}, which is not among its arguments")
    return Prompt(name, str(head["title"]), str(head["description"]), arguments, text)


def _argument(given: Mapping[str, Any]) -> Argument:
    choices = tuple(given.get("choices", ()))
    numbers = "a whole number up to 999" if choices and all(choice.isdecimal() for choice in choices) else None
    return Argument(str(given["description"]), given.get("default"), choices, given.get("also", numbers))


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
