"""The API does what its description says: schemathesis makes requests, good and bad ones, and looks at the answers.

Ten requests for each operation; `--hypothesis-profile=explore` makes it a thousand.
"""

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis

from tests.http.world import World, world

EXPLORING = hypothesis.settings.get_current_profile_name() == "explore"
REQUESTS = 1000 if EXPLORING else 10


@pytest.fixture(scope="module", params=["off", "on"])
def running(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(security=request.param == "on") as made:
        yield made


@pytest.mark.slow
def test_every_operation_does_what_its_description_says(running: World) -> None:
    with running.served() as address, requests.Session() as session:
        schema = schemathesis.openapi.from_url(f"{address}/api/v1/openapi.json")
        if running.tokens:
            schema.auth()(Administrator.of(running.tokens["admin.token"]))
        failures = []
        for found in schema.get_all_operations():
            operation = found.ok()
            try:
                answers_of(operation, session)()
            except (AssertionError, BaseExceptionGroup) as error:
                causes = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
                failures += [f"{operation.label}: {cause}" for cause in causes]
    assert not failures, "\n\n".join(failures)


class Administrator:
    """Shows a token with each request."""

    text = ""

    @classmethod
    def of(cls, text: str) -> type["Administrator"]:
        return type("Administrator", (cls,), {"text": text})

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        return self.text

    def set(self, case: schemathesis.Case, token: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {token}"


def answers_of(operation: Any, session: requests.Session) -> Callable[[], None]:
    """Makes requests of one operation, and looks at the answers."""

    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=REQUESTS, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None
    )
    def answers(case: schemathesis.Case) -> None:
        case.call_and_validate(session=session)

    return answers


def test_the_description_is_complete(running: World) -> None:
    schema = running.app.openapi()
    assert schema["openapi"].startswith("3.1")
    known = {tag["name"] for tag in schema["tags"]}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            name = f"{method} {path}"
            assert operation["description"] and set(operation["tags"]) <= known, name
            assert ("security" in operation) == bool(running.tokens), name
            for status, answer in operation["responses"].items():
                [kind] = answer["content"]
                assert kind == ("application/json" if status < "400" else "application/problem+json"), name
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description") or parameter["in"] == "path", f"{name}: {parameter['name']}"
    for name, model in schema["components"]["schemas"].items():
        for field, value in model.get("properties", {}).items():
            assert set(value) & {"type", "$ref", "anyOf", "const", "enum"}, f"{name}.{field}"
