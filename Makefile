.PHONY: demo quick test test-commands test-faults test-install test-versions test-runtimes soak lint bench gpu wheel \
	whole-wheel
PYTHON ?= python3
OUT ?= build/gpu
MINUTES ?= 60
BUNDLE ?= runs/digits/onnx
BIN := .venv/bin
ON_ALL_CORES := -n logical --maxprocesses 8 --dist worksteal
IN_TEST := not install and not faults and not commands
UNUSED := -p no:hypothesispytest -p no:benchmark -p no:anyio # seconds to import
INSTALLED := .venv/.installed
WEB := export/node_modules/onnxruntime-web

$(INSTALLED): pyproject.toml
	@echo "installing into .venv; PyTorch takes about two minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## digits to a report and an ONNX bundle: train, latents, SVM, pictures, export
	$(BIN)/vaekit train --data.name digits --run runs/digits
	$(BIN)/vaekit latents runs/digits
	$(BIN)/vaekit svm runs/digits
	$(BIN)/vaekit report runs/digits
	$(BIN)/vaekit export runs/digits
	$(BIN)/vaekit export --check runs/digits/onnx
	$(BIN)/vaekit export runs/digits --weights fp16

quick: $(INSTALLED)  ## something of every room, while one works: a minute on two cores
	$(BIN)/python -m pytest $(ON_ALL_CORES) $(UNUSED) --ignore tests/promises \
		-m 'not slow and $(IN_TEST)'

test: $(INSTALLED)  ## what must hold, on all cores; six minutes on two
	$(BIN)/python -m pytest $(ON_ALL_CORES)

test-commands: $(INSTALLED)  ## every command of the documents, every benchmark once
	$(BIN)/python -m pytest $(ON_ALL_CORES) -m commands

test-faults: $(INSTALLED)  ## processes killed, disks filled, files damaged; seven minutes on two cores
	$(BIN)/python -m pytest $(ON_ALL_CORES) -m faults

test-install: $(INSTALLED)  ## the wheel in environments that have nothing else; minutes, gigabytes
	$(BIN)/python -m pytest -m install

test-versions:  ## the suite with the oldest and the newest versions, on every Python found; half an hour on two idle cores
	tests/versions.sh

test-runtimes:  ## a bundle in other runtimes and versions: make test-runtimes BUNDLE=runs/mnist/onnx
	$(PYTHON) tests/runtimes.py $(BUNDLE)

soak: $(INSTALLED)  ## an hour of training, stopped and resumed; memory and open files stay flat
	rm -rf build/soak
	$(BIN)/python tests/soak.py $(MINUTES) build/soak

lint: $(INSTALLED)  ## format, lint, types, and which room may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict vaekit export
	$(BIN)/lint-imports --no-cache

bench: $(INSTALLED)  ## speed, memory and growth of cost, against peers
	$(BIN)/python -m pytest bench/

gpu:  ## what needs a GPU, with the Python at hand: make gpu OUT=folder PYTHON=python3
	PYTHON=$(PYTHON) bench/gpu.sh $(OUT)

$(WEB)/dist/ort.wasm.min.mjs: export/package-lock.json
	npm ci --prefix export --omit=dev
	touch $@

# onnxruntime-web comes without its licence and notices: they are those of the Python package.
# The wheel reaches dist/ only once the explorer is whole in it.
wheel: $(INSTALLED) $(WEB)/dist/ort.wasm.min.mjs  ## dist/*.whl, with the explorer and what it runs on
	rm -rf build
	$(BIN)/python -c 'import onnxruntime; print(onnxruntime.__path__[0])' | \
		{ read -r folder; cp "$$folder/LICENSE" "$$folder/ThirdPartyNotices.txt" $(WEB)/; }
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m zipfile --extract build/wheel/*.whl build/unpacked
	$(MAKE) whole-wheel
	mkdir -p dist
	mv build/wheel/*.whl dist/

whole-wheel:
	diff -r -x __pycache__ export/clients build/unpacked/vaekit/export/clients
	diff -r export/explorer build/unpacked/vaekit/export/explorer
	ls build/unpacked/vaekit/$(WEB)/LICENSE build/unpacked/vaekit/$(WEB)/ThirdPartyNotices.txt
	cd build/unpacked && $(abspath $(BIN))/python -c \
		'from vaekit.export import explore; explore.page_routes(explore.EXPORT)'
