"""Certificates for servers and clients of tests, by authorities of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


class Authority:
    """A certificate authority that writes PEM files into a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._authority = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *hosts: str, expired: bool = False) -> tuple[Path, Path, Path]:
        """(certificate chain, key, both in one file), for these hosts, else for a client of that common name."""
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        made = self._authority.issue_cert(*(hosts or (f"{name}.invalid",)), common_name=name, not_after=until)
        chain, key, both = (self._folder / f"{name}{kind}" for kind in (".crt", ".key", ".pem"))
        chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(_pkcs8(made.private_key_pem.bytes()))
        both.write_bytes(key.read_bytes() + chain.read_bytes())
        return chain, key, both


def _pkcs8(key: bytes) -> bytes:
    """The key in the one form that Java reads."""
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
