"""What is read again is counted and told: how much, why, and when it is done."""

from __future__ import annotations

from typing import Final

import pytest
from prometheus_client import CollectorRegistry

from aggregator.core.model import Partition
from aggregator.replays import Replays
from aggregator.telemetry import Metrics, StartReason

P: Final = Partition("t", 0)
LOST, BEHIND, USUAL = StartReason.STATE_LOST, StartReason.REDIS_BEHIND, StartReason.COMMITTED


class Told:
    """A `Replays` and what its metrics say."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, monotonic_s=lambda: 0.0)
        self.replays = Replays(self.metrics)

    def left(self) -> dict[str, float]:
        """Records still to be read again, by reason."""
        family = next(one for one in self.registry.collect() if one.name == "aggregator_replay_records")
        return {sample.labels["reason"]: sample.value for sample in family.samples}

    def done(self, reason: StartReason) -> float | None:
        return self.registry.get_sample_value("aggregator_replayed_records_total", {"reason": reason})


@pytest.fixture
def told() -> Told:
    return Told()


def test_it_falls_to_zero_and_what_comes_after_is_none_of_it(told: Told) -> None:
    assert told.replays.begin(P, 10, again=30, reason=LOST) == 30
    assert told.left() == {LOST: 30}
    told.replays.applied(P, 10, 25)
    assert told.left() == {LOST: 15}
    assert told.done(LOST) == 15
    told.replays.applied(P, 25, 60)
    told.replays.applied(P, 60, 70)
    assert told.left() == {LOST: 0}
    assert told.done(LOST) == 30


def test_the_usual_start_is_no_replay(told: Told) -> None:
    assert told.replays.begin(P, 10, again=0, reason=USUAL) == 0
    told.replays.applied(P, 10, 20)
    assert told.left() == {USUAL: 0}
    assert told.done(USUAL) == 0


def test_a_second_loss_midway_begins_anew_and_forgets_nothing(told: Told) -> None:
    """By then less is committed than had been applied before the first."""
    told.replays.begin(P, 0, again=100, reason=LOST)
    told.replays.applied(P, 0, 40)
    assert told.replays.begin(P, 10, again=30, reason=BEHIND) == 90
    assert told.left() == {BEHIND: 90}


def test_a_partition_that_comes_back_midway_is_still_read_again_for_the_same_reason(told: Told) -> None:
    told.replays.begin(P, 0, again=100, reason=LOST)
    told.replays.applied(P, 0, 40)
    told.metrics.forget_partition(*P)
    assert told.left() == {}
    assert told.replays.begin(P, 70, again=0, reason=USUAL) == 30
    assert told.left() == {LOST: 30}


@pytest.mark.parametrize(("offset", "reason"), [(100, USUAL), (130, USUAL), (5, StartReason.LOG_CUT)])
def test_one_that_comes_back_later_or_on_another_log_is_not(told: Told, offset: int, reason: StartReason) -> None:
    told.replays.begin(P, 0, again=100, reason=LOST)
    assert told.replays.begin(P, offset, again=0, reason=reason) == 0
    assert told.left() == {reason: 0}
