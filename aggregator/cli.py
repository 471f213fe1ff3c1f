"""The commands: run, check, healthcheck, demo, sessions, web, mcp.

Exit codes: 0 all is well, 2 a setting is wrong (the text says which and what to do), 130 ended by Ctrl-C where that is
no orderly end, 1 anything else.
What a command alone needs is imported when it runs, so that production needs nothing of the demo's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Final, NoReturn

import typer

from aggregator.core.errors import AggregatorError, BrokerRefused, ConfigurationError, StoreRefused
from aggregator.sessions.commands import sessions_app
from aggregator.settings import Settings, load_settings, variable
from aggregator.telemetry import configure_logging, core_flavour, package_version

OK: Final = 0
FAILED: Final = 1
MISCONFIGURED: Final = 2
INTERRUPTED: Final = 130  # as shells have it: 128 + SIGINT

# Who listens on all addresses is asked on the one that never leaves the machine.
_ON_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_HEALTH_TIMEOUT_S: Final = 3.0  # the answer takes a millisecond; a worker that needs longer is stuck
_HEALTH_MOST_BYTES: Final = 10_000

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show local variables, settings with passwords among them
    help="Turns the stream of OpenTelemetry spans of LLM applications into live sessions.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"session-aggregator {package_version()} ({core_flavour()} core)")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """All settings come from variables that begin with AGGREGATOR_, or from files; docs/configuration.md lists them."""


@app.command()
def run() -> None:
    """Run a worker until SIGTERM or Ctrl-C."""
    settings = _settings()
    configure_logging(settings.log.level, settings.log.format)
    from aggregator.app import run as run_worker

    _end(run_worker(settings))


@app.command()
def check() -> None:
    """Check the settings, reach Kafka and Redis, and say what is wrong."""
    settings = _settings()
    logging.disable()  # libraries would tell the same once more, in their words
    from aggregator.check import check as check_all

    _end(check_all(settings, typer.echo))


@app.command()
def healthcheck() -> None:
    """Ask the worker beside this command whether it lives, as a container's health check does."""
    settings = _settings()
    if not settings.http.port:
        typer.echo(
            f"{variable('http', 'port')} is 0, so nobody knows the worker's port: set it to a fixed one", err=True
        )
        raise typer.Exit(MISCONFIGURED)
    from http.client import HTTPConnection, HTTPException

    host = _ON_THIS_MACHINE.get(settings.http.host, settings.http.host)
    connection = HTTPConnection(host, settings.http.port, timeout=_HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        said = answer.read(_HEALTH_MOST_BYTES).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        typer.echo(f"{host} port {settings.http.port} does not answer: {error}", err=True)
        raise typer.Exit(FAILED) from error
    finally:
        connection.close()
    typer.echo(said)
    raise typer.Exit(OK if answer.status == 200 else FAILED)


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End by itself after so many seconds; without it, Ctrl-C ends it.")
    ] = None,
    http_port: Annotated[int, typer.Option(min=0, max=65_535, help="Where OTLP/HTTP is received.")] = 4318,
) -> None:
    """Show it all on this machine: embedded broker and Redis, a worker, traffic, live sessions."""
    configure_logging("warning", "auto")
    from aggregator.embedded.demo import demo as show_demo

    _end(show_demo(seconds=seconds, http_port=http_port))


def _looking(work: Callable[[Settings], Awaitable[int]]) -> None:
    """Run a command for people; what libraries log would be in the way of its output."""
    settings = _settings()
    logging.disable()

    async def run_work() -> int:
        return await work(settings)

    _end(run_work())


@app.command()
def web() -> None:
    """Serve the web view and the HTTP API until SIGTERM or Ctrl-C."""
    settings = _settings()
    configure_logging(settings.log.level, settings.log.format)
    try:
        from aggregator.web.serve import serve
    except ImportError as error:
        typer.echo(f"The web view needs {error.name}: pip install 'session-aggregator[web]'", err=True)
        raise typer.Exit(FAILED) from error
    _end(serve(settings, lambda address: typer.echo(f"Sessions are shown at {address}")))


@app.command("mcp")
def serve_assistants(
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve streamable HTTP there, at /mcp; else standard input and output."),
    ] = None,
) -> None:
    """Let assistants ask about sessions, by the Model Context Protocol."""
    settings = _settings()
    configure_logging("warning", settings.log.format)  # it would log every tool that refuses
    try:
        from aggregator.assistants.serve import serve_http, serve_stdio
    except ImportError as error:
        typer.echo(
            f"Assistants need {(error.name or '').partition('.')[0]}: pip install 'session-aggregator[mcp]'", err=True
        )
        raise typer.Exit(FAILED) from error
    _end(serve_stdio(settings) if http is None else serve_http(settings, http, typer.echo))


app.add_typer(sessions_app(_looking), name="sessions")


def _settings() -> Settings:
    try:
        return load_settings(os.environ)
    except ConfigurationError as error:
        _refuse("The settings are wrong", error)


def _end(work: Coroutine[object, object, int]) -> NoReturn:
    """Run a command to its end and exit with its code."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(work)
    except ConfigurationError as error:
        _refuse("The settings are wrong", error)
    except (StoreRefused, BrokerRefused) as error:
        typer.echo(f"Refused: {error}", err=True)
        raise typer.Exit(MISCONFIGURED) from error
    except AggregatorError as error:
        typer.echo(f"Stopped: {error}", err=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(code)


def _refuse(what: str, error: ConfigurationError) -> NoReturn:
    lines = "".join(f"\n  {line}" for line in str(error).splitlines())
    typer.echo(f"{what}:{lines}", err=True)
    raise typer.Exit(MISCONFIGURED) from error


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """The loop of uvloop, which takes a tenth less CPU; the standard one where that is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop
