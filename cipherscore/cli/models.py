"""``cipherscore models`` and ``serve``: the host's registry and service."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cipherscore.cli.common import Home, JsonOption, out, show

if TYPE_CHECKING:
    from registry import Registry, Version

app = typer.Typer(help="The model registry: versions, stages, integrity.", no_args_is_help=True)
TagArgument = Annotated[str, typer.Argument(help="name:version, or name:latest.")]
NameArgument = Annotated[str, typer.Argument(help="Model name.")]


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List all versions with their stage."""
    registry = _registry()
    found = [version for name in registry.names() for version in registry.versions(name)]

    def human() -> None:
        view = Table("model", "stage", "created", "digest", box=None)
        for version in found:
            view.add_row(version.tag, version.stage, _created(version), (version.digest or "")[:12])
        out.print(view if found else "no model yet; make one with `cipherscore export`")

    facts = [
        {"model": v.tag, "stage": v.stage, "created": _created(v), "digest": v.digest}
        for v in found
    ]
    show(facts, as_json, human)


@app.command("show")
def show_(tag: TagArgument, as_json: JsonOption = False) -> None:
    """Show a version's lineage and metrics."""
    version = _registry().get(tag)
    record = version.record
    facts: dict[str, Any] = {"model": version.tag, "stage": version.stage, **record.__dict__}

    def human() -> None:
        for name, value in facts.items():
            out.print(f"{name:<16} {value}")

    show(facts, as_json, human)


@app.command()
def promote(tag: TagArgument) -> None:
    """Verify a version and put it into production; the one there is archived."""
    _say(_registry().promote(tag))


@app.command()
def rollback(name: NameArgument) -> None:
    """Put the previous production version back."""
    _say(_registry().rollback(name))


@app.command()
def verify(tag: TagArgument) -> None:
    """Hash every file of a version again and compare."""
    out.print(f"{_registry().verify(tag).tag}: intact")


@app.command()
def remove(tag: TagArgument) -> None:
    """Delete a version that is not in production."""
    _registry().remove(tag)
    out.print(f"{tag}: removed")


@app.command()
def rekey(
    tag: TagArgument,
    map_file: Annotated[Path, typer.Option("--map", help="Re-key map from `keys rotate`.")],
) -> None:
    """Make a new version of a model for a new key, without training."""
    from cipherscore.rekeymap import RekeyMap
    from export.rekey import rekey as apply_map

    made = apply_map(_registry(), tag, RekeyMap.read(map_file))
    out.print(f"{made.tag}: candidate for key {made.record.key_id}")


def serve(
    host: Annotated[str, typer.Option(help="Address both transports listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="HTTP port.")] = 3000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port.")] = 50051,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu; cuda refuses to start without it.")] = "auto",
    classifier: Annotated[str, typer.Option(help="Model name [default: the only classifier in production].")] = "",
    generator: Annotated[str, typer.Option(help="Model name [default: the only generator in production].")] = "",
) -> None:  # fmt: skip
    """Serve the production models over HTTP and gRPC (runs `bentoml serve`)."""
    if device not in ("auto", "cuda", "cpu"):
        raise typer.BadParameter(f"{device!r} is not one of auto, cuda, cpu", param_hint="--device")
    environment = {
        **os.environ,
        "BENTOML_HOME": str(Home().bentoml),
        "CIPHERSCORE_DEVICE": device,
        "CIPHERSCORE_GRPC_HOST": host,
        "CIPHERSCORE_GRPC_PORT": str(grpc_port),
    }
    chosen = {"CIPHERSCORE_CLASSIFIER": classifier, "CIPHERSCORE_GENERATOR": generator}
    environment.update({variable: name for variable, name in chosen.items() if name})
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:CipherScore"]
    command += ["--host", host, "--port", str(http_port)]
    os.execve(sys.executable, command, environment)  # noqa: S606 - fixed program, no shell


def _registry() -> Registry:
    from registry import Registry

    return Registry(Home().bentoml)


def _created(version: Version) -> str:
    return str(version.created)[:19]


def _say(version: Version) -> None:
    out.print(f"{version.tag}: {version.stage}")
