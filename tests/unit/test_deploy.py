"""What is under deploy/ is valid for the tools that read it, and fits the server's settings."""

from __future__ import annotations

import copy
import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import cipherscore
from serving import settings_check
from serving.settings import Settings
from serving.settings_file import FILE_VARIABLE, PREFIX

try:
    import tomllib
except ImportError:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes/base"
COMPOSE = DEPLOY / "compose/docker-compose.yml"
VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: oldest and newest that the manifests are checked for."""

# The fields of a ServiceMonitor that are used here, as its custom resource definition has them.
_TEXT = {"type": "string"}
_DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
_KEY_REF = {
    "type": "object",
    "properties": {"name": _TEXT, "key": _TEXT, "optional": {"type": "boolean"}},
    "required": ["key"],
    "additionalProperties": False,
}
SERVICE_MONITOR: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["selector", "endpoints"],
            "additionalProperties": False,
            "properties": {
                "jobLabel": _TEXT,
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "matchLabels": {"type": "object", "additionalProperties": _TEXT},
                        "matchExpressions": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["key", "operator"],
                                "additionalProperties": False,
                                "properties": {
                                    "key": _TEXT,
                                    "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                                    "values": {"type": "array", "items": _TEXT},
                                },
                            },
                        },
                    },
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": _TEXT,
                            "path": _TEXT,
                            "scheme": {"enum": ["http", "https"]},
                            "interval": _DURATION,
                            "scrapeTimeout": _DURATION,
                            "tlsConfig": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {
                                    "serverName": _TEXT,
                                    "ca": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "properties": {"secret": _KEY_REF},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def documents(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """All objects of a folder's kustomization, by kind and name."""
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name in listed:
        path = folder / name
        if path.is_dir():
            found |= documents(path.resolve())
            continue
        for document in yaml.safe_load_all(path.read_text()):
            found[document["kind"], document["metadata"]["name"]] = document
    return found


def patched(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of an overlay, after its JSON patches."""
    found = copy.deepcopy(documents(folder))
    for entry in yaml.safe_load((folder / "kustomization.yaml").read_text()).get("patches", []):
        document = found[entry["target"]["kind"], entry["target"]["name"]]
        for step in yaml.safe_load(entry["patch"]):
            apply(document, step)
    return found


def apply(document: Any, step: dict[str, Any]) -> None:
    """Apply one operation of a JSON patch (RFC 6902): add or replace."""
    *path, last = [
        part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]
    ]
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    if step["op"] == "add" and last == "-":
        document.append(step["value"])
    elif step["op"] == "add":
        document[last] = step["value"]
    else:
        assert step["op"] == "replace"
        assert last in document
        document[last] = step["value"]


OVERLAYS = {"base": documents(BASE), "tls": patched(DEPLOY / "kubernetes/tls")}
ALL = [
    pytest.param(document, id=f"{overlay}-{kind}-{name}")
    for overlay, found in OVERLAYS.items()
    for (kind, name), document in found.items()
]


def validate(document: dict[str, Any]) -> None:
    if document["kind"] == "ServiceMonitor":
        jsonschema.validate(document, SERVICE_MONITOR)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def deployment(overlay: str = "base") -> dict[str, Any]:
    return OVERLAYS[overlay]["Deployment", "cipherscore"]


def pod(overlay: str = "base") -> dict[str, Any]:
    found: dict[str, Any] = deployment(overlay)["spec"]["template"]["spec"]
    return found


def container(overlay: str = "base") -> dict[str, Any]:
    (found,) = pod(overlay)["containers"]
    return dict(found)


def kubernetes_settings() -> dict[str, Any]:
    config = OVERLAYS["base"]["ConfigMap", "cipherscore-settings"]
    return tomllib.loads(config["data"]["settings.toml"])


# ---- Kubernetes


@pytest.mark.parametrize("document", ALL)
def test_kubernetes_objects_are_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_file_is_listed() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == files


def test_all_that_is_promised_is_there() -> None:
    kinds = {kind for kind, _ in OVERLAYS["base"]}
    assert kinds >= {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget",
        "NetworkPolicy", "ServiceMonitor", "ConfigMap",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        (
            "Deployment",
            "cipherscore",
            ("spec", "template", "spec", "containers", 0, "livenesProbe"),
        ),
        ("NetworkPolicy", "cipherscore", ("spec", "ingres")),
        ("ServiceMonitor", "cipherscore", ("spec", "endpoints", 0, "intervall")),
        ("HorizontalPodAutoscaler", "cipherscore", ("spec", "minReplica")),
    ],
)
def test_the_validator_notices_a_misspelt_field(
    kind: str, name: str, path: tuple[Any, ...]
) -> None:
    broken: Any = copy.deepcopy(OVERLAYS["base"][kind, name])
    place = broken
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = {}
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_is_locked_down(overlay: str) -> None:
    found, inside = pod(overlay), container(overlay)["securityContext"]
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert found["automountServiceAccountToken"] is False
    assert found["enableServiceLinks"] is False
    assert inside["readOnlyRootFilesystem"] is True
    assert inside["allowPrivilegeEscalation"] is False
    assert inside["capabilities"] == {"drop": ["ALL"]}
    assert all(m.get("readOnly") or m["name"] == "tmp" for m in container(overlay)["volumeMounts"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_mounts_and_volumes_and_secrets_fit(overlay: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(overlay)["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(overlay)["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    objects = OVERLAYS[overlay]
    claim = volumes["registry"]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in objects
    assert ("ConfigMap", volumes["settings"]["configMap"]["name"]) in objects
    for path in [kubernetes_settings()["clients_file"], *tls_files(overlay)]:
        assert any(path.startswith(f"{mount}/") for mount in mounts.values()), path


def tls_files(overlay: str) -> list[str]:
    return [v["value"] for v in container(overlay)["env"] if v["name"].endswith("_FILE")]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_environment_holds_settings_only(overlay: str) -> None:
    for variable in container(overlay)["env"]:
        name = variable["name"]
        assert name == FILE_VARIABLE or name.removeprefix(PREFIX).lower() in Settings.model_fields


def test_the_settings_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = kubernetes_settings()
    assert set(content) <= set(Settings.model_fields)
    clients = tmp_path / "clients.toml"
    clients.write_text("")
    clients.chmod(0o600)
    settings = Settings(**{**content, "clients_file": clients})
    settings_check.check(settings)
    assert settings.workers * settings.threads == int(container()["resources"]["requests"]["cpu"])


def test_a_pod_has_time_to_drain() -> None:
    (_, seconds) = container()["lifecycle"]["preStop"]["exec"]["command"]
    drain = kubernetes_settings()["drain_seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= int(seconds) + drain + 10


def test_ports_are_the_servers() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": 3000, "grpc": Settings.model_fields["grpc_port"].default}
    assert container()["readinessProbe"]["grpc"]["port"] == ports["grpc"]
    assert container()["startupProbe"]["httpGet"]["port"] == "http"
    for name in ("cipherscore", "cipherscore-pods"):
        for port in OVERLAYS["base"]["Service", name]["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]


def test_selectors_find_the_pods() -> None:
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    objects = OVERLAYS["base"]
    budget = objects["PodDisruptionBudget", "cipherscore"]["spec"]["selector"]["matchLabels"]
    policy = objects["NetworkPolicy", "cipherscore"]["spec"]["podSelector"]["matchLabels"]
    service = objects["Service", "cipherscore"]["spec"]["selector"]
    wanted = deployment()["spec"]["selector"]["matchLabels"]
    for selector in (budget, policy, service, wanted):
        assert selector.items() <= labels.items()


def test_the_monitor_finds_one_service() -> None:
    spec = OVERLAYS["base"]["ServiceMonitor", "cipherscore"]["spec"]
    (expression,) = spec["selector"]["matchExpressions"]
    found = [
        name
        for (kind, name), document in OVERLAYS["base"].items()
        if kind == "Service"
        and spec["selector"]["matchLabels"].items() <= document["metadata"]["labels"].items()
        and expression["key"] not in document["metadata"]["labels"]
    ]
    assert found == ["cipherscore"]
    (alert_job,) = set(
        re.findall(r'up\{job="([^"]+)"\}', (DEPLOY / "prometheus/alerts.yml").read_text())
    )
    service = OVERLAYS["base"]["Service", "cipherscore"]
    assert service["metadata"]["labels"][spec["jobLabel"]] == alert_job


def test_tls_moves_the_probes() -> None:
    assert container("tls")["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert "grpc" not in container("tls")["readinessProbe"]
    assert len(tls_files("tls")) == len(tls_files("base")) + 2


# ---- compose


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def compose_schema() -> dict[str, Any]:
    place = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    found: dict[str, Any] = json.loads(place.read_text())
    return found


def test_the_compose_file_is_valid() -> None:
    jsonschema.validate(compose(), compose_schema())
    broken = compose()
    broken["services"]["cipherscore"]["volume"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, compose_schema())


def test_what_compose_mounts_exists() -> None:
    found = compose()
    sources = [
        volume.split(":")[0]
        for service in found["services"].values()
        for volume in service.get("volumes", [])
    ]
    sources += [secret["file"] for secret in found["secrets"].values()]
    for source in sources:
        if source in found["volumes"]:
            continue
        path = Path(os.path.normpath(COMPOSE.parent / source))
        # Made by `make run`.
        assert path.exists() or path.is_relative_to(ROOT / "var"), source


def test_compose_services_are_locked_down_and_local() -> None:
    found = compose()
    for name, service in found["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert set(service["networks"]) <= set(found["networks"])
    host = found["services"]["cipherscore"]
    for variable in host["environment"]:
        assert variable.removeprefix(PREFIX).lower() in Settings.model_fields
    drain = float(host["environment"]["CIPHERSCORE_DRAIN_SECONDS"])
    assert int(host["stop_grace_period"].removesuffix("s")) >= drain + 10
    # The monitoring sees the host, never the owner's side.
    assert "monitoring" not in found["services"]["gateway"]["networks"]


def test_prometheus_looks_where_compose_has_the_host() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["cipherscore:3000"]
    assert "cipherscore" in compose()["services"]


# ---- images


def dockerfile(path: str = "Dockerfile") -> str:
    return (ROOT / path).read_text()


def test_the_targets_of_the_dockerfile() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)", dockerfile(), re.MULTILINE)
    assert {"cpu", "cuda", "maxwell"} <= set(stages)
    assert stages[-1] == "cpu"
    for lock in ("serve", "serve-cuda", "serve-maxwell"):
        assert f"COPY requirements/{lock}.txt /build/lock.txt" in dockerfile()
    assert re.search(r"^USER \d+:\d+$", dockerfile(), re.MULTILINE)
    assert "EXPOSE 3000 50051" in dockerfile()
    assert "STOPSIGNAL SIGTERM" in dockerfile()
    assert "BENTOML_CONTAINERIZED=" not in dockerfile()


@pytest.mark.parametrize(
    "path", ["Dockerfile", "deploy/image/Dockerfile.gateway", "deploy/image/Dockerfile.models"]
)
def test_what_dockerfiles_copy_is_in_their_context(path: str) -> None:
    own = ROOT / f"{path}.dockerignore"
    ignored = (own if own.exists() else ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    for copied in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(path), re.MULTILINE):
        *sources, _ = copied.split()
        for source in sources:
            if path.endswith("models"):
                continue  # its context is a registry
            assert (ROOT / source).exists(), source
            assert any(Path(source).match(entry) or source.startswith(f"{entry}/") for entry in allowed), source  # fmt: skip


def test_no_key_code_reaches_the_hosts_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {"cipherscore/client", "cipherscore/cli"} <= set(ignored)


@pytest.mark.parametrize("lock", ["serve-cuda", "serve-maxwell"])
def test_the_locks_of_the_images_are_hashed_and_name_no_index(lock: str) -> None:
    content = (ROOT / f"requirements/{lock}.txt").read_text()
    packages = re.split(r"^(?=[a-z0-9])", content, flags=re.MULTILINE)[1:]
    assert len(packages) > 80
    assert all("--hash=sha256:" in package for package in packages)
    assert "http" not in re.sub(r"^[a-z0-9-]*http[a-z0-9-]*==", "", content, flags=re.MULTILINE)
    names = {re.split(r"[=\s]", package)[0] for package in packages}
    assert {"bentoml", "grpcio", "onnxruntime-gpu", "uvloop", "numpy"} <= names


def test_the_version_is_told_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project.get("version", cipherscore.__version__) == cipherscore.__version__
