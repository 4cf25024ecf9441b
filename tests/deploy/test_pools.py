"""The examples of pools: each file is a configuration that `serve` takes, and names what is beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config import models, sources
from config.settings import Settings
from tests.deploy.conftest import DEPLOY

POOLS = DEPLOY / "pools"


def loaded(path: Path) -> Settings:
    chosen = sources.load({}, str(path), {"OFFICIAL_API_KEY": "sk-a"}, needs=("upstream",))
    models.load(chosen)
    return chosen


def objects(name: str) -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((POOLS / name).read_text())}


@pytest.mark.parametrize("path", sorted(POOLS.glob("*.toml")), ids=lambda path: path.name)
def test_each_file_is_a_configuration(path: Path) -> None:
    chosen = loaded(path)
    assert len(chosen.pools) == 3
    assert len({pool.name for pool in chosen.pools}) == 3


def test_the_official_api_is_the_last_resort() -> None:
    *engines, official = loaded(POOLS / "engines-and-official.toml").pools
    assert official.priority > max(pool.priority for pool in engines)
    assert official.api_key is not None


def test_the_headless_service_is_the_one_that_is_looked_up(tmp_path: Path) -> None:
    found = objects("headless.yaml")
    service, file = found["Service"], found["ConfigMap"]["data"]["dashseek.toml"]
    keys = tmp_path / "keys.toml"
    keys.write_text("")
    (tmp_path / "c.toml").write_text(file.replace("/etc/dashseek-keys/keys.toml", str(keys)))
    (pool,) = loaded(tmp_path / "c.toml").pools
    where = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert pool.urls == (f"dns+http://{where}:{service['spec']['ports'][0]['port']}/v1",)
    assert service["spec"]["clusterIP"] == "None"


def test_the_route_leads_to_the_pool_and_the_gateway_is_what_is_asked() -> None:
    found = objects("inferencepool.yaml")
    route, pool = found["HTTPRoute"]["spec"], found["InferencePool"]["metadata"]
    assert route["rules"][0]["backendRefs"][0]["name"] == pool["name"]
    asked = loaded(POOLS / "routers.toml").pools[-1].urls[0]
    assert asked == f"http://{route['parentRefs'][0]['name']}.{pool['namespace']}.svc/v1"
