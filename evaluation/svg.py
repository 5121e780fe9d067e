"""Matplotlib figures as SVG that sits inside an HTML page: small, offline, the same every time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and files are small
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "path.simplify": True,
    "figure.constrained_layout.use": True,
}

_HEAD = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_NAMESPACE = re.compile(r'\s+xmlns(:\w+)?="[^"]*"')
_NAMES = re.compile(r'(\bid="|url\(#|href="#)')


def draw(name: str, width: float, height: float, paint: Callable[[Figure], None]) -> str:
    """Return what ``paint`` draws on a figure of ``width`` x ``height`` inches, as an SVG element.

    ``name`` goes before every id, so that several figures share a page.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height))
        paint(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return embedded(stream.getvalue(), name, width)


def embedded(text: str, name: str, width: float) -> str:
    """Return a whole SVG file as an element of an HTML page.

    Declarations, namespaces and metadata go: HTML needs none of them, and they hold addresses.
    """
    text = _METADATA.sub("", _HEAD.sub("", text))
    text = _NAMESPACE.sub("", text)
    text = _NAMES.sub(rf"\g<1>{name}-", text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} class="plot" style="max-width:{width:g}in">{rest}'.strip()
