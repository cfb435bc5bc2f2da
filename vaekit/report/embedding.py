"""Templates filled in, and pictures as a page has them that opens offline."""

import base64
import io
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


class Picture(NamedTuple):
    """A PNG as the page holds it; `width` and `height` in pixels."""

    uri: str
    alt: str
    width: int
    height: int


def embedded(image: Image.Image, alt: str) -> Picture:
    """A small picture that is no file of its own."""
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return Picture(png_uri(content.getvalue()), alt, *image.size)


def png_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def render(package: str, template: str, values: dict[str, Any]) -> str:
    """A page; in HTML, names from the user's files and folders are escaped."""
    is_html = template.endswith(".html.jinja")
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not is_html,
    )
    return environment.get_template(template).render(values)
