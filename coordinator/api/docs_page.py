"""The OpenAPI document as one HTML page without scripts, for reading offline. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def docs_page(document: Mapping[str, Any]) -> str:
    """HTML of a document of `openapi.openapi_document`."""
    operations = [
        (path, method, said) for path, methods in document["paths"].items() for method, said in methods.items()
    ]
    sections = [
        f"<section><h2>{escape(tag['name'])}</h2>"
        + "".join(_shown(path, method, said) for path, method, said in operations if tag["name"] in said["tags"])
        + "</section>"
        for tag in document["tags"]
    ]
    schemas = "".join(_shown_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    title = f"{document['info']['title']} {document['info']['version']}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="/static/docs.css"></head>'
        f"<body><main><h1>{escape(title)}</h1><p>{escape(document['info']['description'])} For programs: "
        '<a href="/openapi.json">/openapi.json</a>. Errors are problem+json: <a href="#schema-Problem">Problem</a>.</p>'
        f"{''.join(sections)}<section><h2>Schemas</h2>{schemas}</section></main></body></html>"
    )


def _shown(path: str, method: str, said: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(p['in'])}</td><td><code>{escape(p['name'])}</code></td><td>{escape(p['description'])}</td>"
        f"<td>{_type(p['schema'])}</td></tr>"
        for p in said["parameters"]
    ]
    if "requestBody" in said:
        schema = said["requestBody"]["content"]["application/json"]["schema"]
        rows.append(f"<tr><td>body</td><td></td><td>JSON</td><td>{_type(schema)}</td></tr>")
    taken = f"<table><caption>takes</caption><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td>"
        f"<td>{_content(answer.get('content', {}))}</td></tr>"
        for status, answer in said["responses"].items()
    )
    signed = "" if not said["security"] else "<p>Needs a token.</p>"
    return (
        f'<details id="{escape(said["operationId"])}"><summary><b>{escape(method.upper())}</b> <code>{escape(path)}'
        f"</code> {escape(said['summary'])}</summary><p>{escape(said['description'])}</p>{signed}{taken}"
        f"<table><caption>answers</caption><tbody>{answers}</tbody></table></details>"
    )


def _content(content: Mapping[str, Any]) -> str:
    return ", ".join(_type(said["schema"]) or escape(media) for media, said in content.items())


def _shown_schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code>{' *' if key in required else ''}</td><td>{_type(value)}</td>"
        f"<td>{escape(str(value.get('description', '')))}</td></tr>"
        for key, value in schema.get("properties", {}).items()
    )
    return (
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code> '
        f"{escape(str(schema.get('description', '')).partition(chr(10))[0])}</summary>"
        f"<table><tbody>{rows}</tbody></table></details>"
    )


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    for combined in ("anyOf", "oneOf", "allOf"):
        if combined in schema:
            return " or ".join(_type(part) for part in schema[combined])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    bounds = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    return escape(" ".join([str(schema.get("type", "")), *limits]).strip())
