"""TLS in front of a server of this machine: certificates of our own, and a listener that takes nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CONFIGURATION = """
[req]
prompt = no
distinguished_name = name
[name]
CN = {name}
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {alternatives}
"""


@dataclass(frozen=True)
class Certificates:
    """PEM files of an authority, and of a server that it vouches for."""

    ca: Path
    certificate: Path
    key: Path


def openssl_is_there() -> bool:
    return shutil.which("openssl") is not None


def make_certificates(folder: Path, alternatives: str = "DNS:localhost") -> Certificates:
    """A fresh authority, and a server's certificate for `alternatives`, as OpenSSL writes subject alternative names."""
    folder.mkdir(parents=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes", "-config", "openssl.cnf")
    configuration = folder / "openssl.cnf"
    configuration.write_text(_CONFIGURATION.format(name=f"authority {folder.name}", alternatives=alternatives))
    openssl("req", "-x509", "-days", "2", *new, "-extensions", "ca", "-keyout", "ca.key", "-out", "ca.pem")
    configuration.write_text(_CONFIGURATION.format(name="server", alternatives=alternatives))
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr")
    openssl(
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "openssl.cnf",
        "-extensions",
        "server",
        "-out",
        "server.pem",
    )
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")


@contextlib.contextmanager
def tls_in_front_of(port: int, certificates: Certificates) -> Iterator[int]:
    """A port that speaks TLS alone and passes on to `port` what it hears; a process of its own."""
    command = [sys.executable, __file__, str(port), str(certificates.certificate), str(certificates.key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


class FirstBytes:
    """A port that notes the first byte of every connection, and hangs up."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            with connection:
                connection.settimeout(5)
                with contextlib.suppress(OSError):
                    self.seen.append(connection.recv(1))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


async def _serve(port: int, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while received := await reader.read(1 << 16):
                writer.write(received)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by the process that started this one
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
