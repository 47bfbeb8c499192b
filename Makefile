# `make demo` and `make test` are the two commands; the others are their parts.
.PHONY: help demo test chaos fuzz check contracts-check install install-dev coverage bench bench-swarm bench-coordinator bench-page screenshots format clean

CPU := OMP_NUM_THREADS=1

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

demo: install  ## a coordinator and two nodes on this machine train a small model (about two minutes)
	.venv/bin/cotrain demo

test: install-dev  ## all tests but the longest
	@scripts/test.sh

chaos: install-dev  ## the swarm and the demo while processes are killed, stopped and cut off (half an hour; some of it needs root)
	$(CPU) .venv/bin/python -m pytest tests/chaos

fuzz: install-dev  ## at least 5,000 requests made up from the coordinator's API document (minutes)
	$(CPU) .venv/bin/python -m pytest -m long tests/integration/test_openapi_fuzz.py

check: install-dev  ## lint, format, types, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

contracts-check:  ## compile the contract anew (npm), and compare it with the compiled form that is used
	cd contracts && npm ci --ignore-scripts --no-audit --no-fund && node build.mjs --check

install:  ## .venv with what a node and a coordinator need
	@scripts/install.sh

install-dev:  ## and what tests need
	@scripts/install.sh --dev

coverage: install-dev  ## every line and branch of identity, membership and sign-in must be reached by their tests
	$(CPU) .venv/bin/python -m coverage run --branch --source=cotrain,coordinator -m pytest \
	    tests/unit/test_identity_*.py tests/unit/test_membership*.py tests/unit/test_peer_key.py \
	    tests/unit/test_coordinator_auth.py tests/integration/test_coordinator_auth*.py \
	    tests/integration/test_coordinator_members.py
	.venv/bin/python -m coverage report --show-missing --fail-under=100 \
	    --include='cotrain/identity/*,cotrain/membership/*,coordinator/auth/*,coordinator/api/auth.py,coordinator/api/callers.py'

bench: install-dev  ## measurements, as ratios against something run beside them
	$(CPU) .venv/bin/python -m benchmarks.inner_loop
	$(CPU) .venv/bin/python -m benchmarks.quality
	$(CPU) .venv/bin/python -m benchmarks.learning

bench-swarm: install-dev  ## the swarm beside stock hivemind; some of it needs root (an hour)
	$(CPU) .venv/bin/python -m benchmarks.swarm all

bench-coordinator: install-dev  ## the coordinator under load, beside a bare aiohttp server (ten minutes; two cores)
	$(CPU) .venv/bin/python -m benchmarks.coordinator all

bench-page: install-dev  ## the page: first useful paint, and memory while events come in (12 minutes; chromium)
	$(CPU) .venv/bin/python -m benchmarks.page paint
	$(CPU) .venv/bin/python -m benchmarks.page memory

screenshots: install-dev  ## docs/img: pictures of the page, of a session that really trains (chromium)
	$(CPU) .venv/bin/python -m tests.e2e.screenshots

format: install-dev  ## put the code into its form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:  ## remove what installing, testing and the demo left here
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache
