"""The workflow files and hooks: they can be read, call what `make` and `.ci/run` have, and may only read."""
import re

import pytest
import yaml
from conftest import ROOT, run_python

WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))


def jobs(workflow: dict) -> list[dict]:
    return list(workflow['jobs'].values())


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request) -> dict:
    return yaml.safe_load(request.param.read_text())


def test_a_workflow_may_only_read(workflow):
    assert workflow['permissions'] == {'contents': 'read'}
    assert not any('permissions' in job for job in jobs(workflow))
    assert 'secrets' not in str(workflow)


def test_a_step_checks_out_sets_up_python_or_calls_ci_run(workflow):
    for step in (step for job in jobs(workflow) for step in job['steps']):
        if 'uses' in step:
            assert re.fullmatch(r'actions/(checkout|setup-python)@v\d+', step['uses'])
        else:
            assert re.fullmatch(r'\.ci/run (\w+|\$\{\{ matrix\.part }})', step['run']), step


def test_pythons_and_parts_are_those_that_there_are():
    workflows = [yaml.safe_load(path.read_text()) for path in WORKFLOWS]
    matrices = [job['strategy']['matrix'] for workflow in workflows for job in jobs(workflow) if 'strategy' in job]
    classifiers = run_python('setup.py', '--classifiers').stdout.split('\n')
    supported = [line.rpartition(' ')[2] for line in classifiers if 'Python ::' in line]
    assert [matrix['python'] for matrix in matrices if 'python' in matrix] == [supported] and len(supported) == 5
    calls = ' '.join(path.read_text() for path in WORKFLOWS)
    parts = {part for matrix in matrices for part in matrix.get('part', [])} | set(re.findall(r'\.ci/run (\w+)', calls))
    assert parts == {'lint', 'docs', 'test', 'demo', 'wheel', 'toolboxes', 'page', 'libraries'}


def test_ci_run_has_these_parts():
    script = (ROOT / '.ci/run').read_text()
    assert re.search(r'^    \*\) .*has lint, docs, test, demo, wheel, toolboxes, page and libraries', script, re.M)
    assert re.findall(r'^    ([\w| ]+)\)', script, re.M) == [
        'lint | docs | test | toolboxes | page | libraries', 'demo', 'wheel']


def test_hooks_need_no_network():
    """`make lint` works with what `make setup` installs: pre-commit makes no environment for a hook of the system."""
    repositories = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    hooks = [hook for repository in repositories for hook in repository['hooks']]
    assert {repository['repo'] for repository in repositories} == {'local'} and len(hooks) >= 7
    for hook in hooks:
        assert hook['language'] == 'system' and hook['entry'].startswith('.venv/bin/'), hook['id']
