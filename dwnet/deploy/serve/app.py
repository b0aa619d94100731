"""The server: the page at ``/``, ``POST /predict``, ``GET /health``, and the schema of both at ``/openapi.json``."""
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from dwnet.deploy.inference import ANIMATIONS
from dwnet.errors import UserError
from dwnet.version import __version__

from .limits import LIMITS, Guard, Limits, Refusal
from .page import STYLE, make_page
from .predictor import Predictor


class Found(BaseModel):
    """A class, an object, a line of text or a segment."""
    class_: str | None = Field(None, alias='class', description='name of the class')
    label: int | None = Field(None, description='number of the class')
    score: float | None = Field(None, description='0 to 1')
    box: list[float] | None = Field(None, description='left, top, right, bottom, in pixels')
    mask: dict[str, Any] | None = Field(None, description="COCO's run lengths: size and counts")
    rotated_box: list[float] | None = Field(None, description='centre, width, height in pixels, and angle in radians')
    corners: list[float] | None = Field(None, description='x and y of four corners')
    keypoints: dict[str, list[float]] | None = Field(None, description='name: x, y in pixels, and score')
    polygon: list[float] | None = Field(None, description='x and y of each corner in turn, in pixels')
    id: int | None = Field(None, description="the segment's value in the panoptic image")
    share: float | None = Field(None, description='of the pixels, 0 to 1')


class Answer(BaseModel):
    """What the model says of an image, as in the ``predictions.json`` of tools/infer.py."""
    image: str = Field(description='name of the file')
    width: int
    height: int
    frames: int | None = Field(None, description='of an animation, whose first frame is predicted')
    classes: list[Found] | None = Field(None, description='of a classifier, best first')
    objects: list[Found] | None = Field(None, description='of a detector, or people with their keypoints')
    lines: list[Found] | None = Field(None, description='of a finder of text')
    labels: str | None = Field(None, description='of a segmentor: a PNG as a data address, whose values are classes')
    shares: dict[str, float] | None = Field(None, description='of a segmentor: the share of the pixels, by class')
    panoptic: str | None = Field(None, description="a PNG as a data address, in COCO's panoptic form")
    segments: list[Found] | None = Field(None, description='of a panoptic model')


class Health(BaseModel):
    """Says that the server is up."""
    status: str
    model: str
    task: str
    version: str = Field(description='of dwnet')


class Detail(BaseModel):
    """Says why there is no answer."""
    detail: str


def make_app(inferencer: Any, title: str, uploads: Path, limits: Limits = LIMITS,
             examples: Sequence[Path] = ()) -> Guard:
    """The server as an ASGI application.

    Args:
        inferencer: From :func:`dwnet.apis.inferencer`.
        title: The name of the model.
        uploads: An empty folder for what is uploaded, for which ``GRADIO_TEMP_DIR`` has to stand in the environment.
        limits: What is allowed.
        examples: Images to choose from on the page.

    Raises:
        UserError: If the model predicts videos.
    """
    predictor = Predictor(inferencer, limits)
    # FastAPI's pages about the schema load scripts from another host
    app = FastAPI(title=title, version=__version__, docs_url=None, redoc_url=None,
                  description='Send an image to /predict, and get what the model says of it.')

    @app.exception_handler(Refusal)
    def refuse(request: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(dict(detail=str(refusal)), refusal.status)

    @app.get('/health')
    async def health() -> Health:
        return Health(status='ok', model=title, task=predictor.task, version=__version__)

    @app.post('/predict', response_model=Answer, response_model_exclude_unset=True, responses={
        status: dict(model=Detail, description=why) for status, why in (
            (411, 'no length'), (413, 'too large'), (422, 'no image'), (429, 'too many requests'),
            (503, 'too many are waiting'))})
    def predict(image: UploadFile) -> Any:
        """Predicts an image file, sent as the field ``image`` of a form."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, 'image').with_suffix(_suffix(image.filename or ''))
            with open(file, 'wb') as stream:
                shutil.copyfileobj(image.file, stream)
            return dict(image=image.filename, **predictor.predict(file).entry)

    page = make_page(predictor, title, uploads, examples)
    gr.mount_gradio_app(
        app, page, '/', max_file_size=limits.bytes, show_error=False, footer_links=[], run_history=False, pwa=False,
        ssr_mode=False, mcp_server=False, enable_monitoring=False, theme=gr.themes.Default(), css=STYLE)
    return Guard(app, limits, uploads)


def _suffix(name: str) -> str:
    """The suffix of a file's name, if it is that of an animation; other names say nothing of the file."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in ANIMATIONS else ''


def serve(inferencer: Any, title: str, host: str = '127.0.0.1', port: int = 7860, limits: Limits = LIMITS,
          examples: Sequence[Path] = ()) -> None:
    """Serves the page and the API until it is interrupted. The arguments are those of :func:`make_app`, and

    Args:
        host: The address to listen at; that of the loopback is reached from this machine alone.
        port: The port; 0 takes any that is free.

    Raises:
        UserError: If the address cannot be listened at.
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UserError(f'the server cannot listen at {host}, port {port} ({error}): name another port by '
                        '--port, or another address by --host') from error
    with listening, _folder_of_gradio() as uploads, _ended_by_sigterm():
        app = make_app(inferencer, title, uploads, limits, examples)
        address = f'[{host}]' if ':' in host else host
        print(f'page: http://{address}:{listening.getsockname()[1]} (Ctrl-C ends it)', flush=True)
        if not _is_loopback(host):
            print('note: whoever reaches this port can use the model; there is no password', flush=True)
        config = uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


@contextmanager
def _folder_of_gradio() -> Iterator[Path]:
    """An empty folder in which Gradio keeps what is uploaded, and which is removed afterwards."""
    before = os.environ.get('GRADIO_TEMP_DIR')
    with tempfile.TemporaryDirectory(prefix='dwnet-serve-') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder  # Gradio has no other way
        try:
            yield Path(folder)
        finally:
            os.environ.pop('GRADIO_TEMP_DIR')
            if before is not None:
                os.environ['GRADIO_TEMP_DIR'] = before


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM and Ctrl-C end the server in order, so that no uploads are left behind."""
    if threading.current_thread() is threading.main_thread():  # other threads cannot set handlers
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:  # uvicorn raises the signal anew after it has ended
        print('the server has ended')
