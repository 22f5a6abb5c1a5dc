"""The documentation as a site: guides, notebooks with their committed outputs, and the library's reference."""

import latex2mathml.converter
from docutils import nodes
from sphinx import addnodes

from hdnet_lib import __version__

project, release, author = "HDNet Lab", __version__, "The HDNet Lab developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
# The sources lie all over the repository, where links between them work on any host of the repository, too.
include_patterns = ["docs/**", "notebooks/*.ipynb", "hdnet_lib/weights/MODEL_CARD.md", "README.md",
    "CHANGELOG.md", "CONTRIBUTING.md", "data_scripts/README.md"]  # fmt: skip
nb_execution_mode = "off"
nb_code_prompt_show, nb_code_prompt_hide = "Show the folded code", "Fold the code"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["mystnb.unknown_mime_type"]  # numbers that notebooks record for the report
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(?!hdnet_lib)\w+\..*"),  # of other libraries
    ("py:class", r".*\.parallel\.(Job|Result)"),  # TypeVars
]
html_theme = "furo"
html_title = "HDNet Lab"
html_css_files = ["site.css"]
html_static_path = ["_static"]
html_extra_path = ["_redirect"]  # index.html, beside the folder docs/
html_show_copyright = False
html_copy_source = False
html_math_renderer = "mathml"


def _formula(translator, node: nodes.math | nodes.math_block) -> None:
    """MathML, which browsers show without a script: the pages must read offline."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


VARIABLES = ("attribute", "data", "property")
_kept: list[str] = []


def _keep(app, what: str, name: str, documented, options, lines: list[str]) -> None:
    _kept[:] = lines


def _restore(app, what: str, name: str, documented, options, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon for the type of a variable; here it is a sentence."""
    if what in VARIABLES:
        lines[:] = _kept


def _find_by_the_end(app, doctree: nodes.document) -> None:
    """A docstring may name ``Peer.forward`` without its module."""
    for reference in doctree.findall(addnodes.pending_xref):
        if reference.get("refdomain") == "py":
            reference["refspecific"] = True


def setup(app) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    app.connect("autodoc-process-docstring", _keep, priority=400)
    app.connect("autodoc-process-docstring", _restore, priority=600)
    app.connect("doctree-read", _find_by_the_end)
