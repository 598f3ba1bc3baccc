"""Fills in the files of `templates/`: a node's first process, its runtime's configuration, manifests."""

import shlex
from pathlib import Path

import jinja2

# Shell, TOML and YAML for our own programs: there is no HTML to escape.
_environment = jinja2.Environment(  # noqa: S701 - see above
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_environment.filters["quote"] = lambda value: shlex.quote(str(value))


def render(name: str, /, **values: object) -> str:
    """Return a template with every value filled in; a missing one is an error."""
    return _environment.get_template(f"{name}.j2").render(**values)
