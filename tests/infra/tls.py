"""TLS in front of a server that speaks none: a proxy of the tests' own that decrypts and passes on.

Invariants: it listens on 127.0.0.1 only, with a certificate for that address from an authority of its own.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Self

import trustme

BLOCK_BYTES = 1 << 16


class TlsProxy:
    """A proxy to a port, or from more ports to others; as a context manager it runs within the block. ``authority`` is
    what clients trust.
    """

    def __init__(self, port: int, to: int, more: Mapping[int, int] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tls-"))
        self.authority = self._folder / "authority.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for listened, passed_to in {port: to, **(more or {})}.items():
            serve = partial(self._serve, passed_to)
            serving = asyncio.start_server(serve, "127.0.0.1", listened, ssl=self._context)
            asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)

    def close(self) -> None:
        """End it and all its connections."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _serve(self, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):  # one that is still open when the proxy ends is of no interest
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", to)
            await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
    writer.close()
