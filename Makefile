# make help       these lines
# make setup      .venv, with what the demo and the tests need
# make demo       set up, then train and score all three tasks on embedded data
# make test       set up, then run the everyday tests
# make test-all   set up, then run all tests, in hours
# make lint       set up, then check style, types and files: the hooks of .pre-commit-config.yaml
# make docs       set up, with what the documentation needs, then build it into build/docs
# make linkcheck  the addresses in the documentation; needs a network
# make data       set up, then make the embedded data
# make doctor     set up, then say what is installed and what is missing
# make toolboxes  set up, then train and score the embedded configs of the other toolboxes (5 minutes)
# make page       set up, then test the server and its page, the page in chromium, which is not installed here
# make libraries  set up, then install what docs/libraries.md needs, and run its tests and its page
# make matrix     the tests on other Pythons and other versions of the packages, in environments of their own;
#                 ROWS='3.13 3.14' chooses, python3 tests/matrix.py --help tells the rest
# make chaos      set up, then kill, preempt, starve and poison trainings
# make oracle     compile mmcv, and keep what its operators return for the tests (10 minutes)
# make cluster    as root on Debian: the launchers of OpenMPI and Slurm, on this machine
# make audit      look up known vulnerabilities of the versions in constraints.txt
# make clean      remove .venv, the embedded data and what the demo made
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Nothing in the environment may send an installation to a place outside .venv.
ISOLATED := env -u PYTHONPATH -u PYTHONHOME -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT -u PIP_USER \
	PIP_REQUIRE_VIRTUALENV=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1

# Toolboxes that declare needs without wheels; what is truly needed is in their extras.
NO_DEPS := mmpose mmaction2

# Two processes of one thread each: most tests have little to compute and much to set up.
IN_TWO := -n 2 --dist worksteal

.PHONY: help setup demo data test test-all docs linkcheck toolboxes page libraries matrix chaos cluster oracle lint audit doctor clean

setup: $(VENV)/.installed

# mmengine brings OpenCV with windows, which needs libraries of X that a server lacks, and grad-cam the headless one; both
# write into cv2/. The headless one is installed once more, last, so that its files are those that stay.
$(VENV)/.installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo 'error: $(PYTHON) is older than Python 3.10; name a newer one: make PYTHON=python3.13'; exit 2; }
	$(ISOLATED) $(PYTHON) -m venv $(VENV)
	$(ISOLATED) $(RUN) -m pip install -e '.[dev]' -c constraints.txt
	$(ISOLATED) $(RUN) -m pip install --no-deps $(NO_DEPS) -c constraints.txt
	$(ISOLATED) $(RUN) -m pip install --force-reinstall --no-deps opencv-python-headless -c constraints.txt
	@touch $@

$(VENV)/.docs-installed: $(VENV)/.installed
	$(ISOLATED) $(RUN) -m pip install -e '.[docs]' -c constraints.txt
	@touch $@

demo: setup
	$(RUN) -W ignore tools/demo.py

data: setup
	$(RUN) -W ignore -m dwnet.demo.digits

test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(IN_TWO) -m 'not long'

test-all: $(VENV)/.docs-installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(IN_TWO)

# Warnings are errors; among them links within the documentation that lead nowhere.
docs: $(VENV)/.docs-installed
	$(RUN) -W ignore -m sphinx -q -W --keep-going -b html docs build/docs

# The addresses, too; it takes a network.
linkcheck: $(VENV)/.docs-installed
	$(RUN) -W ignore -m sphinx -q -b linkcheck docs build/linkcheck

$(VENV)/.libraries-installed: $(VENV)/.installed
	$(ISOLATED) $(RUN) -m pip install -e '.[libraries]' -c constraints.txt
	@touch $@

# Of mmyolo, mmrotate, mmpose, mmaction2 and mmocr: a training on embedded data, and its score.
toolboxes: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest $(IN_TWO) tests/toolboxes -k test_the_embedded_config_learns

# Playwright's own browsers are not fetched.
page: setup
	@command -v chromium chromium-browser google-chrome | grep -q . \
	  || echo 'note: there is no browser, so the page itself is not tested: apt-get install chromium'
	OMP_NUM_THREADS=1 $(RUN) -m pytest -rs tests/deploy/test_serve.py tests/deploy/test_page.py

libraries: $(VENV)/.libraries-installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest tests/libraries 'tests/clone/test_docs.py::test_page[docs/libraries.md]'

matrix:
	$(PYTHON) tests/matrix.py $(ROWS)

chaos: setup
	$(RUN) -W ignore tests/chaos.py

cluster: setup
	bash tests/cluster.sh

oracle: setup
	$(RUN) -W ignore tests/mmcv_oracle.py

# The hooks look at the files that git knows. Where there is no repository, as in an archive of the sources, the two
# programs that matter run by themselves.
lint: setup
	@if git rev-parse --git-dir > /dev/null 2>&1; then $(RUN) -m pre_commit run --all-files; \
	  else $(RUN) -m ruff check . && $(RUN) -m mypy; fi

# In a venv of its own; --strict, since what could not be looked up would pass otherwise.
audit:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" \
	  && $(ISOLATED) "$$folder/bin/python" -m pip install --quiet pip-audit \
	  && "$$folder/bin/pip-audit" --strict --no-deps --disable-pip --requirement constraints.txt \
	  || { echo 'error: the versions in constraints.txt are not known to be safe: above is what was found, or why nothing' \
	    'could be looked up (it takes a network)'; exit 1; }

help:
	@sed -n '/^SHELL/q; s/^# //p' Makefile

doctor: setup
	$(RUN) -W ignore -m dwnet doctor

clean:
	rm -rf $(VENV) data/digits work_dirs/demo work_dirs/demo-quick
