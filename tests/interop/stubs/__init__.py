"""Loopback stand-ins for the APIs of model providers; they keep the bill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.interop.stubs.anthropic import AnthropicStub
from tests.interop.stubs.bedrock import BedrockStub
from tests.interop.stubs.gemini import GeminiStub
from tests.interop.stubs.mistral import MistralStub
from tests.interop.stubs.openai import OpenAIStub
from tests.interop.stubs.server import Stub

APIS: Final[Mapping[str, type[Stub]]] = {
    "anthropic": AnthropicStub,
    "gemini": GeminiStub,
    "bedrock": BedrockStub,
    "mistral": MistralStub,
    "openai": OpenAIStub,
}
"""By the name that producers use under `apis` in their TOML file."""
