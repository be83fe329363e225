"""Complete what can be enumerated: export ids and the choices of prompt arguments. Never people."""

from collections.abc import Callable

from mcp_types import Completion, CompletionArgument, PromptReference, ResourceTemplateReference

from ..errors import AnalyticsError
from .app import App
from .notices import EXPORTS_URI
from .prompts import prompts

_MOST = 100


async def complete(
    app: App,
    reference: PromptReference | ResourceTemplateReference,
    argument: CompletionArgument,
    may_read: Callable[[str], bool],
) -> Completion:
    """The values that begin as the argument does; none for what cannot be enumerated.

    Args:
        may_read: whether the caller may read the resource of a URI; ids are for who may read the list of exports.
    """
    hidden = argument.name == "export_id" and not may_read(EXPORTS_URI)
    values = [] if hidden else await _values(app, reference, argument.name)
    fitting = [value for value in values if value.lower().startswith(argument.value.lower())]
    return Completion(values=fitting[:_MOST], total=len(fitting), has_more=len(fitting) > _MOST)


async def _values(app: App, reference: PromptReference | ResourceTemplateReference, name: str) -> list[str]:
    if name == "export_id":
        return await _export_ids(app)
    if name == "instance_url":
        return list(app.settings.instances or filter(None, [app.settings.instance]))
    if isinstance(reference, PromptReference) and reference.name in prompts():
        argument = prompts()[reference.name].arguments.get(name)
        return list(argument.choices) if argument else []
    return []


async def _export_ids(app: App) -> list[str]:
    try:
        return [export.id for export in await app.store.listed()]
    except AnalyticsError:  # somebody is typing; what reads the export will say what is wrong with the store
        return []
