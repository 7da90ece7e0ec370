# `make demo` and `make test` do everything on a machine with Python, a C++ compiler and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
SECONDS ?= 600
SEED ?= 0

.PHONY: demo docs test test-oldest test-gpu-emulated test-long test-asan test-tsan test-wide kills fuzz lint bench bench-regression clean

demo: $(VENV)/demo.stamp  ## train SimCLR on crops of photographs, evaluate it, write the report
	$(BIN)/sslfast pretrain simclr --data photos --output $(RUN) --overwrite
	$(BIN)/sslfast evaluate $(RUN) --protocol knn linear
	$(BIN)/sslfast report $(RUN)

test: $(VENV)/dev.stamp $(VENV)/triton.stamp  ## the whole test suite, a process a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal
	$(BIN)/python -m pytest tests/ops --default-dtype bfloat16 -m "not slow" -k "ragged and not triton"

test-gpu-emulated: $(VENV)/dev.stamp  ## all tests of Triton kernels in the interpreter, more like a GPU; half an hour
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m pytest -p tensor_core -p triton_races tests/ops/test_*_triton.py

test-long: $(VENV)/loggers.stamp  ## what takes minutes: generated code of torch.compile, dying ranks, every compiler and instruction set
	$(BIN)/python -m pytest --long -m long

test-asan test-tsan test-wide: test-%: $(VENV)/dev.stamp  ## the CPU ops' tests over kernels under sanitizers, or as AVX-512 has them
	tests/special_builds/run.sh $* $(BIN)/python

kills: $(VENV)/dev.stamp  ## 100 processes killed while they train, and every run resumed to the same bits
	PYTHONPATH=tests $(BIN)/python tests/train/kills.py --kills 100

fuzz: $(VENV)/dev.stamp  ## odd calls of everything public for SECONDS from SEED, each beside the reference
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) --seed $(SEED)

lint: $(VENV)/dev.stamp  ## style, the formatting that ruff would give, types of what is public
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs.stamp  ## the pages of docs/ and of the docstrings as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test-oldest:  ## the CPU ops with the oldest Python and torch that pyproject.toml admits, in an environment of its own
	python3.10 -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet --constraint tests/oldest.txt . pytest torchvision
	$(VENV)-oldest/bin/pytest -q tests/ops -m "not slow" -k "not triton and not compile and not opcheck and not cuda"

bench: $(VENV)/dev.stamp  ## every op beside its peers; results in benchmarks/results
	$(BIN)/python benchmarks/run.py

bench-regression: $(VENV)/dev.stamp  ## sslfast's own speed against the last run of this target, kept in .benchmarks
	$(BIN)/python -m pytest benchmarks/regression --benchmark-autosave --benchmark-compare

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist site *.egg-info sslfast/_C/*.so

# Installed anew when what decides the installation changes; Python sources are used in place.
BUILD_INPUTS := pyproject.toml setup.py CMakeLists.txt constraints.txt $(wildcard csrc/*.cpp csrc/*/*)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/triton.stamp: $(BIN)/python tests/triton_versions.txt  ## older versions, for which the kernels are compiled too
	rm -rf $(VENV)/triton
ifeq ($(shell uname -s),Linux)
	for version in $$(cat tests/triton_versions.txt); do \
	  $(BIN)/pip install --quiet --no-deps --target $(VENV)/triton/$$version triton==$$version || exit 1; \
	done
endif
	touch $@

$(VENV)/docs.stamp: $(BIN)/python constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt mkdocs-material 'mkdocstrings[python]'
	touch $@

$(VENV)/demo.stamp: $(BIN)/python $(BUILD_INPUTS)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train]'
	touch $@

$(VENV)/dev.stamp: $(BIN)/python $(BUILD_INPUTS)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/loggers.stamp: $(VENV)/dev.stamp  ## 160 MB that only make test-long needs
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,loggers]'
	touch $@
