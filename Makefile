# Everything lives in .venv, which is filled once and again only when the dependencies change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip tells a person how far it is, and a log file nothing.
PIP_INSTALL := $(BIN)/python -m pip install $$(test -t 2 || echo --quiet) \
	--disable-pip-version-check --constraint constraints.txt
DEMO_INDEX := .demo/index
# A file stays on one process, for its fixtures. In their order the files that take minutes are not the last ones.
SPREAD := --dist=loadfile --no-loadscope-reorder
BENCHMARKS := embedding reranking text decoding indexing formats starting unchanged busy kept serving memory many_texts training

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-clients test-cluster test-samples test-serve test-web quick check format bench clean
.DELETE_ON_ERROR:

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.installed  ## install bt, index the gallery, search it, fill a blank
	@echo; echo '== index the drawn pictures in examples/gallery, with the small model that comes with bt'
	$(BIN)/bt index examples/gallery --model demo --index $(DEMO_INDEX)
	@echo; echo '== find pictures by what they show, each verified'
	$(BIN)/bt search "two cats on a couch" --top 5 --index $(DEMO_INDEX)
	@echo; echo '== read a word out of all of them'
	$(BIN)/bt fill "a <mask> looking out" --top 5 --index $(DEMO_INDEX)
	@echo; echo '== go on: ask the same index something else, or index pictures of your own'
	@echo '  $(BIN)/bt search "a dog in the snow" --index $(DEMO_INDEX)'
	@echo '  $(BIN)/bt index ~/Pictures    # photographs: fetches the large model first, 3.7 GB'
	@echo '  $(BIN)/bt --help'

test: check  ## all of check, then all tests (ARGS="-k search" for some)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --maxprocesses=4 $(SPREAD) $(ARGS)

test-samples: $(VENV)/.installed-dev  ## read files of many encoders, and real ones of cameras: needs a network
	$(BIN)/python tests/samples/encoders.py
	$(BIN)/python tests/samples/fetch.py $(ARGS)

test-serve: $(VENV)/.installed-fuzz  ## ask a real server 5,000 generated requests, damaged and slow ones: minutes
	$(BIN)/python tests/serving/fuzz.py

test-web: $(VENV)/.installed-web  ## a server in a browser, which is /usr/bin/chromium, and by clients of OpenAI and Cohere: minutes
	$(BIN)/pytest --web --clients tests/web tests/clients $(ARGS)

test-clients: $(VENV)/.installed-clients  ## the clients of OpenAI and Cohere, and litellm of 400 MB, against a server: minutes
	$(BIN)/pytest --clients tests/clients $(ARGS)

test-cluster: $(VENV)/.installed-cluster  ## PostgreSQL, Milvus and a Ray cluster, started on this machine: minutes
	$(BIN)/pytest --cluster tests/cluster $(ARGS)

quick: $(VENV)/.installed-dev  ## the tests that need neither PyTorch nor another process: about a minute
	OMP_NUM_THREADS=1 $(BIN)/pytest --quick --numprocesses=auto --maxprocesses=4 $(SPREAD) -r fE $(ARGS)

docs: $(VENV)/.installed-clients  ## run the examples of the documents, and write what they print into the pages
	$(BIN)/pytest --rewrite --clients tests/test_console_blocks.py tests/test_python_page.py tests/test_notebook.py \
		tests/test_examples.py tests/clients/test_page.py tests/cli/test_mcp.py -k "page or notebook or readme"

check: $(VENV)/.installed-dev  ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev  ## rewrite the sources in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev  ## all benchmarks (ARGS="--size base" for one size); see docs/benchmarks.md
	for name in $(BENCHMARKS); do \
		$(BIN)/python benchmarks/$$name.py --json runs/benchmarks/results.jsonl $(ARGS) || exit 1; \
	done

clean:  ## remove all that the other targets made
	rm -rf $(VENV) .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps stand for a finished installation: one that broke off is begun again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bt needs Python 3.11 or newer, '$(PYTHON)' is not: try make PYTHON=python3.12" >&2; exit 1; }
	@echo '== make a virtual environment in $(VENV)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo '== install bt and the libraries that it needs: hundreds of megabytes, which takes minutes'
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo '== install bt, the libraries that it needs and the development tools: this takes minutes'
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-cluster: $(VENV)/.installed-dev
	@echo '== install PostgreSQL, Milvus and Ray'
	$(PIP_INSTALL) --editable '.[dev,cluster]'
	@touch $@

$(VENV)/.installed-clients: $(VENV)/.installed-dev
	@echo '== install the clients of OpenAI and Cohere, and litellm: 400 MB'
	$(PIP_INSTALL) --editable '.[dev,clients]'
	@touch $@

$(VENV)/.installed-web: $(VENV)/.installed-dev
	@echo '== install playwright, which drives a browser, and the clients of OpenAI and Cohere'
	$(PIP_INSTALL) --editable '.[dev,web]'
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	@echo '== install schemathesis'
	$(PIP_INSTALL) --editable '.[dev,fuzz]'
	@touch $@
