"""The Kubernetes manifests: built by kustomize, in the schemas, restricted, and in step with the rest of deploy/."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deploy.kubernetes.generate import TARGET, render
from monitor.service.settings import load_settings
from tests.support.commands import needs, output_of

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "deploy" / "kubernetes"
_OF_THE_PROMETHEUS_OPERATOR = {"ServiceMonitor", "PrometheusRule"}


def _objects() -> list[dict[str, Any]]:
    files = yaml.safe_load((_FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    return [found for name in files for found in yaml.safe_load_all((_FOLDER / name).read_text(encoding="utf-8"))]


_OBJECTS = _objects()


def _pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for found in _OBJECTS:
        if found["kind"] in {"Deployment", "StatefulSet"}:
            yield found["metadata"]["name"], found["spec"]["template"]


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize(
    "found",
    [found for found in _OBJECTS if found["kind"] not in _OF_THE_PROMETHEUS_OPERATOR],
    ids=lambda found: f"{found['kind']}-{found['metadata']['name']}",
)
def test_every_object_keeps_to_its_schema(found: dict[str, Any], version: str) -> None:
    """Strictly: a key that Kubernetes does not know is an error.

    The kinds of the Prometheus operator are left out: no package has their schemas. What matters of them is checked below.
    """
    kubernetes_validate.validate(found, version, strict=True)


def test_a_wrong_key_is_found() -> None:
    """The schema check can fail."""
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 1}], "selektor": {}}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@needs("kubectl")
def test_kustomize_builds_them() -> None:
    """`kubectl apply -k` finds all files, and the image's name and tag are set in one place."""
    code, text = output_of(["kubectl", "kustomize", str(_FOLDER)])

    assert code == 0, text
    built = [found for found in yaml.safe_load_all(text) if found]
    assert len(built) == len(_OBJECTS)
    images = set(re.findall(r"image: (\S+margin-monitor\S*)", text))
    assert images == {"registry.example.internal/margin-monitor:0.1.0"}


@pytest.mark.parametrize(("name", "pod"), list(_pods()))
def test_every_pod_is_restricted(name: str, pod: dict[str, Any]) -> None:
    """What the namespace enforces (`restricted`), a read-only file system, bounded memory, no token, and a liveness probe."""
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name
        assert container["resources"]["limits"]["memory"]
        assert "cpu" not in container["resources"]["limits"], "a throttled evaluator is late"
        assert container["livenessProbe"]


def test_each_pod_of_the_set_owns_its_own_shard() -> None:
    """The ordinal is the shard, and as many shards as replicas."""
    (found,) = (found for found in _OBJECTS if found["kind"] == "StatefulSet" and found["metadata"]["name"] == "margin-monitor")
    container = found["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry for entry in container["env"]}

    assert container["args"][-2:] == ["--shard", "$(ORDINAL)/$(SHARDS)"]
    assert environment["SHARDS"]["value"] == str(found["spec"]["replicas"])
    assert environment["ORDINAL"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"


@pytest.mark.parametrize("name", ["margin-monitor", "margin-monitor-feeds"])
def test_the_daemon_understands_its_command_line(name: str, tmp_path: Path) -> None:
    """Of the whole command line it refuses only the settings file, which is not there."""
    (arguments,) = (pod["spec"]["containers"][0]["args"] for pod_name, pod in _pods() if pod_name == name)
    absent = tmp_path / "absent.toml"
    replaced = {"$(ORDINAL)/$(SHARDS)": "0/2", "/etc/margin-monitor/margin-monitor.toml": str(absent)}

    code, text = output_of([sys.executable, "-m", "monitor", *(replaced.get(argument, argument) for argument in arguments)], cwd=_ROOT)

    assert code == 2
    assert text.startswith(f"margin-monitor: {absent}: (file)"), text


def test_what_was_seen_of_the_ledger_is_kept() -> None:
    """The image's state folder is a volume in both places, so that an emptied or restored ledger is noticed after a restart."""
    (found,) = (found for found in _OBJECTS if found["kind"] == "StatefulSet" and found["metadata"]["name"] == "margin-monitor")
    mounts = {mount["mountPath"]: mount["name"] for mount in found["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in found["spec"]["volumeClaimTemplates"]}
    compose = yaml.safe_load((_ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    (folder,) = re.findall(r"LEDGER__DATA_DIR=(\S+)", (_ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8"))

    assert mounts[folder] in claims
    assert f"margin-monitor:{folder}" in compose["services"]["margin-monitor"]["volumes"]


def test_selectors_find_their_pods() -> None:
    """Services, the budget and the policies select labels that a pod has."""
    labels = [pod["metadata"]["labels"] for _, pod in _pods()]
    for found in _OBJECTS:
        spec = found.get("spec", {})
        selector = {"Service": spec.get("selector"), "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels")}.get(found["kind"])
        if found["kind"] == "PodDisruptionBudget":
            selector = spec["selector"]["matchLabels"]
        if selector:
            assert any(selector.items() <= pod.items() for pod in labels), found["metadata"]["name"]


def test_the_settings_are_accepted(tmp_path: Path) -> None:
    """The settings are ones that the daemon takes, their servers are services here, and shards have partitions to share."""
    (found,) = (found for found in _OBJECTS if found["kind"] == "ConfigMap" and found["metadata"]["name"] == "margin-monitor")
    path = tmp_path / "margin-monitor.toml"
    path.write_text(found["data"]["margin-monitor.toml"], encoding="utf-8")
    settings = load_settings(path, environment={})
    services = {found["metadata"]["name"] for found in _OBJECTS if found["kind"] == "Service"}

    assert settings.ledger.partitions == 64
    assert re.match(r"redis://(\w+):", settings.ledger.url)[1] in services  # type: ignore[index]
    assert re.match(r"redis://(\w+):", settings.cache.url)[1] in services  # type: ignore[index]


def test_redis_is_set_as_in_the_shipped_configuration() -> None:
    """What decides whether an acknowledged write survives is the same in both places."""
    (found,) = (found for found in _OBJECTS if found["kind"] == "ConfigMap" and found["metadata"]["name"] == "redis")
    for role in ("ledger", "cache"):
        shipped = _directives((_ROOT / "deploy" / "redis" / f"redis-{role}.conf").read_text(encoding="utf-8"))
        here = _directives(found["data"][f"{role}.conf"])
        for name in ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "maxmemory-policy"):
            assert here.get(name) == shipped.get(name), f"{role}: {name}"


def _directives(text: str) -> dict[str, str]:
    lines = (line.strip().split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))
    return {line[0]: line[1] for line in lines}


def test_the_rules_are_those_of_prometheus() -> None:
    """`make generated` was run after the last change of the rules."""
    rules = (_ROOT / "deploy" / "prometheus" / "rules" / "margin-monitor.yml").read_text(encoding="utf-8")

    assert TARGET.read_text(encoding="utf-8") == render()
    assert yaml.safe_load(render())["spec"]["groups"] == yaml.safe_load(rules)["groups"]


def test_the_service_monitor_names_the_job_and_the_port() -> None:
    """The rules and dashboards go by the job's name; the port is one of the services'."""
    (found,) = (found for found in _OBJECTS if found["kind"] == "ServiceMonitor")
    (endpoint,) = found["spec"]["endpoints"]

    assert {"targetLabel": "job", "replacement": "margin-monitor"} in endpoint["relabelings"]
    assert endpoint["port"] == "http"


def test_the_ledger_is_repaired_before_redis_reads_it() -> None:
    """The shipped script, word by word, runs before Redis on the same folder; and Redis itself cuts nothing."""
    found = {(each["kind"], each["metadata"]["name"]): each for each in _OBJECTS}
    settings, pod = found["ConfigMap", "redis"]["data"], found["StatefulSet", "ledger"]["spec"]["template"]["spec"]

    assert settings["repair-append-file"] == (_ROOT / "deploy" / "redis" / "repair-append-file").read_text(encoding="utf-8")
    assert "aof-load-truncated no" in settings["ledger.conf"].splitlines()
    assert pod["initContainers"][0]["command"] == ["sh", "/etc/redis/repair-append-file", "/data"]
