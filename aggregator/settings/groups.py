"""Every setting with its type, bounds, default and sentence: one frozen object of one object a group."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from aggregator.settings.types import (
    CommaSeparated,
    Encoding,
    FilePath,
    HttpUrl,
    IgnoredNames,
    KeyPrefix,
    LogFormat,
    LogLevel,
    Names,
    OnStateLoss,
    RedisAddress,
    RedisUrl,
    RegularExpression,
    SaslMechanism,
    Seconds,
    SecurityProtocol,
    Server,
    Topic,
)

PREFIX: Final = "AGGREGATOR_"
DELIMITER: Final = "__"


class Group(BaseModel):
    """Settings that belong together: frozen, and none that is not known."""

    # The text below each field is its description, from which docs/configuration.md is made.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class KafkaSettings(Group):
    """The log: where it is, what is read from it and written to it."""

    bootstrap_servers: Annotated[tuple[Server, ...], CommaSeparated, Field(min_length=1)] = ("localhost:9092",)
    """Brokers to begin with, `host:port`; the others are learnt from them."""
    topics: Annotated[tuple[Topic, ...], CommaSeparated, Field(min_length=1)] = ("otlp_spans",)
    """Input topics."""
    topic_pattern: RegularExpression | None = Field(default=None, examples=["otlp_spans_.*"])
    """A regular expression for input topics, instead of the list."""
    encoding: Encoding = Encoding.AUTO
    """How records are encoded; `auto` tells them apart by content."""
    group_id: Annotated[str, Field(min_length=1)] = "session-aggregator"
    """The consumer group that all workers of one deployment share."""
    group_instance_id: Annotated[str, Field(min_length=1, max_length=249)] | None = Field(
        default=None, examples=["session-aggregator-0"]
    )
    """Static membership: a name that a worker keeps over restarts and shares with no other, such as the pod's in a
    StatefulSet; see [guarantees](guarantees.md#rolling-restarts)."""
    client_id: Annotated[str, Field(min_length=1)] = "session-aggregator"
    """The name in the broker's logs and quotas."""
    summary_topic: Topic = "session_summaries"
    """Where summaries go."""
    dead_letter_topic: Topic = "otlp_spans_dead_letter"
    """Where records go that could not be used."""
    dead_letter_max_consecutive: Annotated[int, Field(ge=1)] = 1000
    """After so many unusable records in a row the worker stops; whoever starts next reads them again, and stops
    there too."""
    create_topics: bool = False
    """Create missing summary and dead-letter topics; input topics are never created."""
    session_timeout_ms: Annotated[int, Field(ge=1_000, le=1_800_000)] = 45_000
    """How soon the group notices a dead worker."""
    request_timeout_ms: Annotated[int, Field(ge=1_000, le=600_000)] = 30_000
    """Patience with a single request."""
    security_protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    """Whether brokers are spoken to by TLS, and ask for a log-in."""
    sasl_mechanism: SaslMechanism = SaslMechanism.PLAIN
    """How to log in, with a protocol that begins with `SASL`."""
    sasl_username: Annotated[str, Field(min_length=1)] | None = Field(default=None, examples=["sessions"])
    """The user to log in as."""
    sasl_password: SecretStr | None = None
    """The user's password."""
    sasl_password_file: FilePath | None = Field(default=None, examples=["/secrets/kafka-password"])
    """A file whose first line is the password; read again for each new connection."""
    sasl_token_file: FilePath | None = Field(default=None, examples=["/secrets/kafka-token"])
    """For `OAUTHBEARER`: a file whose first line is the token; read again for each new connection."""
    ssl_ca_file: FilePath | None = Field(default=None, examples=["/tls/kafka/ca.crt"])
    """PEM file of the authorities that sign the brokers' certificates; without it the system's."""
    ssl_cert_file: FilePath | None = Field(default=None, examples=["/tls/kafka/tls.crt"])
    """PEM file of the client certificate, with what leads to its authority."""
    ssl_key_file: FilePath | None = Field(default=None, examples=["/tls/kafka/tls.key"])
    """PEM file of the client certificate's key, where it is not in the same file."""
    ssl_key_password: SecretStr | None = None
    """The key's password."""
    ssl_check_hostname: bool = True
    """Whether a broker's certificate must name its host."""

    @property
    def uses_sasl(self) -> bool:
        """Whether brokers ask for a log-in."""
        return self.security_protocol in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL)

    @property
    def uses_tls(self) -> bool:
        """Whether brokers are spoken to over TLS."""
        return self.security_protocol in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL)

    @property
    def uses_token(self) -> bool:
        """Whether the log-in takes a token in place of user name and password."""
        return self.uses_sasl and self.sasl_mechanism == SaslMechanism.OAUTHBEARER


class RedisSettings(Group):
    """The state: where it is and how it is treated."""

    url: RedisAddress = RedisUrl("redis://localhost:6379/0")
    """`redis://`, `rediss://` (TLS), `unix://`, or for Sentinels
    `redis+sentinel://user:password@host:26379,host2:26379/mymaster/0` (`rediss+sentinel://`), where
    `?sentinel_username=…&sentinel_password=…` log in to the Sentinels; its passwords are never shown."""
    username: Annotated[str, Field(min_length=1)] | None = Field(default=None, examples=["aggregator"])
    """The user to log in as, instead of the URL's."""
    password: SecretStr | None = None
    """The user's password, instead of the URL's."""
    password_file: FilePath | None = Field(default=None, examples=["/secrets/redis-password"])
    """A file whose first line is the password; read again for each new connection."""
    ssl_ca_file: FilePath | None = Field(default=None, examples=["/tls/redis/ca.crt"])
    """PEM file of the authorities that sign the servers' certificates, for `rediss://` and `rediss+sentinel://`;
    without it the system's.  It and the next two are read again when they change."""
    ssl_cert_file: FilePath | None = Field(default=None, examples=["/tls/redis/tls.crt"])
    """PEM file of the client certificate, with what leads to its authority."""
    ssl_key_file: FilePath | None = Field(default=None, examples=["/tls/redis/tls.key"])
    """PEM file of the client certificate's key, where it is not in the same file."""
    ssl_key_password: SecretStr | None = None
    """The key's password."""
    ssl_check_hostname: bool = True
    """Whether a server's certificate must name its host."""
    key_prefix: KeyPrefix = "agg"
    """What all keys begin with."""
    cluster: bool = False
    """It is a Redis Cluster."""
    timeout_s: Seconds = 5.0
    """Patience with a single call."""
    allow_eviction: bool = False
    """Start although Redis may evict open sessions."""
    on_state_loss: OnStateLoss = OnStateLoss.REWIND
    """When Redis has lost its state: `rewind` to the earliest retained offset, or `continue`."""

    @property
    def has_password(self) -> bool:
        """Whether a password is given outside of the URL."""
        return self.password is not None or self.password_file is not None


class SessionSettings(Group):
    """What a session is, how long it lives and how large it may grow."""

    idle_timeout_s: Seconds = 1800.0
    """A session without activity for so long is over."""
    max_duration_s: Seconds = 86_400.0
    """A session that never rests gives a summary so often."""
    retention_s: Seconds = 86_400.0
    """How long a closed session stays in Redis and can reopen; at least the idle timeout."""
    late_ttl_s: Seconds = Field(default_factory=lambda fields: fields.get("retention_s", 86_400.0))
    """For how long after the idle timeout a late span can still be told from a duplicate; lower it to save memory."""
    unclaimed_ttl_s: Seconds = 3600.0
    """How long a trace without a session id is remembered."""
    allowed_skew_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 10.0
    """Kept back from the time that a partition has been read to, since the clocks of brokers, producers and workers
    differ."""
    closing_shards: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Parts of the deadline index; at least as many as there will be partitions, the same for all workers; lower it
    only while no session is open."""
    max_trace_spans: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Spans tracked in one trace."""
    max_session_traces: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Traces tracked in one session; those of its last batch are tracked however many they are."""
    id_attributes: Annotated[Names, Field(max_length=32)] = Field(default=(), examples=["acme.chat.id"])
    """Own span attributes that name the session, before all that are known."""
    user_attributes: Names = Field(default=(), examples=["acme.account"])
    """Own span attributes that name the user, before all that are known."""
    ignored_attributes: IgnoredNames = Field(default=(), examples=["session.id"])
    """Known attributes that name neither session nor user here, on spans and resources alike, say `session.id` where
    it is a browser's; one of the own attributes above is read all the same."""
    project_attributes: Names = ("openinference.project.name", "arize.project.name", "model_id")
    """Resource attributes that name the project."""


class PricingSettings(Group):
    """Whether calls without a reported cost are priced, and by what beside the list."""

    enabled: bool = True
    """Price calls that report no cost."""
    file: FilePath | None = Field(default=None, examples=["/etc/prices.toml"])
    """Own prices before the list: a TOML or JSON file, see [own prices](../README.md#own-prices); read at the start."""


class IngestSettings(Group):
    """What bounds the memory of the write path."""

    max_batch_records: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Records taken at once."""
    fetch_max_bytes: Annotated[int, Field(ge=65_536, le=1_073_741_824)] = 4_194_304
    """Bytes of one fetch answer."""
    max_inflated_bytes: Annotated[int, Field(ge=1_048_576, le=1_073_741_824)] = 33_554_432
    """Bytes that the compressed batches taken at once inflate to.

    One that is larger alone goes to the dead-letter topic as it lies in the log.
    """
    trace_cache_spans: Annotated[int, Field(ge=0, le=10_000_000)] = 50_000
    """Spans of recent traces kept in the worker's memory."""


class IndexSettings(Group):
    """Whether sessions are indexed for the command line, the web view and whoever else lists them."""

    enabled: bool = True
    """Keep the indexes that `sessions` and the web view need; some 1 kB of Redis per session."""


class ShutdownSettings(Group):
    """How the worker ends."""

    grace_s: Seconds = 25.0
    """Time to finish after SIGTERM; keep it below the orchestrator's."""


class HttpSettings(Group):
    """Where metrics and health are served; port 0 takes a free one."""

    host: Annotated[str, Field(min_length=1)] = "0.0.0.0"  # noqa: S104 - a scraper and the kubelet come from outside
    """Where metrics and health are served."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """0 takes a free port."""


class WebSettings(Group):
    """The web view: where it is served, to whom, and where a trace can be looked at in detail."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Where the web view is served; from another address only with tokens or a user header."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8321
    """0 takes a free port."""
    tokens: SecretStr | None = None
    """Bearer tokens, comma-separated; `token=project|project` sees only these projects."""
    user_header: Annotated[str, Field(pattern=r"[A-Za-z0-9-]{1,64}")] | None = Field(
        default=None, examples=["X-Forwarded-User"]
    )
    """The header in which a proxy that has logged the user in names them."""
    trace_url: Annotated[str, Field(max_length=2000)] | None = Field(
        default=None, examples=["https://jaeger.example/trace/{trace_id}"]
    )
    """Where a trace is looked at in detail; also `{session_id}`, `{project}`, `{user_id}`, `{started_ms}` and
    `{ended_ms}`."""
    requests_per_s: Annotated[float, Field(gt=0, le=100_000)] = 50.0
    """Requests from one address; behind a proxy those of all users."""


class LogSettings(Group):
    """What is logged and how it looks."""

    level: LogLevel = LogLevel.INFO
    """The least severe line that is written."""
    format: LogFormat = LogFormat.AUTO
    """`auto` is text on a terminal, else JSON."""


class TracingSettings(Group):
    """Traces of the worker's own batches, for whoever runs it; off without an endpoint."""

    endpoint: HttpUrl | None = Field(default=None, examples=["http://collector:4318/v1/traces"])
    """Where to send them by OTLP over HTTP; takes `pip install 'session-aggregator[tracing]'`.
    All else is up to OpenTelemetry's own variables, as `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_TRACES_SAMPLER`."""


class Settings(Group):
    """All settings; passwords are masked in every representation."""

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    session: SessionSettings = SessionSettings()
    pricing: PricingSettings = PricingSettings()
    ingest: IngestSettings = IngestSettings()
    index: IndexSettings = IndexSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    web: WebSettings = WebSettings()


def variable(group: str, field: str) -> str:
    """The environment variable of a field, as in `variable("http", "port")` = `AGGREGATOR_HTTP__PORT`."""
    return f"{PREFIX}{group}{DELIMITER}{field}".upper()


def variables() -> dict[str, tuple[str, str]]:
    """Every variable that is understood, to its (group, field), in the order of the code."""
    return {
        variable(group, field): (group, field)
        for group, info in Settings.model_fields.items()
        for field in type(info.default).model_fields
    }
