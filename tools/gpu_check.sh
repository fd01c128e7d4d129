#!/usr/bin/env bash
# What only a machine with an NVIDIA GPU can show: `make gpu-check`. It builds with libtorch's CUDA half, compares
# the networks with their goldens on the GPU, trains there in each precision, and prints times and memory.
#
# Without a GPU it says so and exits with 2; it exits with 1 where a check fails.
#
# DETECT_TEST_DATA names the folder of goldens: without it, those comparisons are skipped, and it says so.
# DETECT_TEST_DEVICE is the GPU to take (cuda:0). DETECT_GPU_CONFIG is the recipe that is timed (default), on the
# set in DETECT_GPU_DATA (data/scenes).
set -uo pipefail
cd "$(dirname "$0")/.."

if ! command -v nvidia-smi >/dev/null || ! gpus=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&1); then
    echo "gpu-check: this machine has no NVIDIA GPU that its driver knows of: nothing was checked" >&2
    exit 2
fi
echo "$gpus"

export DETECT_TEST_DEVICE=${DETECT_TEST_DEVICE:-cuda:0}
device=$DETECT_TEST_DEVICE index=${DETECT_TEST_DEVICE#cuda:}
config=${DETECT_GPU_CONFIG:-default} data=${DETECT_GPU_DATA:-data/scenes}
bin=${CARGO_TARGET_DIR:-target}/release/detect

failed=()
step() { # name, command...
    local name=$1 start=$SECONDS
    shift
    echo
    echo "== $name: $*"
    "$@" || failed+=("$name")
    echo "== $name took $((SECONDS - start)) s"
}

step build env CUDA=1 make build
if [ ${#failed[@]} -gt 0 ] || ! "$bin-torch" doctor-torch | grep -q "\"cuda_available\":true"; then
    "$bin" doctor >&2
    echo "FAILED: the program that was built sees no GPU" >&2
    exit 1
fi

# Goldens were made in float32, to which TF32 is not close.
goldens() {
    [ -n "${DETECT_TEST_DATA:-}" ] || echo "skipped: DETECT_TEST_DATA is not set, so nothing is compared with the goldens"
    NVIDIA_TF32_OVERRIDE=0 cargo test --release -p detect-torch --no-fail-fast --test nasnet --test fasterrcnn -- --test-threads 1
}
step goldens goldens
# One step beside the CPU's, each precision, --deterministic twice, resume.
step training env NVIDIA_TF32_OVERRIDE=0 cargo test --release -p detect-torch --test device -- --test-threads 1

# 20 steps after 3 to get warm; the memory is the most that the driver has counted for the process.
timed() { # precision
    local out most=0 now
    out=$(mktemp -d)
    "$bin" train --data "$data" --config "$config" --device "$device" --steps 24 --profile 20 --out "$out/run" \
        --set "train.precision=$1" --set train.eval_every=0 --set data.val=none 2>"$out/log" >/dev/null &
    local pid=$!
    while kill -0 $pid 2>/dev/null; do
        # detect hands over to detect-torch: all processes on the GPU count.
        now=$(nvidia-smi -i "$index" --query-gpu=memory.used --format=csv,noheader,nounits)
        [ "${now:-0}" -gt "$most" ] && most=$now
        sleep 0.2
    done
    wait $pid
    local status=$?
    [ $status = 0 ] || { cat "$out/log" >&2; rm -rf "$out"; return $status; }
    grep -A 9 "where the time" "$out/log"
    echo "  $1: at most $most MiB of the GPU in use, by all its processes"
    rm -rf "$out"
}
for precision in float32 bf16 fp16; do
    step "20 steps of $config in $precision" timed $precision
done

# As a run goes: the stopwatch above waits for the GPU at the end of each part, which the program else does not. With a
# trained detector, whose steps need not be made again.
unwatched() {
    local out status
    out=$(mktemp -d)
    "$bin" train --data data/scenes --config scenes --init scenes --device "$device" --steps 44 --out "$out/run" \
        --set train.log_every=1 --set train.eval_every=0 --set data.val=none 2>"$out/log" >/dev/null &&
        grep -o '"step_s":[0-9.e-]*' "$out/run/metrics.jsonl" | tail -n 40 | cut -d: -f2 | LC_ALL=C sort -g |
        awk '{ s[NR] = $1 } END { if (NR < 40) exit 1; printf "  median %.4f s a step\n", s[20] }'
    status=$?
    [ $status = 0 ] || cat "$out/log" >&2
    rm -rf "$out"
    return $status
}
step "40 steps of scenes without a stopwatch" unwatched

echo
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: $(IFS=,; echo "${failed[*]}")"
    exit 1
fi
echo "gpu-check: all passed on $device"
