#!/usr/bin/env bash
# Installs what the test cluster needs, brings it up, runs its tests, takes it down. Usage:
#
#   tests/cluster/run.sh [flags of pytest]
#
# The exit status is pytest's, or 77 where no cluster can be had, with the reasons.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python() { .venv/bin/python "$@"; }

PYTHONPATH=$PWD
export PYTHONPATH
export BA_DIST_PROMISES=${BA_DIST_PROMISES:-runs/promises.md}
mkdir -p "$(dirname "$BA_DIST_PROMISES")"

python -m tests.cluster.host
# A cluster that somebody keeps up by hand is used as it is, and stays.
if ! python -m tests.cluster.cluster status >/dev/null; then
  trap 'python -m tests.cluster.cluster down' EXIT
  # The tests end first, by the same Ctrl-C; the cluster is still taken down after a second one.
  trap : INT
  trap 'exit 143' TERM HUP
  seconds=$(date +%s%N)
  python -m tests.cluster.cluster up
  printf 'four nodes are idle after %d ms\n' $((($(date +%s%N) - seconds) / 1000000))
fi
python -m pytest tests/cluster "$@"
