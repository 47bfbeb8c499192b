#!/usr/bin/env bash
# All tests but the longest, in two halves side by side. The one waits most of its time, for swarms, clocks and killed
# processes; the other computes, and takes what processor time the first one leaves.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export OMP_NUM_THREADS=1

computing=(
    tests/unit tests/integration/test_coordinator_*.py tests/integration/test_openapi_*.py
    tests/integration/test_{train_pairs,training_settings,parallel,local_run}.py
)
log=$(mktemp)
# a session of its own, with the niceness of the whole session: else each session gets an equal share
setsid --wait bash -c '{ echo 10 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 10 "$@"' - \
    .venv/bin/python -m pytest -m "not long" "$@" "${computing[@]}" >"$log" 2>&1 &
half=$!
trap 'kill "$half" 2>/dev/null; rm -f "$log"' EXIT

.venv/bin/python -m pytest -m "not long" "$@" tests "${computing[@]/#/--ignore=}"
waiting_code=$?
wait "$half"
computing_code=$?
cat "$log"
[ "$waiting_code" = 0 ] && [ "$computing_code" = 0 ]
