"""What ``proxy_fidelity.py`` prints: its tables, and what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from _common import print_table

AUTO, MERGED, PROBABILITIES = "DemixSampler/auto", "DemixSampler/merged", "probabilities"
UNIFORM, ORACLE, CLEAN_SETS = "uniform", "oracle", "a human's clean sets"
RIVALS = ("RegMix", "CLIMB", "DeMix as published")


def targets(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at in the tiers and the domains, and whether it was reached."""
    found: list[dict[str, Any]] = []

    def add(name: str, value: Any, bound: str, met: bool) -> None:
        found.append({"target": name, "value": value, "bound": bound, "met": met})

    if tiers := settings.get("tiers"):
        auto = next(row for row in tiers["proxies"] if row["proxy"] == "auto")
        rho, top = auto["rho"]["macro"], auto["rho_top_quarter"]["macro"]
        add("macro Spearman, auto", rho, "at least 0.94", rho >= 0.94)
        add("best quarter, auto", top, "at least 0.80", top >= 0.80)
        ours_ = next(row for row in tiers["finals"] if row["method"] == AUTO)
        gain = ours_["minus_uniform"]
        add("average rank minus uniform's", gain, "interval below -3", gain[2] < -3)
        for rival in RIVALS:
            if rival in ours_["minus"]:
                gain = ours_["minus"][rival]
                add(f"average rank minus {rival}'s", gain, "interval below 0", gain[2] < 0)
        needs = tiers["tokens_uniform_needs"]["macro"]
        add("times the tokens uniform needs", needs, "at least 1.5", needs >= 1.5)
        share = tiers["oracle_share"]
        add("share of the way to the oracle", share, "at least 0.9", share >= 0.9)
    if domains := settings.get("domains"):
        row = next(row for row in domains["finals"] if row["method"] == AUTO)
        gain = row["minus_uniform"]
        add("five domains: rank minus uniform's", gain, "not above 0", gain[0] <= 0)
    return found


def show(name: str, result: Mapping[str, Any]) -> None:
    """Print the tables of one setting."""
    print(f"\n{name}: proxies against references")
    print_table(
        [
            {
                "proxy": row["proxy"],
                "tokens in all": row["tokens_total"],
                "rho": row["rho"]["macro"],
                "95 %": _span(row["rho_low"], row["rho_high"]),
                "best quarter": row["rho_top_quarter"]["macro"],
                "its 95 %": _span(row["top_quarter_low"], row["top_quarter_high"]),
                "recovery": row["recovery"]["macro"],
            }
            for row in result["proxies"]
        ],
        {
            "proxy": "",
            "tokens in all": "d",
            "rho": ".3f",
            "95 %": "",
            "best quarter": ".3f",
            "its 95 %": "",
            "recovery": ".3f",
        },
    )
    if result["ceiling"]:
        ceiling = result["ceiling"]
        print(
            f"ceiling, one seed ranked by another: {ceiling['rho_macro']:.3f}, best quarter "
            f"{ceiling['rho_top_quarter']:.3f}"
        )
    print(f"\n{name}: other ways")
    for row in result["tried"]:
        print(
            f"{row['rho']['macro']:.3f}, best quarter {row['rho_top_quarter']['macro']:.3f}, "
            f"minus merged {_triple(row['minus_merged'], 3)}, minus the plain mixture "
            f"{_triple(row['minus_plain'], 3)}: {row['way']}"
        )
    print(f"\n{name}: final mixtures, trained")
    print_table(
        [
            {
                "method": row["method"],
                "rank": row["average_rank"],
                "se": row["se"],
                "minus uniform": _triple(row["minus_uniform"]),
                **row["rank"],
            }
            for row in result["finals"]
        ],
        {
            "method": "",
            "rank": ".2f",
            "se": ".2f",
            "minus uniform": "",
            **{c: ".1f" for c in result["finals"][0]["rank"]},
        },
    )
    ours_ = next(row for row in result["finals"] if row["method"] == AUTO)
    for other, gain in ours_["minus"].items():
        print(f"{AUTO} minus {other}: {_triple(gain)}")
    if "tokens_uniform_needs" in result:
        for method, needs in result["tokens_uniform_needs_by_method"].items():
            print(f"times the tokens uniform needs to match {method}: {needs}")
    print(f"share of the way to the oracle: {result['oracle_share']}")


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _triple(values: Sequence[float], digits: int = 2) -> str:
    mean, low, high = (f"{value:+.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}]"
