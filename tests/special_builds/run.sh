#!/usr/bin/env bash
# The tests of the ops on the CPU, with kernels compiled in ways of which users have none:
#   tests/special_builds/run.sh asan|tsan|wide PYTHON [pytest's arguments]
# asan: AddressSanitizer and UndefinedBehaviorSanitizer see what the kernels do with the memory of tensors. They see
#   neither Python nor PyTorch.
# tsan: ThreadSanitizer sees accesses of the kernels' threads that nothing orders, with std::thread in place of GCC's
#   OpenMP (openmp.cpp). It does not see libgomp, whose promises that file keeps, and no more than them.
# wide: the vectors and blocks of AVX-512 and its products of bfloat16, out of smaller registers and other instructions.
#   It sees whether they compute the right thing, not how fast.
# A run that has left out one of the C++ functions fails (every_function.py).
set -euo pipefail
name=$1 python=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
shift 2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$root/build/$name
declare -A sanitizers=([asan]=address,undefined [tsan]=thread) flags=([wide]="-DSSLFAST_WIDE -DSSLFAST_PAIRED -Wno-psabi")
# Ragged shapes, values outside the contract, and what is large enough for threads; nothing that starts other processes,
# which would import the plain modules.
declare -A tests=(
  [asan]="(ragged or thread or contrastive_core or repeated_indices or view_params) and not triton"
  [tsan]="thread and not triton"
  [wide]="not triton"
)
cd "$root"
PATH="$(dirname "$python"):$PATH"
read -r instruction_set suffix < <("$python" - "$name" <<'END'
import sys, sysconfig
from sslfast import _C
wide = {"avx512_bf16", "avx512"} if sys.argv[1] == "wide" else set()
print(next(name for name in _C.INSTRUCTION_SETS if name not in wide), sysconfig.get_config_var("EXT_SUFFIX"))
END
)

# A package that is this one, but for the compiled modules; the best of this CPU serves as the baseline too.
mkdir -p "$build/sslfast/_C"
for file in sslfast/*; do
  [ "$file" = sslfast/_C ] || ln -sfn "$root/$file" "$build/$file"
done
ln -sfn "$root/sslfast/_C/__init__.py" "$build/sslfast/_C/__init__.py"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSSLFAST_SANITIZE="${sanitizers[$name]:-}" -DCMAKE_CXX_FLAGS="${flags[$name]:-}" \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
  -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$build/sslfast/_C" >/dev/null
cmake --build "$build" --target "$instruction_set"
[ "$instruction_set" = baseline ] || cp "$build/sslfast/_C/$instruction_set$suffix" "$build/sslfast/_C/baseline$suffix"

compiler=${CXX:-c++} preloaded=
if [ -n "${sanitizers[$name]:-}" ]; then
  preloaded="$("$compiler" -print-file-name="lib$name.so") $("$compiler" -print-file-name=libstdc++.so)"
fi
export ASAN_OPTIONS=detect_leaks=0  # Python's own
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:ignore_noninstrumented_modules=1
cd "$build"
[ $# -gt 0 ] || set -- -m "not slow" -k "${tests[$name]} and not memory and not distributed and not compile" "$root/tests/ops"
PYTHONPATH=$here LD_PRELOAD=$preloaded exec "$python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -q -s \
  -p no:cacheprovider -p every_function "$@"
