# SPDX-License-Identifier: Apache-2.0
# Every target does its own set-up: `make demo` and `make test` work in a fresh clone.

SHELL := /bin/bash -eu -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Packages of the system that building, testing and comparing need. Only installed when missing.
APT := build-essential python3-dev python3-venv openmpi-bin libopenmpi-dev libucx0 ucx-utils \
       util-linux iproute2 procps
# Two processors are common; a build that takes them both from a shared machine is not polite.
export CARGO_BUILD_JOBS ?= 2

# Where `make install` puts things; DESTDIR goes before all of them.
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
# Where the libraries for C programs are installed from.
MX_LIB ?= python/diolkos/mx/lib
C_LIB ?= python/diolkos/c/lib

.PHONY: help setup mx c install install-files demo test check lint test-rust test-loom test-python tsan asan-mx \
        tsan-mx fuzz clean

help:
	@echo "make setup   a release build in $(VENV)"
	@echo "make install PREFIX=...    the libraries for C programs, headers and man pages"
	@echo "make demo    the benchmark against every rival: a table and a plot in demo/"
	@echo "make test    lint, Rust, loom and Python tests"
	@echo "make tsan    the tests of rings and endpoints under ThreadSanitizer"
	@echo "make asan-mx, make tsan-mx    the C programs over the MX interface under a sanitizer"
	@echo "make fuzz    a short run of the fuzz targets"
	@echo "make clean   removes what was built"

# --- set-up ---------------------------------------------------------------------------------

.PHONY: system
system:
	@tools/system-packages $(APT)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; hint: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "maturin>=1.7,<2"

# Cargo decides what is to be rebuilt; an up-to-date tree takes a second.
setup: system $(BIN)/python
	@command -v cargo >/dev/null \
	  || { echo "error: cargo is missing; hint: install Rust 1.89 or newer from https://rustup.rs" >&2; exit 1; }
	tools/build-mx
	tools/build-c capi
	source $(BIN)/activate && PIP_QUIET=1 maturin develop --release --quiet --extras bench,test

# libmyriexpress.so, in the package's folder.
mx:
	tools/build-mx

# libdiolkos.so, in the package's folder.
c:
	tools/build-c capi

# --- for C programs -------------------------------------------------------------------------

install: mx c install-files

# What is already built. The headers have the names and the folder that programs look for.
install-files:
	install -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(PREFIX)/include/mx_internals"
	install -m 755 "$(MX_LIB)/libopen-mx.so.0" "$(DESTDIR)$(LIBDIR)/"
	ln -sf libopen-mx.so.0 "$(DESTDIR)$(LIBDIR)/libopen-mx.so"
	ln -sf libopen-mx.so.0 "$(DESTDIR)$(LIBDIR)/libmyriexpress.so"
	install -m 755 "$(C_LIB)/libdiolkos.so.1" "$(DESTDIR)$(LIBDIR)/"
	ln -sf libdiolkos.so.1 "$(DESTDIR)$(LIBDIR)/libdiolkos.so"
	install -m 644 "$(C_LIB)/libdiolkos.a" "$(DESTDIR)$(LIBDIR)/"
	install -m 644 python/diolkos/c/include/diolkos.h "$(DESTDIR)$(PREFIX)/include/"
	install -m 644 python/diolkos/mx/include/*.h "$(DESTDIR)$(PREFIX)/include/"
	install -m 644 python/diolkos/mx/include/mx_internals/*.h \
	  "$(DESTDIR)$(PREFIX)/include/mx_internals/"
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) && \
	  sed -e "s|@PREFIX@|$(PREFIX)|" -e "s|@LIBDIR@|$(LIBDIR)|" -e "s|@VERSION@|$$version|" \
	  tools/myriexpress.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/myriexpress.pc" && \
	  sed -e "s|@PREFIX@|$(PREFIX)|" -e "s|@LIBDIR@|$(LIBDIR)|" -e "s|@VERSION@|$$version|" \
	  tools/diolkos.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/diolkos.pc"
	$(PYTHON) tools/man_pages.py "$(DESTDIR)$(PREFIX)/share/man/man3"

# --- what people run ------------------------------------------------------------------------

demo: setup
	$(BIN)/python -m diolkos.bench.demo --output-dir demo

test: lint test-rust test-loom test-python

# --- the parts of `make test` ---------------------------------------------------------------

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check --quiet python tests examples tools
	$(BIN)/ruff check --quiet python tests examples tools
	$(BIN)/mypy --no-error-summary python/diolkos

test-rust:
	cargo test --workspace --exclude diolkos-python --release --quiet
	cargo test --manifest-path fuzz/Cargo.toml --no-default-features --quiet

test-loom:
	RUSTFLAGS="--cfg loom" cargo test -p diolkos-shm --release --quiet --target-dir target/loom loom

test-python: setup
	$(BIN)/python -m pytest tests

tsan:
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
	  TSAN_OPTIONS="suppressions=$(CURDIR)/tests/sanitizers/tsan.supp" \
	  cargo test -p diolkos-shm -p diolkos --lib --test conformance --test hostile \
	  --target $$(rustc -vV | sed -n 's/host: //p') --target-dir target/tsan -- --test-threads=1

# The C programs and the library under a sanitizer. The programs bring its runtime, which is gcc's.
asan-mx: setup
	tools/build-mx target/mx-address/lib address
	DIOLKOS_MX_LIB=target/mx-address/lib ASAN_OPTIONS=quarantine_size_mb=8 \
	  DIOLKOS_MX_CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined" \
	  $(BIN)/python -m pytest tests/mx/test_mx_programs.py

tsan-mx: setup
	tools/build-mx target/mx-thread/lib thread
	DIOLKOS_MX_LIB=target/mx-thread/lib DIOLKOS_MX_CFLAGS=-fsanitize=thread \
	  TSAN_OPTIONS="suppressions=$(CURDIR)/tests/sanitizers/tsan-mx.supp" \
	  $(BIN)/python -m pytest tests/mx/test_mx_programs.py

fuzz:
	fuzz/run 30

clean:
	rm -rf target demo $(VENV) fuzz/target python/diolkos/*.so python/diolkos/mx/lib python/diolkos/c/lib
