"""The docstrings of fields in the schemas of their models."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from cotrain.described import DescribedModel, field_texts

T = TypeVar("T")


class Inner(DescribedModel):
    """What stands inside."""

    depth: int
    """Metres
    below the ground."""


class Outer(DescribedModel):
    """What stands outside."""

    model_config = ConfigDict(alias_generator=to_camel)

    wall_height: float = 1.0
    """Metres."""
    colour: str = Field("red", description="said by itself")
    """Said below."""
    inner: Inner | None = None
    """Of which there may be none."""
    silent: int = 0


class Taller(Outer):
    """Higher than its parent."""

    wall_height: float = 2.0
    """Metres, two at least."""
    roof: bool = True
    """Whether it has one."""


class Several(DescribedModel, Generic[T]):
    """Some of a kind."""

    items: list[T]
    """In no order."""


def descriptions(model: type[DescribedModel]) -> dict[str, str | None]:
    return {key: value.get("description") for key, value in model.model_json_schema()["properties"].items()}


def test_a_schema_tells_the_docstring_of_each_field() -> None:
    assert descriptions(Outer) == {
        "wallHeight": "Metres.", "colour": "said by itself", "inner": "Of which there may be none.", "silent": None,
    }  # fmt: skip
    inner = Outer.model_json_schema()["$defs"]["Inner"]
    assert inner["properties"]["depth"]["description"] == "Metres\nbelow the ground."
    assert inner["description"] == "What stands inside."


def test_docstrings_are_inherited_and_can_be_said_anew() -> None:
    assert descriptions(Taller) == {
        **descriptions(Outer), "wallHeight": "Metres, two at least.", "roof": "Whether it has one.",
    }  # fmt: skip


def test_a_kind_of_a_generic_model_has_the_docstrings_of_the_model() -> None:
    assert descriptions(Several[Inner]) == {"items": "In no order."}
    assert field_texts(Several[Inner]) == field_texts(Several)


def test_names_of_fields_stand_for_themselves_without_aliases() -> None:
    assert set(Outer.model_json_schema(by_alias=False)["properties"]) == set(Outer.model_fields)
    found = Outer.model_json_schema(by_alias=False)["properties"]["wall_height"]
    assert found["description"] == "Metres."
