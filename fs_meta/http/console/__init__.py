"""The console: a web page that shows the cluster, served at `/` of a metadata server.

Its files are plain HTML, CSS and JavaScript modules of this folder, served as they are; nothing is built, and nothing
comes from another server. What the page shows comes from `/api/v1/live` and the REST administration, so the files hold
no secret and are given to everybody who reaches the port.

Invariants:

* Only the files of this folder are served, by their names; no path is made of what a request says.
* The page runs no script and loads nothing but what this server has, and cannot make a script out of a string (trusted
  types): a file's name may hold anything.
"""

import gzip
import hashlib
from importlib import resources
from typing import Final, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

PAGE: Final = "index.html"
FOLDER: Final = "/console"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class File(NamedTuple):
    data: bytes
    packed: bytes
    """The same, gzip."""
    media_type: str
    tag: str
    """Of its contents: a browser that has it asks only whether it is still the same."""


def files() -> dict[str, File]:
    """By name: all that the console is made of."""
    found = {}
    for entry in resources.files(__package__).iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            data = entry.read_bytes()
            tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
            found[entry.name] = File(data, gzip.compress(data, 9, mtime=0), media_type, tag)
    return found


def make_router() -> APIRouter:
    """The routes of the console, with its files in memory."""
    router = APIRouter(include_in_schema=False)
    served = files()

    def answer(request: Request, file: File) -> Response:
        headers = {"etag": file.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if file.media_type.startswith("text/html"):
            headers["content-security-policy"] = POLICY
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        data = file.data
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            data = file.packed
        return Response(data, media_type=file.media_type, headers=headers)

    @router.get("/")
    async def page(request: Request) -> Response:
        return answer(request, served[PAGE])

    @router.get(FOLDER + "/{name}")
    async def part(request: Request, name: str) -> Response:
        file = served.get(name)
        if file is None:
            return Response("there is no such file\n", 404, media_type="text/plain")
        return answer(request, file)

    return router
