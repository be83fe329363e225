"""Forks the command for `commands.py`; has imported all of it and done nothing else."""

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

_NUMBER = struct.Struct("i")
_MOST = 1 << 17  # bytes of an order
_PACKAGE = "sourcegraph_analytics_mcp"


def imported() -> None:
    """Import what a command may, in the order of one that serves; the collector rests, as it does there."""
    gc.disable()
    for name in (
        "surface.server",
        "cli.stdio",
        "cli.commands",
        "cli.http.serving",
        "demo.embedded",
        "cli.walkthrough",
    ):
        import_module(f"{_PACKAGE}.{name}")
    import_module("anyio._backends._asyncio")
    company = import_module(f"{_PACKAGE}.demo.company").Company
    assert company.made_up(datetime.now(UTC).date()).activities  # which takes most of a second
    gc.freeze()


def order() -> tuple[dict[str, Any], list[int]] | None:
    """Fork a process for each order; returns its order in the new one, and None in this one at the end of all."""
    control = socket.socket(fileno=os.dup(0))
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(control, selectors.EVENT_READ)
        ready.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is woken:
                    woken.recv(1000)
                    _bury(running)
                    continue
                text, descriptors, _, _ = socket.recv_fds(control, _MOST, 4)
                if not text:
                    return None
                if (pid := os.fork()) == 0:
                    return json.loads(text), descriptors
                running[pid] = descriptors.pop()
                os.write(running[pid], _NUMBER.pack(pid))
                for descriptor in descriptors:
                    os.close(descriptor)


def _bury(running: dict[int, int]) -> None:
    """Tell how those ended that have."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        told = running.pop(pid)
        os.write(told, _NUMBER.pack(status))
        os.close(told)


def become(given: dict[str, Any], descriptors: list[int]) -> None:
    """Be the command, as the interpreter would have started it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(given["environment"])
    os.chdir(given["directory"])
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.path[0] = given["directory"]
    sys.argv[1:] = given["arguments"]
    gc.enable()
    runpy.run_module(_PACKAGE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    imported()
    mine = order()
    if mine is not None:
        become(*mine)
