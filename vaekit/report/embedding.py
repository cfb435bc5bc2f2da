"""Pictures and templates as one file has them, which opens offline."""

import base64
import io
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


def data_uri(image: Image.Image) -> str:
    """A picture as a page holds it, PNG."""
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return png_uri(content.getvalue())


def png_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def render(template: str, page: dict[str, Any]) -> str:
    """A page as HTML; names from the user's files and folders are escaped."""
    environment = Environment(
        loader=PackageLoader("vaekit.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(page)
