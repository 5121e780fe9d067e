"""``cipherscore sweep``: search for a better recipe on encrypted rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cipherscore.cli.common import Home, JsonOption, SeedOption, out, progress_bar, show
from cipherscore.cli.trainer import ThreadsOption, TokensOption


def sweep(
    tokens: TokensOption = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder of the search [default: host/sweep].")] = None,
    trials: Annotated[int, typer.Option(help="Recipes to try, those of earlier calls included.", min=1)] = 100,
    folds: Annotated[int, typer.Option(help="Folds that each is scored on.", min=2)] = 5,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Search optimiser, learning rate, depth, width, decay and dropout of the classifier.

    Scored by cross-validation on training and validation rows; test rows are not looked at.
    The best and the default preset are scored again on new folds; the winner there is the result.
    Interrupt it, start it again: it goes on.  Writes preset.toml for `train classifier --preset`.
    """
    import torch

    from cipherscore.dataset import read_tokens
    from training.sweep import sweep_classifier
    from training.sweep_report import PRESET, write_report

    home = Home()
    target = folder or home.host / "sweep"
    dataset = read_tokens(tokens or home.tokens)
    torch.set_num_threads(threads)
    with progress_bar("sweep") as update:
        found = sweep_classifier(
            dataset, target, trials=trials, folds=folds, seed=seed, progress=update
        )
    content = write_report(
        found, target, f"Sweep on {dataset.schema.name}, {folds} folds, seed {seed}"
    )

    def human() -> None:
        best, tried = found.finalists[0], len(found.trials)
        out.print(f"best of {tried} recipes: trial {best.number}, AUC {best.auc:.4f} on new folds")
        out.print(f"{target / PRESET}: cipherscore train classifier --preset {target / PRESET}")

    show(content, as_json, human)
