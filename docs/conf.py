"""Settings of Sphinx: `make docs` builds docs/*.md and the docstrings into build/docs."""
import runpy
import sys
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import SphinxError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = 'DWNet'
author = 'the DWNet contributors'
version = release = runpy.run_path(str(ROOT / 'dwnet/version.py'))['__version__']
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx_copybutton', 'sphinx_design']
exclude_patterns = ['_build']

# Markdown and notebooks; these come executed, and are shown as they are
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'deflist']
myst_heading_anchors = 3
nb_execution_mode = 'off'
copybutton_exclude = '.linenos, .gp, .go'

# Docstrings in Google's style
autodoc_inherit_docstrings = False
autodoc_member_order = 'bysource'
autodoc_typehints_format = 'short'
python_use_unqualified_type_names = True
napoleon_use_rtype = False

html_theme = 'pydata_sphinx_theme'
html_title = f'DWNet {version}'
html_static_path = ['_static']
html_css_files = ['dwnet.css']
html_show_sourcelink = False
html_sidebars = {'**': ['globaltoc.html']}
html_theme_options = {
    'navbar_center': [],  # all pages are in the list at the left
    'show_toc_level': 2,
    'footer_start': ['copyright'],
    'footer_end': [],
}
copyright = 'the authors of this project, MIT licence'
html_math_renderer = 'mathml'


def to_mathml(visitor, node) -> None:
    """Writes an equation as MathML: browsers show it without a script and without a network."""
    try:
        visitor.body.append(tex2mathml(node.astext(), as_block=node.tagname == 'math_block'))
    except MathError as error:
        raise SphinxError(f'{node.source}:{node.line}: {escape(node.astext())}: {error}') from error
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer('mathml', inline_renderers=(to_mathml, None), block_renderers=(to_mathml, None))
