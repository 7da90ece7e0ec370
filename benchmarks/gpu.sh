#!/usr/bin/env bash
# Builds sslfast, tests and measures it on one GPU, within nine minutes. Every stage has its own limit, and one that fails or
# runs out of time does not keep the next from running. What only a GPU shows comes first.
#
#   benchmarks/gpu.sh                                    results and logs in benchmarks/results
#   OUT=/tmp/out PYTHON=python3.12 benchmarks/gpu.sh     elsewhere, with a Python that has torch already
#   WHEELS=folder benchmarks/gpu.sh                      wheels for packages missing there (wheels/ if it exists), no network
#   DEVICE=cpu EACH=0.01 TESTS=tests/ops OPS=ema_update_ benchmarks/gpu.sh      a dry run
#
# Exit code, a sum: 1 build, 2 tests on the GPU, 4 benchmarks, 8 report, 16 the other tests.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python3} OUT=${OUT:-benchmarks/results} WHEELS=${WHEELS:-wheels} DEVICE=${DEVICE:-cuda}
export EACH=${EACH:-0.3}  # seconds for a case and peer
TESTS=${TESTS:-tests}
MEMORY_BOUND="ema_update_ masking restore_tokens masked_patch_loss gather_patches gather_tokens random_patch_mask"
# Commas part processes, the most wanted first: the time limit may cut the list.
export OPS=${OPS:-nt_xent,$MEMORY_BOUND,info_nce negative_cosine_similarity,patch_embed augment}
mkdir -p "$OUT"
status=0

stage() {  # stage BIT SECONDS NAME COMMAND...
    local bit=$1 limit=$2 name=$3 start=$SECONDS code
    shift 3
    echo "== $name"
    timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1
    code=$?
    tail -n 6 "$OUT/$name.log"
    if [ "$code" -eq 124 ]; then
        echo "out of time after $limit s"
    elif [ "$code" -ne 0 ]; then
        echo "failed with exit code $code"
    fi
    [ "$code" -eq 0 ] || status=$((status | bit))
    echo "== $name: $((SECONDS - start)) s"
}

build() {
    if [ -d "$WHEELS" ]; then
        local wheel
        for wheel in "$WHEELS"/*.whl; do  # one by one: what does not fit holds nobody up
            "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" "$wheel" || echo "left out: $wheel"
        done
    fi
    "$PYTHON" -m pip install --quiet --no-build-isolation --no-deps -e . || return
    "$PYTHON" -c "from sslfast._info import info; print(info())"
}

measure() {  # in a few processes: a broken GPU context takes only its own group along
    local groups group op failed=0
    IFS=, read -ra groups <<<"$OPS"
    for group in "${groups[@]}"; do
        local chosen=()
        for op in $group; do chosen+=(--op "$op"); done
        "$PYTHON" benchmarks/run.py --device "$DEVICE" "${chosen[@]}" --seconds "$EACH" --output "$OUT" || failed=1
    done
    return "$failed"
}
export -f build measure

test_on() {  # test_on BIT SECONDS NAME EXPRESSION
    # shellcheck disable=SC2086  # TESTS may be several
    stage "$1" "$2" "$3" "$PYTHON" -m pytest -q -m "$4" --junit-xml="$OUT/$3.xml" $TESTS
}

stage 1 80 build bash -c build
[ "$DEVICE" = cpu ] || test_on 2 130 tests-gpu gpu
stage 4 235 bench bash -c measure
stage 8 15 report "$PYTHON" benchmarks/report.py "$OUT"
test_on 16 70 tests-rest "not gpu"
echo "exit code $status"
exit "$status"
