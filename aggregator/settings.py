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
from urllib.parse import parse_qs, urlsplit

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


class RedisSettings(_Group):
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
    max_inflated_bytes: Annotated[int, Field(ge=1_048_576, le=1_073_741_824)] = 33_554_432
    """Bytes that the compressed batches taken at once inflate to.

    One that is larger alone goes to the dead-letter topic as it lies in the log.
    """
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
    """Requests from one address; behind a proxy those of all users."""


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


def _in_url(url: RedisUrl, *names: str) -> bool:
    """Whether a URL gives one of these, before its host or behind its question mark."""
    parts = urlsplit(url.get_secret_value())
    before = {"username": parts.username, "password": parts.password}
    return any(before.get(name) or name in parse_qs(parts.query) for name in names)


def _speaks_tls(url: RedisUrl) -> bool:
    return urlsplit(url.get_secret_value()).scheme.startswith("rediss")


_TLS_FIELDS: Final = ("ssl_ca_file", "ssl_cert_file", "ssl_check_hostname")
_TLS_IN_URL: Final = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_check_hostname",
)


def _given_tls(group: KafkaSettings | RedisSettings) -> bool:
    return group.ssl_ca_file is not None or group.ssl_cert_file is not None or not group.ssl_check_hostname


_TOPICS: Final = ("kafka", "topics"), ("kafka", "topic_pattern")
_WRITTEN: Final = ("kafka", "summary_topic"), ("kafka", "dead_letter_topic")


def _rule(fields: tuple[tuple[str, str], ...], fails: Callable[[Settings], bool], remedy: str) -> _Check:
    return _Check(tuple(variable(*field) for field in fields), fails, remedy)


_KAFKA_LOGIN: Final = (
    ("kafka", "security_protocol"),
    ("kafka", "sasl_mechanism"),
    ("kafka", "sasl_password"),
    ("kafka", "sasl_password_file"),
)


def _has_password(settings: Settings) -> bool:
    return settings.kafka.sasl_password is not None or settings.kafka.sasl_password_file is not None


def _secret_rules(
    group: str, password: str, get: Callable[[Settings], KafkaSettings | RedisSettings]
) -> tuple[_Check, ...]:
    """What both servers' settings have in common."""

    def has(settings: Settings, field: str) -> bool:
        return getattr(get(settings), field) is not None

    file, cert = f"{password}_file", variable(group, "ssl_cert_file")
    return (
        _rule(
            ((group, file), (group, password)),
            lambda s: has(s, file) and has(s, password),
            f"give either this or {variable(group, password)}; unset one of them",
        ),
        _rule(
            ((group, "ssl_key_file"), (group, "ssl_cert_file")),
            lambda s: has(s, "ssl_key_file") and not has(s, "ssl_cert_file"),
            f"belongs to {cert}; set that as well",
        ),
        _rule(
            ((group, "ssl_key_password"), (group, "ssl_cert_file")),
            lambda s: has(s, "ssl_key_password") and not has(s, "ssl_cert_file"),
            f"belongs to the key of {cert}; set that as well",
        ),
    )


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
        (("kafka", "sasl_username"), *_KAFKA_LOGIN),
        lambda s: s.kafka.uses_sasl and not s.kafka.uses_token and (not s.kafka.sasl_username or not _has_password(s)),
        "AGGREGATOR_KAFKA__SECURITY_PROTOCOL asks for it and for AGGREGATOR_KAFKA__SASL_PASSWORD or "
        "AGGREGATOR_KAFKA__SASL_PASSWORD_FILE; set both",
    ),
    _rule(
        (("kafka", "sasl_token_file"), *_KAFKA_LOGIN),
        lambda s: s.kafka.uses_token and s.kafka.sasl_token_file is None,
        "AGGREGATOR_KAFKA__SASL_MECHANISM=OAUTHBEARER asks for it; name the file that holds the token",
    ),
    _rule(
        (("kafka", "sasl_mechanism"), *_KAFKA_LOGIN),
        lambda s: s.kafka.uses_token and _has_password(s),
        "OAUTHBEARER takes a token and no password; unset AGGREGATOR_KAFKA__SASL_PASSWORD and "
        "AGGREGATOR_KAFKA__SASL_PASSWORD_FILE, or name another mechanism",
    ),
    _rule(
        (("kafka", "sasl_token_file"), *_KAFKA_LOGIN),
        lambda s: s.kafka.uses_sasl and not s.kafka.uses_token and s.kafka.sasl_token_file is not None,
        "is made no use of; set AGGREGATOR_KAFKA__SASL_MECHANISM to OAUTHBEARER, or unset it",
    ),
    _rule(
        _KAFKA_LOGIN,
        lambda s: not s.kafka.uses_sasl and (_has_password(s) or s.kafka.sasl_token_file is not None),
        "there is an AGGREGATOR_KAFKA__SASL_PASSWORD, __SASL_PASSWORD_FILE or __SASL_TOKEN_FILE that it makes no use "
        "of; set it to SASL_SSL or SASL_PLAINTEXT",
    ),
    _rule(
        (("kafka", "security_protocol"), *(("kafka", name) for name in _TLS_FIELDS)),
        lambda s: not s.kafka.uses_tls and _given_tls(s.kafka),
        "there are AGGREGATOR_KAFKA__SSL_* settings that it makes no use of; set it to SSL or SASL_SSL, or unset them",
    ),
    *(
        rule
        for group, password, get in (
            ("kafka", "sasl_password", lambda s: s.kafka),
            ("redis", "password", lambda s: s.redis),
        )
        for rule in _secret_rules(group, password, get)
    ),
    _rule(
        (("redis", "url"), ("redis", "username"), ("redis", "password"), ("redis", "password_file")),
        lambda s: (
            (s.redis.username is not None and _in_url(s.redis.url, "username"))
            or (s.redis.has_password and _in_url(s.redis.url, "password"))
        ),
        "holds what AGGREGATOR_REDIS__USERNAME, __PASSWORD or __PASSWORD_FILE give as well; take it out of the URL",
    ),
    _rule(
        (("redis", "username"), ("redis", "url"), ("redis", "password"), ("redis", "password_file")),
        lambda s: s.redis.username is not None and not s.redis.has_password and not _in_url(s.redis.url, "password"),
        "belongs to a password; set AGGREGATOR_REDIS__PASSWORD or AGGREGATOR_REDIS__PASSWORD_FILE",
    ),
    _rule(
        (("redis", "url"), *(("redis", name) for name in _TLS_FIELDS)),
        lambda s: _given_tls(s.redis) and not _speaks_tls(s.redis.url),
        "there are AGGREGATOR_REDIS__SSL_* settings that it makes no use of; begin it with rediss:// or "
        "rediss+sentinel://, or unset them",
    ),
    _rule(
        (("redis", "url"), *(("redis", name) for name in _TLS_FIELDS)),
        lambda s: _given_tls(s.redis) and _in_url(s.redis.url, *_TLS_IN_URL),
        "has ssl_ options beside the AGGREGATOR_REDIS__SSL_* settings; take them out of the URL",
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
