# The commands of the README, and further ones for maintainers.
.PHONY: demo test test-all simulate chaos soak bench bench-latency bench-scale bench-recovery bench-memory bench-dashboard \
  bench-micro bench-count vagrant-test build deb box lint deny

# Runs the whole pipeline on this machine, without any set-up.
demo:
	packaging/install-deps build demo
	cargo build --profile demo --locked
	exec target/demo/anomaly demo

# Runs the tests that take minutes, with a real Kafka, ZooKeeper, PostgreSQL, browser and systemd. The package contains the
# program as built for the tests, because another build takes minutes. test-all tests the real package.
test:
	packaging/install-deps build test package
	$(MAKE) lint
	cargo test --locked --no-run
	@# The tests mostly wait. Meanwhile the package and its test machine are built at low priority.
	nice -n 19 sh -c 'packaging/build-deb dev && tests/machine base' >target/build-deb.log 2>&1 & deb=$$!; \
	  tests/run --skip cluster::members; ended=$$?; \
	  wait $$deb || { cat target/build-deb.log; exit 1; }; exit $$ended
	@# The tests with two brokers run alone, because they use a small machine completely.
	tests/run cluster::members
	tests/package target/debian/anomaly_*.deb

# Runs the slow tests too.
test-all: test
	packaging/install-deps build test package slow
	packaging/build-deb
	tests/package target/debian/anomaly_*.deb
	tests/run --ignored --skip network:: --skip cluster::
	tests/network
	tests/cloud-init target/debian/anomaly_*.deb
	tests/piuparts target/debian/anomaly_*.deb
	cd vagrant && vagrant validate --ignore-provider
	$(MAKE) bench-count
	$(MAKE) deny

# Causes each fault of tests/cluster.rs twice, in an order that SEED determines. FAULTS=kill,twin selects faults.
chaos:
	packaging/install-deps build test
	tests/run --ignored --nocapture cluster::each

# Causes a fault every 30 to 60 s, for HOURS (2).
soak:
	packaging/install-deps build test
	tests/run --ignored --nocapture cluster::hours

# Runs `vagrant up` under libvirt. It takes half an hour without KVM.
vagrant-test: deb
	packaging/install-deps vagrant
	tests/vagrant

# Measures this program and its peers in one run; needs Go. See bench/README.md.
bench:
	packaging/install-deps build test bench
	bench/run throughput

# Measures the latency, compared with Kafka Streams; the cost by events, partitions, workers and batches; the recovery with
# many full windows; the memory of series and queues; the dashboard in Chromium, compared with the seed's design.
bench-latency bench-scale bench-recovery bench-memory bench-dashboard: bench-%:
	packaging/install-deps build test bench
	bench/run $*

# Measures nanoseconds of each layer of the hot path.
bench-micro:
	packaging/install-deps build
	CRITERION_HOME=$(CURDIR)/target/criterion cargo bench --locked --manifest-path bench/micro/Cargo.toml --target-dir target --bench time

# Measures the same in instructions, and compares with the stored numbers.
bench-count:
	packaging/install-deps build count
	gungraun-runner --version 2>/dev/null | grep -q 0.20.0 || cargo install --locked gungraun-runner --version 0.20.0
	GUNGRAUN_HOME=$(CURDIR)/target/gungraun cargo bench --locked --manifest-path bench/micro/Cargo.toml --target-dir target --bench count

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@# Finds unused dependencies.
	cargo-machete --version >/dev/null 2>&1 || cargo install --locked cargo-machete --version 0.9.2
	cargo machete
	@# The benchmarks have their own lock file, which depends on the main one.
	cargo metadata --locked --format-version 1 --manifest-path bench/micro/Cargo.toml >/dev/null
	shellcheck .ci/run tests/run tests/machine tests/package tests/cloud-init \
	  tests/piuparts tests/network tests/vagrant bench/run tests/box vagrant/provision.sh packaging/install-deps \
	  packaging/build-deb packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Checks licences, advisories and sources of all dependencies.
deny:
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check

build:
	packaging/install-deps build
	cargo build --release --locked

# Builds the Debian package in target/debian.
deb:
	packaging/install-deps build package
	packaging/build-deb

# Starts a private Kafka, ZooKeeper and PostgreSQL for trials; `eval "$$(tests/box env)"` selects it.
box:
	packaging/install-deps test
	tests/box up

# Runs a hundred thousand seeded schedules of faults over a simulated log; `make test` runs a thousand.
simulate:
	SEEDS=$${SEEDS:-0..100000} cargo test --release --locked --lib simulation::under -- --nocapture
