"""The errors this package raises for a mistake its user can mend.

Every message names the file, field, tensor or trial and says what to do, in one line: the command
line prints it as it stands and exits with status 2. Anything else that escapes is a defect.
"""

from __future__ import annotations


class DemixError(ValueError):
    """A mistake in what the user gave; the message says where it is and how to mend it."""


class ConfigError(DemixError):
    """A ``study.yaml`` that cannot be read, or a field in it that cannot be used."""


class ConstraintError(DemixError):
    """Constraints on the mixture that no merge weights can satisfy."""


class ComponentError(DemixError):
    """A component, base or reference model that is missing, damaged or unlike the others."""


class TaskError(DemixError):
    """An lm-eval task or metric that does not exist or cannot be scored."""


class StudyError(DemixError):
    """An Optuna study or storage that does not fit the ``study.yaml``."""


class StorageLostError(StudyError):
    """A storage that did not answer for as long as a worker waits for it."""
