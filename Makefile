# `make demo` and `make test` do everything they need by themselves, from a fresh clone on.
.DEFAULT_GOAL := build
.PHONY: build demo test sanitize gpu-check setup clean help

BIN := $(or $(CARGO_TARGET_DIR),target)/release
# What the demo shows: the samples, and a few images of the validation split.
SAMPLES = $(sort $(wildcard data/samples/*)) $(wordlist 1,4,$(sort $(wildcard data/scenes/images/val_*)))

build: setup ## Build both programs into target/release (the default)
	cargo build --release --workspace

demo: build ## Detect objects in the sample images, then score the shipped model
	@rm -rf runs/demo
	$(BIN)/detect $(SAMPLES) --out runs/demo
	$(BIN)/detect eval --data data/scenes --split val
	@echo "annotated pictures:"
	@find runs/demo -type f | sort

test: setup ## Check the formatting, lints and docs, and run all tests
	@tools/test.sh

sanitize: ## Run the tests of the kernels under AddressSanitizer (Linux, 64-bit; needs no libtorch)
	@tools/sanitize.sh

gpu-check: ## Check on a machine with an NVIDIA GPU what no other can show, and time it
	@tools/gpu_check.sh

setup: ## Check the prerequisites; find or fetch libtorch (CUDA=1: with its CUDA half, 4 GB)
	@tools/setup/check.sh
	@python3 tools/setup/libtorch.py

clean: ## Remove what was built; libtorch stays in the cache folder for other clones
	cargo clean
	rm -rf runs/demo

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do printf '%-10s %s\n' "$$target" "$$text"; done
