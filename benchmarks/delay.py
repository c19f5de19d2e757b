"""A TCP proxy that takes its time: python -m benchmarks.delay SECONDS PORT=HOST:PORT…

Every byte arrives SECONDS later than it came, in both directions; the throughput stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial

CHUNK = 1 << 16


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)

    async def deliver() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    delivering = asyncio.create_task(deliver())
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            await waiting.put((loop.time() + seconds, data))
    await waiting.put((loop.time() + seconds, b""))
    with contextlib.suppress(ConnectionError):
        await delivering


async def serve(
    target: tuple[str, int], seconds: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    # A handshake costs a round trip as well.
    await asyncio.sleep(2 * seconds)
    there, back = await asyncio.open_connection(*target)
    await asyncio.gather(carry(reader, back, seconds), carry(there, writer, seconds))


async def main(seconds: float, pairs: list[str]) -> None:
    servers = []
    for pair in pairs:
        port, _, target = pair.partition("=")
        host, _, number = target.rpartition(":")
        handle = partial(serve, (host, int(number)), seconds)
        servers.append(await asyncio.start_server(handle, "127.0.0.1", int(port)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), sys.argv[2:]))
