"""Versions of a dataset on disk: folders that never change, with a manifest, and a file that names the current one.

    <folder>/current                  "v000007"
    <folder>/v000007/manifest.json    what is in it, and where it comes from
    <folder>/v000007/train.jsonl      a sample in each line (`Sample.to_line`)
    <folder>/v000007/validation.jsonl the samples that are held out; absent if there are none

A version is written beside its place, flushed and renamed, so that a half-written one has another name (it begins with
a dot) and is never seen. A run whose `data_path` is a version's folder trains on one file and validates on the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotrain.errors import IntegrityError, InvalidRequestError, NotFoundError
from cotrain.folders import StorageError, replace_durably, replacing_folder
from cotrain.json_rows import read_json
from cotrain.learn.samples import Sample
from cotrain.records import BadRecord
from cotrain.status import now, read_json_object

if TYPE_CHECKING:
    from cotrain.learn.pipeline import Enhancement

SCHEMA: Literal[1] = 1
TRAIN, VALIDATION, MANIFEST, CURRENT = "train.jsonl", "validation.jsonl", "manifest.json", "current"
MAX_MANIFEST_BYTES = 64 * 1024

_NAME = re.compile(r"v(\d{6,9})")
_LOCK = ".lock"
_RESTORE = "restore the folder from a backup, or name a version that is whole"

Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a version holds, and where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    version: Count
    cycle: Annotated[str, Field(min_length=1, max_length=200)]
    """Which cycle has made it: its id."""
    base: Count | None
    """The version that it was made of."""
    created_at: Annotated[float, Field(ge=0)]
    """Unix time in seconds."""
    sizes: dict[str, Count]
    """Samples by file."""
    sha256: dict[str, Sha256]
    """By file."""
    languages: dict[str, Count]
    """Samples by language, of all files."""
    settings: dict[str, int | float]
    """The LearnSettings of the cycle."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What else the cycle wants to find again."""


@dataclass(frozen=True)
class Version:
    """A version that is there whole."""

    number: int
    path: Path
    manifest: Manifest

    @property
    def train_size(self) -> int:
        """Samples for training."""
        return self.manifest.sizes.get(TRAIN, 0)

    @property
    def held_out_size(self) -> int:
        """Samples for evaluation."""
        return self.manifest.sizes.get(VALIDATION, 0)


class DatasetVersions:
    """The versions in a folder. Several processes may read; those that write wait for each other."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = now):
        self._folder = folder
        self._clock = clock

    # ------------------------------------------------------------------------------------------- reading
    def versions(self) -> list[Version]:
        """All versions, the oldest first. Raises IntegrityError for one whose manifest cannot be read."""
        if not self._folder.is_dir():
            return []
        numbers = sorted(int(match[1]) for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name)))
        return [self._version(number) for number in numbers]

    def get(self, number: int) -> Version:
        """One version. Raises IntegrityError if it is not there whole."""
        return self._version(number)

    def of_cycle(self, cycle: str) -> Version | None:
        """The version that a cycle has written, None if it has not. Raises as `versions`."""
        return next((version for version in self.versions() if version.manifest.cycle == cycle), None)

    def current(self) -> Version | None:
        """The version that is in use, None if there is none yet. Raises IntegrityError if it is not there whole."""
        pointer = self._folder / CURRENT
        try:
            name = pointer.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise IntegrityError("does not name a version", field=str(pointer), hint=_RESTORE) from error
        match = _NAME.fullmatch(name)
        if match is None:
            raise IntegrityError("does not name a version", field=str(pointer), hint=_RESTORE)
        return self._version(int(match[1]))

    def read(self, version: Version) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """The samples for training and those that are held out.

        Raises IntegrityError if a file is not what the manifest says.
        """
        held_out = self._samples(version, VALIDATION) if VALIDATION in version.manifest.sha256 else ()
        return self._samples(version, TRAIN), held_out

    # ------------------------------------------------------------------------------------------- writing
    def write(
        self, enhancement: Enhancement, *, cycle: str, base: int | None, facts: Mapping[str, Any] | None = None
    ) -> Version:
        """A new version, on disk before this returns; the one that this cycle has written already, if it has.

        Args:
            cycle: the id of the cycle, which a cycle that is repeated after a crash has again.
            base: the number of the version that the cycle began with.
            facts: kept with it, as JSON.

        Raises InvalidRequestError for an id that is none; StorageError if the disk does not take it.
        """
        if not 1 <= len(cycle) <= 200:
            raise InvalidRequestError("has not 1 to 200 characters", field="cycle", hint="give each cycle an id")
        with self._locked():
            written = self.of_cycle(cycle)
            if written is not None:
                return written
            versions = self.versions()
            number = versions[-1].number + 1 if versions else 1
            with replacing_folder(self._path(number)) as folder:
                self._fill(folder, enhancement, number, cycle, base, facts or {})
            return self._version(number)

    def switch(self, version: Version) -> None:
        """Make a version the current one, in one step; doing it again changes nothing. Raises what `write` does."""
        with self._locked(), _storage(self._folder / CURRENT):
            if not version.path.is_dir():
                raise NotFoundError(f"there is no version {version.number}", field=str(version.path), hint=_RESTORE)
            replace_durably(self._folder / CURRENT, f"{version.path.name}\n".encode())

    def remove_unfinished(self) -> int:
        """Remove what a process that was killed has left half written; returns how many folders that were."""
        with self._locked(), _storage(self._folder):
            unfinished = [path for path in self._folder.glob(".v*") if path.is_dir()]
            for path in unfinished:
                shutil.rmtree(path)
        return len(unfinished)

    def prune(self, keep: int = 10) -> list[int]:
        """Remove the oldest versions but for `keep` of them, never the current one; returns their numbers."""
        if keep < 1:
            raise InvalidRequestError("is below 1", field="keep", hint="keep one version at least")
        with self._locked(), _storage(self._folder):
            current = self.current()
            old = [version for version in self.versions()[:-keep] if version != current]
            for version in old:
                doomed = version.path.rename(version.path.with_name(f".{version.path.name}.old"))
                shutil.rmtree(doomed)
        return [version.number for version in old]

    def _fill(
        self, folder: Path, enhancement: Enhancement, number: int, cycle: str, base: int | None,
        facts: Mapping[str, Any],
    ) -> None:  # fmt: skip
        files = {TRAIN: enhancement.train} | ({VALIDATION: enhancement.held_out} if enhancement.held_out else {})
        contents = {name: "".join(sample.to_line() for sample in samples).encode() for name, samples in files.items()}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        manifest = Manifest(
            schema=SCHEMA, version=number, cycle=cycle, base=base, created_at=self._clock(),
            sizes={name: len(samples) for name, samples in files.items()},
            sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
            languages=_languages([*enhancement.train, *enhancement.held_out]), settings=asdict(enhancement.settings),
            facts=dict(facts),
        )  # fmt: skip
        (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8")

    # ------------------------------------------------------------------------------------------- helpers
    def _path(self, number: int) -> Path:
        return self._folder / f"v{number:06d}"

    def _version(self, number: int) -> Version:
        path = self._path(number)
        try:
            manifest = Manifest.model_validate(read_json_object(path / MANIFEST, limit_bytes=MAX_MANIFEST_BYTES))
        except (OSError, ValueError, ValidationError) as error:
            raise IntegrityError("cannot be read", field=str(path / MANIFEST), hint=_RESTORE) from error
        if manifest.version != number:
            raise IntegrityError(f"is that of version {manifest.version}", field=str(path / MANIFEST), hint=_RESTORE)
        return Version(number, path, manifest)

    def _samples(self, version: Version, name: str) -> tuple[Sample, ...]:
        path = version.path / name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != version.manifest.sha256.get(name):
                raise IntegrityError("is not what the manifest says", field=str(path), hint=_RESTORE)
            samples = []
            for record in read_json(path):
                if isinstance(record, BadRecord):
                    raise IntegrityError(record.reason, field=str(record.place), hint=_RESTORE)
                samples.append(Sample.from_record(record.columns))
        except OSError as error:
            raise IntegrityError("cannot be read", field=str(path), hint=_RESTORE) from error
        return tuple(samples)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among those that write; the lock goes with the process that holds it."""
        with _storage(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / _LOCK).open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _languages(samples: Sequence[Sample]) -> dict[str, int]:
    return dict(sorted(Counter(sample.language for sample in samples).items()))


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error}", field=str(path), hint="free some space, or allow writing there"
        ) from error
