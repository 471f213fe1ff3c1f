"""Calling scripts and commands wherever their keys are."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from redis.exceptions import AskError, NoScriptError, ResponseError, TryAgainError

from aggregator.adapters.redis.failures import is_redirect, translated
from aggregator.adapters.redis.scripts import Body, Script, chunks
from aggregator.adapters.redis.wire import Node, packed
from aggregator.core.errors import CorruptState, StoreUnavailable


class Command(NamedTuple):
    """One plain command; `key` says which node gets it, `arguments` are the whole command."""

    key: str
    arguments: tuple[str | bytes | int, ...]


class Items(NamedTuple):
    """What a script is called with: per item its keys and its body; `head` are settings before the items."""

    keys: Sequence[Sequence[str]]
    bodies: Sequence[Body]
    head: Sequence[int] = ()


class Connections(ABC):
    """What the stores are built on; safe to use from many tasks at once.

    `spread` says that keys without a common hash tag may be on different servers.
    """

    spread: ClassVar[bool]

    def __init__(self, address: str, user: str) -> None:
        self.address: Final = address
        self.user: Final = user

    @abstractmethod
    async def nodes(self) -> Sequence[Node]:
        """All servers that hold keys."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections; doing it twice is harmless."""

    @abstractmethod
    async def _placed(self, keys: Sequence[str]) -> list[tuple[Node, list[int]]]:
        """Where the keys are: per node the indexes of its keys."""

    @abstractmethod
    async def _redirected(self, node: Node, command: bytes) -> Any:
        """Send one command that declares its keys to wherever they are now, beginning with `node`."""

    async def call(self, script: Script, items: Items, *, corrupt_too: bool = False) -> list[Any]:
        """Run a script over items; one reply per item, in order (see the script's RETURNS).

        Every item is tried whatever becomes of the others.  If one failed, this raises afterwards:
        `CorruptState` for a value of another make, else `StoreUnavailable`.
        With `corrupt_too` a `CorruptState` stands among the replies instead, in its item's place.
        """
        replies: list[Any] = [None] * len(items.bodies)
        places = await self._placed([keys[0] for keys in items.keys])
        if len(places) == 1:
            failed = await self._call_node(places[0][0], script, items, places[0][1], replies)
        else:
            # Results are gathered rather than tasks grouped: a node that fails must not stop the others.
            outcomes = await asyncio.gather(
                *(self._call_node(node, script, items, indexes, replies) for node, indexes in places),
                return_exceptions=True,
            )
            _raise_worst(outcome for outcome in outcomes if isinstance(outcome, BaseException))
            failed = sorted(index for outcome in outcomes if isinstance(outcome, list) for index in outcome)
        if failed:
            for index in failed:
                said = ResponseError(replies[index].decode(errors="replace").removeprefix("ERR "))
                name = f"{script.name}.lua"
                replies[index] = translated(said, self, items.keys[index][0], doing=name, in_script=True)
            _raise_worst(
                error for index in failed if not (isinstance(error := replies[index], CorruptState) and corrupt_too)
            )
        return replies

    async def _call_node(
        self, node: Node, script: Script, items: Items, indexes: list[int], replies: list[Any]
    ) -> list[int]:
        """Fill in `replies` at `indexes`; gives the indexes of those that are the text of an error."""
        failed: list[int] = []
        bodies = [items.bodies[index] for index in indexes]
        cuts = chunks(script, bodies)
        commands = [_evalsha(script, (), script.arguments(items.head, bodies[cut])) for cut in cuts]
        answers = await _with_script(node, script, commands)
        for cut, answer in zip(cuts, answers, strict=True):
            if isinstance(answer, Exception):
                raise translated(answer, node, doing=f"EVALSHA of {script.name}.lua") from answer
            values = script.unpack(answer, cut.stop - cut.start)
            for index, value in zip(indexes[cut], values, strict=True):
                if isinstance(value, bytes):
                    if is_redirect(value):
                        value = await self._call_declared(node, script, items, index)
                    if isinstance(value, bytes):
                        failed.append(index)
                replies[index] = value
        return failed

    async def _call_declared(self, node: Node, script: Script, items: Items, index: int) -> Any:
        """One item with all its keys declared, so that the Cluster says where they are and never splits them."""
        keys = items.keys[index]
        command = _evalsha(script, keys, script.arguments(items.head, [items.bodies[index]]))
        answer = await self._redirected(node, command)
        if isinstance(answer, NoScriptError):
            for other in await self.nodes():
                await _load(other, script)
            answer = await self._redirected(node, command)
        if isinstance(answer, Exception):
            raise translated(answer, node, doing=f"EVALSHA of {script.name}.lua") from answer
        return script.unpack(answer, 1)[0]

    async def commands(self, commands: Sequence[Command], *, corrupt_too: bool = False) -> list[Any]:
        """Run plain commands, pipelined; one reply each, in order.  The first failure is raised.

        With `corrupt_too` a `CorruptState` stands among the replies instead.
        """
        replies: list[Any] = [None] * len(commands)
        for node, indexes in await self._placed([command.key for command in commands]):
            requests = [packed(*commands[index].arguments) for index in indexes]
            for index, data, answer in zip(indexes, requests, await node.exchange(requests), strict=True):
                if isinstance(answer, AskError | TryAgainError):
                    answer = await self._redirected(node, data)
                if isinstance(answer, Exception):
                    command = commands[index]
                    error = translated(answer, node, command.key, doing=str(command.arguments[0]))
                    if not (corrupt_too and isinstance(error, CorruptState)):
                        raise error from answer
                    answer = error
                replies[index] = answer
        return replies


def _evalsha(script: Script, keys: Sequence[str], arguments: Sequence[bytes | str]) -> bytes:
    return packed("EVALSHA", script.sha, len(keys), *keys, *arguments)


async def _with_script(node: Node, script: Script, commands: Sequence[bytes]) -> list[Any]:
    """Exchange calls of a script; those that meet a server without it are repeated once it is loaded."""
    answers = await node.exchange(commands)
    missed = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if missed:
        await _load(node, script)
        again = await node.exchange([commands[index] for index in missed])
        for index, answer in zip(missed, again, strict=True):
            answers[index] = answer
    return answers


async def _load(node: Node, script: Script) -> None:
    (answer,) = await node.exchange([packed("SCRIPT", "LOAD", script.text)])
    if isinstance(answer, Exception):
        raise translated(answer, node, doing=f"SCRIPT LOAD of {script.name}.lua") from answer


def _raise_worst(errors: Iterable[BaseException]) -> None:
    """Raise one of several failures: one that no repeating mends before one that passes."""
    found = sorted(errors, key=lambda error: isinstance(error, StoreUnavailable))
    if found:
        raise found[0]
