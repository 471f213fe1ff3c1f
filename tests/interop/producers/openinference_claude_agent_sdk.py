"""Claude's Agent SDK with the program it brings along, traced by OpenInference: usage is on the agent's span alone."""

from __future__ import annotations

import asyncio

from shop import did, finish, set_up_tracing

# docs: begin claude-agent-sdk
from openinference.instrumentation import using_attributes
from openinference.instrumentation.claude_agent_sdk import ClaudeAgentSDKInstrumentor

provider = set_up_tracing()
ClaudeAgentSDKInstrumentor().instrument(tracer_provider=provider)

from claude_agent_sdk import ClaudeAgentOptions, query  # after the above, or this `query` is not traced

# docs: end
OPTIONS = ClaudeAgentOptions(model="claude-sonnet-4-5", tools=[], max_turns=1, setting_sources=[])


async def take_turn(session_id: str, user_id: str, question: str) -> None:
    with using_attributes(session_id=session_id, user_id=user_id):
        async for _ in query(prompt=question, options=OPTIONS):
            pass
    did(session_id, user_id)


async def main() -> None:
    await take_turn("s-ada", "ada", "Which shoes? [[s-ada]]")
    await take_turn("s-grace", "grace", "Which socks? [[s-grace]]")


asyncio.run(main())
finish(provider)
