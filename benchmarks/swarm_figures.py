"""What a measure of the swarm gives, and how it is shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One number beside what is wanted.

    Attributes:
        measure: what was measured, with its unit.
        wanted: the bound; None where there is none.
        bound: on which side of it the number should be.
        stock: the same of hivemind's own averager in the same run, where it has such a number.
        details: single trials, sizes, seconds: JSON-serializable.
    """

    measure: str
    got: float
    wanted: float | None = None
    bound: Literal["at most", "at least"] = "at most"
    stock: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        if self.wanted is None:
            return True
        return self.got <= self.wanted if self.bound == "at most" else self.got >= self.wanted

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}

    def line(self) -> str:
        """For people and for `docs/LOG.md`."""
        wanted = (
            "" if self.wanted is None else f" ({self.bound} {self.wanted:g} wanted{'' if self.reached else ': NO'})"
        )
        stock = "" if self.stock is None else f"; stock hivemind {self.stock:.4g}"
        details = ", ".join(f"{name} {value}" for name, value in self.details.items())
        return f"- {self.measure}: {self.got:.4g}{wanted}{stock}{'. ' + details if details else ''}"
