"""The errors this package raises for what its user can mend.

Every message names the file, field, tensor or trial and says what to do, in one line: the command
line prints it as it stands and exits with status 2. Anything else that escapes is a defect.
"""

from __future__ import annotations


class DemixError(Exception):
    """The base of all errors of this package, and what has no narrower class.

    Raised itself for what surrounds a study: a missing package, a full disk, another process.
    """


class InputError(DemixError, ValueError):
    """A mistake in an argument or a file; the message says where it is and how to mend it."""


class ConfigError(InputError):
    """A ``study.yaml`` that cannot be read, or a field or argument that cannot be used."""


class ConstraintError(InputError):
    """Constraints on the mixture that no merge weights can satisfy."""


class ComponentError(InputError):
    """A component, base or reference model that is missing, damaged or unlike the others."""


class TaskError(InputError):
    """An lm-eval task or metric that does not exist or cannot be scored."""


class NeedsModelError(TaskError):
    """Benchmarks that need more of a model than the log-likelihoods of given text.

    Attributes:
        benchmarks: Their names; the message explains the first.
    """

    def __init__(self, message: str, benchmarks: tuple[str, ...] = ()) -> None:  # noqa: D107
        super().__init__(message)
        self.benchmarks = benchmarks


class StudyError(InputError):
    """An Optuna study or storage that does not fit the ``study.yaml``."""


class StorageLostError(DemixError):
    """A storage that did not answer for as long as a worker waits for it."""
