#!/usr/bin/env bash
# One GPU for fifteen minutes: what is right, what is wrong, and how fast it is. README.md beside this file says how to go
# about it. Each call is one stage with a limit of its own, and ends with a table and one archive of all results.
#
#   benchmarks/gpu.sh prepare   without a GPU: wheels, compiled kernels and images, into carried/
#   benchmarks/gpu.sh smoke     150 s: every op against float64, times, compute-sanitizer
#   benchmarks/gpu.sh tests     240 s: the tests that need a GPU, times again
#   benchmarks/gpu.sh bench     200 s: nt_xent and the memory-bound ops beside their peers; for the rest of it:
#   benchmarks/gpu.sh train     200 s: SimCLR on CIFAR-10, if it is to have a call of its own
#
# PYTHON   has torch and Triton (python3). For prepare: of the version that the GPU's machine has, with the same wheels
# OUT      where GPU-STAGE.tar.xz goes (build/gpu)
# DEVICE   cpu for a dry run (cuda)
# SLOWER   all limits times so much, for a dry run on few cores (1)
# EACH     seconds to spend on a case and peer (0.3)
# WORKERS  processes of the tests (14)
# TESTS    their files, for prepare too (tests)
# OPS      what smoke and the times are about (every op)
# IMAGES   for prepare: a folder of images of CIFAR-10, train/CLASS/*.jpg and test/CLASS/*.jpg, for SimCLR
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} OUT=${OUT:-build/gpu} DEVICE=${DEVICE:-cuda} EACH=${EACH:-0.3} TESTS=${TESTS:-tests} SLOWER=${SLOWER:-1}
export TRITON_CACHE_DIR=carried/triton  # relative: the cache's lists of files hold what this says
export PYTHONSAFEPATH=1                 # the installed sslfast, not the folder of its sources
export PYTHONUNBUFFERED=1
PEERS="lightly lightly-utils aenum kornia kornia-rs ema-pytorch"
MISSING="tyro docstring-parser shtab typeguard"
EVERY="nt_xent info_nce clip_loss siglip_loss negative_cosine_similarity ema_update_ random_patch_mask masking gather_tokens
    restore_tokens masked_patch_loss gather_patches patch_embed augment"
OPS=${OPS:-$EVERY}
MEMORY_BOUND="ema_update_ masking restore_tokens masked_patch_loss gather_patches gather_tokens random_patch_mask"
stage=${1:-}
failed=0
smoke_options=(--device "$DEVICE")
[ "$DEVICE" = cuda ] || smoke_options+=(--tiny)

left() { echo $((limit - 4 - SECONDS)); }  # four seconds to pack the results

# step NAME SECONDS COMMAND...: within its limit and the stage's, its output in results/NAME.log.
step() {
    local name=$1 most=$(($2 * SLOWER)) code start=$SECONDS
    shift 2
    [ "$(left)" -ge "$most" ] || most=$(left)
    [ "$most" -gt 0 ] || { echo "== $name: no time left" && failed=1 && return 1; }
    timeout --kill-after=3 "$most" "$@" >"$results/$name.log" 2>&1
    code=$?
    [ "$code" -eq 0 ] || failed=1
    echo "== $name: $((SECONDS - start)) s, exit code $code$([ $code -ne 124 ] || echo ' (out of time)')"
    return "$code"
}

show() { tail -n "$2" "$results/$1.log"; }

# What prepare has packed, in a folder of its own; built here where it does not load.
install() {
    local site
    site=$(mktemp -d)
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
    if ls carried/wheels/*.whl >/dev/null 2>&1; then
        step install 40 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" \
            carried/wheels/*.whl
    fi
    if ! step import 45 "$PYTHON" -c "from sslfast._info import info; print(info())"; then
        rm -rf "$site"/sslfast*
        step build 100 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$site" . &&
            step import 45 "$PYTHON" -c "from sslfast._info import info; print(info())" || return
    fi
    show import 40
    [ ! -f carried/triton.tar.xz ] || step unpack 20 tar -xf carried/triton.tar.xz -C carried
    [ "$DEVICE" = cpu ] || step nvidia-smi 10 nvidia-smi || true  # its report of driver, clocks and memory
}

# begin NAME SECONDS COMMAND...: a process beside others; finish waits for them all.
declare -A begun
begin() {
    timeout --kill-after=3 "$(($2 * SLOWER))" "${@:3}" >"$results/$1.log" 2>&1 &
    begun[$1]=$!
}
finish() {
    local name
    for name in "${!begun[@]}"; do
        wait "${begun[$name]}" || { echo "$name: exit code $?" && show "$name" 4 && failed=1; }
    done
    begun=()
}

check_ops() {
    local op
    for op in $OPS; do begin "check-$op" 35 "$PYTHON" benchmarks/gpu/smoke.py check "$op" "${smoke_options[@]}"; done
    finish
    grep -hE "^(ok|WRONG) " "$results"/check-*.log
    echo "== checks: at $SECONDS s"
}

sanitize() {
    local tool op
    [ "$(left)" -gt 8 ] || { echo "== sanitizer: no time left" && failed=1 && return; }
    for tool in memcheck racecheck; do
        for op in $OPS; do
            # shellcheck disable=SC2086  # a command
            begin "$tool-$op" "$(($(left) / SLOWER - 1))" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
                ${SANITIZER-compute-sanitizer --tool $tool --error-exitcode 3} \
                "$PYTHON" benchmarks/gpu/smoke.py check "$op" --tiny --device "$DEVICE"
        done
    done
    finish
    grep -hE "(ERROR|RACECHECK) SUMMARY|^WRONG" "$results"/{memcheck,racecheck}-*.log | sort | uniq -c
    echo "== sanitizer: at $SECONDS s"
}

time_ops() {  # time_ops SECONDS
    # shellcheck disable=SC2086  # several ops
    step times "$1" "$PYTHON" benchmarks/gpu/smoke.py time $OPS --output "$results" --seconds "$EACH" "${smoke_options[@]}"
}

measure() {  # measure NAME SECONDS OP...
    local name=$1 most=$2 chosen=() op
    shift 2
    for op in "$@"; do chosen+=(--op "$op"); done
    step "$name" "$most" "$PYTHON" benchmarks/run.py --device "$DEVICE" "${chosen[@]}" --seconds "$EACH" \
        --output "$results"
}

simclr() {
    local run data="digits" recipe=simclr options=(--accelerator "$DEVICE")
    run=$(mktemp -d)
    if [ -f carried/images.tar.xz ]; then
        step images 20 tar -xf carried/images.tar.xz -C "$run" || return
        data=folder:$run/images recipe=simclr-cifar10
        [ "$DEVICE" = cpu ] || options+=(--knn-every 1 --precision bf16-mixed)
    fi
    # Interrupted a little early, as is meant: it saves what it has.
    # shellcheck disable=SC2016  # the inner shell's
    step train "$(left)" bash -c 'timeout -s INT "$@" || [ $? -eq 124 ]' - "$(($(left) - 8 * SLOWER))" \
        "$PYTHON" -m sslfast pretrain "$recipe" --data "$data" --output "$run/simclr" "${options[@]}"
    cp "$run"/simclr/{config.json,metrics.jsonl} "$results" && tail -n 3 "$results/metrics.jsonl"
}

prepare() {
    rm -rf carried && mkdir -p carried/wheels
    # shellcheck disable=SC2086  # lists of packages
    step wheels 600 "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: -d carried/wheels $MISSING $PEERS &&
        step wheel 1800 "$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation -w carried/wheels . || return
    install || return
    export TRITON_STORE_BINARY_ONLY=1
    step kernels 3600 "$PYTHON" benchmarks/gpu/compile_only.py
    show kernels 1
    local before=$failed
    # shellcheck disable=SC2086  # TESTS may be several
    PYTHONPATH=benchmarks/gpu:$PYTHONPATH step kernels-of-tests 7200 "$PYTHON" -m pytest -q -n "${WORKERS:-2}" \
        -p compile_only -p no:cacheprovider -m gpu $TESTS
    failed=$before # of tests whose kernels run nothing most fail
    show kernels-of-tests 1
    step pack 600 tar -cJf carried/triton.tar.xz -C carried triton && rm -rf carried/triton
    if [ -n "${IMAGES:-}" ]; then
        step images 1200 tar -cJf carried/images.tar.xz --transform "s,^\.,images," -C "$IMAGES" .
    fi
    du -sh carried
}

smoke() {
    install || return
    check_ops
    time_ops 45
    sanitize
    show times 60
}

tests() {
    install || return
    # shellcheck disable=SC2086
    PYTHONPATH=tests:$PYTHONPATH step pytest "$(($(left) / SLOWER - 45))" "$PYTHON" -m pytest -q -m gpu -n "${WORKERS:-14}" \
        --timeout 40 --timeout-method=thread --maxschedchunk=1 -p gpu_session -p no:cacheprovider \
        --junit-xml="$results/tests.xml" $TESTS
    show pytest 40
    time_ops 40
    show times 60
}

bench() {
    install || return
    measure nt_xent 75 nt_xent
    # shellcheck disable=SC2086
    measure memory-bound 75 $MEMORY_BOUND
    measure others 30 augment info_nce
    step report 15 "$PYTHON" benchmarks/report.py "$results"
    [ "$(left)" -le $((30 * SLOWER)) ] || simclr
    head -c 9000 "$results/bench-$DEVICE.md"
}

train() {
    install || return
    simclr
}

case $stage in
    prepare) limit=20000 ;;
    smoke) limit=150 ;;
    tests) limit=240 ;;
    bench | train) limit=200 ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit 2 ;;
esac
limit=$((limit * SLOWER))
results=$(mktemp -d)
"$stage" || failed=1
mkdir -p "$OUT" && tar -cJf "$OUT/gpu-$stage.tar.xz" -C "$results" . && echo "== $OUT/gpu-$stage.tar.xz"
echo "== $stage: $SECONDS of $limit s, exit code $failed"
exit "$failed"
