#!/usr/bin/env bash
# Runs the tests of src/kernel, where the engine's unsafe code is, under AddressSanitizer: whatever reads or writes outside of
# its memory ends the tests with the place. `make sanitize` calls it; PROPTEST_CASES widens it.
#
# Under valgrind, which knows no AVX-512 and shows none to the program, the same tests run with
#     cargo test -p detect-kernel --no-run
#     PROPTEST_CASES=12 valgrind --error-exitcode=9 --fair-sched=yes target/debug/deps/kernels-... --test-threads 1
set -euo pipefail
cd "$(dirname "$0")/.."

# The flag is nightly's; RUSTC_BOOTSTRAP lets the stable compiler take it. A target of its own keeps it from build scripts and
# macros. Nothing of libtorch is built, and what is built is thrown away: 250 MB.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
target=$(rustc -vV | sed -n 's/^host: //p')
# A test asks for more memory than there can be, and is to be told so.
RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=allocator_may_return_null=1 \
    cargo test -p detect-kernel --tests --target "$target" --target-dir "$folder"
