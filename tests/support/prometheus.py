"""Reading an exposition in Prometheus' text format."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


class Exposed:
    """The samples of one exposition."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 where there is none."""
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples that have at least these labels."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, pairs), value in self.samples.items()
            if found == name and wanted <= set(pairs)
        )
