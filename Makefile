# What a person types, each one line long. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak fuzz image

help:   ## list these
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

demo:   ## the Plant-Based Pizza company on this machine: orders, mock APIs, faults; Ctrl-C ends it
	@echo 'building, a few minutes the first time ...' && cargo run --release -q -p tidegate -- demo

test:   ## everything: unit and system tests; installs what they need and the machine lacks
	tests/install-rabbitmq.sh && tests/install-clients.sh && tests/install-deploy-tools.sh && tests/install-fault-tools.sh && cargo build -p tidegate && deploy/rootfs.sh dev && cargo test --workspace

check:  ## what must hold before a commit: formatting, lints, documentation, manifests
	cargo fmt --check && cargo clippy -q --workspace --all-targets -- -D warnings && RUSTDOCFLAGS='-D warnings' cargo doc -q --workspace --no-deps && tests/check-deploy.sh

bench:  ## every figure that must hold, beside its bound; on this machine, twelve minutes
	tests/install-rabbitmq.sh && cargo build --release -p tidegate && cargo run --release -p tidegate-tests --bin bench

soak:   ## faults drawn by a seed, under load, judged one by one: ten minutes, or FOR=3600 SEED=7
	tests/install-rabbitmq.sh && cargo build -p tidegate && SOAK_SECONDS=$${FOR:-600} SOAK_SEED=$${SEED:-} cargo test -p tidegate-tests --test system soak::rounds

fuzz:   ## search for inputs that break what reads strangers' bytes: half an hour a target, hours in all
	tests/fuzz.sh

image:  ## the container image, tidegate:0.1.0; needs Docker with BuildKit
	docker build -f deploy/Dockerfile -t tidegate:0.1.0 .
