# The two commands of the README, and what maintainers need beside them.
.PHONY: demo test test-all build box lint deny clean

# The whole pipeline on this machine, with nothing set up.
demo:
	packaging/install-deps build demo
	cargo build --release --locked
	exec target/release/anomaly demo

# Everything that proves the product in minutes, on a real Kafka, ZooKeeper and PostgreSQL.
test:
	packaging/install-deps build test
	$(MAKE) lint
	tests/run

# What takes longer as well.
test-all: test
	tests/run --ignored
	$(MAKE) deny

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Licences, advisories and sources of all dependencies.
deny:
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check

build:
	packaging/install-deps build
	cargo build --release --locked

# A private Kafka, ZooKeeper and PostgreSQL to try things on; `eval "$$(vagrant/box env)"` points at it.
box:
	packaging/install-deps test
	vagrant/box up
