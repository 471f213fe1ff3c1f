"""The shapes in which producers tell usage (ATTRIBUTES.md, "How producers differ"): each call is told once."""

from __future__ import annotations

from aggregator.core.model import Span
from tests.core.trees import agent, chain, embedding, figures_of, llm, span, tool


def told(*spans: Span) -> tuple[int, int, int, bool, bool]:
    """Prompt and completion tokens, calls, and the flags for wrappers and for nested LLM spans."""
    trace = figures_of(spans)
    calls = sum(entry.calls for entry in trace.models.values())
    return (trace.prompt_tokens, trace.completion_tokens, calls, trace.wrapper_usage, trace.nested_llm)


def test_usage_on_leaves_only() -> None:
    """OpenInference openai, langchain, mistralai, bedrock, agno."""
    spans = [chain(1), llm(2, 1, 100, 20), tool(3, 1), span(4, 3), llm(5, 1, 150, 30), embedding(6, 3, 7)]
    assert told(*spans) == (250, 50, 3, False, False)


def test_leaf_usage_summed_on_an_agent() -> None:
    """Smolagents: AGENT with the sum of its steps."""
    spans = [agent(1, None, 250, 50), chain(2, 1), llm(3, 2, 100, 20), chain(4, 1), llm(5, 4, 150, 30), tool(6, 4)]
    assert told(*spans) == (250, 50, 2, False, False)


def test_agent_that_accumulates_over_invocations() -> None:
    """Strands: the second `invoke_agent` repeats the first one's usage with its own."""
    first = [agent(1, None, 100, 20), chain(2, 1), llm(3, 2, 100, 20)]
    second = [agent(4, None, 250, 50), chain(5, 4), llm(6, 5, 150, 30)]
    assert told(*first, *second) == (250, 50, 2, False, False)


def test_a_total_only_above_the_leaves() -> None:
    """CrewAI kickoff: the total as prompt tokens."""
    assert told(chain(1, None, 120, 0), agent(2, 1), llm(3, 2, 100, 20)) == (100, 20, 1, False, False)


def test_an_outer_span_of_the_same_call() -> None:
    """Vercel: `ai.generateText` around `ai.generateText.doGenerate`, several steps summed."""
    assert told(chain(1, None, 100, 20), llm(2, 1, 100, 20)) == (100, 20, 1, False, False)
    steps = [agent(1, None, 250, 50), chain(2, 1, 100, 20), llm(3, 2, 100, 20), chain(4, 1, 150, 30)]
    assert told(*steps, llm(5, 4, 150, 30)) == (250, 50, 2, False, False)


def test_usage_on_the_parent_only() -> None:
    """Claude Agent SDK: AGENT alone tells."""
    assert told(agent(1, None, 250, 50), tool(2, 1), tool(3, 1)) == (250, 50, 1, True, False)


def test_an_llm_span_inside_an_llm_span_for_one_call() -> None:
    """Llama-index around openai, and litellm around openai with figures that differ by rounding."""
    assert told(llm(1, None, 100, 20, scope="llama"), llm(2, 1, 100, 20, scope="openai")) == (100, 20, 1, False, False)
    assert told(llm(1, None, 100, 20, scope="litellm"), llm(2, 1, 100, 23)) == (100, 23, 1, False, False)


def test_an_llm_span_without_tokens_around_one_with_tokens() -> None:
    """DSPy around litellm."""
    assert told(llm(1), llm(2, 1, 100, 20)) == (100, 20, 1, False, False)


def test_an_llm_span_that_stays_open_while_a_sub_agent_calls_its_own() -> None:
    """Google ADK: `call_llm` > `execute_tool transfer_to_agent` > bare `agent_run` > `call_llm`."""
    open_call = llm(1, None, 100, 20)
    assert told(open_call, span(2, 1), llm(3, 2, 150, 30)) == (250, 50, 2, False, True)
    assert told(open_call, tool(4, 1), span(2, 4), llm(3, 2, 150, 30)) == (250, 50, 2, False, False)
    assert told(open_call, tool(4, 1), span(2, 4), llm(3, 2, 100, 20)) == (200, 40, 2, False, False)


def test_reasoning_on_the_span_around_the_models() -> None:
    """Google ADK 1: `call_llm` has the reasoning, `generate_content` in it the same figures and no details."""
    trace = figures_of([agent(1), llm(2, 1, 1864, 140, reasoning=9), llm(3, 2, 1864, 140), tool(4, 3)])
    assert (trace.prompt_tokens, trace.completion_tokens, trace.reasoning_tokens) == (1864, 140, 9)


def test_two_instrumentations_side_by_side_in_one_trace() -> None:
    """LangChain and openai both instrumented, where OpenAI's span is put beside LangChain's."""
    outer = llm(2, 1, 100, 20, at=0, lasts=900_000, scope="openinference.instrumentation.langchain")
    inner = llm(3, 1, 100, 20, at=5_000, lasts=890_000, scope="openinference.instrumentation.openai")
    assert told(chain(1), outer, inner) == (100, 20, 1, False, False)
