"""Every mechanism that can be switched off, by the layer it is in; tests/campaigns/switches.py does it."""

from .access import ACCESS
from .exports import EXPORTS
from .http import HTTP
from .questions import QUESTIONS
from .surface import SURFACE
from .switch import Switch
from .upstream import UPSTREAM

SWITCHES: tuple[Switch, ...] = (*UPSTREAM, *ACCESS, *EXPORTS, *QUESTIONS, *SURFACE, *HTTP)
