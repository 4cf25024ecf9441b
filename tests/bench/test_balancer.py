"""What it costs to choose the target of a call: once an upstream call, never for a chunk; at most 10 µs among 16."""

from __future__ import annotations

import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from config.pools import Pool
from proxy.upstream import balancer
from proxy.upstream.connections import place_of
from proxy.upstream.targets import Standing, Target

POOL = Pool.model_validate({"name": "p", "urls": ["http://a"]})

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=20)


def fleet(number: int) -> list[Target]:
    urls = [f"http://10.0.0.{place}:8000/v1" for place in range(number)]
    return [Target(POOL, url, url, place_of(url), Standing()) for url in urls]


@pytest.mark.parametrize("key", [None, 0x9E3779B97F4A7C15], ids=["by load", "by affinity"])
@pytest.mark.parametrize("number", [1, 16])
def test_choose(benchmark: BenchmarkFixture, number: int, key: int | None) -> None:
    targets = fleet(number)
    assert benchmark(lambda: balancer.choose(targets, 0.0, random.random, key=key)) in targets
