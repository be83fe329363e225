"""An upstream on loopback that gives one file as fast as it can, or at a rate; runs as a process of its own.

    python -m bench.upstream FILE [--gzip FILE.gz] [--rate BYTES_PER_SECOND]

Prints its port, then serves until its input ends.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

_PIECE = 1 << 20


async def _serve(arguments: argparse.Namespace) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        packed = arguments.gzip and "accept-encoding: gzip" in head
        path = Path(arguments.gzip if packed else arguments.file)
        coding = "Content-Encoding: gzip\r\n" if packed else ""
        length = path.stat().st_size
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n{coding}Content-Length: {length}\r\n\r\n".encode())
        await writer.drain()
        with path.open("rb") as file:
            if arguments.rate:
                await _slowly(file.fileno(), length, arguments.rate, writer)
            else:
                await asyncio.get_running_loop().sendfile(writer.transport, file)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def _slowly(descriptor: int, length: int, rate: int, writer: asyncio.StreamWriter) -> None:
    begun, sent = time.monotonic(), 0
    while sent < length:
        sent += len(piece := os.read(descriptor, _PIECE // 8))
        writer.write(piece)
        await writer.drain()
        ahead = sent / rate - (time.monotonic() - begun)
        if ahead > 0:
            await asyncio.sleep(ahead)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--gzip")
    parser.add_argument("--rate", type=int, default=0)
    asyncio.run(_serve(parser.parse_args()))
