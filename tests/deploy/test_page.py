"""The page in a real browser: Chromium or Chrome of the system, driven by Playwright."""
import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip('playwright.sync_api', reason='waits for playwright, which `make setup` installs')
pytest.importorskip('gradio', reason="waits for gradio: pip install 'dwnet[serve]'")
from test_serve import served, untrained  # noqa: E402

from dwnet.deploy.serve.limits import Limits  # noqa: E402
from dwnet.deploy.serve.predictor import Predictor  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = [pytest.mark.long,
              pytest.mark.skipif(BROWSER is None, reason='waits for a browser: apt-get install chromium')]
PATIENCE = 120_000  # milliseconds; a machine may be busy


@pytest.fixture(scope='module')
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def scenes(small_digits) -> list[Path]:
    return sorted((small_digits / 'scenes/test').glob('*.jpg'))


@pytest.fixture(scope='module')
def detector(scenes):
    model = untrained('detection', token_mixer='dynamic')
    with served(model, Limits(per_minute=10_000, megabytes=1), scenes[:3]) as (address, _):
        yield model, address


def opened(browser, address: str, **settings) -> sync_api.Page:
    """The page, and below ``asked`` the addresses of all requests that it has made."""
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(PATIENCE)
    page.asked = []
    page.on('request', lambda request: page.asked.append(request.url))
    page.goto(address)
    page.locator('#image input[type=file]').wait_for(state='attached')
    return page


def upload(page: sync_api.Page, file: Path) -> None:
    page.locator('#image input[type=file]').set_input_files(file)


def rows(page: sync_api.Page) -> int:
    return page.locator('#table tr').count() - 1


def set_threshold(page: sync_api.Page, value: float) -> None:
    number = page.locator('#threshold input[type=number]')
    number.fill(str(value))
    number.blur()


def test_upload_slider_and_explanations(browser, detector, scenes):
    model, address = detector
    scores = sorted((found['score'] for found in Predictor(model, Limits()).predict(scenes[0]).entry['objects']),
                    reverse=True)
    page = opened(browser, address)
    upload(page, scenes[0])
    page.locator('#table p').wait_for()
    first = page.locator('#picture img').get_attribute('src')
    set_threshold(page, .01)
    page.locator('#table tr').first.wait_for()
    assert rows(page) == len([score for score in scores if score >= .01])
    page.wait_for_function('(src) => document.querySelector("#picture img").src !== src', arg=first)
    page.locator('#maps img').nth(3).wait_for()
    page.locator('#kernels img').wait_for()
    set_threshold(page, 1)
    page.locator('#table p').wait_for()
    assert not [url for url in page.asked if not url.startswith((address, 'data:', 'blob:'))]
    page.context.close()


def test_an_example(browser, detector):
    page = opened(browser, detector[1])
    page.locator('#examples button').nth(1).click()
    page.locator('#picture img').wait_for()
    assert page.locator('#image img').count() == 1
    page.context.close()


@pytest.mark.parametrize('content, words', [
    (b'no image', 'The file is no image, or its header is damaged.'), ('half', 'its end is missing.')])
def test_a_broken_file_is_answered_in_words(content, words, browser, detector, scenes, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(scenes[0].read_bytes()[:900] if content == 'half' else content)
    page = opened(browser, detector[1])
    upload(page, tmp_path / 'broken.jpg')
    page.get_by_text(words).wait_for()
    upload(page, scenes[0])
    page.locator('#picture img').wait_for()
    page.context.close()


def test_a_file_that_is_too_large(browser, detector, tmp_path):
    (tmp_path / 'large.jpg').write_bytes(bytes(3 * 2**20))
    page = opened(browser, detector[1])
    upload(page, tmp_path / 'large.jpg')
    page.get_by_text('exceed the maximum allowed size').first.wait_for()
    page.context.close()


ASK = """([address, files]) => {
    const ask = async file => {
        const form = new FormData();
        form.append('image', await (await fetch(file)).blob(), 'a.jpg');
        const answer = await fetch(address, {method: 'POST', body: form});
        return [answer.status, await answer.text()];
    };
    window.answers = Promise.all(files.map(ask));
}"""


def test_twenty_uploads_at_once(browser, detector, scenes):
    """Four from each of five browsers, which ask six things at once at most, and an upload to each page."""
    model, address = detector
    files = [f'data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}' for file in scenes[:4]]
    pages = [opened(browser, address) for _ in range(5)]
    for page in pages:
        page.evaluate(ASK, [f'{address}/predict', files])
        upload(page, scenes[5])
    expected = [[200, Predictor(model, Limits()).predict(file).entry] for file in scenes[:4]]
    for page in pages:
        answers = [[status, json.loads(text)] for status, text in page.evaluate('() => window.answers')]
        assert answers == [[status, dict(image='a.jpg', **entry)] for status, entry in expected]
        page.locator('#picture img').wait_for()
        page.context.close()


def test_another_task_on_a_phone(browser, scenes):
    with served(untrained('segmentation'), examples=scenes[:6]) as (address, _):
        page = opened(browser, address, viewport=dict(width=390, height=844), is_mobile=True, has_touch=True)
        upload(page, scenes[0])
        page.locator('#table tr').nth(1).wait_for()
        assert not page.locator('#threshold').is_visible()
        page.locator('#maps img').nth(3).wait_for()
        assert page.evaluate('document.documentElement.scrollWidth') == 390
        page.context.close()
