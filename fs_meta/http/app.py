"""The HTTP application of a metadata server, put together.

    /api/v1/...                      REST administration (`rest/`), described by /api/v1/openapi.json
    /                                the console

It runs on a loop of its own, in the thread of `fs_common.http_server`, and reaches the metadata service through the
bridge alone. FastAPI and pydantic are imported by this package only, and only in that thread (`later`): their import
takes as long as the rest of a start.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from fs_common.release import RELEASE
from fs_meta.http import console, live, problems
from fs_meta.http.backend import Backend
from fs_meta.http.guard import Guard
from fs_meta.http.health import HealthWatch
from fs_meta.http.live import Live
from fs_meta.http.problems import Problem
from fs_meta.http.rest import (
    chains,
    clients,
    cluster,
    config,
    errors,
    files,
    moves,
    nodes,
    scrub,
    slow_operations,
    users,
)

API = "/api/v1"
RESOURCES = (cluster, nodes, chains, moves, scrub, config, clients, slow_operations, files, users, errors)
DESCRIPTION = """\
Administration of an EmberFS cluster. Every error is `application/problem+json` with a row of the error table
(`GET /api/v1/errors`). Lists come in pages: `next` of a page is the `after` of the next one. Sizes are bytes.\
"""
TAGS = [
    {"name": "cluster", "description": "The cluster as a whole: health in words, space."},
    {"name": "nodes", "description": "Storage daemons."},
    {"name": "chains", "description": "Ordered lists of targets that hold the same chunks."},
    {"name": "targets", "description": "One replica of a chain each, on one node."},
    {"name": "moves", "description": "Targets that join and leave chains while files are used."},
    {"name": "scrub", "description": "The reading of all that is stored, to find what is damaged and what differs."},
    {"name": "config", "description": "What daemons run on: versions of a text for each kind."},
    {"name": "clients", "description": "Who uses the cluster, what they have open, and what took long."},
    {"name": "files", "description": "Names, attributes, and where the chunks of a file are."},
    {"name": "users", "description": "Who may use and administer the cluster, and the tokens by which they are known."},
    {"name": "errors", "description": "The error table."},
]


def make_app(backend: Backend) -> FastAPI:
    app = FastAPI(
        title="EmberFS",
        version=RELEASE,
        description=DESCRIPTION,
        openapi_url=f"{API}/openapi.json",
        openapi_tags=TAGS,
        docs_url=None,  # its pages come from another server
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.backend = backend
    app.state.live = Live(backend.server.observer, backend.bridge.call)
    problems.install(app)
    app.state.health = HealthWatch(backend)
    for resource in RESOURCES:
        app.include_router(resource.router, prefix=API)
    app.include_router(live.router, prefix=API)
    app.include_router(console.make_router())
    app.add_middleware(Guard, names=(backend.config.host,), tokens=backend.security)
    app.openapi = lambda: _described(app, secure=backend.security)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI, *, secure: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        found = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= found.pop("$defs", {})
        schemas["Problem"] = found
        for operation in [each for path in schema["paths"].values() for each in path.values()]:
            if not secure:  # nobody is asked for a token
                operation.pop("security", None)
                operation["responses"].pop("401", None)
            if "requestBody" in operation:
                operation["responses"] |= problems.of_bodies()
        app.openapi_schema = schema
    return app.openapi_schema
