# On a fresh machine `make demo` sets everything up and runs the main job; `make test` sets up and tests.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo
export HF_HUB_OFFLINE := 1

.PHONY: demo install quick test check bench gpu clean

demo: $(READY)
	$(BIN)/pi-sim estimate --model relu_nonorm
	$(BIN)/pi-sim run two-party --model relu_nonorm --json $(DEMO)/records/run-relu_nonorm-tiny-crypten.json
	$(BIN)/pi-sim report --records reports/records --records $(DEMO)/records --out $(DEMO)

install: $(READY)

# CrypTen's metadata asks for packages that no longer install, hence --no-deps; what it does import is in pyproject.toml.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps crypten
	touch $(READY)

# The unit tests alone: under 90 seconds on two cores.
quick: $(READY)
	$(BIN)/pytest -m unit --numprocesses 2 --dist loadfile

# Two processes, each with files of its own: the machines that this is made for have two cores.
test: $(READY)
	$(BIN)/pytest --numprocesses 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ALL := $(patsubst protocols/%.toml,--protocol %,$(wildcard protocols/*.toml))
NETWORKS := $(addprefix --network ,lan wan slow-wan bumblebee-lan bumblebee-wan puma suf-lan suf-wan)
SWEEP := $(BIN)/pi-sim sweep --seq-len 64 --seq-len 128 --inner $(ALL) $(NETWORKS) --out /dev/null

# How long a repeated estimate takes, as a whole process: it needs neither torch nor CrypTen. Then how many estimates a
# second a sweep makes, whose last line tells: once with prices still to be found, and once with all of them known. Last,
# what every kernel and whole models take: a quarter of an hour, into reports/kernels.md.
bench: $(READY)
	$(BIN)/pi-sim estimate --model relu_nonorm > /dev/null
	$(BIN)/python -m timeit -n 1 -r 5 -u sec -s 'import subprocess' \
		'subprocess.run(["$(BIN)/pi-sim", "estimate", "--model", "relu_nonorm"], stdout=subprocess.DEVNULL, check=True)'
	$(SWEEP)
	$(SWEEP)
	$(BIN)/pi-sim bench --out reports

# Latency beside perplexity on a machine with a CUDA GPU, GPU and CPU in one run: within 10 minutes, into reports/gpu.md.
# DEVICE=cpu does the same at a reduced size, into runs/gpu, on a machine without one.
DEVICE ?= cuda
LATENCY := --device $(DEVICE) --budget 480 $(if $(filter cpu,$(DEVICE)),--quick --out runs/gpu,--out reports)
gpu: $(READY)
	$(BIN)/pytest -m gpu
	$(BIN)/pi-sim latency $(LATENCY)

clean:
	rm -rf .venv runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
