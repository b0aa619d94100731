"""The server: its JSON is that of tools/infer.py, its limits hold, and no file of the machine can be read."""
import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, read_config
from PIL import Image
from reference import fill

pytest.importorskip('gradio', reason="waits for gradio: pip install 'dwnet[serve]'")
import httpx  # noqa: E402
import uvicorn  # noqa: E402

from dwnet.apis import inferencer, init_model  # noqa: E402
from dwnet.deploy.inference import infer  # noqa: E402
from dwnet.deploy.serve import app as serving  # noqa: E402
from dwnet.deploy.serve.limits import Guard, Limits, Refusal  # noqa: E402
from dwnet.deploy.serve.page import _table  # noqa: E402
from dwnet.deploy.serve.predictor import SIDE, Predictor  # noqa: E402
from dwnet.deploy.serve.space import find_examples, write_space  # noqa: E402
from dwnet.errors import UserError  # noqa: E402

CONFIGS = {
    'classification': 'configs/classification/dwnet-nano_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py',
}

# a machine may be busy
GET, POST = partial(httpx.get, timeout=120), partial(httpx.post, timeout=120)


def untrained(task: str, **backbone):
    """An inferencer whose weights are random; its objects have low scores, and are found all the same."""
    cfg = read_config(CONFIGS[task])
    cfg.model.backbone.update(backbone)
    if task == 'detection':
        cfg.model.test_cfg.rcnn.update(score_thr=.01, max_per_img=20)
    predictor = inferencer(cfg)
    state = predictor.model.state_dict()
    predictor.model.load_state_dict(fill({name: list(value.shape) for name, value in state.items()}, seed=3))
    return predictor


@pytest.fixture(scope='module')
def classifier():
    return untrained('classification')


@pytest.fixture(scope='module')
def scene(small_digits) -> Path:
    return sorted((small_digits / 'scenes/test').glob('*.jpg'))[0]


@contextmanager
def served(inferencer, limits: Limits = serving.LIMITS, examples=()) -> Iterator[tuple[str, Path]]:
    """The address of a server in a thread, and its folder of uploads."""
    with serving._folder_of_gradio() as uploads:
        app = serving.make_app(inferencer, 'a model', uploads, limits, examples)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level='error', timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(.02)
        try:
            yield f'http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}', uploads
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope='module')
def server(classifier, scene) -> Iterator[tuple[str, Path]]:
    with served(classifier, Limits(per_minute=10_000), [scene]) as running:
        yield running


def post(address: str, content: bytes, name: str = 'a.jpg') -> httpx.Response:
    return POST(f'{address}/predict', files=dict(image=(name, content)))


@pytest.mark.parametrize('task', CONFIGS)
def test_predictions_are_those_of_infer(task, classifier, scene, tmp_path):
    model = classifier if task == 'classification' else untrained(task)
    assert not infer(model, [scene], tmp_path, pictures=False)
    expected, = json.loads((tmp_path / 'predictions.json').read_text())['predictions']
    found = dict(Predictor(model, Limits()).predict(scene).entry)
    for name in ('labels', 'panoptic'):
        if name in expected:
            written = (tmp_path / expected.pop(name)).read_bytes()
            assert base64.b64decode(found.pop(name).removeprefix('data:image/png;base64,')) == written
    assert dict(image=str(scene), **found) == expected
    assert serving.Answer(image='', **found).model_dump(by_alias=True, exclude_unset=True) == dict(image='', **found)


def test_predict_and_its_schema(server, classifier, scene):
    address, _ = server
    answer = post(address, scene.read_bytes(), 'scene.jpg')
    expected = Predictor(classifier, Limits()).predict(scene).entry
    assert answer.status_code == 200 and answer.json() == dict(image='scene.jpg', **expected)
    assert GET(f'{address}/health').json().items() >= dict(
        status='ok', model='a model', task='classification').items()
    schema = GET(f'{address}/openapi.json').json()
    assert {*schema['paths']} == {'/health', '/predict'}
    answers = schema['paths']['/predict']['post']['responses']
    assert answers['200']['content']['application/json']['schema'] == {'$ref': '#/components/schemas/Answer'}
    assert {*answers} == {'200', '411', '413', '422', '429', '503'}
    assert 'classes' in schema['components']['schemas']['Answer']['properties']


def test_the_first_frame_of_an_animation(server):
    file = io.BytesIO()
    frames = [Image.new('RGB', (32, 32), colour) for colour in ('red', 'blue')]
    frames[0].save(file, 'GIF', save_all=True, append_images=frames[1:])
    assert post(server[0], file.getvalue(), 'a.gif').json()['frames'] == 2


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new('1', (20_000, 20_000)).save(file, 'PNG')
    return file.getvalue()


@pytest.mark.parametrize('content, status, words', [
    (b'', 422, 'the file is empty'),
    (b'no image at all', 422, 'the file is no image, or its header is damaged'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, 'the file is no image, or its header is damaged'),
    (b'\xff\xd8\xff', 422, 'the file is no image, or its header is damaged'),
    ('half', 422, 'the file is not taken: its end is missing'),
    ('bomb', 413, 'the image is too large: this server takes 50 million pixels'),
    ('bytes', 413, 'the file is too large: this server takes 20 MB'),
], ids=lambda value: value[:9] if isinstance(value, (str, bytes)) else str(value))
def test_a_broken_upload_is_answered_in_words(content, status, words, server, scene):
    if isinstance(content, str):
        content = dict(half=scene.read_bytes()[:1000], bomb=bomb(), bytes=bytes(21 * 2**20))[content]
    answer = post(server[0], content)
    assert (answer.status_code, answer.json()) == (status, dict(detail=words))


def test_a_form_without_a_file_and_a_body_without_a_length(server):
    address, _ = server
    assert POST(f'{address}/predict', data=dict(x=1)).status_code == 422
    assert POST(f'{address}/predict', data=dict(image='text')).status_code == 422
    assert POST(f'{address}/predict', content=iter([b'x'])).status_code == 411
    assert GET(f'{address}/predict').status_code == 404
    assert httpx.put(f'{address}/predict', content=b'x').status_code == 405


def test_twenty_uploads_at_once(server, small_digits):
    files = sorted((small_digits / 'scenes/test').glob('*.jpg')) * 3
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda file: post(server[0], file.read_bytes(), file.name), files[:20]))
    assert [answer.status_code for answer in answers] == [200] * 20
    alone = {file.name: post(server[0], file.read_bytes(), file.name).json() for file in files}
    assert all(answer.json() == alone[answer.json()['image']] for answer in answers)
    assert len({json.dumps(entry['classes']) for entry in alone.values()}) > 1


# --- What must not be reached ------------------------------------------------------------------------------


@pytest.mark.parametrize('path', [
    'gradio_api/file=/etc/passwd', 'gradio_api/file%3D/etc/passwd', 'gradio_api/file=../../../../../../etc/passwd',
    'gradio_api/file={uploads}/../../etc/passwd', 'gradio_api/file={uploads}/../{name}x/a', 'gradio_api/file={weights}',
    'gradio_api/file=http://127.0.0.1:1/a', 'gradio_api/file=https://example.com/a', 'gradio_api/file=file:///etc/passwd',
    'gradio_api/file={uploads}', 'gradio_api/file=%00', 'gradio_api/file/etc/passwd', 'file=/etc/passwd',
    'gradio_api/proxy=http://127.0.0.1:1/a', 'static/../../../../../../../../etc/passwd',
    'static/%2e%2e/%2e%2e/%2e%2e/gradio/package.json', 'assets/..%2f..%2f..%2fpackage.json', 'docs', 'redoc',
    'monitoring', 'gradio_api/vibe-code', 'gradio_api/profiling/traces', 'custom_component/a',
    'gradio_api//file=/etc/passwd'])
def test_no_other_file_is_served(path, server):
    address, uploads = server
    path = path.format(uploads=uploads, name=uploads.name, weights=ROOT / 'setup.py')
    connection = HTTPConnection(address.removeprefix('http://'))  # sends the path as it is
    connection.request('GET', f'/{path}')
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status in (403, 404), content[:300]
    assert not any(word in content for word in (b'root:', b'setup(', b'"version"'))


def upload(address: str, content: bytes, name: str = 'a.jpg') -> str:
    """Uploads as the page does; the path is that on the server."""
    answer = POST(f'{address}/gradio_api/upload', files=dict(files=(name, content)))
    assert answer.status_code == 200
    return answer.json()[0]


def joined(address: str, outputs: int, *data) -> tuple[httpx.Response, str]:
    """Calls the first event of the page with this number of outputs; returns the answer and the session."""
    events = GET(f'{address}/config').json()['dependencies']
    number = next(event['id'] for event in events if len(event['outputs']) == outputs)
    session = os.urandom(8).hex()
    return POST(f'{address}/gradio_api/queue/join', json=dict(
        data=data, fn_index=number, session_hash=session)), session


def event(address: str, outputs: int, *data) -> dict:
    """Calls an event as :func:`joined` does; returns the last message."""
    answer, session = joined(address, outputs, *data)
    assert answer.status_code == 200, answer.text
    last: dict = {}
    data = f'{address}/gradio_api/queue/data'
    with httpx.stream('GET', data, params=dict(session_hash=session), timeout=120) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix('data:') or '{}')
            if message.get('msg') == 'process_completed':
                last = message
    return last


def file_data(path: str, **more) -> dict:
    return dict(path=path, meta=dict(_type='gradio.FileData'), **more)


def test_the_page_predicts_what_was_uploaded(server, classifier, scene):
    address, uploads = server
    path = upload(address, scene.read_bytes())
    assert Path(path).is_relative_to(uploads)
    done = event(address, 2, file_data(path), .5)
    assert done['success'], done
    picture, table = done['output']['data']
    shown = GET(f"{address}/gradio_api/file={picture['path']}")
    assert np.asarray(Image.open(io.BytesIO(shown.content))).shape == (256, 256, 3)
    best = Predictor(classifier, Limits()).predict(scene).entry['classes'][0]
    assert f"<td>{best['class']}</td>" in table and f"{100 * best['score']:.1f} %" in table


@pytest.mark.parametrize('path', [
    '/etc/passwd', 'docs/images/demo.webp', '{uploads}/../x', '{uploads}', '\0', 'http://127.0.0.1:1/a.png',
    'https://example.com/a.png', 5, None, ['a']], ids=repr)
@pytest.mark.parametrize('number', [1, 2])
def test_the_page_takes_no_other_file(path, number, server, monkeypatch):
    """Neither a file of the machine nor an address, in any input, the threshold and the examples included."""
    address, uploads = server
    reached = []
    for name in ('async_ssrf_protected_download', 'ssrf_protected_download', 'unsafe_download'):
        monkeypatch.setattr(f'gradio.processing_utils.{name}', lambda *arguments, **more: reached.append(arguments))
    path = path.format(uploads=uploads) if isinstance(path, str) else path
    bad = file_data(path, url=path, orig_name='a.png')
    for data in ([bad] * number, [dict(a=[1, bad])] * number):
        refused = joined(address, number, *data)[0]
        assert (refused.status_code, refused.json()['detail']) == (422, 'the image is no longer here: upload it again')
    assert not reached


@pytest.mark.parametrize('content', [b'', b'no JSON', b'[' * 50_000, bytes(2**17)], ids=['', 'a', '[', 'long'])
def test_what_is_no_event_is_refused(content, server):
    assert POST(f'{server[0]}/gradio_api/queue/join', content=content).status_code in (413, 422)


@pytest.mark.parametrize('index', [-1, 7, None, 'a', dict(a=1)], ids=repr)
def test_an_example_that_is_not_there(index, server):
    done = event(server[0], 1, index)
    assert done['success'] and done['output']['data'] == [None]


def test_a_broken_upload_is_answered_on_the_page(server, scene):
    address, _ = server
    done = event(address, 2, file_data(upload(address, scene.read_bytes()[:900])), .3)
    assert not done['success']
    assert done['output']['error'] == 'The file is not taken: its end is missing.'
    assert 'Traceback' not in json.dumps(done) and str(ROOT) not in json.dumps(done)


def test_gradio_calls_nobody(classifier, tmp_path, monkeypatch):
    """Neither when the page is made nor from the page: no telemetry, no fonts, no scripts of other hosts."""
    asked = []
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, 'getaddrinfo', lambda host, *rest, **more: asked.append(host) or resolve(
        host, *rest, **more))
    with served(classifier) as (address, _):
        page = GET(address)
        assert GET(f'{address}/config').json()['title'] == 'a model · DWNet'
    assert {host for host in asked if host not in (None, '127.0.0.1', 'localhost')} == set()
    assert page.headers['content-security-policy'].startswith("default-src 'self' ")
    assert 'https://fonts.' not in page.text


def test_what_was_uploaded_is_removed(classifier, scene):
    before = os.environ.get('GRADIO_TEMP_DIR')
    with served(classifier) as (address, uploads):
        upload(address, scene.read_bytes())
        assert [*uploads.rglob('*.jpg')]
    assert not uploads.exists()
    assert os.environ.get('GRADIO_TEMP_DIR') == before


# --- Limits ------------------------------------------------------------------------------------------------


def guarded(limits: Limits, folder: Path, path: str = '/predict', times: int = 1, **request) -> list[httpx.Response]:
    """The answers of a guard around an application that answers everything."""

    async def application(scope, receive, send):
        await send(dict(type='http.response.start', status=200, headers=[]))
        await send(dict(type='http.response.body', body=b'{}'))

    guard = Guard(application, limits, folder)

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url='http://a') as client:
            return [await client.request(**{'method': 'POST', 'url': path, 'content': b'x', **request})
                    for _ in range(times)]

    return asyncio.run(ask())


def test_requests_a_minute(tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: 1000.)
    monkeypatch.setattr('dwnet.deploy.serve.limits.time', clock)
    codes = [answer.status_code for answer in guarded(Limits(per_minute=3), tmp_path, times=5)]
    assert codes == [200, 200, 200, 429, 429]
    seconds = iter(range(0, 300, 30))
    clock.monotonic = lambda: next(seconds)
    codes = [answer.status_code for answer in guarded(Limits(per_minute=1), tmp_path, times=6)]
    assert codes == [200, 429] * 3
    pages = guarded(Limits(per_minute=1), tmp_path, '/', times=4, method='GET', content=None)
    assert {answer.status_code for answer in pages} == {200}, 'only uploads and predictions count'


def test_bytes_a_minute(tmp_path, monkeypatch):
    monkeypatch.setattr('dwnet.deploy.serve.limits.time', SimpleNamespace(monotonic=lambda: 1000.))
    codes = [answer.status_code for answer in guarded(Limits(megabytes=.1), tmp_path, times=60, content=bytes(10**5))]
    enough = 32 * (int(.1 * 2**20) + 2**16) // 10**5
    assert codes == [200] * enough + [429] * (60 - enough)


@pytest.mark.parametrize('path', ['/predict', '/gradio_api/upload'])
def test_bytes_of_a_request(path, tmp_path):
    most = 2**20 + 2**16
    assert guarded(Limits(megabytes=1), tmp_path, path, content=bytes(most))[0].status_code == 200
    assert guarded(Limits(megabytes=1), tmp_path, path, content=bytes(most + 1))[0].status_code == 413
    assert guarded(Limits(megabytes=1), tmp_path, path, content=bytes(20 * most))[0].status_code == 413


@pytest.mark.parametrize('path', [
    '/gradio_api/run/show', '/gradio_api/api/show', '/gradio_api/call/show', '/login', '/gradio_api/vibe-edit',
    '/gradio_api/process_recording', '/gradio_api/component_server'])
def test_other_addresses_take_nothing(path, tmp_path):
    assert guarded(Limits(), tmp_path, path)[0].status_code == 405


def test_pixels_and_bytes_of_an_image(classifier, scene, tmp_path):
    with pytest.raises(Refusal, match='takes 0.01 million pixels') as refused:
        Predictor(classifier, Limits(megapixels=.01)).predict(scene)
    assert refused.value.status == 413
    with pytest.raises(Refusal, match='takes 0.001 MB'):
        Predictor(classifier, Limits(megabytes=.001)).predict(scene)
    np.save(tmp_path / 'array.npy', np.zeros((2, 9000, 9000), 'uint8'))
    with pytest.raises(Refusal, match='million pixels'):
        Predictor(classifier, Limits(megabytes=1000)).predict(tmp_path / 'array.npy')


def test_no_more_than_the_queue_wait(classifier, scene, monkeypatch):
    predictor = Predictor(classifier, Limits(queue=2))
    begun, end = threading.Semaphore(0), threading.Event()
    monkeypatch.setattr(predictor, '_predict', lambda file: begun.release() or end.wait(20))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(predictor.predict, scene) for _ in range(2)]
        begun.acquire(timeout=20)
        for _ in range(200):
            if predictor._waiting._value == 0:
                break
            time.sleep(.01)
        with pytest.raises(Refusal, match='2 requests are waiting already') as refused:
            predictor.predict(scene)
        end.set()
        assert refused.value.status == 503 and all(future.result() for future in waiting)
    assert predictor.predict(scene) is True, 'the places are free again'


# --- Pictures and tables -----------------------------------------------------------------------------------


def test_a_threshold_changes_the_picture_without_a_new_prediction(scene, monkeypatch):
    predictor = Predictor(untrained('detection'), Limits())
    assert predictor.takes_threshold
    prediction = predictor.predict(scene)
    scores = [found['score'] for found in prediction.entry['objects']]
    assert len(scores) > 2
    monkeypatch.setattr(predictor, '_predict', None)
    assert predictor.predict(scene) is prediction
    nothing, some, all_ = (predictor.draw(prediction, least) for least in (1., sorted(scores)[-2], 0.))
    assert (nothing != some).any() and (some != all_).any()
    assert _table(predictor, prediction, 0).count('<tr>') == 1 + len(scores)
    assert _table(predictor, prediction, sorted(scores)[-2]).count('<tr>') == 3
    assert _table(predictor, prediction, 1) == '<p>Nothing is found with a score of 1.00 or more.</p>'


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_large_images_are_drawn_small(task, scene, tmp_path):
    file = tmp_path / 'large.png'
    Image.open(scene).resize((2 * SIDE, SIDE // 2)).save(file)
    predictor = Predictor(untrained(task), Limits())
    prediction = predictor.predict(file)
    assert (prediction.entry['width'], prediction.entry['height']) == (2 * SIDE, SIDE // 2)
    assert prediction.picture.shape == (SIDE // 4, SIDE, 3)
    picture = predictor.draw(prediction, 0)
    assert picture.shape == (SIDE // 4, SIDE, 3) and (picture != prediction.picture).any()


@pytest.mark.parametrize('task, mixer', [
    ('classification', 'dynamic'), ('classification', 'inhomogeneous'), ('segmentation', 'static'),
    ('detection', 'dynamic')])
def test_explanations(task, mixer, scene):
    pytest.importorskip('pytorch_grad_cam')
    predictor = Predictor(untrained(task, token_mixer=mixer), Limits())
    maps, kernels = predictor.explain(scene)
    assert [caption.partition(':')[0] for _, caption in maps] == [f'stage {i}' for i in (1, 2, 3, 4)]
    assert all(':' in caption for _, caption in maps) == (task != 'detection')
    assert len({picture.tobytes() for picture, _ in maps}) == 4 and min(maps[0][0].shape[:2]) >= 128
    assert (kernels is not None) == (mixer != 'static')
    if kernels is not None:
        assert kernels.ndim == 3 and kernels.std() > 5


def test_names_of_classes_cannot_write_html(scene):
    model = untrained('classification')
    model.model.dataset_meta = dict(classes=('<script>alert(1)</script>', ) * 10, palette=[(0, 0, 0)] * 10)
    predictor = Predictor(model, Limits())
    table = _table(predictor, predictor.predict(scene), 0)
    assert '<script' not in table and '&lt;script&gt;' in table


def test_a_model_of_videos_is_refused(classifier, monkeypatch):
    monkeypatch.setattr('dwnet.toolboxes.mmpretrain.MMPretrain.takes_videos', True)
    with pytest.raises(UserError, match='videos: take tools/infer.py'):
        Predictor(classifier, Limits())


# --- Commands ----------------------------------------------------------------------------------------------


def test_examples_are_test_images(small_digits):
    cfg = read_config(CONFIGS['detection'])
    cfg.test_dataloader.dataset.data_root = f'{small_digits}/'
    found = find_examples(cfg, 4)
    assert len(found) == 4 and all(file.is_file() and file.parent.name == 'test' for file in found)
    cfg.test_dataloader.dataset.data_root = '/nowhere/'
    assert find_examples(cfg) == []


def test_a_port_that_is_taken(classifier, server):
    port = int(server[0].rpartition(':')[2])
    with pytest.raises(UserError, match=f'cannot listen at 127.0.0.1, port {port} .*--port'):
        serving.serve(classifier, 'a model', port=port)


def first_line(process: subprocess.Popen, word: str) -> str:
    return next(line for line in process.stdout if word in line)


@pytest.mark.long
@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_ended(end, scene, tmp_path):
    torch.save(dict(state_dict=init_model(CONFIGS['classification']).state_dict()), tmp_path / 'cls.pth')
    command = [sys.executable, '-W', 'ignore', '-m', 'dwnet', 'serve', '--config', CONFIGS['classification'],
               '--checkpoint', str(tmp_path / 'cls.pth'), '--port', '0', '--host', '127.0.0.2']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, 'TMPDIR': str(tmp_path)},
                          cwd=ROOT) as process:
        address = first_line(process, 'page: ').split()[1]
        assert post(address, scene.read_bytes()).json()['classes']
        assert [*tmp_path.glob('dwnet-serve-*')]
        process.send_signal(end)
        assert process.stdout.read() == 'the server has ended\n'
    assert process.returncode == 0
    assert not [*tmp_path.glob('dwnet-serve-*')]


@pytest.mark.long
def test_a_folder_for_spaces_runs(classifier, scene, tmp_path):
    folder = write_space(classifier.model, tmp_path / 'space', "digit's reader", [scene])
    assert {file.name for file in folder.iterdir()} == {
        'README.md', 'app.py', 'config.json', 'examples', 'model.safetensors', 'requirements.txt'}
    header = yaml.safe_load((folder / 'README.md').read_text().split('---')[1])
    assert header['sdk'] == 'gradio' and header['app_file'] == 'app.py' and header['title'] == "digit's reader"
    assert (folder / 'requirements.txt').read_text() == 'dwnet[cls,serve]\n'
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'SPACE_ID': 'someone/digits'}
    with subprocess.Popen([sys.executable, '-W', 'ignore', 'app.py'], stdout=subprocess.PIPE, text=True, cwd=folder,
                          env=environment) as process:
        try:
            assert '0.0.0.0:7860' in first_line(process, 'page: ')
            address = 'http://127.0.0.1:7860'
            expected = Predictor(classifier, Limits()).predict(scene).entry
            assert post(address, scene.read_bytes(), 'a').json() == dict(image='a', **expected)
            page = GET(f'{address}/config')
            assert page.json()['title'] == "digit's reader · DWNet" and scene.name in page.text
        finally:
            process.terminate()
