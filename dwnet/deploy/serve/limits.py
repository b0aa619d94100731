"""What the server refuses before anything is read: too large, too many, and addresses that it does not need."""
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Everything that a browser asks for. Gradio has more: a proxy, a downloader, recordings, an editor of its own code.
PAGES = frozenset({'/', '/config', '/theme.css', '/robots.txt', '/manifest.json', '/favicon.ico', '/health',
                   '/openapi.json', '/gradio_api/app_id', '/gradio_api/info', '/gradio_api/startup-events',
                   '/gradio_api/queue/data', '/gradio_api/upload_progress'})
BELOW = ('/assets/', '/static/', '/gradio_api/heartbeat/')
POSTED = frozenset({'/predict', '/gradio_api/upload', '/gradio_api/queue/join', '/gradio_api/cancel',
                    '/gradio_api/reset'})
FILE, EVENT = '/gradio_api/file=', '/gradio_api/queue/join'
AROUND = 2**16  # bytes of a request beside the file
AT_ONCE = 32  # largest files a minute, from all addresses, so that uploads do not fill the disk
# The browser, too, keeps the page from asking other hosts. Gradio's scripts are inline and compile code.
POLICY = ("default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
          "form-action 'self'")


@dataclass(frozen=True)
class Limits:
    """How much the server takes.

    Attributes:
        megabytes: Of an uploaded file.
        megapixels: Of an image; a file of some kilobytes may unpack to gigabytes.
        per_minute: Uploads and predictions from one address.
        queue: Requests that wait for the model.
    """
    megabytes: float = 20
    megapixels: float = 50
    per_minute: int = 240
    queue: int = 32

    @property
    def bytes(self) -> int:
        return int(self.megabytes * 2**20)

    @property
    def pixels(self) -> int:
        return int(self.megapixels * 1e6)


LIMITS = Limits()


class Refusal(Exception):
    """A request that is not answered: ``status`` is HTTP's, and the message tells a person why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """ASGI middleware around the whole application, Gradio's part included.

    Args:
        app: The application.
        limits: What is allowed.
        uploads: The only folder whose files are served.
    """

    def __init__(self, app: Any, limits: Limits, uploads: Path) -> None:
        self._app, self._limits, self._uploads = app, limits, uploads.resolve()
        self._minute, self._sent, self._posts = 0, 0, Counter[str]()

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope['type'] == 'lifespan':
            await self._app(scope, receive, send)
        elif scope['type'] == 'http':  # there are no websockets
            try:
                self._check(scope)
                if scope['path'] == EVENT:
                    receive = await self._checked_event(receive)
            except Refusal as refusal:
                if refusal.status == 413:
                    await _read_away(receive, 10 * self._limits.bytes)
                await _answer(send, refusal)
            else:
                await self._app(scope, receive, _with_policy(send))

    def _check(self, scope: dict) -> None:
        path, posted = scope['path'], scope['method'] == 'POST'
        if posted and path in POSTED:
            self._check_rate((scope.get('client') or ('', 0))[0], self._length(scope))
        elif scope['method'] not in ('GET', 'HEAD'):
            raise Refusal(405, f"{scope['method']} is not taken here")
        elif path.startswith(FILE) and not self._has(path.removeprefix(FILE)):
            raise Refusal(403, 'only pictures of this page are served')
        elif path not in PAGES and not path.startswith((*BELOW, FILE)):
            raise Refusal(404, 'there is nothing here')

    def _has(self, path: Any) -> bool:
        """Whether the path is that of a file below the folder of uploads."""
        try:
            file = Path(path).resolve()
            return file.is_relative_to(self._uploads) and file.is_file()
        except (OSError, ValueError, TypeError):  # a zero byte, a name that is too long, no name
            return False

    async def _checked_event(self, receive: Any) -> Any:
        """Reads an event of the page, and gives it back if all files in it were uploaded.

        Gradio would fetch the address that stands in the place of a file, for any input.
        """
        body, more = b'', True
        while more:
            message = await receive()
            body += message.get('body', b'')
            more = message.get('more_body', False)
        try:
            paths = [*_paths(json.loads(body))]
        except (ValueError, RecursionError) as error:
            raise Refusal(422, 'this is no event of the page') from error
        if not all(map(self._has, paths)):
            raise Refusal(422, 'the image is no longer here: upload it again')
        messages = [dict(type='http.request', body=body, more_body=False)]

        async def replay() -> dict:
            return messages.pop() if messages else await receive()

        return replay

    def _length(self, scope: dict) -> int:
        most = AROUND if scope['path'] == EVENT else self._limits.bytes + AROUND
        length = dict(scope['headers']).get(b'content-length', b'')
        if not length.isdigit():
            raise Refusal(411, 'the request has to state its length')
        if int(length) > most:
            raise Refusal(413, f'the file is too large: this server takes {self._limits.megabytes:g} MB')
        return int(length)

    def _check_rate(self, address: str, length: int) -> None:
        minute = math.floor(time.monotonic() / 60)
        if minute != self._minute:
            self._minute, self._sent = minute, 0
            self._posts.clear()
        self._posts[address] += 1
        self._sent += length
        if self._sent > AT_ONCE * (self._limits.bytes + AROUND):
            raise Refusal(429, 'too much is uploaded at once: try again in a minute')
        if self._posts[address] > self._limits.per_minute:
            raise Refusal(429, f'too many requests: this server takes {self._limits.per_minute} a minute')


def _paths(part: Any) -> Iterator[Any]:
    """The paths of all files in an event."""
    if isinstance(part, dict):
        if 'path' in part:
            yield part['path']
        part = [*part.values()]
    if isinstance(part, list):
        for item in part:
            yield from _paths(item)


async def _read_away(receive: Any, most: int) -> None:
    """Reads a body that is refused: many clients see the answer only after they have sent everything."""
    while most > 0:
        message = await receive()
        most -= len(message.get('body', b''))
        if message['type'] != 'http.request' or not message.get('more_body'):
            return


async def _answer(send: Any, refusal: Refusal) -> None:
    body = json.dumps(dict(detail=str(refusal))).encode()
    headers = [(b'content-type', b'application/json'), (b'content-length', str(len(body)).encode())]
    await send(dict(type='http.response.start', status=refusal.status, headers=headers))
    await send(dict(type='http.response.body', body=body))


def _with_policy(send: Any) -> Any:

    async def send_with_policy(message: dict) -> None:
        if message['type'] == 'http.response.start':
            message['headers'] = [*message.get('headers', ()), (b'content-security-policy', POLICY.encode()),
                                  (b'x-content-type-options', b'nosniff')]
        await send(message)

    return send_with_policy
