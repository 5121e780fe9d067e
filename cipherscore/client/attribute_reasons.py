"""Reasons of a schema with scorecards: the host's are about sums, the owner knows the attributes.

The host says what a scorecard contributes, ``c``, compared with the mean training row.  Compared
with that row too, each of its attributes has points, ``d`` in log-odds, and if the model took the
sum at its face, ``c`` would be the sum of all ``d``.  What is left over, ``r = c - sum of d``, is
shared out in proportion to the size of the points:

    contribution = d + r * |d| / sum of all |d|

So the contributions of a scorecard's attributes add up to ``c``, none is far from its points unless
``c`` is far from their sum, and no share grows without bound where points cancel out, as it would
if ``c`` were split in proportion to ``d``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cipherscore.client.incoming import Score
from cipherscore.client.outgoing import as_arrow
from cipherscore.client.reasons import Reason, check_count
from cipherscore.client.records import RecordCodec, level_in
from cipherscore.errors import ConfigurationError
from cipherscore.schema import MISSING_LEVEL
from cipherscore.scorecards import POINTS_PER_LOG_ODDS, Scorecards, number_in


class Wanted:
    """The reasons that a caller asked for.

    Args:
        codec: Encrypts the rows.
        rows: As in ``Client.score``.
        reasons: How many a row; at most as many as there are attributes, or fields.

    Use ``rows`` in the place of the caller's, which may be read only once, and ask the host for
    ``asked`` reasons: all scorecards' where attributes are wanted.

    Raises:
        ConfigurationError: There cannot be as many.
    """

    def __init__(self, codec: RecordCodec, rows: Any, reasons: int) -> None:
        self.rows, self.asked, self._count = rows, reasons, reasons
        self._codec, self._cards = codec, codec.schema.scorecards
        if self._cards is None:
            check_count(codec, reasons)
            return
        attributes = len(self._cards.attributes)
        if not 0 <= reasons <= attributes:
            raise ConfigurationError(
                f"reasons must be 0 to {attributes}, the number of attributes, not {reasons!r}"
            )
        self.asked = len(codec.schema.fields) if reasons else 0
        if reasons and isinstance(rows, Iterator):
            self.rows = list(rows)

    def named(self, scores: list[Score]) -> list[Score]:
        """Return the rows' scores with reasons that name attributes, where there are some."""
        if self._cards is None or not self._count:
            return scores
        return [
            replace(score, reasons=self._reasons(score, levels, self._cards))
            for score, levels in zip(scores, _levels(self._codec, self.rows), strict=True)
        ]

    def _reasons(
        self, score: Score, levels: Mapping[str, str], cards: Scorecards
    ) -> tuple[Reason, ...]:
        points = {name: cards.points[name][level] for name, level in levels.items()}
        given: dict[int, float] = {}
        for reason in score.reasons:  # one of each view
            number = number_in(reason.field)
            given[number] = given.get(number, 0.0) + reason.contribution
        found: dict[str, float] = {}
        for number, contribution in given.items():
            members = {name: p for name, p in points.items() if cards.members[name] == number}
            found |= shared_out(contribution, members)
        ranked = sorted(found, key=found.__getitem__, reverse=True)[: self._count]
        return tuple(self._reason(name, found[name], levels[name]) for name in ranked)

    def _reason(self, name: str, contribution: float, level: str) -> Reason:
        shown = None if level == MISSING_LEVEL else level
        meaning = self._codec.explain({name: shown})[name].meaning
        return Reason(name, contribution, shown, meaning, self._codec.inputs[name].description)


def shared_out(contribution: float, points: Mapping[str, int]) -> dict[str, float]:
    """Return what each attribute of a scorecard contributes, in log-odds; see the module's text.

    Args:
        contribution: Of the whole scorecard, in log-odds.
        points: Of the applicant's level of each of its attributes.
    """
    parts = {name: value / POINTS_PER_LOG_ODDS for name, value in points.items()}
    left, size = contribution - sum(parts.values()), sum(map(abs, parts.values()))
    if not size:
        return dict.fromkeys(parts, contribution / len(parts))
    return {name: part + left * abs(part) / size for name, part in parts.items()}


def _levels(codec: RecordCodec, rows: Any) -> Iterator[dict[str, str]]:
    """Yield the level of each attribute, row by row."""
    inputs = codec.schema.inputs
    table = as_arrow(rows)
    if table is None:
        for number, record in enumerate(rows):
            yield {f.name: level_in(record, f, number) for f in inputs}
        return
    from cipherscore.client.scorecards import attribute_levels  # noqa: PLC0415  (needs pyarrow)

    for row in attribute_levels(table, codec.schema).tolist():
        yield {f.name: f.levels[place] for f, place in zip(inputs, row, strict=True)}
