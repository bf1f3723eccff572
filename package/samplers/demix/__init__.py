from optuna_demix import DemixSampler
from optuna_demix import MixtureSpace
from optuna_demix import recommend


__all__ = ["DemixSampler", "MixtureSpace", "recommend"]
