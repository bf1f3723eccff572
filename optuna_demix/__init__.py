"""Search pre-training data mixtures with Optuna, merged-model proxies and LightGBM."""

__version__ = "0.1.0"
