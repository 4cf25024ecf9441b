"""What it costs to choose the target of a call: once an upstream call, never for a chunk; at most 10 µs among 16."""

from __future__ import annotations

import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from config.pools import Pool
from proxy.upstream import balancer
from proxy.upstream.connections import place_of
from proxy.upstream.targets import Standing, Target

POOLS = [Pool.model_validate({"name": f"p{weight}", "urls": ["http://a"], "weight": weight}) for weight in (1, 2, 4)]

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=20)


def fleet(number: int, weights: int) -> list[Target]:
    """So many targets, of so many weights."""
    urls = [f"http://10.0.0.{place}:8000/v1" for place in range(number)]
    return [Target(POOLS[place % weights], url, url, place_of(url), Standing()) for place, url in enumerate(urls)]


@pytest.mark.parametrize("key", [None, 0x9E3779B97F4A7C15], ids=["by load", "by affinity"])
@pytest.mark.parametrize(("number", "weights"), [(1, 1), (16, 1), (16, 3)])
def test_choose(benchmark: BenchmarkFixture, number: int, weights: int, key: int | None) -> None:
    targets = fleet(number, weights)
    assert benchmark(lambda: balancer.choose(targets, 0.0, random.random, key=key)) in targets
