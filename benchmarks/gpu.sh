#!/usr/bin/env bash
# Builds sslfast, tests and measures it on one GPU, within nine minutes; every stage has its own limit, and a stage that
# fails or runs out of time does not keep the next from running. Exit code: the sum of 1 (build), 2 (tests), 4 (benchmarks),
# 8 (report).
#
#   benchmarks/gpu.sh                                     results and logs in benchmarks/results
#   OUT=/tmp/out PYTHON=python3.12 benchmarks/gpu.sh      elsewhere, with a Python that has torch already
#   WHEELS=wheels benchmarks/gpu.sh                       a folder of wheels for packages missing there, no network
#   DEVICE=cpu TESTS="tests/ops/test_ema.py" SECONDS_EACH=0.01 benchmarks/gpu.sh    a dry run
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
WHEELS=${WHEELS:-wheels}
DEVICE=${DEVICE:-cuda}
TESTS=${TESTS:-tests}
SECONDS_EACH=${SECONDS_EACH:-0.3}
# What is measured, the most wanted first: the time limit may cut the list.
OPS=${OPS:-nt_xent ema_update_ masking restore_tokens masked_patch_loss gather_patches gather_tokens info_nce
    negative_cosine_similarity random_patch_mask patch_embed}
mkdir -p "$OUT"
status=0

stage() {  # stage BIT SECONDS LOG COMMAND...
    local bit=$1 limit=$2 log=$OUT/$3.log start=$SECONDS code
    shift 3
    echo "== ${log##*/}: $*"
    timeout --kill-after=5 "$limit" "$@" >"$log" 2>&1
    code=$?
    tail -n 5 "$log"
    if [ "$code" -ne 0 ]; then
        status=$((status | bit))
        [ "$code" -eq 124 ] && echo "out of time after $limit s" || echo "failed with exit code $code"
    fi
    echo "== ${log##*/}: $((SECONDS - start)) s"
}

build() {
    if [ -d "$WHEELS" ]; then
        local wheel
        for wheel in "$WHEELS"/*.whl; do  # one by one: what is there already, or does not fit, holds nobody up
            "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" "$wheel" || echo "left out: $wheel"
        done
    fi
    "$PYTHON" -m pip install --quiet --no-build-isolation --no-deps -e . || return
    "$PYTHON" -c "from sslfast._info import info; print(info())"
}
export -f build
export PYTHON WHEELS

measure() {  # an op a process: one that crashes the GPU's context takes no other with it
    local op failed=0
    for op in $OPS; do
        "$PYTHON" benchmarks/run.py --device "$DEVICE" --op "$op" --seconds "$SECONDS_EACH" --output "$OUT" || failed=1
    done
    return $failed
}
export -f measure
export DEVICE OPS OUT SECONDS_EACH

stage 1 80 build bash -c build
# shellcheck disable=SC2086  # TESTS is a list
stage 2 200 tests "$PYTHON" -m pytest -q --junit-xml="$OUT/tests-$DEVICE.xml" $TESTS
stage 4 220 bench bash -c measure
stage 8 15 report "$PYTHON" benchmarks/report.py "$OUT"
exit "$status"
