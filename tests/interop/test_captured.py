"""The spans that producers really wrote, through the whole worker in memory: the bill, and what the oracle says."""

from __future__ import annotations

import re

from aggregator.adapters.own_prices import OwnPricer, read_own_prices
from aggregator.core.pricing import Pricer
from tests.builders import BASE_MS, joined
from tests.interop import captured, environments
from tests.interop.catalogue import Producer, each_producer
from tests.interop.comparing import assert_same, expected, flagged_traces, in_summary, suspected_traces
from tests.interop.stubs import prices
from tests.interop.stubs.bill import Charge
from tests.paths.test_laws import fresh_world
from tests.paths.worlds import assert_equals_oracle, finish, last_summaries
from tests.workloads import Record

PARTITIONS = 2


@each_producer(held_to_the_bill=True)
async def test_captured_spans_amount_to_the_bill(producer: Producer) -> None:
    spans, truth, _ = captured.load(producer)
    log_ms = max(
        BASE_MS,
        *(
            span.end_time_unix_nano // 10**6
            for one in spans.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        ),
    )
    # Each resource's spans are a record of their own, so that traces come in pieces.
    records = [
        Record(joined([type(spans)(resource_spans=[one])]), number % PARTITIONS, log_ms)
        for number, one in enumerate(spans.resource_spans)
    ]
    world = fresh_world(pricer=OwnPricer(read_own_prices(prices.FILE), Pricer()))
    world.write(records, PARTITIONS)
    await finish(world, PARTITIONS)
    assert flagged_traces(last_summaries(world).values()) == suspected_traces(producer)
    shown = {(ref.project, ref.session_id): in_summary(one) for ref, one in last_summaries(world).items()}
    assert_same(shown, expected(producer, truth))
    assert_equals_oracle(world, records, price=_price)


def _price(
    model: str,
    _provider: str,
    _start_us: int,
    prompt: int,
    completion: int,
    cache_read: int,
    cache_write: int,
    reasoning: int,
    embedding: int,
) -> int:
    charge = Charge(prompt, completion, cache_read, cache_write, reasoning, embedding)
    return prices.cost_nano(prices.price_of(model), {"calls": 1, **charge._asdict()})


@each_producer(held_to_the_bill=False)
def test_captured_spans_are_of_the_pinned_version(producer: Producer) -> None:
    _, _, version = captured.load(producer)
    assert version == environments.version_of(producer), "make interop ARGS=--recapture"


@each_producer(held_to_the_bill=False)
def test_captured_spans_tell_nothing_of_the_machine(producer: Producer) -> None:
    spans, _, _ = captured.load(producer)
    found = re.findall(rb"(?:/[\w.-]+)*/(?:site-packages|home|root|tmp)/[\w./-]*", spans.SerializeToString())
    assert found == []
