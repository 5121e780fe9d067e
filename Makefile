# Two commands do all set-up on a machine with Python 3.11 to 3.13, make and git:
#   make run     the main job, from raw applications to a served model
#   make test    lint, types, import rules and tests
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# The first interpreter that really starts and has wheels of every framework.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python3.13; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
  && echo $$p && break; done)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test env lint unit format proto lock fuzz bento containerize image clean
.DEFAULT_GOAL := run

run: env
	$(BIN)/cipherscore run $(ARGS)

test: lint unit

env: $(VENV)/.stamp

# Hashed and complete requirements: nothing is resolved here, so a build today is a build next year.
$(VENV)/.stamp: requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed (set PYTHON=...)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --require-hashes --no-deps --compile-bytecode -r requirements/dev.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: env
	$(BIN)/python -m pytest $(ARGS)

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Stubs are made with an old protoc on purpose: newer protobuf runtimes read them, not the reverse.
proto: env
	$(PYTHON) -m venv .cache/protoc
	.cache/protoc/bin/python -m pip install --quiet grpcio-tools==1.71.2 "setuptools<81"
	.cache/protoc/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. cipherscore/proto/v1/cipherscore.proto
	.cache/protoc/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. cipherscore/proto/inference/grpc_service.proto

COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml
lock: env
	$(COMPILE) --python-version 3.10 -o requirements/client.txt
	$(COMPILE) --python-version 3.10 --extra serve -o requirements/serve.txt
	$(COMPILE) --python-version 3.11 --extra serve requirements/cuda.in -c requirements/serve.txt -o requirements/serve-cuda.txt
	$(filter-out --universal,$(COMPILE)) --python-version 3.10 --python-platform x86_64-manylinux_2_28 --extra serve requirements/maxwell.in -o requirements/serve-maxwell.txt
	$(COMPILE) --python-version 3.11 --extra train --extra serve -o requirements/train.txt
	$(COMPILE) --python-version 3.11 --extra train --extra serve --extra tables --extra evaluate --group dev -o requirements/dev.txt

# What no input may break; bounded in count and time.
fuzz: env
	$(BIN)/python -m tests.fuzz.http_bodies --inputs $(or $(INPUTS),500000) --seconds 900
	$(BIN)/python -m tests.fuzz.oip_tensors --inputs $(or $(INPUTS),500000)
	$(BIN)/python -m tests.fuzz.http2 -runs=$(or $(INPUTS),500000)

# The versions in production, packed with the service; BentoML wants uv on the path.
bento: env
	PATH="$(CURDIR)/$(BIN):$$PATH" BENTOML_HOME="$${BENTOML_HOME:-var/host/bentoml}" \
	  $(BIN)/bentoml build -f bento/bentofile.yaml .

# That Bento as a container image, by Docker or, with ARGS="--backend buildah" (podman, ...), others.  From the
# root of the file system: elsewhere BentoML 1.4.39 refuses its own copy of bento/Dockerfile.template.
containerize: bento
	home="$$(realpath "$${BENTOML_HOME:-var/host/bentoml}")" && cd / && PATH="$(CURDIR)/$(BIN):$$PATH" \
	  BENTOML_HOME="$$home" "$(CURDIR)/$(BIN)/bentoml" containerize cipherscore:latest $(ARGS)

# The Dockerfile's image built and tried without Docker and without a registry of images: needs root, buildah,
# debootstrap and runc.
image: env
	CIPHERSCORE_IMAGE_TEST=$(or $(TARGETS),cpu) $(BIN)/python -m pytest tests/e2e/test_image.py

clean:
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
