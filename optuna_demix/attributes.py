"""Names of everything that is written to a study or a trial."""

from __future__ import annotations

SCORE_PREFIX = "score:"
"""Prefix of the user attributes of a trial that hold one benchmark's score each."""

MERGED_PREFIX = "merged:"
"""Prefix of those that hold its score by the merged model, where two proxies score it."""

PROBABILITY_PREFIX = "probability:"
"""Prefix of those that hold its score by the mixture of token probabilities."""

CHEAP_PREFIX = "cheap:"
"""Prefix of those that hold minus the bits per byte of a screened benchmark's right answers."""

BLOCKS_ATTR = "demix:blocks"
"""User attribute of a raced trial: of every benchmark its score on each block of items."""

OBJECTIVES_ATTR = "demix:objectives"
"""User attribute of a study: for each objective the benchmarks it averages, with weights."""

WORKER_ATTR = "demix:worker"
"""User attribute of a trial: host, process namespace and process that evaluate it."""

LEASE_ATTR = "demix:lease"
"""System attribute of a running trial: how often its worker has renewed its lease."""

PREDICTED_PREFIX = "predicted:"
"""Prefix of the user attributes of a trial that hold an objective's predicted value."""

PREDICTED_STD_PREFIX = "predicted_std:"
"""Prefix of those that hold the standard deviation of the value about its prediction."""

VIOLATION_ATTR = "violation"
"""User attribute of a trial: by how much its parameters miss the constraints of the mixture."""
WEIGHTS_KEY = "demix:weights"
"""User attribute of a trial: its true merge weights, where its parameters are not they."""

SAMPLING_SEED_ATTR = "demix:sampling_seed"
"""User attribute of a trial: the seed of its sampled texts, which a repeated trial gets again."""

FAILURE_ATTR = "fail_reason"
"""User attribute of a failed trial: why it failed."""

IMPORTED_ATTR = "demix:imported"
"""User attribute of an imported trial: its table, and the row of it."""

PARTIAL_PREFIX = "partial:"
"""Prefix of the user attributes of a pruned trial: a benchmark's score on the items so far."""

ITEMS_PREFIX = "items:"
"""Prefix of the user attributes of a pruned trial: how many items these are."""

REPORT_CLAIM_PREFIX = "demix:report:claim:"
"""Prefix of the system attributes of a study with which workers claim the report."""

REPORT_ATTR = "demix:report"
"""System attribute of a study: when its report was last written, from how many trials."""

PROPOSAL_ATTR = "demix:proposal"
"""System attribute of a trial: the parameters it was given, so that other workers see them whole
while it runs, and a retried trial gets the same ones."""

FINGERPRINT_ATTR = "demix:fingerprint"
"""User attribute of a study: what it searches and scores, written by its first worker."""

FINGERPRINT_CLAIM_PREFIX = "demix:fingerprint:claim:"
"""Prefix of the system attributes of a study with which first workers claim it."""
