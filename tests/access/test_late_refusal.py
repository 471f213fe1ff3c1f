"""A client certificate that is refused when the client's first words are on their way, so that it is cut off."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from aggregator.adapters.kafka.access import Access
from aggregator.adapters.kafka.security import Security
from aggregator.adapters.redis.connections import connect_as_set
from aggregator.adapters.redis.servers import servers
from aggregator.adapters.tls import TlsFiles
from aggregator.core.errors import BrokerRefused, StoreRefused, StoreUnavailable
from aggregator.settings import load_settings
from tests.certificates import Authority

ABORT = struct.pack("ii", 1, 0)


class StrictServer:
    """Asks for a certificate, and says that there was none; to `late` clients not before they have spoken."""

    def __init__(self, authority: Authority, late: int) -> None:
        self._late = late
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
        self._context.load_cert_chain(authority.issue("strict", "localhost", "127.0.0.1")[2])
        self._context.verify_mode = ssl.CERT_REQUIRED
        self.cut_off = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Shake hands; who has spoken before the end is cut off, as by the kernel of a server that closes."""
        heard, to_say = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(heard, to_say, server_side=True)
        refused = False
        with suppress(ConnectionError):
            while not refused and (words := await reader.read(65536)):
                heard.write(words)
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    refused = True
                    if self.cut_off < self._late:
                        self.cut_off += 1
                        await reader.read(1)
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                        writer.transport.abort()
                        return
                writer.write(to_say.read())
        writer.close()


@asynccontextmanager
async def strict(authority: Authority, *, late: int) -> AsyncIterator[tuple[StrictServer, int]]:
    made = StrictServer(authority, late)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        yield made, server.sockets[0].getsockname()[1]


async def test_redis_says_why_at_the_second_try(authority: Authority) -> None:
    async with strict(authority, late=1) as (server, port):
        url, ca_file = f"rediss://localhost:{port}", str(authority.file)
        settings = load_settings({"AGGREGATOR_REDIS__URL": url, "AGGREGATOR_REDIS__SSL_CA_FILE": ca_file})
        way = connect_as_set(settings.redis)
        try:
            with pytest.raises(StoreUnavailable):
                await servers(way)
            assert server.cut_off == 1
            for _ in range(2):
                with pytest.raises(StoreRefused, match=r"it ended the TLS handshake \(.*certificate.*SSL_CERT_FILE"):
                    await servers(way)
        finally:
            await way.close()


async def test_kafka_is_asked_for_the_reason(authority: Authority) -> None:
    async with strict(authority, late=0) as (_, port):
        way = Access(f"localhost:{port}", Security(protocol="SSL", tls=TlsFiles(group="kafka", ca_file=authority.file)))
        found = await way.why("looking")
        assert isinstance(found, BrokerRefused)
        assert "it ended the TLS handshake" in str(found)
