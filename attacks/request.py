"""What an audit is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attacks.tokens.study import KINDS
from cipherscore.errors import ConfigurationError
from cipherscore.schema import Schema


@dataclass(frozen=True)
class GivenRuns:
    """Finished trainings that the owner has, to be attacked as they are.

    Args:
        tokens: The encrypted table that they were trained on.
        model: Folder of a classifier's training; None for none.
        generator: Folder of a generator's training; None for none.
    """

    tokens: Path
    model: Path | None = None
    generator: Path | None = None

    @classmethod
    def of(
        cls, tokens: Path | None, model: Path | None, generator: Path | None
    ) -> GivenRuns | None:
        """Return the trainings named, None for none.

        Raises:
            ConfigurationError: There is a training without its table, or a table alone.
        """
        if model is None and generator is None:
            if tokens is not None:
                raise ConfigurationError(
                    "--tokens is the table of a training; give --model or --generator, too"
                )
            return None
        if tokens is None:
            raise ConfigurationError(
                "--model and --generator need --tokens, the encrypted table they were trained on"
            )
        return cls(tokens, model, generator)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        schema: Of the table.
        out: Folder of the report and of the results that an interrupted audit goes on from.
        kinds: Of the attacker's samples, names of `attacks.tokens.study.KINDS`.
        cuts: How many times the table is cut; None for as many as its size asks for.
        seed: Of cuts, samples and trainings.
        draws: How often each row is written, where the schema asks for smoothing.
        fresh: Whether to forget earlier results.
        command: The command line, for the report.
        only: Names of the sections to run; None for all.
        shadows: Classifiers trained for the membership attacks; None for as many as the table's
            size asks for.
        generators: Likewise, generators.
        given: Trainings to attack, besides those that the audit makes itself.
    """

    schema: Schema
    out: Path
    kinds: Sequence[str] = tuple(KINDS)
    cuts: int | None = None
    seed: int = 0
    draws: int = 1
    fresh: bool = False
    command: str = ""
    only: Sequence[str] | None = None
    shadows: int | None = None
    generators: int | None = None
    given: GivenRuns | None = None
