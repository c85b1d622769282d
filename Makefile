# Two commands for a newcomer, each works first, alone, and again:
#   make hunt    an isolated environment, Pekan, etcd 3.5.1 from PyPI, a hunt of about a minute, and the line to type next
#   make test    everything set up and all tests passed
# Longer work has targets of its own: hunt-seeds, no-false-alarms, issues, soak-faults, soak-hooks, soak-power, divergence, fuzz, fuzz-objects,
# fuzz-engines, fuzz-locks, fuzz-readers, bench, bench-peers.
#
# Where a Rust toolchain is (cargo on PATH or in its usual place) the native core is built at install, linted and tested; without one
# everything works by the reference in Python.

.DEFAULT_GOAL := help
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help hunt hunt-seeds no-false-alarms soak-faults soak-hooks soak-power divergence issues test survey lint native-test fuzz fuzz-objects fuzz-engines fuzz-locks fuzz-readers bench bench-hooks bench-peers clean

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
SOURCES := pyproject.toml setup.py $(wildcard src/pekan/wire/proto/*.proto native/*.toml native/Cargo.lock native/src/*.rs \
	native/crates/*/*.toml native/crates/*/*.rs native/crates/*/src/*.rs native/crates/*/src/*/*.rs)

ETCD ?= 3.5.1
TIME ?= 60s
SEED ?= 1
FAULTS ?= kill,pause,restart
WORKLOAD ?= kv
MEMBERS ?= 3
ARGS ?=

help:
	@echo 'make hunt [ETCD=3.5.1] [TIME=60s] [SEED=1] [FAULTS=kill,pause,restart] [WORKLOAD=kv] [MEMBERS=3] [ARGS=...]   hunt a real etcd and judge it'
	@echo 'make test                  set up and run all tests'
	@echo 'make hunt-seeds            the default hunt for seeds 1 to 5'
	@echo 'make no-false-alarms       ten one-minute hunts on the newest 3.5, 3.6 and 3.7'
	@echo 'make divergence            etcd #13766 in ten attempts of ten, as this user and as a plain one in a default container; none where mended'
	@echo 'make issues                every historical issue on its last affected, its first fixed and the newest release; writes docs/issues.md'
	@echo 'make soak-hooks            an hour with a hundred hooks in every member of 3.5.1, and one of the newest 3.7 [TIME=1h] [ETCD=3.7]'
	@echo 'make soak-power            forty losses of power on the newest 3.5 and 3.7, of one member and of three: nothing acknowledged is gone'
	@echo 'make soak-faults           an hour on the newest 3.7 under every fault inside its promises [TIME=1h] [ETCD=3.7]'
	@echo 'make survey                which gofail sites of six releases a load passes; writes docs/failpoints.md'
	@echo 'make fuzz                  the long differential fuzz of the checkers'
	@echo 'make bench                 what recording and checking cost'
	@echo 'make bench-hooks           what hooks cost that count and do not fire (the cost of one hit needs Go)'
	@echo 'make bench-peers           Pekan beside Porcupine on the same files (needs Go)'

$(VENV)/bin/python:
	@[ "$$(uname -sm)" = 'Linux x86_64' ] || echo 'note: hunting needs Linux on x86-64; checking works here' >&2
	@[ -n "$(PYTHON)" ] || { echo 'Pekan needs Python 3.11 or newer. On Debian or Ubuntu: apt-get install python3 python3-venv' >&2; exit 4; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo 'Python has no venv module here. On Debian or Ubuntu: apt-get install python3-venv' >&2; exit 4; }
	@echo 'creating $(VENV)' >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 4; }

$(VENV)/.hunt: $(VENV)/bin/python $(SOURCES)
	@echo 'installing Pekan with what driving a cluster needs' >&2
	@$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[hunt]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	@echo 'installing Pekan with its test tools' >&2
	@$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[hunt,dev]'
	@touch $@ $(VENV)/.hunt

# A verdict is a success of the hunt, whatever it says: broken (1) and holds (0) both end with 0, anything else with the hunter's own code.
hunt: $(VENV)/.hunt
	@$(VENV)/bin/pekan hunt --etcd '$(ETCD)' --time '$(TIME)' --seed '$(SEED)' --faults '$(FAULTS)' --workload '$(WORKLOAD)' --members '$(MEMBERS)' $(ARGS); \
		status=$$?; [ $$status -eq 1 ] && status=0; exit $$status

hunt-seeds: $(VENV)/.hunt
	@$(VENV)/bin/pekan hunt --etcd '$(ETCD)' --time '$(TIME)' --seed 1 --runs 5 --faults '$(FAULTS)' --workload '$(WORKLOAD)' --members '$(MEMBERS)' $(ARGS); \
		status=$$?; [ $$status -eq 1 ] && status=0; exit $$status

no-false-alarms: $(VENV)/.hunt
	@for version in 3.5 3.6 3.7; do \
		$(VENV)/bin/pekan hunt --etcd $$version --time 60s --seed 1 --runs 10 --faults kill,pause --allow known $(ARGS) || exit $$?; done

divergence: $(VENV)/.hunt
	@$(VENV)/bin/python tests/soak/divergence.py $(ARGS)

# What is recorded already is left out (ARGS=--again: is run again), so that what was interrupted goes on; hours, and some releases are built.
# ARGS=--bisect looks for the borders of all issues instead.
issues: $(VENV)/.hunt
	@$(VENV)/bin/python tests/soak/issues.py $(ARGS)

# TIME and ETCD mean another default here than in `make hunt`.
soak-hooks: SOAK_TIME = $(if $(filter file,$(origin TIME)),1h,$(TIME))
soak-hooks: SOAK_ETCD = $(if $(filter file,$(origin ETCD)),3.5.1 3.7,$(ETCD))
soak-hooks: $(VENV)/.hunt
	@for version in $(SOAK_ETCD); do $(VENV)/bin/python tests/soak/hooks.py --time '$(SOAK_TIME)' --etcd "$$version" --seed '$(SEED)' $(ARGS) || exit $$?; done

soak-power: $(VENV)/.hunt
	@for version in 3.5 3.7; do for members in 1 3; do \
		PYTHONPATH=tests $(VENV)/bin/python tests/soak/power_losses.py $$version --members $$members $(ARGS) || exit $$?; done; done

soak-faults: SOAK_TIME = $(if $(filter file,$(origin TIME)),1h,$(TIME))
soak-faults: SOAK_ETCD = $(if $(filter file,$(origin ETCD)),3.7,$(ETCD))
soak-faults: $(VENV)/.hunt
	@$(VENV)/bin/python tests/soak/all_faults.py --time '$(SOAK_TIME)' --etcd '$(SOAK_ETCD)' --seed '$(SEED)' --members '$(MEMBERS)' $(ARGS)

# Which gofail sites of six releases a load passes; writes docs/failpoints.md.
survey: $(VENV)/.test
	cd tests && ../$(VENV)/bin/python -m gofail.survey --write $(ARGS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

# Only where the core was built: a toolchain that is missing or too old for it must not fail the tests of what works without.
native-test: $(VENV)/.test
	@if ! $(VENV)/bin/python -c 'import sys; from pekan import native; sys.exit(native.core is None)'; then \
		echo 'the native core is not here, so it is not tested; the reference in Python is (pekan doctor says why)' >&2; exit 0; fi; \
	command -v cargo >/dev/null || { echo 'no cargo here: the core is used and not tested itself' >&2; exit 0; }; \
	cd native || exit 1; \
	if cargo fmt --version >/dev/null 2>&1; then cargo fmt --check || exit 1; else echo 'no rustfmt here: not checked' >&2; fi; \
	if cargo clippy --version >/dev/null 2>&1; then cargo clippy -q --locked --release --workspace --all-targets -- -D warnings || exit 1; \
	else echo 'no clippy here: not checked' >&2; fi; \
	cargo test -q --locked --release --workspace

# Half of the tests wait for clusters, the others calculate: a worker a processor.
test: lint native-test
	$(VENV)/bin/pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 15

fuzz: $(VENV)/.test
	cd tests && ../$(VENV)/bin/python -m oracle.fuzz $(ARGS)

fuzz-objects: $(VENV)/.test
	cd tests && ../$(VENV)/bin/python -m oracle.objects_fuzz $(ARGS)

fuzz-engines: $(VENV)/.test
	cd tests && ../$(VENV)/bin/python -m oracle.engines $(ARGS)
	cd tests && ../$(VENV)/bin/python -m oracle.engines --locks $(ARGS)

fuzz-locks: $(VENV)/.test
	cd tests && ../$(VENV)/bin/python -m oracle.locking $(ARGS)

fuzz-readers: $(VENV)/.test
	cd tests && ../$(VENV)/bin/python -m oracle.readers --cases 1000000 $(ARGS)

bench: $(VENV)/.test
	$(VENV)/bin/python benchmarks/checking.py $(ARGS)
	$(VENV)/bin/python benchmarks/recording.py
	$(VENV)/bin/python benchmarks/foreign.py

# Wants Go for the peer's side; twenty minutes.
bench-hooks: $(VENV)/.test
	$(VENV)/bin/python benchmarks/hooks.py $(ARGS)

bench-peers: $(VENV)/.test
	$(VENV)/bin/python benchmarks/peers.py $(ARGS)

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/pekan/wire/_generated src/pekan/_native* native/target
