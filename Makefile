# Start with `make demo` and `make test`. Everything that they need is installed below the cache folder.

export TUNESMITH_CACHE ?= $(HOME)/.cache/tunesmith
TOOLS  := $(TUNESMITH_CACHE)/tools
UV     := $(TOOLS)/bin/uv
PYTHON := .venv/bin/python
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --custom-compile-command "make lock"
PATHS  := cli crds operator runtime devcluster tools tests examples
# The oldest and the newest Kubernetes that the chart is tested with, and the tests that depend most on the API server:
# CRD rules, the life of each kind, messages of admission and controllers, tables, rights.
KUBERNETES_VERSIONS := 1.30.14 1.37.2
VERSION_TESTS := $(patsubst %,tests/apiserver/test_%.py,crds operator_chain job_life serving truth tables rights)
GPU_PACKAGES := pydantic|pydantic-core|annotated-types|typing-inspection|datasets|dill|multiprocess|trl|bitsandbytes|boto3|botocore|s3transfer|jmespath

.PHONY: help demo test test-train test-unit test-cluster test-deep test-deep-cluster test-deep-apiserver test-namespaced \
	test-kubernetes-versions verify bench bench-scale bench-peers bench-train bench-gpu bench-gpu-packages bench-estimate images sbom \
	audit cluster cluster-down env lock generate format

help:            ## List the targets
	@grep -hE '^[a-z-]+: *.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

demo: env        ## Tune, evaluate and serve a real model on a real cluster
	$(PYTHON) examples/quickstart/demo.py

test: env        ## Unit tests on both cores, then tests on a real API server, then tests with real pods
	$(MAKE) --jobs 2 --output-sync=target test-train test-unit
	$(MAKE) test-cluster

test-train:
	$(PYTHON) -m pytest -m "not deep" tests/unit/runtime/train

test-unit:
	$(PYTHON) -m pytest -m "not deep" tests/unit --ignore tests/unit/runtime/train

# Alone on the machine, because its deadlines are those of a real cluster.
test-cluster:
	python3 -m devcluster up
	python3 -m devcluster images
	$(PYTHON) -m pytest -m "not deep" tests/apiserver tests/cluster
	TUNESMITH_TEST_SCOPE=namespaces $(PYTHON) -m pytest -q tests/apiserver/test_operator_chain.py

test-deep: env   ## Long tests: every kill and fault, ten random minutes, Roles instead of ClusterRoles, other Kubernetes versions
	python3 -m devcluster up
	python3 -m devcluster images
	$(MAKE) --jobs 3 --output-sync=target test-deep-cluster test-deep-apiserver test-namespaced test-kubernetes-versions

test-deep-cluster:
	$(PYTHON) -m pytest -m deep tests/cluster tests/unit
	TUNESMITH_EXAMPLES=$${TUNESMITH_EXAMPLES:-200} $(PYTHON) -m pytest -q -m "hypothesis and not deep" tests/unit

test-deep-apiserver:
	$(PYTHON) -m pytest -m deep tests/apiserver

test-namespaced:
	TUNESMITH_TEST_SCOPE=namespaces $(PYTHON) -m pytest -q -m "not deep" tests/apiserver

test-kubernetes-versions:
	python3 -m devcluster tools $(KUBERNETES_VERSIONS:%=kubernetes-%)
	set -e; for version in $(KUBERNETES_VERSIONS); do \
		TUNESMITH_TEST_KUBERNETES=$$version $(PYTHON) -m pytest -q -m "not deep" $(VERSION_TESTS); \
	done

verify: env      ## Style, types, import layers, generated files, chart, examples, links
	$(PYTHON) -m ruff check $(PATHS)
	$(PYTHON) -m ruff format --check $(PATHS)
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m tunesmith_api.crdgen --check
	python3 -m devcluster tools helm kubeconform promtool kstatus
	$(TUNESMITH_CACHE)/bin/helm lint --quiet charts/tunesmith
	$(PYTHON) -m pytest -q tests/verify

bench: env       ## Figures: latency, memory, writes, start-up, training speed, transfer speed
	python3 -m devcluster up
	python3 -m devcluster images
	$(PYTHON) -m tests.bench

bench-scale: env ## Figures of the operator: 1,000 jobs at once, 5,000 finished, 200 services
	python3 -m devcluster tools
	$(PYTHON) -m tests.bench.scale

bench-peers: env ## Five races beside plain Jobs and Kubeflow Trainer: median and range
	python3 -m devcluster tools
	$(PYTHON) -m tests.bench.scale --peers --races 5

bench-train: env ## LoRA on this machine beside ms-swift, LLaMA-Factory, axolotl, TRL and a bare loop
	$(PYTHON) -m tests.bench.training

bench-gpu:       ## LoRA, QLoRA and full tuning of 8B on one GPU, in eight minutes; needs no network
	python3 -m tests.bench.bench_gpu

bench-gpu-packages: | $(UV) ## What bench-gpu needs beside PyTorch, transformers, peft and accelerate, in build/
	$(UV) pip install --quiet --target build/gpu-packages --python-version 3.12 --python-platform x86_64-manylinux_2_28 --no-deps \
		$$(grep -ohE '^($(GPU_PACKAGES))==[^ ]+' locks/dev.txt)
	find build/gpu-packages/bitsandbytes -name '*.so' ! -name '*_cpu.so' ! -name '*_cuda130.so' -delete
	find build/gpu-packages/botocore/data -mindepth 1 -maxdepth 1 -type d -exec rm -r {} +

bench-estimate: env ## Estimated beside measured memory of trainings
	$(PYTHON) -m tests.bench.estimate

images: env      ## Build and push both images
	python3 -m devcluster images

sbom: env        ## List the contents of both images: CycloneDX JSON in sbom/
	python3 -m devcluster images
	$(PYTHON) -m tools.sbom

audit: env       ## Known vulnerabilities of the locked packages; needs PyPI's advisory database
	$(PYTHON) -m tools.audit $(UV)

cluster:         ## A real single-node Kubernetes with a registry and an S3 server (or the one in KUBECONFIG)
	python3 -m devcluster up

cluster-down:    ## Stop the cluster and delete its state
	python3 -m devcluster down

env: .venv/.ready

.venv/.ready: locks/dev.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python python3 .venv
	$(UV) pip sync --quiet --python .venv --require-hashes --compile-bytecode locks/dev.txt
	printf '%s\n' "$(CURDIR)/cli" "$(CURDIR)/crds" "$(CURDIR)/operator" "$(CURDIR)/runtime" "$(CURDIR)" > $$($(PYTHON) -c 'import site; print(site.getsitepackages()[0])')/tunesmith.pth
	touch $@

$(UV):
	python3 -m venv $(TOOLS) || { apt-get update -q && apt-get install -q -y python3-venv && python3 -m venv $(TOOLS); }
	$(TOOLS)/bin/pip install --quiet uv==0.13.9

lock: | $(UV)    ## Pin the dependencies, LMDeploy's first because its bounds are the narrowest
	$(COMPILE) --extra runtime --extra lmdeploy -o locks/lmdeploy.txt
	$(COMPILE) --extra operator --extra runtime --extra test -c locks/lmdeploy.txt -o locks/dev.txt
	$(COMPILE) --extra runtime -c locks/dev.txt -o locks/runtime.txt
	$(COMPILE) --extra operator -c locks/dev.txt -o locks/operator.txt
	test -s locks/ascend.txt || cp locks/runtime.txt locks/ascend.txt
	$(COMPILE) --extra ascend -o locks/ascend.txt
	test -s locks/vllm.txt || cp locks/runtime.txt locks/vllm.txt
	$(COMPILE) --extra vllm --override locks/vllm.overrides -o locks/vllm.txt

generate: env    ## Write the generated files: CRDs, chart copies, reference pages
	$(PYTHON) -m tunesmith_api.crdgen

format: env      ## Format the code
	$(PYTHON) -m ruff check --fix $(PATHS)
	$(PYTHON) -m ruff format $(PATHS)
