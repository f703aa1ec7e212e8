# The two commands of the README, and what maintainers need beside them.
.PHONY: demo test test-all simulate chaos soak bench bench-latency bench-scale bench-recovery bench-memory bench-dashboard \
  bench-micro bench-count vagrant-test build deb box lint deny

# The whole pipeline on this machine, with nothing set up.
demo:
	packaging/install-deps build demo
	cargo build --profile demo --locked
	exec target/demo/anomaly demo

# Everything that proves the product in minutes, on a real Kafka, ZooKeeper, PostgreSQL, browser and systemd. The package has
# the program as the tests build it, since another build takes minutes; test-all has the real one.
test:
	packaging/install-deps build test package
	$(MAKE) lint
	cargo test --locked --no-run
	@# Tests mostly wait: the package and the machine for it are made meanwhile, with what they leave of this one.
	nice -n 19 sh -c 'packaging/build-deb dev && tests/machine base' >target/build-deb.log 2>&1 & deb=$$!; \
	  tests/run --skip cluster::members; ended=$$?; \
	  wait $$deb || { cat target/build-deb.log; exit 1; }; exit $$ended
	@# Two brokers and all that works with them are enough for a small machine: by themselves.
	tests/run cluster::members
	tests/package target/debian/anomaly_*.deb

# What takes longer as well.
test-all: test
	packaging/install-deps build test package slow
	packaging/build-deb
	tests/package target/debian/anomaly_*.deb
	tests/run --ignored --skip network:: --skip cluster::
	tests/network
	tests/cloud-init target/debian/anomaly_*.deb
	tests/piuparts target/debian/anomaly_*.deb
	cd vagrant && vagrant validate
	$(MAKE) bench-count
	$(MAKE) deny

# Each fault of tests/cluster.rs twice, in an order that SEED gives; FAULTS=kill,twin takes only these.
chaos:
	packaging/install-deps build test
	tests/run --ignored --nocapture cluster::each

# One fault every 30 to 60 s, for HOURS (2).
soak:
	packaging/install-deps build test
	tests/run --ignored --nocapture cluster::hours

# `vagrant up` for real, under libvirt; half an hour where there is no KVM.
vagrant-test: deb
	packaging/install-deps vagrant
	tests/vagrant

# Ourselves beside our peers, in one run; needs Go. bench/README.md says more.
bench:
	packaging/install-deps build test bench
	bench/run throughput

# From event to anomaly beside Kafka Streams; the cost by events, partitions, workers, batches; many series with full windows,
# killed; bytes of a series and of queues; the dashboard beside the seed's design, in Chromium.
bench-latency bench-scale bench-recovery bench-memory bench-dashboard: bench-%:
	packaging/install-deps build test bench
	bench/run $*

# Nanoseconds for each layer of the hot path.
bench-micro:
	packaging/install-deps build
	CRITERION_HOME=$(CURDIR)/target/criterion cargo bench --locked --manifest-path bench/micro/Cargo.toml --target-dir target --bench time

# The same in instructions, compared with the stored numbers.
bench-count:
	packaging/install-deps build count
	gungraun-runner --version 2>/dev/null | grep -q 0.20.0 || cargo install --locked gungraun-runner --version 0.20.0
	GUNGRAUN_HOME=$(CURDIR)/target/gungraun cargo bench --locked --manifest-path bench/micro/Cargo.toml --target-dir target --bench count

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@# Dependencies that nothing uses.
	cargo-machete --version >/dev/null 2>&1 || cargo install --locked cargo-machete --version 0.9.2
	cargo machete
	@# A lock file of its own that depends on ours.
	cargo metadata --locked --format-version 1 --manifest-path bench/micro/Cargo.toml >/dev/null
	shellcheck .ci/run tests/run tests/machine tests/package tests/cloud-init \
	  tests/piuparts tests/network tests/vagrant bench/run vagrant/box vagrant/provision.sh packaging/install-deps \
	  packaging/build-deb packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Licences, advisories and sources of all dependencies.
deny:
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check

build:
	packaging/install-deps build
	cargo build --release --locked

# The Debian package, in target/debian.
deb:
	packaging/install-deps build package
	packaging/build-deb

# A private Kafka, ZooKeeper and PostgreSQL to try things on; `eval "$$(vagrant/box env)"` points at it.
box:
	packaging/install-deps test
	vagrant/box up

# A hundred thousand seeded schedules of faults over a simulated log; `make test` runs a thousand.
simulate:
	SEEDS=$${SEEDS:-0..100000} cargo test --release --locked --lib simulation::under -- --nocapture
