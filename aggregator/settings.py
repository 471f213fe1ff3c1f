"""Every setting, read once from the environment, or from files in `AGGREGATOR_SECRETS_DIR`, into one frozen object.

A variable is `AGGREGATOR_<GROUP>__<FIELD>` and goes before a file of its name; an empty one counts as not set, lists
are comma-separated, durations are seconds unless the name says otherwise.  `load_settings` finds all problems before
it complains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from difflib import get_close_matches
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from aggregator.core.errors import ConfigurationError
from aggregator.setting_files import SettingFiles
from aggregator.setting_types import (
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
SECRETS_DIR: Final = "AGGREGATOR_SECRETS_DIR"

# Kubernetes puts these into every pod beside a Service named "aggregator"; they are no typing errors.
_SERVICE_LINK: Final = re.compile(r"AGGREGATOR_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


class _Group(BaseModel):
    # The text below each field is its description, from which docs/configuration.md is made.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class KafkaSettings(_Group):
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
        """Whether brokers ask for a user name and a password."""
        return self.security_protocol in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL)


class RedisSettings(_Group):
    """The state: where it is and how it is treated."""

    url: RedisAddress = RedisUrl("redis://localhost:6379/0")
    """`redis://`, `rediss://` (TLS), `unix://`, or for Sentinels
    `redis+sentinel://user:password@host:26379,host2:26379/mymaster/0` (`rediss+sentinel://`), where
    `?sentinel_username=…&sentinel_password=…` log in to the Sentinels; its passwords are never shown."""
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


class SessionSettings(_Group):
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
    """Traces tracked in one session."""
    id_attributes: Annotated[Names, Field(max_length=32)] = Field(default=(), examples=["acme.chat.id"])
    """Own span attributes that name the session, before all that are known."""
    user_attributes: Names = Field(default=(), examples=["acme.account"])
    """Own span attributes that name the user, before all that are known."""
    ignored_attributes: IgnoredNames = Field(default=(), examples=["session.id"])
    """Known attributes that name neither session nor user here, on spans and resources alike, say `session.id` where
    it is a browser's; one of the own attributes above is read all the same."""
    project_attributes: Names = ("openinference.project.name", "arize.project.name", "model_id")
    """Resource attributes that name the project."""


class PricingSettings(_Group):
    """Whether calls without a reported cost are priced, and by what beside the list."""

    enabled: bool = True
    """Price calls that report no cost."""
    file: FilePath | None = Field(default=None, examples=["/etc/prices.toml"])
    """Own prices before the list: a TOML or JSON file, see [own prices](../README.md#own-prices); read at the start."""


class IngestSettings(_Group):
    """What bounds the memory of the write path."""

    max_batch_records: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Records taken at once."""
    fetch_max_bytes: Annotated[int, Field(ge=65_536, le=1_073_741_824)] = 4_194_304
    """Bytes of one fetch answer."""
    trace_cache_spans: Annotated[int, Field(ge=0, le=10_000_000)] = 50_000
    """Spans of recent traces kept in the worker's memory."""


class IndexSettings(_Group):
    """Whether sessions are indexed for the command line, the web view and whoever else lists them."""

    enabled: bool = True
    """Keep the indexes that `sessions` and the web view need; some 1 kB of Redis per session."""


class ShutdownSettings(_Group):
    """How the worker ends."""

    grace_s: Seconds = 25.0
    """Time to finish after SIGTERM; keep it below the orchestrator's."""


class HttpSettings(_Group):
    """Where metrics and health are served; port 0 takes a free one."""

    host: Annotated[str, Field(min_length=1)] = "0.0.0.0"  # noqa: S104 - a scraper and the kubelet come from outside
    """Where metrics and health are served."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """0 takes a free port."""


class WebSettings(_Group):
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
    """Requests of one client."""


class LogSettings(_Group):
    """What is logged and how it looks."""

    level: LogLevel = LogLevel.INFO
    """The least severe line that is written."""
    format: LogFormat = LogFormat.AUTO
    """`auto` is text on a terminal, else JSON."""


class TracingSettings(_Group):
    """Traces of the worker's own batches, for whoever runs it; off without an endpoint."""

    endpoint: HttpUrl | None = Field(default=None, examples=["http://collector:4318/v1/traces"])
    """Where to send them by OTLP over HTTP; takes `pip install 'session-aggregator[tracing]'`.
    All else is up to OpenTelemetry's own variables, as `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_TRACES_SAMPLER`."""


class Settings(_Group):
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


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check everything; raise one `ConfigurationError` that lists every problem with its remedy."""
    known = variables()
    problems = [_unknown(name, known) for name in sorted(environ) if _is_typo(name, known)]
    given: dict[str, dict[str, str]] = {group: {} for group in Settings.model_fields}
    directory = environ.get(SECRETS_DIR, "").strip()
    files = SettingFiles(SECRETS_DIR, directory, known, PREFIX) if directory else None
    problems += files.problems if files else []
    from_files = files.values if files else {}
    for name, (group, field) in known.items():
        if value := environ.get(name, "").strip() or from_files.get(name, ""):
            given[group][field] = value
    wrong: set[str] = set()
    groups: dict[str, Any] = {
        group: _read_group(group, values, problems, wrong, from_files.keys()) for group, values in given.items()
    }
    settings = Settings(**groups)
    problems += [check.problem for check in _CHECKS if not wrong & set(check.names) and check.fails(settings)]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def _is_typo(name: str, known: Mapping[str, object]) -> bool:
    return name.startswith(PREFIX) and name not in known and name != SECRETS_DIR and not _SERVICE_LINK.fullmatch(name)


def _unknown(name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f"{name}: there is no such setting; " + (f"did you mean {near[0]}?" if near else "unset it")


def _read_group(
    group: str, values: dict[str, str], problems: list[str], wrong: set[str], from_files: Set[str]
) -> _Group:
    """Read one group; fields that are wrong are reported, noted in `wrong` and stand at their default.

    Values of the variables `from_files` are not quoted, whatever they are of.
    """
    kind: type[_Group] = type(Settings.model_fields[group].default)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        bad: dict[str, ErrorDetails] = {}
        for detail in error.errors(include_url=False, include_context=False):
            if detail["loc"][0] in values:  # else a default that could not be derived from a wrong one
                bad.setdefault(str(detail["loc"][0]), detail)
    for field, detail in bad.items():
        name = variable(group, field)
        wrong.add(name)
        text = detail["msg"].removeprefix("Value error, ")
        problems.append(
            f"{name}: {text[0].lower()}{text[1:]}{_shown(kind, field, values[field], hide=name in from_files)}"
        )
    return kind.model_validate({field: value for field, value in values.items() if field not in bad})


def _shown(kind: type[_Group], field: str, value: str, *, hide: bool) -> str:
    """What was given and what would be the default, without giving a secret away."""
    info = kind.model_fields[field]
    secret = hide or "Secret" in str(info.annotation) or "RedisUrl" in str(info.annotation)
    default = info.get_default(call_default_factory=True, validated_data={})
    shown = ",".join(default) if isinstance(default, tuple) else default
    given = "" if secret else f", not {value!r}"
    return given + (f"; unset it for the default {shown}" if shown not in (None, "") else "; or unset it")


class _Check(NamedTuple):
    """A rule over several settings; `names` are the variables it looks at."""

    names: tuple[str, ...]
    fails: Callable[[Settings], bool]
    remedy: str

    @property
    def problem(self) -> str:
        return f"{self.names[0]}: {self.remedy}"


def _reads_own_output(settings: Settings) -> bool:
    kafka = settings.kafka
    written = (kafka.summary_topic, kafka.dead_letter_topic)
    if kafka.topic_pattern is not None:
        return any(re.match(kafka.topic_pattern, topic) for topic in written)
    return any(topic in kafka.topics for topic in written)


def _guarded(url: RedisUrl) -> bool:
    return urlsplit(url.get_secret_value()).scheme.endswith("+sentinel")


def _database(url: RedisUrl) -> str:
    return urlsplit(url.get_secret_value()).path.strip("/")


_TOPICS: Final = ("kafka", "topics"), ("kafka", "topic_pattern")
_WRITTEN: Final = ("kafka", "summary_topic"), ("kafka", "dead_letter_topic")


def _rule(fields: tuple[tuple[str, str], ...], fails: Callable[[Settings], bool], remedy: str) -> _Check:
    return _Check(tuple(variable(*field) for field in fields), fails, remedy)


_CHECKS: Final = (
    _rule(
        (("session", "retention_s"), ("session", "idle_timeout_s")),
        lambda s: s.session.retention_s < s.session.idle_timeout_s,
        "must be at least AGGREGATOR_SESSION__IDLE_TIMEOUT_S; raise it, or lower the idle timeout",
    ),
    _rule(
        (*_TOPICS, *_WRITTEN),
        _reads_own_output,
        "the input must hold neither AGGREGATOR_KAFKA__SUMMARY_TOPIC nor AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC: the "
        "worker would read what it writes; name other topics (AGGREGATOR_KAFKA__TOPIC_PATTERN counts as input)",
    ),
    _rule(
        _WRITTEN,
        lambda s: s.kafka.summary_topic == s.kafka.dead_letter_topic,
        "must differ from AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC; name another topic",
    ),
    _rule(
        (("kafka", "topic_pattern"), ("kafka", "topics")),
        lambda s: s.kafka.topic_pattern is not None and "topics" in s.kafka.model_fields_set,
        "give either this or AGGREGATOR_KAFKA__TOPICS; unset one of them",
    ),
    _rule(
        (("kafka", "sasl_username"), ("kafka", "sasl_password"), ("kafka", "security_protocol")),
        lambda s: s.kafka.uses_sasl and (s.kafka.sasl_username is None or s.kafka.sasl_password is None),
        "AGGREGATOR_KAFKA__SECURITY_PROTOCOL asks for it and for AGGREGATOR_KAFKA__SASL_PASSWORD; set both",
    ),
    _rule(
        (("kafka", "security_protocol"), ("kafka", "sasl_password")),
        lambda s: not s.kafka.uses_sasl and s.kafka.sasl_password is not None,
        "there is an AGGREGATOR_KAFKA__SASL_PASSWORD that it makes no use of; set it to SASL_SSL or SASL_PLAINTEXT",
    ),
    _rule(
        (("kafka", "ssl_key_file"), ("kafka", "ssl_cert_file")),
        lambda s: (s.kafka.ssl_key_file is not None) and s.kafka.ssl_cert_file is None,
        "belongs to AGGREGATOR_KAFKA__SSL_CERT_FILE; set that as well",
    ),
    _rule(
        (("pricing", "file"), ("pricing", "enabled")),
        lambda s: s.pricing.file is not None and not s.pricing.enabled,
        "is made no use of while AGGREGATOR_PRICING__ENABLED is false; unset one of them",
    ),
    _rule(
        (("redis", "url"), ("redis", "cluster")),
        lambda s: s.redis.cluster and not _guarded(s.redis.url) and _database(s.redis.url) not in ("", "0"),
        "a Redis Cluster has only database 0; end it with /0, or set AGGREGATOR_REDIS__CLUSTER to false",
    ),
    _rule(
        (("redis", "url"), ("redis", "cluster")),
        lambda s: s.redis.cluster and _guarded(s.redis.url),
        "Sentinels lead to a single server; name nodes of the Cluster, or set AGGREGATOR_REDIS__CLUSTER to false",
    ),
)
