# Chancery. `make demo` shows it, `make test` proves it, `make bench` measures it.

.PHONY: all build demo test bench check

all: build

build:
	cargo build --workspace --release --locked

# A demo appliance in a temporary folder, and a foreign client that enrols with it.
demo:
	@tests/need.sh softhsm2 strongswan-pki libstrongswan-standard-plugins \
		libstrongswan-extra-plugins openssl
	cargo build --workspace --release --locked --bins
	@tests/demo.sh target/release

# The whole suite; closes with one line "N passed, 0 failed".
test:
	@tests/run.sh

bench:
	@tests/need.sh softhsm2
	cargo build --workspace --release --locked
	@cargo run --package chancery-bench --release --locked --quiet -- --programs target/release

# What continuous integration checks before the tests.
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
