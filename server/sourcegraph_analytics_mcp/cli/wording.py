"""What tools say to an assistant, in the words of the command line: its commands and flags instead of theirs."""

import re
from collections.abc import Mapping

_COMMANDS = {
    "check_connection": "doctor",
    "create_token": "token create",
    "delete_export": "export delete",
    "list_exports": "export list",
    "list_tokens": "token list",
    "revoke_token": "token revoke",
}
_ALONE = r"(?<![\w/])(?:{})(?![\w/])"  # a path may hold any word
_TOOL = re.compile(rf"(\b[Cc]all )?({_ALONE.format('|'.join(_COMMANDS))})")
_SENTENCE = re.compile(r"^(?!\|).+", re.MULTILINE)  # what begins otherwise is a row of a table, which holds data


def for_a_person(text: str, flags: Mapping[str, str], *, tables: bool = False) -> str:
    """The same text for who types commands.

    Args:
        text: Markdown of a tool's answer, or an error's.
        flags: what stands at the command line for an argument of the tool.
        tables: whether its tables hold sentences of ours, and no data.
    """
    named = re.compile(rf'"?({_ALONE.format("|".join(map(re.escape, flags)))})"?') if flags else None

    def typed(sentence: re.Match[str]) -> str:
        said = _TOOL.sub(_command, sentence[0])
        return named.sub(lambda argument: flags[argument[1]], said) if named else said

    return re.sub(".+", typed, text) if tables else _SENTENCE.sub(typed, text)


def _command(tool: re.Match[str]) -> str:
    call = tool[1] or ""
    return call.replace("call", "run").replace("Call", "Run") + f"`{_COMMANDS[tool[2]]}`"
