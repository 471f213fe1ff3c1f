"""Settings come from the environment, and every problem is told at once, by the variable's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from aggregator.core.errors import ConfigurationError
from aggregator.settings import OnStateLoss, Settings, load_settings, variable, variables
from aggregator.settings.types import Encoding, LogLevel


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)
    return str(caught.value).splitlines()


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert settings.kafka.bootstrap_servers == ("localhost:9092",)
    assert settings.kafka.topics == ("otlp_spans",)
    assert settings.redis.url.get_secret_value() == "redis://localhost:6379/0"
    assert (settings.session.idle_timeout_s, settings.session.closing_shards) == (1800.0, 64)


def test_lists_are_comma_separated_and_words_ignore_case() -> None:
    settings = load_settings(
        {
            "AGGREGATOR_KAFKA__TOPICS": " a , b,",
            "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": "one:9092,[::1]:9093",
            "AGGREGATOR_KAFKA__ENCODING": "OTLP_JSON",
            "AGGREGATOR_SESSION__ID_ATTRIBUTES": "chat.id,call.id",
            "AGGREGATOR_SESSION__USER_ATTRIBUTES": "person",
            "AGGREGATOR_SESSION__IGNORED_ATTRIBUTES": "session.id, user.id",
            "AGGREGATOR_LOG__LEVEL": "WARNING",
            "AGGREGATOR_REDIS__ON_STATE_LOSS": "continue",
            "AGGREGATOR_PRICING__ENABLED": "false",
        }
    )
    assert settings.kafka.topics == ("a", "b")
    assert settings.kafka.bootstrap_servers == ("one:9092", "[::1]:9093")
    assert settings.kafka.encoding is Encoding.OTLP_JSON
    assert settings.session.id_attributes == ("chat.id", "call.id")
    assert settings.session.user_attributes == ("person",)
    assert settings.session.ignored_attributes == ("session.id", "user.id")
    assert settings.log.level is LogLevel.WARNING
    assert settings.redis.on_state_loss is OnStateLoss.CONTINUE
    assert settings.pricing.enabled is False


def test_an_empty_variable_is_as_if_absent() -> None:
    assert load_settings({"AGGREGATOR_HTTP__PORT": "", "AGGREGATOR_KAFKA__TOPICS": " "}) == Settings()


def test_late_ttl_follows_retention_unless_given() -> None:
    assert load_settings({"AGGREGATOR_SESSION__RETENTION_S": "7200"}).session.late_ttl_s == 7200
    both = {"AGGREGATOR_SESSION__RETENTION_S": "7200", "AGGREGATOR_SESSION__LATE_TTL_S": "60"}
    assert load_settings(both).session.late_ttl_s == 60


def test_every_problem_is_listed_by_its_variable() -> None:
    found = problems(
        {
            "AGGREGATOR_HTTP__PORT": "http",
            "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": "broker",
            "AGGREGATOR_KAFKA__TOPIC": "typo",
            "AGGREGATOR_REDIS__URL": "memcached://x",
            "AGGREGATOR_SESSION__CLOSING_SHARDS": "0",
            "AGGREGATOR_SESSION__MAX_TRACE_SPANS": "1000001",
            "AGGREGATOR_SESSION__IDLE_TIMEOUT_S": "nan",
            "AGGREGATOR_SESSION__RETENTION_S": "-1",
            "AGGREGATOR_KAFKA__SUMMARY_TOPIC": "otlp_spans",
        }
    )
    assert [line.partition(":")[0] for line in found] == [
        "AGGREGATOR_KAFKA__TOPIC",
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS",
        "AGGREGATOR_REDIS__URL",
        "AGGREGATOR_SESSION__IDLE_TIMEOUT_S",
        "AGGREGATOR_SESSION__RETENTION_S",
        "AGGREGATOR_SESSION__CLOSING_SHARDS",
        "AGGREGATOR_SESSION__MAX_TRACE_SPANS",
        "AGGREGATOR_HTTP__PORT",
        "AGGREGATOR_KAFKA__TOPICS",
    ]
    assert "did you mean AGGREGATOR_KAFKA__TOPICS?" in found[0]
    assert "host:port" in found[1]
    assert "9464" in found[7]


SASL = {"AGGREGATOR_KAFKA__SECURITY_PROTOCOL": "sasl_ssl"}
LOGIN = {**SASL, "AGGREGATOR_KAFKA__SASL_USERNAME": "u", "AGGREGATOR_KAFKA__SASL_PASSWORD": "p"}
TOKEN = {"AGGREGATOR_KAFKA__SASL_MECHANISM": "OAUTHBEARER", "AGGREGATOR_KAFKA__SASL_TOKEN_FILE": __file__}
PASSWORDS = {"AGGREGATOR_REDIS__PASSWORD": "x", "AGGREGATOR_REDIS__PASSWORD_FILE": __file__}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"AGGREGATOR_SESSION__RETENTION_S": "1799"}, "AGGREGATOR_SESSION__RETENTION_S"),
        ({"AGGREGATOR_SESSION__IDLE_TIMEOUT_S": "100000"}, "AGGREGATOR_SESSION__RETENTION_S"),
        ({"AGGREGATOR_KAFKA__TOPICS": "a,session_summaries"}, "AGGREGATOR_KAFKA__TOPICS"),
        ({"AGGREGATOR_KAFKA__TOPIC_PATTERN": "otlp_.*"}, "AGGREGATOR_KAFKA__TOPICS"),
        ({"AGGREGATOR_KAFKA__TOPIC_PATTERN": "x(", "AGGREGATOR_HTTP__PORT": "1"}, "AGGREGATOR_KAFKA__TOPIC_PATTERN"),
        (
            {"AGGREGATOR_KAFKA__TOPIC_PATTERN": "spans_.*", "AGGREGATOR_KAFKA__TOPICS": "a"},
            "AGGREGATOR_KAFKA__TOPIC_PATTERN",
        ),
        ({"AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC": "session_summaries"}, "AGGREGATOR_KAFKA__SUMMARY_TOPIC"),
        ({"AGGREGATOR_KAFKA__SECURITY_PROTOCOL": "sasl_ssl"}, "AGGREGATOR_KAFKA__SASL_USERNAME"),
        ({"AGGREGATOR_KAFKA__SASL_PASSWORD": "x"}, "AGGREGATOR_KAFKA__SECURITY_PROTOCOL"),
        ({"AGGREGATOR_KAFKA__SSL_KEY_FILE": __file__}, "AGGREGATOR_KAFKA__SSL_KEY_FILE"),
        ({"AGGREGATOR_KAFKA__SSL_KEY_PASSWORD": "x"}, "AGGREGATOR_KAFKA__SSL_KEY_PASSWORD"),
        ({"AGGREGATOR_KAFKA__SSL_CHECK_HOSTNAME": "false"}, "AGGREGATOR_KAFKA__SECURITY_PROTOCOL"),
        ({**SASL, "AGGREGATOR_KAFKA__SASL_MECHANISM": "oauthbearer"}, "AGGREGATOR_KAFKA__SASL_TOKEN_FILE"),
        ({**SASL, "AGGREGATOR_KAFKA__SASL_USERNAME": "u"}, "AGGREGATOR_KAFKA__SASL_USERNAME"),
        ({**LOGIN, "AGGREGATOR_KAFKA__SASL_PASSWORD_FILE": __file__}, "AGGREGATOR_KAFKA__SASL_PASSWORD_FILE"),
        ({**LOGIN, "AGGREGATOR_KAFKA__SASL_TOKEN_FILE": __file__}, "AGGREGATOR_KAFKA__SASL_TOKEN_FILE"),
        ({**LOGIN, **TOKEN}, "AGGREGATOR_KAFKA__SASL_MECHANISM"),
        ({"AGGREGATOR_KAFKA__SASL_TOKEN_FILE": __file__}, "AGGREGATOR_KAFKA__SECURITY_PROTOCOL"),
        ({"AGGREGATOR_REDIS__USERNAME": "u"}, "AGGREGATOR_REDIS__USERNAME"),
        ({**PASSWORDS, "AGGREGATOR_REDIS__URL": "redis://h"}, "AGGREGATOR_REDIS__PASSWORD_FILE"),
        ({"AGGREGATOR_REDIS__PASSWORD": "x", "AGGREGATOR_REDIS__URL": "redis://:y@h"}, "AGGREGATOR_REDIS__URL"),
        (
            {"AGGREGATOR_REDIS__PASSWORD": "x", "AGGREGATOR_REDIS__URL": "redis+sentinel://:y@h/m"},
            "AGGREGATOR_REDIS__URL",
        ),
        ({"AGGREGATOR_REDIS__USERNAME": "x", "AGGREGATOR_REDIS__URL": "redis://y:z@h"}, "AGGREGATOR_REDIS__URL"),
        ({"AGGREGATOR_REDIS__SSL_CA_FILE": __file__}, "AGGREGATOR_REDIS__URL"),
        (
            {"AGGREGATOR_REDIS__SSL_CA_FILE": __file__, "AGGREGATOR_REDIS__URL": "rediss://h?ssl_ca_certs=x"},
            "AGGREGATOR_REDIS__URL",
        ),
        ({"AGGREGATOR_REDIS__SSL_KEY_FILE": __file__}, "AGGREGATOR_REDIS__SSL_KEY_FILE"),
        ({"AGGREGATOR_KAFKA__SSL_CA_FILE": "/nonexistent"}, "AGGREGATOR_KAFKA__SSL_CA_FILE"),
        ({"AGGREGATOR_REDIS__CLUSTER": "true", "AGGREGATOR_REDIS__URL": "redis://h/3"}, "AGGREGATOR_REDIS__URL"),
        ({"AGGREGATOR_REDIS__KEY_PREFIX": "{x}"}, "AGGREGATOR_REDIS__KEY_PREFIX"),
        ({"AGGREGATOR_KAFKA_TOPICS": "a"}, "AGGREGATOR_KAFKA_TOPICS"),
        ({"AGGREGATOR_PRICING__FILE": "/nonexistent"}, "AGGREGATOR_PRICING__FILE"),
        ({"AGGREGATOR_PRICING__FILE": __file__, "AGGREGATOR_PRICING__ENABLED": "no"}, "AGGREGATOR_PRICING__FILE"),
        ({"AGGREGATOR_SESSION__IGNORED_ATTRIBUTES": "sesion.id"}, "AGGREGATOR_SESSION__IGNORED_ATTRIBUTES"),
    ],
)
def test_one_wrong_setting_is_one_problem(environ: dict[str, str], name: str) -> None:
    found = problems(environ)
    assert len(found) == 1
    assert found[0].startswith(f"{name}: ")


def test_an_ignored_attribute_that_nothing_is_read_from_is_told_with_the_nearest() -> None:
    (found,) = problems({"AGGREGATOR_SESSION__IGNORED_ATTRIBUTES": "session.id,sesion.id"})
    assert "'sesion.id' is none; did you mean 'session.id'?" in found
    (found,) = problems({"AGGREGATOR_SESSION__IGNORED_ATTRIBUTES": "colour"})
    assert "'colour' is none; that is session.id, " in found


def test_what_kubernetes_sets_beside_a_service_named_aggregator_is_no_typo() -> None:
    links = {
        "AGGREGATOR_SERVICE_HOST": "10.0.0.1",
        "AGGREGATOR_SERVICE_PORT": "9464",
        "AGGREGATOR_SERVICE_PORT_METRICS": "9464",
        "AGGREGATOR_PORT": "tcp://10.0.0.1:9464",
        "AGGREGATOR_PORT_9464_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(links) == Settings()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@h:6379/1", "redis://:***@h:6379/1"),
        ("rediss://app:hunter2@h:6379", "rediss://app:***@h:6379"),
        ("redis://app:hun@ter2@h", "redis://app:***@h"),
        ("redis://h:6379/0?username=app&password=hunter2", "redis://***"),
        ("redis://app@h:6379/0", "redis://app@h:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    environ = {
        "AGGREGATOR_REDIS__URL": url,
        "AGGREGATOR_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "AGGREGATOR_KAFKA__SASL_USERNAME": "app",
        "AGGREGATOR_KAFKA__SASL_PASSWORD": "hunter2",
    }
    settings = load_settings(environ)
    assert str(settings.redis.url) == shown
    assert settings.redis.url.get_secret_value() == url
    for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.redis}"):
        assert "hunter2" not in text
        assert "ter2" not in text
    for line in problems({**environ, "AGGREGATOR_REDIS__URL": "x" + url, "AGGREGATOR_KAFKA__SASL_PASSWORD": ""}):
        assert "ter2" not in line


def test_settings_are_frozen() -> None:
    settings = load_settings({})
    with pytest.raises(ValidationError):
        settings.http.port = 1


def test_a_readable_certificate_is_taken(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("-")
    environ = {"AGGREGATOR_KAFKA__SECURITY_PROTOCOL": "ssl", "AGGREGATOR_KAFKA__SSL_CA_FILE": str(authority)}
    assert load_settings(environ).kafka.ssl_ca_file == authority


def test_variables_are_named_by_group_and_field() -> None:
    assert variable("http", "port") == "AGGREGATOR_HTTP__PORT"
    assert variables()["AGGREGATOR_SESSION__LATE_TTL_S"] == ("session", "late_ttl_s")


def test_what_belongs_together_is_taken() -> None:
    for environ in (
        {**SASL, **TOKEN},
        {**LOGIN, "AGGREGATOR_KAFKA__SSL_CA_FILE": __file__},
        {
            "AGGREGATOR_REDIS__URL": "rediss+sentinel://u@h/m/0?sentinel_password=s",
            "AGGREGATOR_REDIS__PASSWORD_FILE": __file__,
            "AGGREGATOR_REDIS__SSL_CA_FILE": __file__,
            "AGGREGATOR_REDIS__SSL_CERT_FILE": __file__,
        },
        {
            "AGGREGATOR_REDIS__USERNAME": "u",
            "AGGREGATOR_REDIS__PASSWORD": "p",
            "AGGREGATOR_REDIS__CLUSTER": "true",
            "AGGREGATOR_KAFKA__SSL_CHECK_HOSTNAME": "true",
        },
    ):
        load_settings(environ)
