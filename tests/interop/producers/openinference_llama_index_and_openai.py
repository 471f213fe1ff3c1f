"""LlamaIndex's and OpenAI's instrumentations both on: two LLM spans, one within the other, for one call."""

from __future__ import annotations

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from shop import did, finish, refused, set_up_tracing

from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from openinference.instrumentation import using_attributes, using_session, using_user
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor

provider = set_up_tracing()
LlamaIndexInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)
Settings.llm = OpenAI(model="gpt-4o", max_retries=0)
Settings.embed_model = OpenAIEmbedding(model="text-embedding-3-small", max_retries=0)
Settings.node_parser = SentenceSplitter(chunk_size=512, chunk_overlap=0, tokenizer=str.split)
Settings.tokenizer = str.split  # the default one is downloaded

with using_attributes(session_id="s-index"):
    index = VectorStoreIndex.from_documents([Document(text="Boots keep rain out. [[s-index]]")])
did("s-index", None, traces=2)  # one for the splitting, one for the embedding

with using_attributes(session_id="s-ada", user_id="ada"):
    engine = index.as_chat_engine(chat_mode="condense_plus_context")
    engine.chat("Which shoes? [[s-ada]]")
    engine.chat("And in snow? [[s-ada]]")
did("s-ada", "ada", traces=2)


@using_session("s-grace")
@using_user("grace")
def ask(question: str) -> None:
    index.as_query_engine().query(question)


@using_attributes(session_id="s-grace", user_id="grace")
def complete(question: str) -> None:
    Settings.llm.complete(question)


ask("Boots? [[s-grace]]")
complete("Skis? [[s-grace]]")
did("s-grace", "grace", traces=2)

with using_session("s-linus"), using_user("linus"):
    for _ in Settings.llm.stream_complete("Socks? [[s-linus]]"):
        pass
    Settings.llm.complete("Boots? [[s-linus]]")
did("s-linus", "linus", traces=2)

telling = OpenAI(model="gpt-4o-mini", additional_kwargs={"stream_options": {"include_usage": True}})
with using_session("s-edsger"), using_user("edsger"):
    for _ in telling.stream_complete("Socks? [[s-edsger]]"):
        pass
did("s-edsger", "edsger")

with refused("s-ada", "ada"), using_attributes(session_id="s-ada", user_id="ada"):
    Settings.llm.complete("fail, please [[s-ada]]")
finish(provider)
