"""Writes pictures and tables on one HTML page that needs no other file."""
import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
       color: #222 }
table { border-collapse: collapse } td, th { padding: .3em .9em; text-align: left }
th { border-bottom: 2px solid #222 } td { border-bottom: 1px solid #ddd }
.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } .hint { color: #666 }
"""


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        columns: The headlines.
        rows: The lines. Numbers stand on the right; NaN becomes a dash.
    """
    columns: Sequence[str]
    rows: Iterable[Sequence[str | float]]


def write_page(path: Path, title: str, text: str,
               sections: Iterable[tuple[str, str, Path | Image.Image | Table]]) -> Path:
    """Writes a page: a paragraph, then sections.

    Args:
        path: The HTML file.
        title: Its headline.
        text: The paragraph below the headline.
        sections: Headline (or ''), explanation (or ''), and a PNG file, an image or a table.

    Returns:
        ``path``.
    """
    parts = [f'<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>',
             f'<h1>{html.escape(title)}</h1>', f'<p>{html.escape(text)}</p>']
    for head, hint, content in sections:
        parts += [f'<h2>{html.escape(head)}</h2>' if head else '',
                  f'<p class=hint>{html.escape(hint)}</p>' if hint else '',
                  _as_html(content) if isinstance(content, Table) else _embed(content)]
    path.write_text('\n'.join(filter(None, parts)) + '\n', encoding='utf-8')
    return path


def _as_html(table: Table) -> str:
    rows = [list(row) for row in table.rows]
    numbers = {i for row in rows for i, value in enumerate(row) if not isinstance(value, str)}
    heads = ''.join(f'<th{" class=number" if i in numbers else ""}>{html.escape(name)}'
                    for i, name in enumerate(table.columns))
    return '\n'.join([f'<table><tr>{heads}', *('<tr>' + ''.join(map(_cell, row)) for row in rows), '</table>'])


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f'<td>{html.escape(value)}'
    text = str(value) if isinstance(value, int) else '–' if math.isnan(value) else f'{value:g}'
    return f'<td class=number>{text}'


def _embed(picture: Path | Image.Image) -> str:
    """A PNG file or an image as an HTML element."""
    if isinstance(picture, Path):
        content = picture.read_bytes()
    else:
        picture.save(buffer := io.BytesIO(), 'png')
        content = buffer.getvalue()
    return f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}">'
