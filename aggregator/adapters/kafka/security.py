"""TLS and log-in, as aiokafka wants them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aggregator.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How brokers are spoken to, in Kafka's own words; files are PEM, secrets stay out of the representation.

    Without `ca_file` the system's certificate authorities are trusted.
    """

    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True

    def client_arguments(self) -> dict[str, Any]:
        """Keyword arguments for any of aiokafka's clients; raises `ConfigurationError` for files it can't use."""
        arguments: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol in ("SSL", "SASL_SSL"):
            arguments["ssl_context"] = self._ssl_context()
        if self.protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return arguments

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # an SSLError is one
            raise ConfigurationError(f"AGGREGATOR_KAFKA__SSL_CA_FILE: {self.ca_file} can't be used: {error}") from error
        context.check_hostname = self.check_hostname
        if self.cert_file is not None:
            try:
                # Without a password OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, self.key_password or "")
            except OSError as error:
                raise ConfigurationError(
                    f"AGGREGATOR_KAFKA__SSL_CERT_FILE, __SSL_KEY_FILE, __SSL_KEY_PASSWORD: {self.cert_file} can't be "
                    f"used: {error}"
                ) from error
        return context
