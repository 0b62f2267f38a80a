"""Images and videos on the web: what is an address, what it is called, and its download."""

import contextlib
import http.client
import mimetypes
import re
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ...version import __version__
from ..errors import UserError

SECONDS = 30  # without an answer, after which a server counts as gone
LARGEST = 4 << 30  # bytes that are downloaded at most
CHUNK = 1 << 20
# What a server sends on and on, which is opened as a stream: playlists, and the JPEGs of network cameras.
STREAMED = ('mpegurl', 'multipart/x-mixed-replace', 'application/dash+xml')


def is_address(name: str) -> bool:
    """Return whether a name is an address such as `https://...` or `rtsp://...`."""
    return re.match(r'[a-zA-Z][a-zA-Z0-9+.-]*://', name) is not None


def is_web_address(name: str) -> bool:
    """Return whether a name is an address of the web, which is downloaded; others are streams."""
    return re.match(r'https?://', name, re.IGNORECASE) is not None


def without_password(address: str) -> str:
    """Return an address without user and password, as it may be shown."""
    return re.sub(r'(?<=://)[^/@]*@', '', address)


def name_of_address(address: str) -> str:
    """Return a file name for what an address leads to, made of letters, digits, dots and dashes."""
    parts = urlsplit(without_password(address))
    last = PurePosixPath(unquote(parts.path)).name
    return re.sub(r'[^\w.-]+', '_', last or parts.netloc).lstrip('.')[:100] or 'stream'


def download(address: str, folder: Path, largest: int = LARGEST, seconds: float = SECONDS) -> Path | None:
    """Download what is at an address of the web.

    Args:
        address: http or https.
        folder: where the file is put, under the name in the address.
        largest: bytes that are taken at most.
        seconds: to wait for each answer.

    Returns:
        The file; None where the server sends a stream, which has no end.

    Raises:
        UserError: there is no such server or file, it is a page, or it is too large.
    """
    shown = without_password(address)
    try:
        request = urllib.request.Request(address, headers={'User-Agent': f'centernet/{__version__}'})
        with contextlib.closing(urllib.request.urlopen(request, timeout=seconds)) as answer:
            kind = answer.headers.get_content_type()
            if any(word in kind for word in STREAMED):
                return None
            if kind == 'text/html':
                raise UserError(f"'{shown}' is a page, not an image or a video: give the address of the file itself")
            path = folder / name_of_address(address)
            if not path.suffix:
                path = path.with_name(path.name + (mimetypes.guess_extension(kind) or ''))
            announced = int(answer.headers.get('Content-Length') or 0)
            if announced <= largest:
                _copy(answer, path, largest)
            if announced > largest or path.stat().st_size > largest:
                raise UserError(
                    f"'{shown}' is larger than {largest / 1e6:.0f} MB: download it first, then name the file"
                )
            if path.stat().st_size < announced:
                raise UserError(f"'{shown}': the server sent {path.stat().st_size} of {announced} bytes; try again")
            return path
    except urllib.error.HTTPError as error:
        raise UserError(f"'{shown}': the server answered {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, 'reason', None) or error
        raise UserError(f"'{shown}' cannot be downloaded: {reason}") from None


def _copy(answer: http.client.HTTPResponse, path: Path, largest: int) -> None:
    """Write an answer to a file, up to a little more than `largest` bytes."""
    with open(path, 'wb') as file:
        while file.tell() <= largest and (chunk := answer.read(CHUNK)):
            file.write(chunk)
