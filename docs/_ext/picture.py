"""Draws the README's picture from the benchmark's results: `python docs/_ext/picture.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "proxy_fidelity.json"
PICTURE = ROOT / "docs" / "_static" / "ranks.svg"

_NAMES = {
    "DemixSampler/merged": "optuna-demix, merged weights",
    "DemixSampler/auto": "optuna-demix, proxy: auto",
    "a human's clean sets": "a human's choice of clean sets",
    "DeMix as published": "DeMix as published",
    "CLIMB": "CLIMB",
    "RegMix": "RegMix",
}
_LEFT, _ROW, _TOP, _WIDTH, _PER_RANK = 250, 34, 66, 720, 34.0
# Gray is readable on white and on black; browsers that tell the scheme get better.
_STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; font-size: 15px }
.ours { fill: #0a69da; stroke: #0a69da }
.peer { fill: #768390; stroke: #768390 }
.grid { stroke: #768390; stroke-opacity: 0.35 }
@media (prefers-color-scheme: dark) {
  text { fill: #b6bec8 }
  .ours { fill: #539bf5; stroke: #539bf5 }
}
"""


def picture(results: dict[str, Any]) -> str:
    """The SVG: ranks won on the uniform mixture by what each method recommends."""
    rows = [row for row in results["settings"]["tiers"]["finals"] if row["method"] in _NAMES]
    bottom = _TOP + _ROW * len(rows)
    parts = [
        '<text class="title" x="12" y="24">Ranks ahead of the uniform mixture, among 48, '
        "when trained for real</text>",
        '<text x="12" y="44">tiny models, eight datasets in tiers of quality; '
        "95 % intervals</text>",
    ]
    for rank in range(0, 13, 3):
        x = _LEFT + rank * _PER_RANK
        parts.append(f'<line class="grid" x1="{x:g}" x2="{x:g}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:g}" y="{bottom + 20}" text-anchor="middle">{rank}</text>')
    for i, row in enumerate(rows):
        middle, low, high = (-value for value in row["minus_uniform"])  # low is the farther end
        y = _TOP + _ROW * (i + 0.5)
        kind = "ours" if row["method"].startswith("DemixSampler") else "peer"
        ends = (_LEFT + min(low, high) * _PER_RANK, _LEFT + max(low, high) * _PER_RANK)
        parts += [
            f'<text x="{_LEFT - 14}" y="{y + 5:g}" text-anchor="end">'
            f"{_NAMES[row['method']]}</text>",
            f'<line class="{kind}" stroke-width="3" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" '
            f'y1="{y:g}" y2="{y:g}"/>',
            f'<circle class="{kind}" cx="{_LEFT + middle * _PER_RANK:.1f}" cy="{y:g}" r="6"/>',
        ]
    body = "\n".join(parts)
    size = f'viewBox="0 0 {_WIDTH} {bottom + 32}" width="{_WIDTH}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<style>\n{_STYLE}</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(json.loads(RESULTS.read_text("utf-8"))), "utf-8")
