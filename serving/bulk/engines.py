"""What runs a bulk job's parts: this process, or Ray Data over any number of machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cipherscore.errors import CipherScoreError, ConfigurationError
from serving.bulk.job import Job, Part
from serving.bulk.parts import PartScorer
from serving.settings import available_cores

Progress = Callable[[int], None]
"""Told how many more rows are done."""


def run_local(job: Job, out: Path, parts: Sequence[Part], device: str, progress: Progress) -> None:
    """Score ``parts`` in this process, one after the other, the model on all cores.

    Raises:
        CipherScoreError: A part is refused; those before it stay done.
    """
    scorer = PartScorer(job, out, device, available_cores())
    for part in parts:
        progress(scorer.score(part))


def run_ray(job: Job, out: Path, parts: Sequence[Part], device: str, progress: Progress) -> None:
    """Score ``parts`` with Ray Data, one worker a core; a worker that dies is replaced.

    The table, the registry and ``out`` must be reachable under the same paths on every machine.
    ``RAY_ADDRESS`` names the cluster; without it one is started here.

    Raises:
        ConfigurationError: Ray is not installed, or does not start.
        CipherScoreError: A part is refused; those that are done stay done.
    """
    try:
        import ray  # noqa: PLC0415 - optional and large
    except ImportError as error:
        raise ConfigurationError(
            "--engine ray needs Ray: pip install 'cipherscore[serve,tables,ray]'"
        ) from error
    started = not ray.is_initialized()
    if started:
        _start(ray)
    try:
        _on_ray(ray, job, out, parts, device, progress)
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any) -> None:
    """Start Ray, or join a cluster.

    Raises:
        ConfigurationError: It does not start.
    """
    for last in (False, True):
        try:
            ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)
        except Exception as error:
            ray.shutdown()
            # Ray gives its own processes half a minute; on a busy machine they may need more.
            if last:
                raise ConfigurationError(f"Ray does not start: {error}") from error
        else:
            return


def _on_ray(
    ray: Any, job: Job, out: Path, parts: Sequence[Part], device: str, progress: Progress
) -> None:
    workers = max(1, min(len(parts), int(ray.cluster_resources().get("CPU", 1))))
    answers = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts))
    answers = answers.map(
        RayWorker,
        fn_constructor_args=(job, str(out.resolve()), device),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    for answer in answers.iter_rows():
        if answer["refused"]:
            raise CipherScoreError(answer["refused"])
        progress(int(answer["rows"]))


class RayWorker:
    """One Ray worker: loads the model once, scores the parts it is given."""

    def __init__(self, job: Job, out: str, device: str) -> None:
        self._scorer = PartScorer(job, Path(out), device, threads=1)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score one part.  A refusal is handed back: raised here, Ray would try it again."""
        try:
            return {"rows": self._scorer.score(Part(**row)), "refused": ""}
        except CipherScoreError as error:
            return {"rows": 0, "refused": str(error)}
