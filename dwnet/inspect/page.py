"""Writes pictures and tables on one HTML page that needs no other file."""
import base64
import html
import io
from collections.abc import Iterable, Sequence
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


def write_page(path: Path, title: str, text: str, pictures: Iterable[tuple[str, str, Path | Image.Image]],
               columns: Sequence[str] = (), rows: Iterable[Sequence[str | float]] = ()) -> Path:
    """Writes a page: a paragraph, a table, then pictures.

    Args:
        path: The HTML file.
        title: Its headline.
        text: The paragraph below the headline.
        pictures: Headline, explanation (or '') and PNG file or image of each.
        columns: Headlines of the table; without them there is no table.
        rows: The table's lines. Numbers stand on the right.

    Returns:
        ``path``.
    """
    parts = [f'<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>',
             f'<h1>{html.escape(title)}</h1>', f'<p>{html.escape(text)}</p>']
    if columns:
        parts += ['<table><tr>' + ''.join(f'<th>{html.escape(name)}' for name in columns),
                  *('<tr>' + ''.join(map(_cell, row)) for row in rows), '</table>']
    for head, hint, picture in pictures:
        parts += [f'<h2>{html.escape(head)}</h2>', f'<p class=hint>{html.escape(hint)}</p>' if hint else '',
                  _embed(picture)]
    path.write_text('\n'.join(filter(None, parts)) + '\n', encoding='utf-8')
    return path


def _cell(value: str | float) -> str:
    return f'<td>{html.escape(value)}' if isinstance(value, str) else f'<td class=number>{value:g}'


def _embed(picture: Path | Image.Image) -> str:
    """A PNG file or an image as an HTML element."""
    if isinstance(picture, Path):
        content = picture.read_bytes()
    else:
        picture.save(buffer := io.BytesIO(), 'png')
        content = buffer.getvalue()
    return f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}">'
