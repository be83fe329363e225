"""What this process says on stderr outside the log, also on its way out: no secret that is known or looks like one."""

import argparse
import os
import re
import sys
from typing import NoReturn

from ..errors import origin
from ..redaction import LEARNT, Redactor
from ..settings import secrets_in

# What argparse says that holds nothing of what was given.
_OURS = re.compile(
    r"(argument [^:]+: )?(expected |not allowed with argument |the following arguments are required: |one of the ).*"
)
_WHERE = re.compile(r"argument [^:]+: ")
_FLAG = re.compile(r"(?<!\S)(?:--[a-z][a-z-]{0,19}|-[a-z])(?=[=\s]|\Z)")  # whole, short and letters, as no secret


def masked(text: str) -> str:
    """The text without a secret."""
    return Redactor(LEARNT | secrets_in(os.environ)).text(text)


def say(text: str) -> None:
    """Say something to whoever started this."""
    print(masked(text), file=sys.stderr)  # noqa: T201


def say_the_unforeseen() -> None:
    """Have an uncaught exception told in a line, where Python would print all that it says."""

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: object) -> None:
        say(f"This failed in a way nobody foresaw; please report it: {origin(error)}.")

    sys.excepthook = uncaught


class Parser(argparse.ArgumentParser):
    """One that does not say back what it was given, as that may be a secret."""

    def error(self, message: str) -> NoReturn:
        super().error(_without_values(message))


def _without_values(message: str) -> str:
    """What is wrong, with the names that are ours and nothing of the values."""
    if _OURS.fullmatch(message):
        return message
    where = _WHERE.match(message)
    _, chosen_from, choices = message.rpartition(" (choose from ")
    if chosen_from:
        return f"{where[0] if where else ''}that is none of them{chosen_from}{choices}"
    if where:
        return f"{where[0]}its value cannot be used"
    unknown = _FLAG.findall(message.removeprefix("unrecognized arguments"))
    named = f" ({', '.join(unknown)})" if unknown else ""
    return f"an argument is not known{named}; --help names those that are, and none takes a secret"
