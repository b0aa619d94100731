"""The page in the browser, made by Gradio: an image in; predictions, class activation and kernels out."""
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from dwnet.inspect import cam

from .limits import Refusal
from .predictor import Prediction, Predictor

THRESHOLD = .3
ROWS = 30  # of a table
STYLE = """
.gradio-container {max-width: 1120px !important; width: 100%; margin: 0 auto !important}
#title h1 {margin-bottom: .1em; overflow-wrap: anywhere}
#title p {color: var(--body-text-color-subdued)}
#image img {width: 100%; height: 100%; object-fit: contain}
#maps .grid-wrap {height: auto; min-height: 0; max-height: none}
#maps .grid-container {grid-template-columns: repeat(auto-fit, minmax(130px, 1fr))}
#table table {width: 100%; border: none; border-collapse: collapse; font-size: var(--text-md)}
#table tr {border: none}
#table td, #table th {padding: .35em .6em; text-align: left; border: none;
                      border-bottom: 1px solid var(--border-color-primary)}
#table th {color: var(--body-text-color-subdued); font-weight: 500}
#table .number {text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap}
#table .colour {display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .5em}
#table .bar {height: .5em; border-radius: .25em; background: var(--border-color-primary); min-width: 4em}
#table .bar div {height: 100%; border-radius: .25em; background: var(--color-accent)}
#table p {color: var(--body-text-color-subdued); padding: .5em}
@media (max-width: 640px) {#table .position {display: none}}
"""


def make_page(predictor: Predictor, title: str, uploads: Path, examples: Sequence[Path] = ()) -> gr.Blocks:
    """The page.

    Every event leaves out Gradio's own reading of its inputs, whose errors name files of the machine. :class:`_Events`
    takes nothing but files that were uploaded to this page.

    Args:
        predictor: The model.
        title: The name of the model.
        uploads: The folder of uploaded files.
        examples: Images to choose from.
    """
    events = _Events(predictor, uploads, examples)
    raw: dict[str, Any] = dict(preprocess=False, concurrency_id='model', concurrency_limit=1, api_visibility='private')
    with gr.Blocks(title=f'{title} · DWNet', analytics_enabled=False, delete_cache=(60, 300)) as page:
        gr.Markdown(f'# {html.escape(title)}\n\n{_about(predictor)}', elem_id='title')
        with gr.Row():
            with gr.Column(min_width=300):
                image = gr.Image(label='Image', sources=['upload', 'webcam', 'clipboard'], type='filepath',
                                 image_mode=None, height=340, elem_id='image')
                samples = gr.Dataset(
                    components=[gr.Image(type='filepath', visible=False)], samples=[[str(file)] for file in examples],
                    label='Examples', type='index', visible=bool(examples), elem_id='examples')
            with gr.Column(min_width=300):
                picture = gr.Image(label='Prediction', interactive=False, height=340, elem_id='picture',
                                   buttons=['download', 'fullscreen'])
                threshold = gr.Slider(
                    0, 1, THRESHOLD, step=.01, label='Threshold', info='Objects of a lower score are not shown.',
                    visible=predictor.takes_threshold, elem_id='threshold')
                table = gr.HTML(elem_id='table')
        method = 'EigenCAM' if cam.is_detector(predictor.model) else 'Grad-CAM'
        with gr.Accordion(f'Where the network looks ({method})', visible=predictor.shows_cam):
            maps = gr.Gallery(show_label=False, columns=4, object_fit='contain', interactive=False, elem_id='maps',
                              buttons=['download', 'fullscreen'])
        with gr.Accordion('The kernels that the network predicts for this image', visible=bool(predictor.mixer)):
            kernels = gr.Image(show_label=False, interactive=False, elem_id='kernels',
                               buttons=['download', 'fullscreen'])
        predicted = image.change(events.show, [image, threshold], [picture, table], **raw)
        if predictor.shows_cam or predictor.mixer:
            predicted.success(events.explain, image, [maps, kernels], show_progress='minimal', **raw)
        threshold.release(events.show, [image, threshold], [picture, table], show_progress='hidden', **raw)
        samples.click(events.example, samples, image, show_progress='hidden', **raw)
    return page.queue(max_size=predictor.limits.queue)


class _Events:
    """What happens on the page. The arguments are what the browser sends, which may be anything."""

    def __init__(self, predictor: Predictor, uploads: Path, examples: Sequence[Path]) -> None:
        self._predictor, self._uploads, self._examples = predictor, uploads.resolve(), examples

    def show(self, image: Any, threshold: Any) -> tuple[np.ndarray | None, str]:
        if image is None:
            return None, ''
        least = min(1., max(0., float(threshold))) if isinstance(threshold, (int, float)) else THRESHOLD
        try:
            prediction = self._predictor.predict(self._file(image))
        except Refusal as refusal:
            raise _in_words(refusal) from None
        return self._predictor.draw(prediction, least), _table(self._predictor, prediction, least)

    def explain(self, image: Any) -> tuple[list, np.ndarray | None]:
        if image is None:
            return [], None
        try:
            return self._predictor.explain(self._file(image))
        except Refusal as refusal:
            raise _in_words(refusal) from None

    def example(self, index: Any) -> str | None:
        known = isinstance(index, int) and 0 <= index < len(self._examples)
        return str(self._examples[index]) if known else None

    def _file(self, image: Any) -> Path:
        path = image.get('path') if isinstance(image, dict) else None
        try:
            file = Path(path).resolve() if isinstance(path, str) else None
            if file is not None and file.is_relative_to(self._uploads) and file.is_file():
                return file
        except (OSError, ValueError):  # a zero byte, a name that is too long
            pass
        raise Refusal(422, 'the image is no longer here: upload it again')


def _in_words(refusal: Refusal) -> gr.Error:
    text = str(refusal)
    return gr.Error(html.escape(text[:1].upper() + text[1:]) + '.', title='No prediction', print_exception=False)


def _about(predictor: Predictor) -> str:
    parameters = sum(p.numel() for p in predictor.model.parameters()) / 1e6
    names = ', '.join(map(html.escape, predictor.names[:10])) + ', …' * (len(predictor.names) > 10)
    facts = [predictor.task.capitalize(), f'{len(predictor.names)} classes: {names}' * bool(names),
             f'{parameters:.1f} M parameters' * bool(parameters)]
    return f"{' · '.join(filter(None, facts))} · [JSON API](openapi.json)"


# --- The table -------------------------------------------------------------------------------------------


def _table(predictor: Predictor, prediction: Prediction, least: float) -> str:
    """The prediction as an HTML table."""
    entry = prediction.entry
    if 'classes' in entry:
        return _rows('class', 'score', [(found['class'], found['score'], '') for found in entry['classes']])
    if 'shares' in entry:
        return _rows('class', 'share of the pixels', _by_share(entry['shares'].items()), _colours(predictor))
    if 'segments' in entry:
        return _rows('segment', 'share of the pixels', _by_share(
            (found['class'], found['share']) for found in entry['segments']), _colours(predictor))
    found = [(part.get('class', f'{number + 1}'), part.get('score', 1.), _position(part))
             for number, part in enumerate(entry.get('objects') or entry.get('lines') or ())]
    found = [row for row in found if row[1] >= least]
    if not found:
        return f'<p>Nothing is found with a score of {least:.2f} or more.</p>'
    return _rows('object', 'score', sorted(found, key=lambda row: -row[1]), _colours(predictor))


def _by_share(shares: Any) -> list[tuple[str, float, str]]:
    return sorted(((name, share, '') for name, share in shares), key=lambda row: -row[1])


def _position(part: dict) -> str:
    box = part.get('box')
    return f'{box[2] - box[0]:.0f}×{box[3] - box[1]:.0f} at {box[0]:.0f}, {box[1]:.0f}' if box else ''


def _colours(predictor: Predictor) -> dict[str, str]:
    return {name: '#{:02x}{:02x}{:02x}'.format(*colour) for name, colour in zip(predictor.names, predictor.palette)}


def _rows(what: str, number: str, rows: list[tuple[str, float, str]], colours: dict[str, str] | None = None) -> str:
    """Rows of a name, a number of 0 to 1 that is drawn as a bar, too, and a position."""
    places = any(place for _, _, place in rows)
    lines = []
    for name, value, place in rows[:ROWS]:
        swatch = f'<span class="colour" style="background:{colours[name]}"></span>' if name in (colours or {}) else ''
        position = f'<td class="number position">{place}</td>' * places
        lines.append(f'<tr><td>{swatch}{html.escape(name)}</td><td class="number">{100 * value:.1f} %</td>'
                     f'<td><div class="bar"><div style="width:{100 * value:.1f}%"></div></div></td>{position}</tr>')
    position = '<th class="number position">pixels</th>' * places
    head = f'<tr><th>{what}</th><th class="number">{number}</th><th></th>{position}</tr>'
    more = f'<p>and {len(rows) - ROWS} more</p>' if len(rows) > ROWS else ''
    return f'<table>{head}{"".join(lines)}</table>{more}'
