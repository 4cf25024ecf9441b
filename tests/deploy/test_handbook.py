"""Every command of the handbook's "Deploy", run as far as it goes without a cluster, an engine or a service manager."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from config import settings, sources
from tests.deploy.conftest import DEPLOY, ROOT, compose_engine, passes
from tests.deploy.test_container import stages

HANDBOOK = (DEPLOY / "README.md").read_text()
SECTION = HANDBOOK.partition("\n## Deploy\n")[2].partition("\n## ")[0]
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL) for line in block.splitlines()]
ETC = re.compile(r"(?<![\w.])/etc/")


def starting(words: str) -> list[str]:
    return [command for command in COMMANDS if command.startswith(words)]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A machine's /etc: what the commands install and change, in their order."""
    for name in ("etc/systemd/system", "etc/nginx/conf.d"):
        (tmp_path / name).mkdir(parents=True)
    for command in starting("install ") + starting("sed "):
        subprocess.run(["/bin/sh", "-ec", ETC.sub(f"{tmp_path}/etc/", command)], cwd=ROOT, check=True)
    return tmp_path / "etc"


def test_the_installed_settings_are_ready_to_serve(etc: Path) -> None:
    (command,) = starting("/opt/dashseek/bin/dashseek check")
    file = shlex.split(command)[-1].replace("/etc", str(etc))
    chosen = sources.load({}, file, {}, needs=("upstream",))
    assert chosen.upstream == ("https://api.deepseek.com",)
    assert chosen.model_dump(exclude={"origins", "upstream"}) == settings.Settings().model_dump(
        exclude={"origins", "upstream"}
    )
    passes(sys.executable, "-m", "proxy", "check", "--config", file)


def test_the_venv_is_where_unit_and_image_look_for_it() -> None:
    (command,) = starting("python3 -m venv")
    assert "/opt/dashseek/bin/pip install" in command
    build, last = stages()
    assert "/opt/dashseek/bin/pip install" in build.said("RUN")[0]
    assert "/opt/dashseek/bin/dashseek" in last.said("ENTRYPOINT")[0]
    for unit in (DEPLOY / "systemd").iterdir():
        assert "\nExecStart=/opt/dashseek/bin/dashseek serve --config /etc/dashseek/dashseek.toml" in unit.read_text()


def test_the_units_are_installed_under_the_names_they_are_started_by(etc: Path) -> None:
    for command in starting("systemctl enable --now "):
        names = command.split()[3:]
        passes("systemctl", "--root", etc.parent, "enable", *names)
        for name in names:
            assert (etc / "systemd/system/multi-user.target.wants" / f"{name}.service").is_symlink()


def test_the_ingress_file_is_where_nginx_looks(etc: Path) -> None:
    assert (etc / "nginx/conf.d/dashseek.conf").read_text() == (DEPLOY / "ingresses" / "nginx.conf").read_text()


def test_compose_reads_the_file_it_is_given() -> None:
    (command,) = starting("docker compose")
    _, _, option, file, *_ = command.split()
    subprocess.run([compose_engine(), option, file, "config", "--quiet"], cwd=ROOT, check=True, timeout=60)


def test_the_image_is_the_one_the_cluster_asks_for() -> None:
    (command,) = starting("podman build")
    words = shlex.split(command)
    assert (ROOT / words[words.index("-f") + 1]).samefile(DEPLOY / "Containerfile")
    for overlay in starting("kubectl apply -k "):
        built = passes("kubectl", "kustomize", overlay.split()[-1])
        assert f"image: {words[words.index('-t') + 1]}\n" in built


def test_the_secret_holds_what_the_component_reads(tmp_path: Path) -> None:
    (command,) = starting("kubectl -n dashseek create secret")
    for name in ("upstream-key", "keys.toml"):
        (tmp_path / name).write_text("x")
    words = [re.sub("^--from-file=", f"--from-file={tmp_path}/", word) for word in shlex.split(command)[1:]]
    secret = yaml.safe_load(passes("kubectl", *words, "--dry-run=client", "--output=yaml"))
    component = yaml.safe_load((DEPLOY / "kustomize/components/keys/kustomization.yaml").read_text())
    pod = yaml.safe_load(component["patches"][0]["patch"])["spec"]["template"]["spec"]
    assert pod["volumes"][0]["secret"]["secretName"] == secret["metadata"]["name"]
    read = {Path(variable["value"]).name for variable in pod["containers"][0]["env"]}
    assert read == secret["data"].keys()


def test_there_is_no_command_that_nothing_here_runs() -> None:
    known = (
        *("python3 -m venv", "install ", "sed ", "/opt/dashseek/bin/dashseek check", "systemctl enable --now "),
        *("docker compose", "podman build", "kubectl apply -k ", "kubectl -n dashseek create secret"),
    )
    assert [command for command in COMMANDS if not command.startswith(known)] == []
    assert all(starting(words) for words in known)


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("ingresses/nginx.conf", ["proxy_read_timeout 3600s", "client_max_body_size 32m", "proxy_buffering off"]),
        ("ingresses/haproxy.cfg", ["timeout server 3600s", "timeout client 3600s", "option abortonclose"]),
        ("ingresses/envoy.yaml", ["timeout: 0s", "stream_idle_timeout: 3600s", "healthy_panic_threshold: {value: 0}"]),
        ("kustomize/overlays/ingress/httproute.yaml", ["request: 0s", "backendRequest: 0s"]),
    ],
)
def test_the_table_of_time_limits_says_what_the_files_say(file: str, lines: list[str]) -> None:
    text = (DEPLOY / file).read_text()
    assert [line for line in lines if line not in text] == []


def test_the_map_of_the_directory_names_everything_in_it() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.name != "README.md" and path.parent.name != "__pycache__":
            name = path.relative_to(DEPLOY)
            assert any(f"`{part}" in HANDBOOK for part in (name, *name.parents[:-1])), name


def test_the_drain_is_told_as_it_is() -> None:
    chosen = settings.Settings()
    said: Mapping[str, float] = {
        "drain_timeout": chosen.drain_timeout,
        "keepalive_timeout": chosen.keepalive_timeout,
        "head_hold": chosen.head_hold,
    }
    for name, value in said.items():
        assert f"`{name}` ({value:g} s)" in HANDBOOK
