# Each goal does its own set-up, a virtual environment in .venv: wheels whose checksums are in
# requirements/, then this package, which setuptools of that environment builds without a network.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP = .venv/bin/python -m pip --disable-pip-version-check install --quiet
LIBRARIES = $(PIP) --only-binary=:all: --require-hashes --requirement
PACKAGE = $(PIP) --no-index --no-deps --no-build-isolation --editable .

.PHONY: demo test test-slow test-all test-arm64 fuzz lint docs clean

# The main job: the shipped model as a quantized TFLite file, verified, measured and run.
demo: .venv/demo
	.venv/bin/cct-export tflite --quantize int8 --output demo/cct_2_3x2_32-int8.tflite
	.venv/bin/cct-bench tflite demo/cct_2_3x2_32-int8.tflite
	.venv/bin/cct-export predict demo/cct_2_3x2_32-int8.tflite docs/cat.jpg --top 2

# What a change can break, in minutes; the rest is in test-slow.
test: .venv/test
	.venv/bin/python -m pytest --numprocesses auto -m "not slow"

# Training, other wheels, browsers, compilers, emulation: fetches what it needs, or skips with the reason.
test-slow: .venv/test
	.venv/bin/python -m pytest --numprocesses auto --dist loadfile -m slow --durations 15

test-all: test test-slow

# The bundle for the Raspberry Pi on arm64's own wheels, emulated; needs Debian and a network.
test-arm64: .venv/test
	.venv/bin/python -m pytest -m arm64 tests/system --verbose --durations 8

# Mutated files of every kind that a command reads, and kills; make fuzz SECONDS=60 is a short run.
fuzz: SECONDS = 600
fuzz: .venv/test
	PYTHONPATH=tests .venv/bin/python -m fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

lint: .venv/test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# What the pages copy from the program: help, the table of models, what commands print. Takes minutes
# and downloads CIFAR-10.
docs: .venv/test
	.venv/bin/python docs/write_commands.py
	.venv/bin/python docs/write_models.py
	.venv/bin/python docs/write_transcripts.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml requirements/all.txt | .venv/bin/python
	$(LIBRARIES) requirements/all.txt
	$(PACKAGE)
	@touch $@

.venv/test: pyproject.toml requirements/all.txt requirements/dev.txt | .venv/bin/python
	$(LIBRARIES) requirements/dev.txt
	$(PACKAGE)
	@touch $@

clean:
	rm -rf .venv build dist demo *.egg-info
