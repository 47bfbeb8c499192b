"""The model that learns, and its versions in the database."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, or_, select

from coordinator.model_rows import ModelRow, ModelVersionRow
from coordinator.store import Store
from cotrain.errors import ConfigError, NotFoundError


@dataclass(frozen=True)
class Student:
    """A model, by its id; `owner` is the account (CAIP-10) that its sessions are opened for."""

    store: Store
    model: str
    name: str
    owner: str

    async def served(self) -> ModelVersionRow:
        """The version that people chat with. Raises NotFoundError if no version has its files."""
        promoted = await self.promoted()
        query = (
            select(ModelVersionRow).where(ModelVersionRow.model_id == self.model, ModelVersionRow.path != "")
            .order_by((ModelVersionRow.version == promoted).desc(), ModelVersionRow.version.desc()).limit(1)
        )  # fmt: skip
        async with self.store.read() as rows:
            found = await rows.scalar(query)
        if found is None:
            raise NotFoundError(
                f"no version of the model {self.name} has its files", field="learning.model",
                hint="train one: it is what learning goes on from",
            )  # fmt: skip
        return found

    async def promoted(self) -> int | None:
        """The version that its owner, or a cycle, wants to be served; None: the newest one."""
        async with self.store.read() as rows:
            promoted: int | None = await rows.scalar(select(ModelRow.promoted_version).where(ModelRow.id == self.model))
            return promoted

    async def version(self, number: int) -> ModelVersionRow:
        """Raises NotFoundError."""
        async with self.store.read() as rows:
            found = await rows.get(ModelVersionRow, (self.model, number))
        if found is None:
            raise NotFoundError(f"the model {self.name} has no version {number}", field="learning.model")
        return found

    async def version_of(self, session: str) -> int | None:
        """The newest version that a session has made; None if it made none."""
        query = select(func.max(ModelVersionRow.version)).where(
            ModelVersionRow.model_id == self.model, ModelVersionRow.session_id == session, ModelVersionRow.path != ""
        )
        async with self.store.read() as rows:
            newest: int | None = await rows.scalar(query)
            return newest


async def find_student(store: Store, name: str) -> Student:
    """The model of this id or name. Raises ConfigError that says how to name one, NotFoundError."""
    if not name:
        raise ConfigError(
            "no model learns", field="learning.model",
            hint='name one in the coordinator\'s config: [learning] model = "ID"; GET /api/v1/models lists them',
        )  # fmt: skip
    query = select(ModelRow).where(or_(ModelRow.id == name, ModelRow.name == name)).order_by(ModelRow.id != name)
    async with store.read() as rows:
        found = await rows.scalar(query.limit(1))
    if found is None:
        raise NotFoundError(
            f"there is no model {name}", field="learning.model", hint="GET /api/v1/models lists those that there are"
        )
    if not found.owner:
        raise ConfigError(
            f"the model {name} has no owner to open sessions for", field="learning.model", hint="name another one"
        )
    return Student(store, found.id, found.name, found.owner)
