"""Mistral's API, which has the shape of OpenAI's but always tells the usage, and no details of it."""

from __future__ import annotations

from tests.interop.stubs.openai import OpenAIStub


class MistralStub(OpenAIStub):
    """Answers `/v1/chat/completions`, whole or streamed, and `/v1/embeddings`."""

    details = False
    always_tells = True

    def environment(self) -> dict[str, str]:
        return {"MISTRAL_SERVER_URL": self.url, "MISTRAL_API_KEY": "sk-none"}
