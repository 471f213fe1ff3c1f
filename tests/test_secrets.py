"""Settings from files, and secrets that nobody gets to see, whatever is done with them and whatever fails."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from aggregator.core.errors import ConfigurationError
from aggregator.embedded.process import free_port
from aggregator.settings import SECRETS_DIR, load_settings
from aggregator.settings.files import MOST_BYTES
from tests.sessions.test_commands import invoked

CANARY = "hunter2-do-not-show"
SECRETS = {
    "AGGREGATOR_KAFKA__SASL_PASSWORD": CANARY,
    "AGGREGATOR_REDIS__URL": f"redis://worker:{CANARY}@127.0.0.1:1/0",
    "AGGREGATOR_WEB__TOKENS": f"{CANARY},{CANARY}-too=demo",
}
PLAIN = {
    "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "AGGREGATOR_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "AGGREGATOR_KAFKA__SASL_USERNAME": "worker",
    "AGGREGATOR_KAFKA__REQUEST_TIMEOUT_MS": "1000",
}
BROKEN = {
    "AGGREGATOR_REDIS__URL": f"redis//{CANARY}",
    "AGGREGATOR_KAFKA__SECURITY_PROTOCOL": CANARY,
    "AGGREGATOR_SESSION__IDLE_TIMEOUT_S": CANARY,
    "AGGREGATOR_WEB__USER_HEADER": f"{CANARY} {CANARY}",
    "AGGREGATOR_PRICING__FILE": f"/{CANARY}",
}
COMMANDS: Final = (
    "check", "healthcheck", "sessions ls", "sessions show x", "sessions top --count 1", "sessions tail --count 1",
    "sessions export", "sessions reindex", "sessions erase x -p p --yes",
)  # fmt: skip


def put(directory: Path, values: dict[str, str]) -> dict[str, str]:
    """The values as files; gives the environment that names them."""
    for name, value in values.items():
        (directory / name.removeprefix("AGGREGATOR_").lower()).write_text(f"{value}\n", encoding="utf-8")
    return {SECRETS_DIR: str(directory)}


def test_a_setting_may_be_a_file_and_a_variable_goes_before_it(tmp_path: Path) -> None:
    environ = put(tmp_path, {"AGGREGATOR_KAFKA__GROUP_ID": "of the file", "AGGREGATOR_HTTP__PORT": "1234"})
    (tmp_path / "Redis").mkdir()
    (tmp_path / "Redis" / "KEY_PREFIX").write_text(" mine\n", encoding="utf-8")
    (tmp_path / "aggregator_kafka__topics").write_text("a, b", encoding="utf-8")
    (tmp_path / "kafka__client_id").write_text(" \n", encoding="utf-8")
    (tmp_path / "..data").symlink_to(tmp_path)
    settings = load_settings(environ | {"AGGREGATOR_HTTP__PORT": "4321", "AGGREGATOR_KAFKA__GROUP_ID": " "})
    assert settings.kafka.group_id == "of the file"
    assert settings.kafka.topics == ("a", "b")
    assert settings.kafka.client_id == "session-aggregator"
    assert settings.redis.key_prefix == "mine"
    assert settings.http.port == 4321


def test_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    """Each name is a link through a hidden link to a hidden directory."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "kafka__group_id").write_text("mounted", encoding="utf-8")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "kafka__group_id").symlink_to("..data/kafka__group_id")
    assert load_settings({SECRETS_DIR: str(tmp_path)}).kafka.group_id == "mounted"


def test_what_is_wrong_with_files_is_said_without_what_is_in_them(tmp_path: Path) -> None:
    environ = put(
        tmp_path, BROKEN | {"AGGREGATOR_KAFKA__SASL_PASWORD": CANARY, "AGGREGATOR_LOG__LEVEL": "x" * MOST_BYTES}
    )
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "level").write_text(CANARY, encoding="utf-8")
    (tmp_path / "http__host").write_bytes(CANARY.encode("utf-16"))
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "topics").write_text("x" * (MOST_BYTES + 1), encoding="utf-8")
    with pytest.raises(ConfigurationError) as raised:
        load_settings(environ)
    said = str(raised.value)
    assert CANARY not in said
    assert "did you mean kafka__sasl_password?" in said
    for part in (
        "log__level: there is another file",
        "http__host: can't be read: not UTF-8",
        "longer than 65536 bytes",
    ):
        assert part in said, said
    assert len(said.splitlines()) == len(BROKEN) + 4
    with pytest.raises(ConfigurationError, match="can't be listed: No such file"):
        load_settings({SECRETS_DIR: str(tmp_path / "nowhere")})


@pytest.mark.parametrize("how", ["variables", "files"])
def test_settings_show_no_secret(how: str, tmp_path: Path) -> None:
    settings = load_settings(PLAIN | (SECRETS if how == "variables" else put(tmp_path, SECRETS)))
    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value() == CANARY
    for shown in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        f"{settings.kafka!r} {settings.redis.url}",
    ):
        assert CANARY not in shown


@pytest.mark.parametrize("how", ["variables", "files"])
async def test_no_command_shows_a_secret(how: str, tmp_path: Path) -> None:
    """Kafka and Redis are away, and each command says so in its way."""
    environ = PLAIN | (SECRETS if how == "variables" else put(tmp_path, SECRETS))
    environ["AGGREGATOR_HTTP__PORT"] = "1"  # nobody listens there
    for words in COMMANDS:
        code, out, err = await asyncio.to_thread(invoked, words.split(), environ)
        assert code, words
        assert CANARY not in out + err, words


async def test_no_command_quotes_a_wrong_value_of_a_secret(tmp_path: Path) -> None:
    for environ in ({name: value for name, value in BROKEN.items() if "REDIS" in name}, put(tmp_path, BROKEN)):
        for words in COMMANDS:
            code, out, err = await asyncio.to_thread(invoked, words.split(), environ)
            assert code == 2, words
            assert "AGGREGATOR_REDIS__URL" in err
            assert CANARY not in out + err, words


@pytest.mark.parametrize("words", ["run", "web"])
async def test_what_runs_shows_no_secret_while_servers_are_away(words: str, tmp_path: Path) -> None:
    """In its log at the level debug, and in the traceback of whoever interrupts it."""
    port = str(free_port())
    environ = PLAIN | put(tmp_path, SECRETS) | {"AGGREGATOR_LOG__LEVEL": "debug", "PYTHONFAULTHANDLER": "1"}
    environ |= {"AGGREGATOR_HTTP__PORT": port, "AGGREGATOR_HTTP__HOST": "127.0.0.1", "AGGREGATOR_WEB__PORT": port}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aggregator", words),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    seen = b""
    async with asyncio.timeout(30):
        while b"retrying" not in seen and b"shown at" not in seen and (line := await process.stdout.readline()):
            seen += line
        await asyncio.sleep(1)
        process.send_signal(signal.SIGABRT)  # faulthandler dumps the stack
        seen += await process.stdout.read()
        await process.wait()
    assert b"Fatal Python error" in seen
    assert CANARY.encode() not in seen
