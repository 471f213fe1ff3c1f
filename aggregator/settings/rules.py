"""What must hold between settings, beyond the bounds of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from aggregator.settings.groups import KafkaSettings, RedisSettings, Settings, variable
from aggregator.settings.types import RedisUrl


class Rule(NamedTuple):
    """What must hold between settings; `names` are the variables it looks at."""

    names: tuple[str, ...]
    fails: Callable[[Settings], bool]
    remedy: str

    @property
    def problem(self) -> str:
        """The line that says what is wrong, and how to mend it."""
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


def _rule(fields: tuple[tuple[str, str], ...], fails: Callable[[Settings], bool], remedy: str) -> Rule:
    return Rule(tuple(variable(*field) for field in fields), fails, remedy)


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
) -> tuple[Rule, ...]:
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


RULES: Final = (
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
