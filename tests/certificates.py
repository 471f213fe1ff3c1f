"""Certificates for servers and clients of tests, by authorities of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


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
        made.private_key_pem.write_to_path(key)
        made.private_key_and_cert_chain_pem.write_to_path(both)
        return chain, key, both
