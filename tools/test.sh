#!/usr/bin/env bash
# Everything that has to hold before a change lands: formatting, lints, docs, tests. `make test` calls it.
#
# The tests come last, so that what the test runners say stands at the end, followed only by what they skipped.
# All steps run even when one fails; the exit status is 1 if any did.
#
# Two variables widen the tests: DETECT_TEST_DATA is a folder of goldens and data sets, DETECT_PYTHON a Python that has torch,
# torchvision and timm, which are then compared with live.
set -uo pipefail
cd "$(dirname "$0")/.."

for part in fmt clippy; do
    if ! cargo "$part" --version >/dev/null 2>&1; then
        echo "missing: cargo $part" >&2
        echo "    cure: rustup component add rustfmt clippy" >&2
        exit 2
    fi
done

failed=()
step() { # name, command...
    local name=$1 start=$SECONDS
    shift
    echo
    echo "== $name: $*"
    "$@" || failed+=("$name")
    echo "== $name took $((SECONDS - start)) s"
}

# The reader of Keras's files is left out of a plain build, and tested all the same.
features=detect/keras
# So is training in several processes, where MPI is there to build against and to start them.
missing=()
for tool in mpicc mpirun; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
{ command -v llvm-config || ldconfig -p | grep libclang || ls /usr/lib/llvm-*/lib/libclang*; } >/dev/null 2>&1 || missing+=(libclang)
without_mpi=""
if [ ${#missing[@]} -eq 0 ]; then
    features=$features,detect-torch/mpi
else
    without_mpi="the feature detect-torch/mpi and its tests: there is no ${missing[*]} (openmpi-bin, libopenmpi-dev, libclang-dev)"
    echo "skipped: $without_mpi"
fi
all=(--workspace --features "$features")

# As `detect` has it (src/cli/handover.rs): tests beside each other have fewer cores than threads.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-5000}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run_tests() {
    # --show-output gives what passing tests print (why they skipped) under the name of the test.
    cargo test "${all[@]}" --no-fail-fast -- --show-output 2>&1 | tee "$log"
}

step formatting cargo fmt --all --check
step lints cargo clippy "${all[@]}" --all-targets -- -D warnings
step docs env RUSTDOCFLAGS="-D warnings" cargo doc "${all[@]}" --no-deps
step "test build" cargo test "${all[@]}" --no-run
step tests run_tests

# A test that skips itself prints "skipped: WHY"; cargo prints "test NAME ... ignored, WHY" for the others.
skipped=$(awk '
    /^---- .* stdout ----$/ { name = $2 }
    /^test .* \.\.\. /      { name = $2 }
    /skipped: /             { why = $0; sub(/.*skipped: /, "", why); note(why, name) }
    / \.\.\. ignored/       { why = $0; if (!sub(/.* \.\.\. ignored, /, "", why)) why = "ignored"; note(why, $2) }
    function note(why, name) { if (!seen[why, name]++) { count[why]++; names[why] = names[why] "\n      " name } }
    END { for (why in count) printf "  %d: %s%s\n", count[why], why, names[why] }
' "$log")
echo
if [ -n "$skipped$without_mpi" ]; then
    echo "Tests that were skipped, and why:"
    if [ -n "$without_mpi" ]; then
        echo "  $without_mpi"
    fi
    if [ -n "$skipped" ]; then
        echo "$skipped"
    fi
else
    echo "No test was skipped."
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: $(IFS=,; echo "${failed[*]}")"
    exit 1
fi
