# make test   all tests, real boots included (root, about half an hour)
# make demo   from a fresh machine to a node installed by network
# make bench  side by side with the peers
# make test-chains  boot chains with real firmware
# make test-explain    every symptom that explain knows, made on real firmware
# make test-telescope  the master controller's program, killed in the midst
# make test-schema  both servers against their OpenAPI documents (schemathesis, five minutes)
# make test-ui      the operator's window in a real browser
# make test-registry-full  the registry with 5 GiB layers and for ten minutes

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
FIRMWARE ?= bios

# Our own crate is built with less optimisation here: its hot loops are in its
# dependencies, and it builds in half the time. `make release` does not.
FAST := --release --locked --config profile.release.package.provision.opt-level=1
BIN := $(abspath $(or $(CARGO_TARGET_DIR),target)/release)
AGENT := $(abspath $(or $(CARGO_TARGET_DIR),target)/agent/provision-agent)
export PROVISION_AGENT := $(AGENT)

.PHONY: test test-schema test-ui test-registry-full test-installers test-chains test-explain test-telescope demo bench release deps build agent image lint unit e2e fuzz clean-lab

test: deps lint build image unit e2e
	@echo "== all tests passed"

deps:
	@scripts/deps.sh

build: deps
	@echo "== build"
	cargo build $(FAST) --bins
	$(MAKE) --no-print-directory agent

# Linked statically, so that it runs as /init of a ramdisk without libraries.
# In a place of its own: building tests links a dynamic one where it was.
agent:
	@cargo rustc $(FAST) --bin provision-agent -- -C target-feature=+crt-static
	mkdir -p $(dir $(AGENT))
	if ! ldd $(BIN)/provision-agent 2>&1 | grep -qE 'statically linked|not a dynamic'; then
	  echo "$(BIN)/provision-agent is not static"; exit 1; fi
	cmp -s $(BIN)/provision-agent $(AGENT) || cp $(BIN)/provision-agent $(AGENT)

release:
	cargo build --release --locked --bins
	cargo rustc --release --locked --bin provision-agent -- -C target-feature=+crt-static

# Built once, kept in ~/.cache/provision; built again when a profile changes.
image: build
	@echo "== image"
	$(BIN)/provision lab demo --name image --profile docker --image-only

lint: deps
	@echo "== fmt, clippy"
	cargo fmt --check
	cargo clippy $(FAST) --all-targets -- -D warnings

unit: build
	@echo "== unit and integration tests"
	cargo test $(FAST) --lib
	for t in $$(cd tests; ls *.rs | sed 's/\.rs$$//' | grep -v -e '^e2e'); do
	  echo "-- $$t"; cargo test $(FAST) --test $$t; done

e2e: build image
	@echo "== real boots"
	for t in e2e e2e_deployment e2e_demo; do
	  cargo test $(FAST) --test $$t -- --test-threads=1 --nocapture; done

# Boot chains: Secure Boot, UEFI HTTP boot, pxelinux, an unsigned kernel.
# Emulated firmware checks signatures slowly.
test-chains: build image
	@echo "== boot chains"
	cargo test $(FAST) --test e2e_chains -- --test-threads=1 --nocapture

# Every symptom in the table of `provision explain`: about eight minutes.
test-explain: build image
	@echo "== symptoms, made and explained"
	cargo test $(FAST) --test e2e_explain -- --test-threads=1 --nocapture

# A program on a third host installs four nodes in one call; both sides are
# killed in the midst: about five minutes.
test-telescope: build image
	@echo "== the telescope's program"
	cargo test $(FAST) --test e2e_telescope -- --test-threads=1 --nocapture

# What the OpenAPI documents promise, asked with thousands of made-up requests.
test-schema: deps build
	@echo "== schemathesis"
	scripts/schemathesis.sh $(BIN)

demo: deps build
	@PROVISION_AGENT=$(AGENT) $(BIN)/provision lab demo --firmware $(FIRMWARE)

# The registry's long runs: a 5 GiB layer, ten minutes of garbage collection
# under load. `make test` has the short ones. 11 GiB of room in TMPDIR.
test-registry-full: deps
	@echo "== registry, in full"
	REGISTRY_MIB=5120 cargo test $(FAST) --test registry_load -- --test-threads=1 --nocapture
	REGISTRY_GIB=5 REGISTRY_SECONDS=600 cargo test $(FAST) --test registry_crash -- --include-ignored --test-threads=1 --nocapture

# Debian's own installer on both firmwares: about two hours.
test-installers: deps build
	@echo "== installers, in full"
	PROVISION_AGENT=$(AGENT) cargo test $(FAST) --test e2e_installers -- --test-threads=1 --nocapture

# The operator's window in Debian's chromium, with axe: a person's way through
# it, screenshots in TMPDIR/provision-ui. Driver and axe in the cache, once.
UI_MODULES ?= $(HOME)/.cache/provision/ui
test-ui: deps
	@echo "== the operator's window, in a browser"
	if ! command -v chromium >/dev/null || ! command -v npm >/dev/null; then
	  apt-get -q update
	  apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core nodejs npm; fi
	mkdir -p $(UI_MODULES)
	[ -e $(UI_MODULES)/package.json ] || echo '{"private":true}' > $(UI_MODULES)/package.json
	npm install --prefix $(UI_MODULES) --ignore-scripts --no-audit --no-fund --silent \
	  playwright-core@1.56.1 axe-core@4.14.1
	UI_MODULES=$(UI_MODULES) cargo test $(FAST) --test ui_browser -- --ignored --nocapture

bench: build
	@for b in benches/*.sh; do echo "== $$b"; $$b; done

# Ten minutes each; needs cargo-fuzz and the nightly toolchain.
fuzz: deps
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	for t in dhcp_packet tftp_packet; do cargo +nightly fuzz run $$t -- -max_total_time=600; done

clean-lab:
	@for l in image lab e2ebios e2etwo e2ekill e2efail e2eapi e2eredis e2euser e2edep e2epre e2eout e2eroom e2eask e2eexpl e2escope chsec chbad chhttp chsechtt chlx; do $(BIN)/provision lab down --name $$l; done
