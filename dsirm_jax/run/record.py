"""What a stage's folder says of itself: what it was made of, and what was in it when it was done.

`stage.json` is sealed, and it lists every file of a finished stage with its size and SHA-256.
Not listed are `checkpoints/`, whose steps have seals of their own, `logs/`, which no stage reads,
and `alignment/`, which has both: these may be deleted; and `bundle/`, which has a manifest and
changes when it is updated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dsirm_jax.io import checksums
from dsirm_jax.io.checksums import Checksum
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_json
from dsirm_jax.io.records import from_json
from dsirm_jax.run.layout import CONFIG
from dsirm_jax.run.old_record import OldRecord, old_record

RECORD = "stage.json"
UNLISTED = ("checkpoints", "logs", "alignment", "bundle")
PREVIOUS = "previous/"
"""Begins the names of inputs that lie in the MODEL_DIR of an earlier run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What `stage.json` says.

    Attributes:
      stage: name of the stage's folder below MODEL_DIR.
      stage_version: of what the stage does, see `runner.Stage.version`.
      version: of the package that ran it.
      bindings: arguments of the stage's function as JSON values.
      inputs: of each stage that it read, by the name of its folder, what it was, see `identity`.
      finished: whether it is done.
      seconds: that it took, when it is done.
      files: all that it wrote, when it is done.
      modified: their times of change, ns since 1970.
      fingerprint_0_2: its fingerprint, where version 0.2 made it and it was taken up.
    """

    stage: str
    stage_version: int
    version: str
    bindings: Mapping[str, Any]
    inputs: Mapping[str, str]
    finished: bool = False
    seconds: float | None = None
    files: Mapping[str, Checksum] = dataclasses.field(default_factory=dict)
    modified: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fingerprint_0_2: str | None = None

    @property
    def fingerprint(self) -> str:
        """What tells this stage from one of other bindings, inputs or meaning."""
        return checksums.digest([self.stage, self.stage_version, self.bindings, self.inputs])

    @property
    def identity(self) -> str:
        """What tells this stage's output from any other: its fingerprint and its contents."""
        contents = {name: file.sha256 for name, file in self.files.items() if name != CONFIG}
        return checksums.digest([self.fingerprint, contents])


def read_record(folder: Path) -> StageRecord | OldRecord | None:
    """Returns what a stage's folder says of itself; None where there is none, or it is empty.

    Raises:
      InputError: the folder is not a stage's, or its record is not what was written.
    """
    path = folder / RECORD
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(
                f"{folder} exists but has no {RECORD}: it is not a stage's output; move it away "
                f"or choose another MODEL_DIR"
            )
        return None
    if old := old_record(path):
        return old
    otherwise = f"is not what was written; move {folder} away and run the stage again"
    content = checksums.unsealed(path, otherwise=otherwise)
    try:
        return from_json(StageRecord, content, name="the record")
    except InputError as error:
        raise InputError(
            f"{path}: {error}; another version of dsirm wrote it: use that one, or move {folder} "
            f"away"
        ) from error


def write_record(folder: Path, record: StageRecord) -> None:
    """Writes a record, whole or not at all, with a checksum of its own."""
    write_json(folder / RECORD, checksums.sealed(dataclasses.asdict(record)))


def complete(folder: Path, record: StageRecord, *, seconds: float) -> StageRecord:
    """Returns the record of a stage that is done, with all its files."""
    names = listed_files(folder)
    return dataclasses.replace(
        record,
        finished=True,
        seconds=round(seconds, 1),
        files=checksums.checksums(folder, names),
        modified={name: (folder / name).stat().st_mtime_ns for name in names},
    )


def listed_files(folder: Path) -> list[str]:
    """Returns the paths of a stage's files, those left out that its record does not list."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(
        path.as_posix()
        for path in paths
        # A file system's own files, such as .nfs0001, come and go.
        if path.parts[0] not in (*UNLISTED, RECORD) and not path.name.startswith(".")
    )


def faults(folder: Path, record: StageRecord, *, trust: bool) -> list[str]:
    """Returns what is wrong with the files of a finished stage, one line each.

    Args:
      folder: of the stage.
      record: of the same.
      trust: do not read a file whose size and time of change are what they were.
    """
    present = listed_files(folder)
    expected = dict(record.files)
    if trust:
        expected = {
            name: known
            for name, known in expected.items()
            if name not in present or not _is_untouched(folder / name, known, record.modified[name])
        }
        present = [name for name in present if name in expected or name not in record.files]
    return checksums.faults(folder, expected, present=present)


def finished_record(folder: Path) -> StageRecord:
    """Returns the record of a finished stage.

    Raises:
      InputError: it is not finished, or version 0.2 made it.
    """
    record = read_record(folder)
    if record is None or not record.finished:
        raise InputError(
            f"{folder} is not finished; run `dsirm {folder.name}` (or `dsirm run`) first"
        )
    if isinstance(record, OldRecord):
        raise InputError(
            f"{folder} was made by version 0.2, which sealed nothing; `dsirm run` with the "
            f"config.gin of that run takes its stages up as they are"
        )
    return record


def is_finished(folder: Path) -> bool:
    """Returns whether the stage of this folder has finished."""
    record = read_record(folder)
    return record is not None and record.finished


def check_lineage(folders: Iterable[Path], *, trust: bool) -> None:
    """Checks that finished stages, and all that these were made of, are whole and go together.

    Args:
      folders: of the stages.
      trust: see `faults`.

    Raises:
      InputError: one is not finished, a file is not what was written, or a stage was made of
        another output than is there now.
    """
    left = dict.fromkeys(folders)
    seen: set[Path] = set()
    while left:
        folder, _ = left.popitem()
        seen.add(folder)
        record = finished_record(folder)
        if wrong := faults(folder, record, trust=trust):
            raise InputError(
                f"{checksums.summary(wrong)}; `dsirm {folder.name}` (or `dsirm run`) makes it again"
            )
        model_dir = folder.parents[len(Path(record.stage).parts) - 1]
        for name, identity in record.inputs.items():
            if name.startswith(PREVIOUS):
                continue
            earlier = model_dir / name
            if earlier not in seen:
                left[earlier] = None
            if finished_record(earlier).identity != identity:
                raise InputError(
                    f"{folder} was made of another {earlier} than is there now; run "
                    f"`dsirm {folder.name}` (or `dsirm run`) again"
                )


def difference(before: StageRecord, after: StageRecord) -> str:
    """Returns why a stage is stale, in a few words; nothing where it is not."""
    changed = [
        f"{kind[:-1]} {key}"
        for kind in ("bindings", "inputs")
        for key in sorted(set(getattr(before, kind)) | set(getattr(after, kind)))
        if getattr(before, kind).get(key) != getattr(after, kind).get(key)
    ]
    if before.stage_version != after.stage_version:
        changed.append(f"version of the stage ({before.stage_version} to {after.stage_version})")
    return f"{', '.join(changed)} changed" if changed else ""


def _is_untouched(path: Path, known: Checksum, modified: int) -> bool:
    state = path.stat()
    return (state.st_size, state.st_mtime_ns) == (known.bytes, modified)
