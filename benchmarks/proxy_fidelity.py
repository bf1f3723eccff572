"""Whether ranking merged proxies ranks really trained models: trains and caches the models."""

from __future__ import annotations

from pathlib import Path

from _fidelity_models import PROXY_SEED, Sizes, Workshop, sampled_shares

from optuna_demix._config_space import space_of


def main() -> None:
    """Train the base, the components, the references and the trained proxies."""
    sizes = Sizes()
    shop = Workshop(Path("runs/fidelity"), sizes)
    shop.prepare()
    space = space_of(shop.study("base", tokens=sizes.base, seed=0))
    shares = sampled_shares(space, sizes.n_references)
    for seed in sizes.seeds:
        shop.references(f"references-{seed}", sizes.reference, seed, shares)
    for tokens in sizes.component:
        shop.components(f"components-{tokens}", tokens)
    for tokens in sizes.proxy:
        shop.references(f"trained-{tokens}", tokens, PROXY_SEED, shares)
    for share in (0.0, 0.25, 0.75):
        shop.components(f"general-{int(100 * share)}", sizes.chosen, share=share)
    for tokens in sizes.long:
        shop.components(f"components-{tokens}", tokens)


if __name__ == "__main__":
    main()
