"""``cipherscore train`` and ``export``: the host's trainer, which sees tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cipherscore.cli.common import Home, JsonOption, SeedOption, out, progress_bar, show

if TYPE_CHECKING:
    from export.int8 import Quantised
    from export.parity import ParityReport
    from training.runs import Run

app = typer.Typer(help="Train a model on encrypted rows.", no_args_is_help=True)

TokensOption = Annotated[
    Path | None, typer.Option(help="Token table [default: host/tokens.parquet].")
]
PresetOption = Annotated[
    str, typer.Option(help="default or capstone; a classifier also takes a TOML file of `sweep`.")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start over instead of resuming or keeping a finished run.")
]
ThreadsOption = Annotated[int, typer.Option(help="CPU threads.", min=1)]


class Kind(str, Enum):
    """Model kinds."""

    classifier = "classifier"
    generator = "generator"


@app.command()
def classifier(
    tokens: TokensOption = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder [default: host/runs/classifier].")] = None,
    preset: PresetOption = "default",
    seed: SeedOption = 0,
    fresh: FreshOption = False,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Train the PyTorch classifier (good or bad credit).  Interrupt it, start it again: it resumes."""
    from cipherscore.dataset import read_tokens
    from training.classifier import train_classifier

    with progress_bar("train classifier") as update:
        run = train_classifier(
            read_tokens(tokens or Home().tokens), folder or Home().run("classifier"),
            preset=preset, seed=seed, progress=update, resume=not fresh, threads=threads,
        )  # fmt: skip
    _show_run(run, as_json)


@app.command()
def generator(
    tokens: TokensOption = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder [default: host/runs/generator].")] = None,
    preset: PresetOption = "default",
    seed: SeedOption = 0,
    epsilon: Annotated[float | None, typer.Option(help="Train with differential privacy of one row; smaller is stricter, 1 to 3 is usual [default: no guarantee].")] = None,
    delta: Annotated[float | None, typer.Option(help="Chance with which the guarantee may fail [default: 1 / (10 x training rows)].")] = None,
    fresh: FreshOption = False,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Train the Keras GAN that makes synthetic encrypted rows.  Interrupted, it resumes.

    With --epsilon it learns from noisy tables alone; no seed repeats the noise.
    Every further training on the same rows, also with --fresh, gives away more.
    """
    from cipherscore.dataset import read_tokens
    from training.generator import train_generator

    with progress_bar("train generator") as update:
        run = train_generator(
            read_tokens(tokens or Home().tokens), folder or Home().run("generator"),
            preset=preset, seed=seed, epsilon=epsilon, delta=delta, progress=update,
            resume=not fresh, threads=threads,
        )  # fmt: skip
    _show_run(run, as_json)


def export(
    kind: Annotated[Kind, typer.Argument(help="Which model.")],
    folder: Annotated[Path | None, typer.Option("--run", help="Run folder [default: host/runs/KIND].")] = None,
    tokens: TokensOption = None,
    evaluation: Annotated[Path | None, typer.Option(help="report.json of `cipherscore evaluate`, for the model card; it names groups.")] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Export a trained model to ONNX, check it against its source, and register it as a candidate.

    Fails, and registers nothing, where the two differ by more than 1e-5.
    """
    from cipherscore.dataset import read_tokens
    from export.package import package_run
    from registry import Registry

    home = Home()
    compared: list[tuple[ParityReport, Quantised | None]] = []
    version = package_run(
        folder or home.run(kind.value), read_tokens(tokens or home.tokens),
        Registry(home.bentoml), evaluation=evaluation, report=lambda *both: compared.append(both),
    )  # fmt: skip
    parity, small = compared[0]
    facts: dict[str, Any] = {
        "model": version.tag, "max_abs_diff": parity.max_abs_diff, "rows": parity.rows,
        "int8": None if small is None else asdict(small),
    }  # fmt: skip
    text = (
        f"{version.tag}: candidate; largest difference to its source {parity.max_abs_diff:.1e} "
        f"over {parity.rows} rows"
    )
    if small is not None:
        text += (
            f"\nint8 variant {'registered beside it' if small.kept else 'left out'}: AUC differs "
            f"by {small.auc_difference:+.5f}, a probability by {small.max_abs_diff:.1e} at most"
        )
    show(facts, as_json, lambda: out.print(text))


def _show_run(run: Run, as_json: bool) -> None:
    facts = {"run": str(run.folder), "model": run.model_name, "metrics": run.metrics}

    def human() -> None:
        out.print(f"{run.model_name} trained in {run.folder}")
        for part in ("training", "privacy", "test"):
            if part in run.metrics:
                out.print(f"  {part}")
                for name, text in _lines(run.metrics[part]):
                    out.print(f"    {name:<34} {text}")

    show(facts, as_json, human)


def _lines(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each figure, an interval in brackets; parts of a group are dotted."""
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            yield name, f"{value:.4g}" if isinstance(value, float) else str(value)
        elif value.keys() == {"value", "low", "high"}:
            yield name, f"{value['value']:.4f}  [{value['low']:.4f}, {value['high']:.4f}]"
        else:
            yield from ((f"{name}.{inner}", text) for inner, text in _lines(value))
