"""Models whose fields are described by the docstrings below them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class DescribedModel(BaseModel):
    """Tells its fields' docstrings in its JSON schema.

    pydantic's own `use_attribute_docstrings` reads the sources when a class is made; here they are read when a schema
    is asked for, which most programs never do. It took a seventh of a coordinator's start.
    """

    # most programs use few of the models: what checks their values is made when the first one comes
    model_config = ConfigDict(defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        texts = field_texts(cls)
        for name, field in cls.model_fields.items():
            key = name if name in properties else field.alias
            if key in properties and name in texts:
                properties[key].setdefault("description", texts[name])
        return schema


@cache
def field_texts(model: type[DescribedModel]) -> dict[str, str]:
    """The docstrings of a model's fields, inherited ones included, by the fields' names."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        # of `Page[Session]` there is no source, but `Page` is among its bases, too
        if issubclass(base, DescribedModel) and base.__pydantic_generic_metadata__["origin"] is None:
            texts.update(_texts_in(base))
    return texts


def _texts_in(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, following in pairwise(definition.body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
