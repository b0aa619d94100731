"""Every command and every piece of code in the documentation is run, page by page, in the order of the page.

A page runs in a scratch folder, in which tools/, configs/ and all else of the clone are links, ``data/digits`` is a
small data set, and ``python`` and ``.venv/bin/python`` are the Python of the tests. Directly in front of a block
comments may say::

    <!-- docs-test: add --cfg-options train_cfg.max_epochs=1 -->  to the training commands of the block, to shorten it
    <!-- docs-test: skip REASON -->       not run: needs GPUs, ImageNet, COCO, or a network
    <!-- docs-test: before COMMAND -->    run first, and not seen by a reader: makes files

``pages.NOT_RUN`` lists the commands that are never run. What these and skipped blocks name is checked to exist in
``test_readme.py``.
"""
import importlib.util
import re

import pytest
from conftest import ROOT, run_python
from pages import NOT_RUN, Block, blocks_of, make_scratch, run_page, shortened

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'benchmarks/README.md', *sorted(ROOT.glob('docs/*.md')),
         *sorted(ROOT.glob('configs/*/README.md'))]
# Its blocks take seconds; those of all others are run in the long suite.
QUICK = ['docs/operators.md']
# Page → what it needs beyond `make setup`; `make libraries` installs it and runs the page
NEEDS = {'docs/libraries.md': ['segmentation_models_pytorch', 'transformers', 'fastai', 'lightning']}


def runs(page) -> bool:
    return any(b.language == 'python' or shortened(b).strip() for b in blocks_of(page.read_text()) if not b.skip)


@pytest.mark.parametrize('page', [
    pytest.param(page, id=str(page.relative_to(ROOT)),
                 marks=[] if str(page.relative_to(ROOT)) in QUICK else pytest.mark.long)
    for page in PAGES if runs(page)])
def test_page(page, tmp_path, small_digits):
    for module in NEEDS.get(str(page.relative_to(ROOT)), []):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} waits for what `make libraries` installs')
    make_scratch(tmp_path, small_digits)
    run_page(page.read_text(), tmp_path)


def test_every_block_is_run_or_says_why_not():
    blocks = {page: blocks_of(page.read_text()) for page in PAGES}
    assert sum(map(len, blocks.values())) > 20
    for page, its in blocks.items():
        assert page.read_text().count('```bash') + page.read_text().count('```python') == len(its), page
        for block in its:
            where = f'{page}:{block.line}'
            assert '>>> ' not in block.code, f'{where}: no prompts, they cannot be copied'
            if block.skip:
                named = r'GPU|ImageNet|COCO|ADE20K|network|root|hours?\b|machines|environment|serve'
                assert re.search(named, block.skip), where
            assert block.language == 'python' or not re.search(r'\b(CONFIG|CHECKPOINT|FILE|DIR)\b', block.code), (
                f'{where}: a placeholder cannot be run')


def test_the_runner_of_pages(tmp_path, small_digits):
    """Shell and Python go on from block to block; comments are heeded; a failure names its block."""
    page = ('<!-- docs-test: before echo 3 > number -->\n```bash\nexport SEEN=$(cat number)\nmake nothing\n```\n'
            'text\n```python\nnumber = int(open("number").read())\n```\n<!-- docs-test: skip no GPU -->\n'
            '```bash\nfalse\n```\n```python\nopen("out", "w").write(str(number + 1))\n```\n```bash\n'
            'test $SEEN$(cat out) = 34\ntest -e tools/train.py\n```\n')
    make_scratch(tmp_path, small_digits)
    run_page(page, tmp_path)
    with pytest.raises(AssertionError, match='the bash block at line 1'):
        run_page('```bash\nfalse\ntrue\n```\n', tmp_path)
    with pytest.raises(ZeroDivisionError):
        run_page('```python\n1 / 0\n```\n', tmp_path)
    with pytest.raises(ValueError, match='not directly in front'):
        blocks_of('<!-- docs-test: skip it -->\n\n```bash\nfalse\n```\n')


def test_training_commands_are_shortened():
    block = Block('bash', 'python tools/train.py a  # comment\nbash tools/dist_train.sh a 2\npython tools/test.py a\n'
                  'bash tools/dist_train.sh a 8\npip install x\n', 1, add='--x 1')
    assert shortened(block).split('\n') == [
        'python tools/train.py a --x 1  # comment', 'bash tools/dist_train.sh a 2 --x 1', 'python tools/test.py a']
    assert len(NOT_RUN) < 8, 'a new command should be run'


@pytest.mark.long
def test_the_documentation_builds(tmp_path):
    """Without a warning; .ci/run builds it, too."""
    pytest.importorskip('sphinx', reason='waits for what `make docs` installs')
    run_python('-m', 'sphinx', '-q', '-W', '--keep-going', 'docs', tmp_path)
    page = (tmp_path / 'operators.html').read_text()
    scripts = re.findall(r'<script[^>]*>', page)
    assert page.count('<math') > 20 and not any('mathjax' in script.lower() for script in scripts), (
        'equations need neither a script nor a network')
