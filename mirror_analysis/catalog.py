"""The catalogue: definitions of checkpoints, probes and studies, read from TOML and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin, overload

import msgspec

from mirror_analysis.definitions import (
    PUBLIC_PLACES,
    CheckpointDefinition,
    ProbeDefinition,
    PublicCheckpoint,
    StudyDefinition,
)
from mirror_analysis.errors import (
    ChecksumError,
    DefinitionError,
    MirrorError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.provenance import sha256_file
from mirror_analysis.training_definitions import TrainingStudyDefinition

__all__ = [
    "KINDS",
    "CheckpointDefinition",
    "Definition",
    "ProbeDefinition",
    "PublicCheckpoint",
    "Study",
    "StudyDefinition",
    "TrainingStudyDefinition",
    "definition",
    "definitions",
    "faults",
    "folder",
    "names",
    "quick",
    "read",
    "weights",
]

Study: TypeAlias = StudyDefinition | TrainingStudyDefinition
Definition: TypeAlias = CheckpointDefinition | PublicCheckpoint | ProbeDefinition | Study
_S = TypeVar("_S", bound=Study)

_SCHEMAS: dict[str, type[Definition]] = {
    "checkpoints": CheckpointDefinition,
    "probes": ProbeDefinition,
    "reports": StudyDefinition,
}
_SINGULAR = {"checkpoints": "checkpoint", "probes": "probe", "reports": "report"}
KINDS = tuple(_SCHEMAS)
_PACKAGE = Path(__file__).resolve().parent


def folder(kind: str) -> Path:
    """Where the shipped definitions of a kind lie: in the wheel, or on top of a source checkout.

    Raises:
        UnknownNameError: if there is no such kind.
        MissingFileError: if the installation lacks its catalogue.
    """
    if kind not in _SCHEMAS:
        raise UnknownNameError("kind of definition", kind, _SCHEMAS)
    installed = _PACKAGE / "_catalog" / kind
    place = installed if installed.is_dir() else _PACKAGE.parent / kind
    if not place.is_dir():
        raise MissingFileError(f"no catalogue folder {place}; install mirror-analysis again")
    return place


def names(kind: str, include: Sequence[Path] = ()) -> list[str]:
    """Names of all definitions of a kind, sorted, whether or not their files are in order.

    Raises:
        UnknownNameError: if there is no such kind.
        MissingFileError: if a folder of `include` holds none of the three kinds.
        DefinitionError: if a name is taken twice.
    """
    return list(_files(kind, include))


@overload
def definitions(
    kind: Literal["checkpoints"], include: Sequence[Path] = ()
) -> dict[str, CheckpointDefinition | PublicCheckpoint]: ...
@overload
def definitions(
    kind: Literal["probes"], include: Sequence[Path] = ()
) -> dict[str, ProbeDefinition]: ...
@overload
def definitions(kind: Literal["reports"], include: Sequence[Path] = ()) -> dict[str, Study]: ...
@overload
def definitions(kind: str, include: Sequence[Path] = ()) -> dict[str, Definition]: ...


def definitions(kind: str, include: Sequence[Path] = ()) -> dict[str, Any]:
    """All definitions of a kind by name, sorted; a broken file raises and is never skipped.

    Args:
        kind: "checkpoints", "probes" or "reports".
        include: further folders; those of this kind lie in `DIR/<kind>/*.toml`.

    Raises:
        UnknownNameError: if there is no such kind.
        MissingFileError: if a folder of `include` holds none of the three kinds.
        DefinitionError: if a file does not fit its schema, or takes a name that is taken.
    """
    return {name: read(kind, path) for name, path in _files(kind, include).items()}


@overload
def definition(
    kind: Literal["checkpoints"], name: str, include: Sequence[Path] = ()
) -> CheckpointDefinition | PublicCheckpoint: ...
@overload
def definition(
    kind: Literal["probes"], name: str, include: Sequence[Path] = ()
) -> ProbeDefinition: ...
@overload
def definition(kind: Literal["reports"], name: str, include: Sequence[Path] = ()) -> Study: ...
@overload
def definition(kind: str, name: str, include: Sequence[Path] = ()) -> Definition: ...


def definition(kind: str, name: str, include: Sequence[Path] = ()) -> Any:
    """One definition by name; other files of its kind are not read.

    Raises:
        UnknownNameError: if there is no such kind or name.
        MissingFileError: if a folder of `include` holds none of the three kinds.
        DefinitionError: if its file does not fit the schema, or its name is taken twice.
    """
    return read(kind, _file(kind, name, include))


def weights(name: str, include: Sequence[Path] = ()) -> Path:
    """The bundled weights of a checkpoint, their bytes checked against the definition.

    Raises:
        UnknownNameError: if there is no such checkpoint.
        MissingFileError: if its weights are not bundled, or the file is not there.
        ChecksumError: if the file is not the one the definition describes.
    """
    path = _file("checkpoints", name, include)
    checkpoint = definition("checkpoints", name, include)
    if isinstance(checkpoint, PublicCheckpoint):
        raise MissingFileError(
            f"weights of checkpoint '{name}' are not bundled; they are published at"
            f" {checkpoint.place}, from where `mirror inspect {name}` fetches them"
        )
    if not checkpoint.file:
        raise MissingFileError(
            f"weights of checkpoint '{name}' are not bundled; make them: {checkpoint.source}"
        )
    file = path.parent / checkpoint.file
    if not file.is_file():
        raise MissingFileError(f"no weights {file}, which {path} names; make them or restore them")
    found = sha256_file(file)
    if found != checkpoint.sha256:
        raise ChecksumError(
            f"{file} has sha256 {found} but {path} says {checkpoint.sha256};"
            " restore the file, or describe the new one"
        )
    return file


def quick(study: _S) -> _S:
    """The study with its `quick` values in place, and nothing left to replace.

    Raises:
        DefinitionError: if a quick value does not fit the schema.
    """
    table = _quick_table(study)
    problems = list(_problems(table, type(study), "quick."))
    if problems:
        raise DefinitionError(_first(f"study '{study.name}'", problems))
    return msgspec.convert(table, type(study))


def read(kind: str, path: Path) -> Any:
    """One definition from a file.

    Raises:
        UnknownNameError: if there is no such kind.
        DefinitionError: if the file does not fit the schema.
    """
    if kind not in _SCHEMAS:
        raise UnknownNameError("kind of definition", kind, _SCHEMAS)
    found, problems = _load(kind, path)
    if problems:
        raise DefinitionError(_first(str(path), problems))
    return found


def faults(include: Sequence[Path] = ()) -> list[str]:
    """Everything wrong in the catalogue: schemas, weights, and what studies say of checkpoints.

    Returns:
        One line per fault, with its file and its mend; empty if all is well.
    """
    try:
        files = {kind: _files(kind, include) for kind in KINDS}
    except MirrorError as error:
        return [str(error)]
    loaded = {
        kind: {name: _load(kind, path) for name, path in files[kind].items()} for kind in KINDS
    }
    found = [
        f"{files[kind][name]}: {problem}"
        for kind in KINDS
        for name, (_, problems) in loaded[kind].items()
        for problem in problems
    ]
    checkpoints = {name: value for name, (value, _) in loaded["checkpoints"].items()}
    for name, value in checkpoints.items():
        if isinstance(value, CheckpointDefinition) and value.file:
            try:
                weights(name, include)
            except MirrorError as error:
                found.append(str(error))
    for name, (value, _) in loaded["reports"].items():
        if isinstance(value, StudyDefinition):
            found += _model_faults(files["reports"][name], value, checkpoints)
        elif isinstance(value, TrainingStudyDefinition):
            for probe in value.evaluation.probes:
                if probe not in files["probes"]:
                    unknown = UnknownNameError("probe", probe, files["probes"])
                    found.append(f"{files['reports'][name]}: key 'evaluation.probes': {unknown}")
    return found


def _model_faults(
    path: Path, study: StudyDefinition, checkpoints: dict[str, Definition | None]
) -> Iterator[str]:
    models = study.models
    for side, stem, layer in (("x", models.x, models.x_layer), ("y", models.y, models.y_layer)):
        for seed in models.seeds:
            name = f"{stem}-s{seed}"
            checkpoint = checkpoints.get(name)
            if name not in checkpoints:
                unknown = UnknownNameError("checkpoint", name, checkpoints)
                yield f"{path}: key 'models.{side}': {unknown}"
            elif isinstance(checkpoint, CheckpointDefinition) and layer not in checkpoint.layers:
                unknown = UnknownNameError(f"layer of {name}", layer, checkpoint.layers)
                yield f"{path}: key 'models.{side}_layer': {unknown}"


def _files(kind: str, include: Sequence[Path]) -> dict[str, Path]:
    """Stem -> file of every definition of a kind, sorted by stem."""
    places = [folder(kind)]
    for place in include:
        if not any((place / name).is_dir() for name in KINDS):
            raise MissingFileError(
                f"{place} holds no definitions; needed {', '.join(f'{place}/{k}' for k in KINDS)}"
                " or one of them, with TOML files in it"
            )
        places.append(place / kind)
    files: dict[str, Path] = {}
    for path in (path for place in places for path in sorted(place.glob("*.toml"))):
        if path.stem in files:
            raise DefinitionError(
                f"{path}: the name '{path.stem}' is taken by {files[path.stem]}; rename the file"
                " and its key 'name'"
            )
        files[path.stem] = path
    return dict(sorted(files.items()))


def _file(kind: str, name: str, include: Sequence[Path]) -> Path:
    files = _files(kind, include)
    if name not in files:
        raise UnknownNameError(_SINGULAR[kind], name, files)
    return files[name]


def _load(kind: str, path: Path) -> tuple[Definition | None, list[str]]:
    """A definition, or else all problems of its file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return None, [f"cannot be read as TOML: {error}; mend the file"]
    schema = _schema(kind, table)
    problems = list(_problems(table, schema, ""))
    if table.get("name", path.stem) != path.stem:
        problems.append(f"key 'name' is '{table['name']}'; needed '{path.stem}', the file's name")
    if problems:
        return None, problems
    found: Definition = msgspec.convert(table, schema)
    if isinstance(found, StudyDefinition | TrainingStudyDefinition):
        problems = list(_problems(_quick_table(found), schema, "quick."))
    return (None, problems) if problems else (found, [])


def _schema(kind: str, table: dict[str, Any]) -> type[Definition]:
    if kind == "checkpoints" and any(key in table for key in PUBLIC_PLACES):
        return PublicCheckpoint
    if kind == "reports" and any(key in table for key in ("training", "conditions")):
        return TrainingStudyDefinition
    return _SCHEMAS[kind]


def _quick_table(study: Study) -> dict[str, Any]:
    table: dict[str, Any] = msgspec.to_builtins(study)
    for section, values in table.pop("quick").items():
        base = table.get(section)
        table[section] = base | values if isinstance(base, dict) else values
    return table


def _problems(table: dict[str, Any], schema: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    """What keeps a TOML table from being a value of the schema, each with key and mend.

    Done key by key because `msgspec.convert` stops at the first problem.
    """
    fields = {field.name: field for field in msgspec.structs.fields(schema)}
    clean = True
    for key in [key for key in table if key not in fields]:
        clean = False
        yield f"key '{prefix}{key}': {UnknownNameError('key', key, fields)}; rename or remove it"
    for key, field in fields.items():
        if key not in table:
            if field.required:
                clean = False
                yield f"key '{prefix}{key}' is missing; add it"
        elif parts := _sections(table[key], field.type):
            for place, part, part_schema in parts:
                for problem in _problems(part, part_schema, f"{prefix}{key}{place}."):
                    clean = False
                    yield problem
        else:
            try:
                msgspec.convert(table[key], field.type)
            except msgspec.ValidationError as error:
                clean = False
                yield f"key '{prefix}{key}' is {table[key]!r}: {error}; mend the value"
    if clean:
        try:
            msgspec.convert(table, schema)
        except msgspec.ValidationError as error:
            where = f"section '{prefix.rstrip('.')}': " if prefix else ""
            yield f"{where}{error}; mend the values"


def _sections(value: Any, kind: Any) -> list[tuple[str, dict[str, Any], type[msgspec.Struct]]]:
    """The tables inside a value whose keys a schema knows: itself, or one for each of a list."""
    if isinstance(value, dict) and _is_struct(kind):
        return [("", value, kind)]
    of = get_args(kind)
    if get_origin(kind) is list and _is_struct(of[0]) and isinstance(value, list):
        if all(isinstance(part, dict) for part in value):
            return [(f"[{index}]", part, of[0]) for index, part in enumerate(value)]
    return []


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _first(where: str, problems: list[str]) -> str:
    more = len(problems) - 1
    return f"{where}: {problems[0]}" + (
        f" (and {more} more; `mirror check` lists all)" if more else ""
    )
