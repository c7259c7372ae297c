"""How the documentation is built: `make docs`. Pages are executed; a warning ends the build; nothing is fetched."""

import os
import re
import sys

import deconv_jax

# Pages call the commands that are installed beside this interpreter.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])

project = "deconv_jax"
author = copyright = "The deconv_jax developers"
version = release = deconv_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
root_doc = "index"

# Pages are Markdown whose code is run from top to bottom, each in a process and a folder of its own.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 1500  # of a cell; one trains a network, and other work may keep the machine busy
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_render_markdown_format = "myst"  # with tables
nb_ipywidgets_js = {}  # else every page would load two scripts from elsewhere
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings are Google's form, with `code` in single backticks.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 90
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = "deconv_jax"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_show_sourcelink = False
html_sidebars = {"**": []}  # all pages stand in the header, and players and tables need the room
html_context = {"default_mode": "auto"}
html_copy_source = False
html_theme_options = {
    "logo": {"text": "deconv_jax"},
    "navbar_align": "content",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 5,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def _literally(app, what, name, obj, options, lines):
    """`code` → ``code``, but for what is a role or a link already."""
    for number, line in enumerate(lines):
        lines[number] = re.sub(r"(?<![`:\w])`([^`<>]+)`(?![`_])", r"``\1``", line)


def setup(app):
    """Sphinx's entry point."""
    app.connect("autodoc-process-docstring", _literally, priority=400)
