"""Writes pictures and tables on one HTML page that needs no other file."""
import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
       color: #222 }
table { border-collapse: collapse } td, th { padding: .3em 1.2em; text-align: left }
th { border-bottom: 2px solid #222 } td { border-bottom: 1px solid #ddd }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } .hint { color: #666 }
"""


def embed(picture: Path | Image.Image) -> str:
    """A PNG file or an image as an HTML element."""
    if isinstance(picture, Path):
        content = picture.read_bytes()
    else:
        picture.save(buffer := io.BytesIO(), 'png')
        content = buffer.getvalue()
    return f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def write_page(path: Path, title: str, hint: str, scores: dict[str, float],
               pictures: Iterable[tuple[str, str, Path]]) -> Path:
    """Writes a page: a table of scores, then pictures.

    Args:
        path: The HTML file.
        title: Headline of the page.
        hint: A line below the headline.
        scores: Name → value, for the table.
        pictures: Headline, explanation and PNG file of each picture.
    """
    rows = ''.join(f'<tr><td>{html.escape(name)}<td class=number>{value:g}' for name, value in scores.items())
    parts = ''.join(f'<h2>{html.escape(head)}</h2><p class=hint>{html.escape(text)}</p>{embed(picture)}'
                    for head, text, picture in pictures)
    path.write_text(f'<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>'
                    f'<h1>{html.escape(title)}</h1><p class=hint>{html.escape(hint)}</p>'
                    f'<table><tr><th>metric<th>score{rows}</table>{parts}\n', encoding='utf-8')
    return path
