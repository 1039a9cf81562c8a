"""What the console is made of: small, whole, in the wheel, and served as it should be."""

import asyncio
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from fs_meta.http import console

ROOT = Path(__file__).resolve().parents[2]
FILES = console.files()
SIZE_MAX = 300_000


def text(name: str) -> str:
    return FILES[name].data.decode()


def test_it_is_small() -> None:
    assert sum(len(file.data) for file in FILES.values()) < SIZE_MAX
    assert sum(len(file.packed) for file in FILES.values()) < SIZE_MAX / 4


def test_everything_that_is_loaded_is_there_and_everything_there_is_loaded() -> None:
    named = set(re.findall(r'(?:href|src)="/console/([^"]+)"', text("index.html")))
    for name in [name for name in FILES if name.endswith(".js")]:
        imported = set(re.findall(r'from "\./([^"]+)"', text(name)))
        assert imported <= named, f"{name}: the page names what is imported, so that it is fetched at once"
    assert named == set(FILES) - {"index.html"}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".js", ".html"))])
def test_nothing_in_it_makes_a_script_of_a_string(name: str) -> None:
    words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|style=|\son\w+=|javascript:"
    assert not re.search(words, text(name))
    assert "http://" not in text(name).replace("http://www.w3.org/2000/svg", "") and "https://" not in text(name)


def get(path: str, **headers: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(console.make_router())

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return asyncio.run(ask())


def test_the_page_comes_with_a_policy_and_is_asked_for_again_by_its_tag() -> None:
    page = get("/")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.headers["content-encoding"] == "gzip"
    again = get("/", if_none_match=page.headers["etag"])
    assert again.status_code == 304 and not again.content
    plain = get("/console/app.js", accept_encoding="identity")
    assert plain.content == FILES["app.js"].data and plain.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path", ["/console/../app.py", "/console/__init__.py", "/console/%2e%2e%2fapp.py", "/console/"]
)
def test_nothing_else_is_served(path: str) -> None:
    assert get(path).status_code == 404


def test_the_wheel_has_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="no hatchling: pip install 'emberfs[dev]'")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        for name, file in FILES.items():
            assert f"fs_meta/http/console/{name}" in names
            assert packed.read(f"fs_meta/http/console/{name}") == file.data
