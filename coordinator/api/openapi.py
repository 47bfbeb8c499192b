"""OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0), made from the routes themselves."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from aiohttp import hdrs, web
from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from coordinator.api.docs_page import docs_page
from coordinator.api.operations import Answer, Operation, Parameter, operation_of
from cotrain.chat_protocol import CHAT_PATHS, ChatError, chat_status
from cotrain.request import CamelModel

JSON, PROBLEM = "application/json", "application/problem+json"
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")
_UNDOCUMENTED = frozenset({hdrs.METH_HEAD, hdrs.METH_OPTIONS})

PATH_PARAMETERS: Mapping[str, str] = {
    "id": "a session", "participant": "a participant of the session", "sha256": "SHA-256 of a file, hexadecimal",
    "entry": "id or name in the catalog", "model": "id or name of a model", "version": "its number in the model",
    "invitation": "an invitation to the session", "job": "a job", "chat": "id of an answer",
    "account": "a wallet: its CAIP-10 account",
}  # fmt: skip
_ERRORS: Mapping[int, str] = {
    400: "not of the protocol; of chats: does not fit its schema",
    401: "not signed in, or with a token that is not known",
    403: "not allowed to this account, or asked by a web page of another host", 404: "there is no such thing",
    405: "another method is wanted: see Allow", 409: "not possible in the present state; says what is",
    413: "the body is too large", 415: "the body is not JSON", 416: "there is no such range",
    422: "does not fit its schema; names every field", 426: "another version of the protocol: says which to upgrade",
    429: "too often: see Retry-After", 503: "cannot be done at the moment",
}  # fmt: skip
_SECURITY: Mapping[str, list[dict[str, list[str]]]] = {
    "anybody": [], "account": [{"token": []}, {"cookie": []}], "participant": [{"token": []}],
}  # fmt: skip


class ProblemItem(CamelModel):
    """One of several things that are wrong with a request."""

    field: str
    message: str
    hint: str = ""


class Problem(CamelModel, extra="allow"):
    """Every error (RFC 9457): what happened, where, and what to do next."""

    type: str
    """`urn:cotrain:problem:` and the code."""
    title: str
    status: int
    code: str
    """Stable, for scripts."""
    detail: str
    field: str
    """Path in the request, header, or parameter; may be empty."""
    hint: str
    errors: list[ProblemItem] = Field(default_factory=list)
    request_id: str


def openapi_document(routes: web.UrlDispatcher, public_url: str) -> dict[str, Any]:
    """The document of all routes that say what they take and answer."""
    operations = list(_operations(routes))
    refs, definitions = _schemas([said for _, _, _, said in operations])
    paths: dict[str, dict[str, Any]] = {}
    for path, method, handler, said in operations:
        paths.setdefault(path, {})[method.lower()] = _operation(path, method, handler, said, refs)
    for path, method, _, said in operations:
        for status, answer in said.answers.items():
            if answer.names:
                responses = paths[path][method.lower()]["responses"]
                responses[str(status)]["links"] = _links(answer, path, operations)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cotrain coordinator", "version": version("cotrain"),
            "description": "People open sessions, volunteers' nodes register their peers, everybody watches.",
        },
        "servers": [{"url": public_url}],
        "tags": [{"name": tag} for tag in dict.fromkeys(said.tag for _, _, _, said in operations)],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "cotrain"},
            },
        },
    }  # fmt: skip


class ApiDocument:
    """The document of an application's routes: made when it is first asked for, which takes some time."""

    def __init__(self, routes: web.UrlDispatcher, public_url: str):
        self._routes, self._public_url = routes, public_url

    @cached_property
    def json(self) -> str:
        """As programs read it."""
        return json.dumps(self._content)

    @cached_property
    def page(self) -> str:
        """As people read it: HTML."""
        return docs_page(self._content)

    @cached_property
    def _content(self) -> dict[str, Any]:
        return openapi_document(self._routes, self._public_url)


DOCUMENT = web.AppKey("document", ApiDocument)


def undocumented(routes: web.UrlDispatcher) -> list[str]:
    """Routes that do not say what they take and answer, as `METHOD path`; files under /static need not."""
    return [
        f"{route.method} {route.resource.canonical}"
        for route in routes.routes()
        if route.method not in _UNDOCUMENTED
        and route.resource is not None
        and not isinstance(route.resource, web.StaticResource)
        and operation_of(route.handler) is None
    ]


def _operations(routes: web.UrlDispatcher) -> Iterator[tuple[str, str, Any, Operation]]:
    for route in routes.routes():
        said = operation_of(route.handler)
        if said is not None and route.resource is not None and route.method not in _UNDOCUMENTED:
            yield route.resource.canonical, route.method, route.handler, said


def _schemas(operations: list[Operation]) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {
        (Problem, "serialization"): None,
        (ChatError, "serialization"): None,
    }
    for said in operations:
        if said.body is not None:
            wanted[said.body, "validation"] = None
        for answer in said.answers.values():
            if answer.model is not None:
                wanted[answer.model, "serialization"] = None
    refs, document = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    return refs, document["$defs"]


def _operation(path: str, method: str, handler: Any, said: Operation, refs: Mapping[Any, Any]) -> dict[str, Any]:
    description = inspect.getdoc(handler) or ""
    chat = path.startswith(CHAT_PATHS)
    statuses = {*said.errors, *_always(path, method, said)}
    if chat:
        statuses = set(map(chat_status, statuses))
    responses = {str(status): _answer(answer, refs) for status, answer in said.answers.items()}
    responses |= {str(status): _error(status, refs, chat=chat) for status in sorted(statuses)}
    document: dict[str, Any] = {
        "operationId": _operation_id(path, method),
        "tags": [said.tag],
        "summary": description.partition("\n")[0],
        "description": description,
        "parameters": [*map(_path_parameter, _PATH_PARAMETER.findall(path)), *map(_parameter, said.parameters)],
        "responses": responses,
        "security": _SECURITY[said.who],
    }
    if said.body is not None:
        schema = refs[said.body, "validation"]
        document["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return document


def _operation_id(path: str, method: str) -> str:
    words = _PATH_PARAMETER.sub(r"\1", path).strip("/").replace("/", "-") or "page"
    return f"{method.lower()}-{words}"


def _always(path: str, method: str, said: Operation) -> set[int]:
    """Errors that follow from a route's form."""
    statuses = {404} if "{" in path else set()
    if said.body is not None:
        statuses |= {413, 415, 422}
    if said.parameters:
        statuses |= {422}
    if said.who != "anybody":
        statuses |= {401}
    if said.who == "account" and method != hdrs.METH_GET:
        statuses |= {429}
    return statuses if method == hdrs.METH_GET else statuses | {403}


def _answer(answer: Answer, refs: Mapping[Any, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        document["content"] = {JSON: {"schema": refs[answer.model, "serialization"]}}
    if answer.media:
        document.setdefault("content", {})[answer.media] = {"schema": {}}
    if answer.headers:
        document["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return document


def _links(
    answer: Answer, path: str, operations: Sequence[tuple[str, str, Any, Operation]]
) -> dict[str, Any]:  # fmt: skip
    """Links to the operations about what an answer has named: those below its own path, whose parameters are known."""
    given = {name: f"$response.body#{pointer}" for name, pointer in answer.names.items()}
    given |= {name: f"$request.path.{name}" for name in _PATH_PARAMETER.findall(path)}
    return {
        _operation_id(target, method): {
            "operationId": _operation_id(target, method),
            "parameters": {name: given[name] for name in wanted},
        }
        for target, method, _, _ in operations
        if target.startswith(f"{path}/")
        and (wanted := _PATH_PARAMETER.findall(target))
        and set(wanted) <= given.keys()
        and set(wanted) & set(answer.names)
    }


def _error(status: int, refs: Mapping[Any, Any], *, chat: bool) -> dict[str, Any]:
    media, model = (JSON, ChatError) if chat else (PROBLEM, Problem)
    return {"description": _ERRORS[status], "content": {media: {"schema": refs[model, "serialization"]}}}


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name, "in": "path", "required": True, "description": PATH_PARAMETERS[name],
        "schema": {"type": "string", "minLength": 1},
    }  # fmt: skip


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name, "in": parameter.place, "required": False, "description": parameter.description,
        "schema": dict(parameter.schema),
    }  # fmt: skip
