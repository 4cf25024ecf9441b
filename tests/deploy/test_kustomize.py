"""What `kubectl apply -k` would send: known to Kubernetes' own schemas, and true to the settings it carries."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from config import settings, sources
from tests.deploy.conftest import DEPLOY, fails, passes, with_line

OVERLAYS = DEPLOY / "kustomize" / "overlays"
INGRESS = OVERLAYS / "ingress" / "ingress.yaml"
SCHEMA = json.loads((Path(__file__).parent / "httproute.schema.json").read_text())
# From the end of the drain to the end of the process: last frames, journal, interpreter.
ENDING_S = 15

Json = dict[str, Any]


def built(overlay: str | Path) -> str:
    return passes("kubectl", "kustomize", OVERLAYS / overlay)


def documents(text: str) -> dict[str, Json]:
    """By kind; there is one of each."""
    found = [*yaml.safe_load_all(text)]
    kinds = {document["kind"]: document for document in found}
    assert len(kinds) == len(found)
    return kinds


def pod_of(deployment: Json) -> Json:
    pod: Json = deployment["spec"]["template"]["spec"]
    return pod


def gateway_of(pod: Json) -> Json:
    (container,) = [one for one in (*pod.get("initContainers", ()), *pod["containers"]) if one["name"] == "dashseek"]
    return container


def settings_of(kinds: dict[str, Json], tmp_path: Path) -> settings.Settings:
    """What the process would settle on: the file of the ConfigMap, below the variables of the container."""
    file = tmp_path / "dashseek.toml"
    file.write_text(kinds["ConfigMap"]["data"]["dashseek.toml"])
    said = gateway_of(pod_of(kinds["Deployment"])).get("env", ())
    environ = {"DASHSEEK_HOST": "0.0.0.0", "DASHSEEK_ADMIN_HOST": "0.0.0.0"}  # the image's own
    environ |= {variable["name"]: variable["value"] for variable in said}
    return sources.load({}, str(file), environ, needs=("upstream",))


@pytest.mark.parametrize("overlay", ["ingress", "sidecar"])
def test_every_object_is_one_that_kubernetes_knows(overlay: str, tmp_path: Path) -> None:
    core = [one for one in yaml.safe_load_all(built(overlay)) if one["kind"] != "HTTPRoute"]
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all([*core, yaml.safe_load(INGRESS.read_text())]))
    said = passes("kubernetes-validate", "--strict", file)
    assert said.count("passed") == len(core) + 1


def test_an_object_that_kubernetes_does_not_know_is_told(tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(with_line(INGRESS.read_text(), "pathType:", "pathKind:"))
    assert "pathType" in fails("kubernetes-validate", "--strict", file)


def test_the_route_is_one_the_gateway_api_knows_and_sets_no_time_limit() -> None:
    route = documents(built("ingress"))["HTTPRoute"]
    jsonschema.Draft7Validator(SCHEMA).validate(route)
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    rule["timeout"] = rule.pop("timeouts")
    with pytest.raises(jsonschema.ValidationError, match="timeout"):
        jsonschema.Draft7Validator(SCHEMA).validate(route)


@pytest.mark.parametrize("overlay", ["ingress", "sidecar"])
def test_the_settings_are_settings_and_calls_are_asked_for_where_the_ports_say(overlay: str, tmp_path: Path) -> None:
    kinds = documents(built(overlay))
    chosen = settings_of(kinds, tmp_path)
    container = gateway_of(pod_of(kinds["Deployment"]))
    assert container["args"] == ["serve", "--config", "/etc/dashseek/dashseek.toml"]
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[kind]["httpGet"] for kind in container if kind.endswith("Probe")]
    assert {named[probe["port"]] for probe in probes} == {chosen.admin_port}
    assert {probe["path"] for probe in probes} <= {"/readyz", "/healthz"}
    assert named.get("calls", chosen.port) == chosen.port


def test_the_grace_period_covers_the_drain(tmp_path: Path) -> None:
    kinds = documents(built("ingress"))
    chosen = settings_of(kinds, tmp_path)
    drain_s = chosen.drain_delay + chosen.drain_timeout
    assert pod_of(kinds["Deployment"])["terminationGracePeriodSeconds"] >= drain_s + ENDING_S
    readiness = gateway_of(pod_of(kinds["Deployment"]))["readinessProbe"]
    # Everybody must have heard that it is not ready before it is not there.
    assert chosen.drain_delay > 2 * readiness["periodSeconds"] * readiness["failureThreshold"]
    behavior = kinds["HorizontalPodAutoscaler"]["spec"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= drain_s


@pytest.mark.parametrize("overlay", ["ingress", "sidecar"])
def test_the_container_may_do_nothing_but_serve(overlay: str) -> None:
    pod = pod_of(documents(built(overlay))["Deployment"])
    container = gateway_of(pod)
    allowed = pod.get("securityContext", {}) | container["securityContext"]
    assert allowed["runAsNonRoot"] is True
    assert allowed["runAsUser"] == 65532
    assert allowed["readOnlyRootFilesystem"] is True
    assert allowed["allowPrivilegeEscalation"] is False
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert allowed["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "cpu" not in container["resources"]["limits"]
    # Nothing is written but sockets, in memory.
    (written,) = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == written["name"]]
    assert (written["mountPath"], volume["emptyDir"]["medium"]) == ("/tmp", "Memory")


def test_what_selects_its_pods_selects_them() -> None:
    kinds = documents(built("ingress"))
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        kinds["Service"]["spec"]["selector"],
        kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        kinds["Deployment"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels
    (backend,) = kinds["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
    assert backend == {
        "name": kinds["Service"]["metadata"]["name"],
        "port": kinds["Service"]["spec"]["ports"][0]["port"],
    }


def test_nothing_leaves_for_the_cluster_or_for_the_clouds_own_addresses() -> None:
    policy = documents(built("ingress"))["NetworkPolicy"]["spec"]
    names, upstream = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    # NodeLocal DNSCache, which is asked where a cluster has it.
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in names["to"]
    (block,) = upstream["to"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(block["ipBlock"]["except"])
    assert upstream["ports"] == [{"port": 443, "protocol": "TCP"}]


def test_the_sidecar_is_a_native_one_on_the_pods_loopback(tmp_path: Path) -> None:
    kinds = documents(built("sidecar"))
    pod = pod_of(kinds["Deployment"])
    chosen = settings_of(kinds, tmp_path)
    assert gateway_of(pod)["restartPolicy"] == "Always"
    assert [container["name"] for container in pod["containers"]] == ["caller"]
    assert chosen.host == "127.0.0.1"
    (base,) = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "DASHSCOPE_HTTP_BASE_URL"]
    assert base == f"http://127.0.0.1:{chosen.port}/api/v1"


def test_the_gateways_namespace_is_said_once(tmp_path: Path) -> None:
    shutil.copytree(OVERLAYS.parent, tmp_path / "kustomize")
    route = tmp_path / "kustomize" / "overlays" / "ingress" / "httproute.yaml"
    route.write_text(with_line(route.read_text(), "namespace: gateway", "namespace: elsewhere"))
    policy = documents(built(route.parent))["NetworkPolicy"]["spec"]
    (allowed,) = policy["ingress"][0]["from"]
    assert allowed["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "elsewhere"}


def with_components(tmp_path: Path, *names: str) -> dict[str, Json]:
    """The ingress overlay with these components, as an operator's own overlay would have it."""
    shutil.copytree(OVERLAYS.parent, tmp_path / "kustomize")
    mine = tmp_path / "kustomize" / "mine"
    mine.mkdir()
    components = ", ".join(f"../components/{name}" for name in names)
    (mine / "kustomization.yaml").write_text(
        f"namespace: dashseek\nresources: [../overlays/ingress]\ncomponents: [{components}]\n"
    )
    return documents(built(mine))


def test_the_books_outlive_their_pod_and_each_pod_has_its_own(tmp_path: Path) -> None:
    kinds = with_components(tmp_path, "journal")
    pod = pod_of(kinds["Deployment"])
    container = gateway_of(pod)
    variables = {one["name"]: one for one in container["env"]}
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "journal"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "journal"]
    claim = kinds["PersistentVolumeClaim"]
    assert Path(variables[settings.VARIABLES["journal_file"]]["value"]).parent == Path(mount["mountPath"])
    assert settings.VARIABLES["journal_max_bytes"] in variables
    assert mount["subPathExpr"] == "$(POD_NAME)"
    assert variables["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all([kinds["Deployment"], claim]))
    passes("kubernetes-validate", "--strict", file)


def test_keda_scales_by_the_same_measure_and_alone(tmp_path: Path) -> None:
    scaler = documents(built("ingress"))["HorizontalPodAutoscaler"]["spec"]
    kinds = with_components(tmp_path, "keda")
    assert "HorizontalPodAutoscaler" not in kinds
    scaled = kinds["ScaledObject"]["spec"]
    (metric,), (trigger,) = scaler["metrics"], scaled["triggers"]
    assert scaled["scaleTargetRef"]["name"] == kinds["Deployment"]["metadata"]["name"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (scaler["minReplicas"], scaler["maxReplicas"])
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == scaler["behavior"]
    assert metric["pods"]["metric"]["name"] in trigger["metadata"]["query"]
    assert trigger["metadata"]["threshold"] == metric["pods"]["target"]["averageValue"]


def test_the_adapter_serves_what_the_autoscaler_asks_for() -> None:
    scaler = documents(built("ingress"))["HorizontalPodAutoscaler"]["spec"]
    (rule,) = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yaml").read_text())["rules"]
    assert rule["seriesQuery"].startswith(scaler["metrics"][0]["pods"]["metric"]["name"] + "{")


def test_the_operator_scrapes_the_job_that_the_rules_go_by(tmp_path: Path) -> None:
    kinds = with_components(tmp_path, "prometheus-operator")
    template = kinds["Deployment"]["spec"]["template"]
    monitor = kinds["PodMonitor"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["labels"][monitor["jobLabel"]] == "dashseek"
    assert endpoint["port"] in {port["name"] for port in gateway_of(pod_of(kinds["Deployment"]))["ports"]}
    assert not [name for name in template["metadata"]["annotations"] if name.startswith("prometheus.io/")]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())
    assert kinds["PrometheusRule"]["spec"] == rules


def test_keys_come_from_one_secret(tmp_path: Path) -> None:
    kinds = with_components(tmp_path, "keys")
    pod = pod_of(kinds["Deployment"])
    variables = {one["name"]: one["value"] for one in gateway_of(pod)["env"]}
    (keys,) = [volume for volume in pod["volumes"] if "secret" in volume]
    (mount,) = [mount for mount in gateway_of(pod)["volumeMounts"] if mount["name"] == keys["name"]]
    assert mount["readOnly"]
    assert {name: Path(path).parent for name, path in variables.items()} == {
        settings.VARIABLES["upstream_api_key_file"]: Path(mount["mountPath"]),
        settings.VARIABLES["keys_file"]: Path(mount["mountPath"]),
    }
    assert keys["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize(
    "file", sorted((DEPLOY / "kustomize").rglob("dashseek.toml")), ids=lambda path: path.parent.name
)
def test_no_secret_is_in_a_file_of_settings(file: Path) -> None:
    assert not settings.SECRETS & tomllib.loads(file.read_text()).keys()
