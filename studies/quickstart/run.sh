#!/bin/sh
# The quickstart, command by command: every line is one that you would type for a study of your own.
# Run it again and it goes on where it stopped.
set -eu
cd "$(dirname "$0")/../.."

STUDY=studies/quickstart/study.yaml
RUN=runs/quickstart
STORAGE=sqlite:///$RUN/study.db
TRIALS=${TRIALS:-64}
WORKERS=${WORKERS:-2}

say() { printf '\n$ %s\n' "$*"; "$@"; }

mkdir -p "$RUN"
say python studies/quickstart/prepare.py --run-dir "$RUN"
say optuna-demix train "$STUDY"
say optuna create-study --storage "$STORAGE" --study-name quickstart --skip-if-exists \
    --directions maximize maximize maximize
say optuna-demix worker "$STUDY" --storage "$STORAGE" --study-name quickstart \
    --n-trials "$TRIALS" --n-workers "$WORKERS"
say optuna-demix recommend "$STUDY" --storage "$STORAGE" --study-name quickstart \
    --verify --json "$RUN/summary.json"
printf '\nLook at the study:\n  %s/optuna-dashboard %s\n' "$(dirname "$(command -v optuna-demix)")" "$STORAGE"
