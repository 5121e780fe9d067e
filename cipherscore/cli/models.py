"""``cipherscore models`` and ``serve``: the host's registry and service."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cipherscore.cli.common import Home, JsonOption, out, show

if TYPE_CHECKING:
    from registry import Registry, Version

app = typer.Typer(help="The model registry: versions, stages, integrity.", no_args_is_help=True)
TagArgument = Annotated[str, typer.Argument(help="name:version, or name:latest.")]
_LOOPBACK = "127.0.0.1"
NameArgument = Annotated[str, typer.Argument(help="Model name.")]


class Target(str, Enum):
    """Where a version can be put; the registry itself is imported only by who needs it."""

    PRODUCTION = "production"
    CANARY = "canary"
    SHADOW = "shadow"


class Beside(str, Enum):
    """What can be ended without another version to follow."""

    CANARY = "canary"
    SHADOW = "shadow"


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List all versions with their stage."""
    registry = _registry()
    names = registry.names()
    found = [version for name in names for version in registry.versions(name)]
    shares = {v.tag: s.percent for s in map(registry.staged, names) if (v := s.canary) is not None}

    def human() -> None:
        view = Table("model", "stage", "created", "digest", box=None)
        for version in found:
            share = f" {shares[version.tag]:g} %" if version.tag in shares else ""
            stage = f"{version.stage}{share}"
            view.add_row(version.tag, stage, _created(version), (version.digest or "")[:12])
        out.print(view if found else "no model yet; make one with `cipherscore export`")

    facts = [
        {
            "model": v.tag,
            "stage": v.stage,
            "percent": shares.get(v.tag),
            "created": _created(v),
            "digest": v.digest,
        }
        for v in found
    ]
    show(facts, as_json, human)


@app.command("show")
def show_(tag: TagArgument, as_json: JsonOption = False) -> None:
    """Show a version's lineage, metrics and model card."""
    version = _registry().get(tag)
    record, card = version.record, version.card()
    facts: dict[str, Any] = {"model": version.tag, "stage": version.stage, **record.__dict__}

    def human() -> None:
        for name, value in facts.items():
            if name != "metrics" or not card:
                out.print(f"{name:<16} {value}")
        out.print(f"\n{card}", markup=False)

    show({**facts, "card": card}, as_json, human)


@app.command()
def promote(
    tag: TagArgument,
    stage: Annotated[Target, typer.Option(help="Where to put it.")] = Target.PRODUCTION,
    percent: Annotated[
        float | None, typer.Option(help="Share of the requests a canary answers, up to 100.")
    ] = None,
) -> None:
    """Verify a version and put it into production, or beside it as canary or shadow.

    Running servers take it over without a restart.  The version that was in production is archived.
    """
    from registry import Stage

    _say(_registry().promote(tag, Stage(stage.value), percent))


@app.command()
def rollback(name: NameArgument) -> None:
    """Put the previous production version back; running servers follow."""
    _say(_registry().rollback(name))


@app.command()
def unstage(
    name: NameArgument,
    stage: Annotated[Beside, typer.Option(help="What to end.")],
) -> None:
    """End a model's canary or shadow."""
    from registry import Stage

    _say(_registry().unstage(name, Stage(stage.value)))


@app.command()
def history(name: NameArgument, as_json: JsonOption = False) -> None:
    """List past changes of a model's stages, the oldest first."""
    changes = _registry().changes(name)

    def human() -> None:
        view = Table("time (UTC)", "change", "version", "in place of", box=None)
        for change in changes:
            share = "" if change.percent is None else f" {change.percent:g} %"
            view.add_row(
                change.at[:19], f"{change.action}{share}", change.version, change.replaced or ""
            )
        out.print(view if changes else f"no change of {name} yet")

    show([change.__dict__ for change in changes], as_json, human)


@app.command()
def verify(tag: TagArgument) -> None:
    """Hash every file of a version again and compare."""
    out.print(f"{_registry().verify(tag).tag}: intact")


@app.command()
def remove(tag: TagArgument) -> None:
    """Delete a version that is not in use."""
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
    host: Annotated[str | None, typer.Option(help="Address both transports listen on [default: 127.0.0.1, or what a settings file says of gRPC].")] = None,
    http_port: Annotated[int, typer.Option(help="HTTP port.")] = 3000,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port [default: as set, else 50051].")] = None,
    device: Annotated[str | None, typer.Option(help="auto, strict or cpu; strict refuses to start without CUDA [default: as set, else auto].")] = None,
    classifier: Annotated[str, typer.Option(help="Model name [default: the only classifier in production].")] = "",
    generator: Annotated[str, typer.Option(help="Model name [default: the only generator in production].")] = "",
) -> None:  # fmt: skip
    """Serve the production models over HTTP and gRPC (runs `bentoml serve`).

    All other settings come from the environment and the settings file: `cipherscore settings show`.
    """
    if device not in (None, "auto", "strict", "cpu"):
        raise typer.BadParameter(
            f"{device!r} is not one of auto, strict, cpu", param_hint="--device"
        )
    environment = {**os.environ, "BENTOML_HOME": str(Home().bentoml)}
    chosen = {
        "CIPHERSCORE_DEVICE": device,
        "CIPHERSCORE_GRPC_HOST": host,
        "CIPHERSCORE_GRPC_PORT": grpc_port,
        "CIPHERSCORE_CLASSIFIER": classifier,
        "CIPHERSCORE_GENERATOR": generator,
    }
    environment.update({variable: str(value) for variable, value in chosen.items() if value})
    if "CIPHERSCORE_SETTINGS_FILE" not in environment:
        environment.setdefault("CIPHERSCORE_GRPC_HOST", _LOOPBACK)
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:CipherScore"]
    command += ["--host", host or _LOOPBACK, "--port", str(http_port)]
    os.execve(sys.executable, command, environment)  # noqa: S606 - fixed program, no shell


def _registry() -> Registry:
    from registry import Registry

    return Registry(Home().bentoml)


def _created(version: Version) -> str:
    return str(version.created)[:19]


def _say(version: Version) -> None:
    out.print(f"{version.tag}: {version.stage}")
