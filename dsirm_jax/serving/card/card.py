"""What a run knows of its model, as the README.md of its bundle."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from dsirm_jax.data.schema import HEAD, TEST, TRAIN
from dsirm_jax.generator.importing.licences import found_licences, stated_licence
from dsirm_jax.generator.importing.models import GIN
from dsirm_jax.io.files import write_text
from dsirm_jax.report.verdict import verdict
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.record import finished_record
from dsirm_jax.serving.bundle.manifest import DENSE_ONLY, FULL, Manifest
from dsirm_jax.serving.bundle.models import NONE
from dsirm_jax.serving.card.figures import hub_metrics, tables
from dsirm_jax.serving.card.limits import limits
from dsirm_jax.serving.card.markdown import escaped, quoted

if TYPE_CHECKING:
    from dsirm_jax.quantizer.fitted import FittedQuantizer
    from dsirm_jax.relevance.fitted import FittedHead
    from dsirm_jax.serving.bundle.models import Models

PURPOSES = {
    TRAIN: "encoder, quantizer, generator; votes for similar queries",
    HEAD: "relevance head and its calibration; votes, too",
    TEST: "the figures below, nothing else",
}
OTHER, UNKNOWN = "other", "unknown"
"""What hubs call a licence that has no name there, and one that nobody stated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the model.

    Attributes:
      name: of the part.
      about: what it is, in one line.
    """

    name: str
    about: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where pretrained weights came from.

    Attributes:
      part: of the model, that began with them.
      licences: what their files say, in one line.
      stated: the licence's name on hubs, where a model card of theirs states one.
    """

    part: str
    licences: str
    stated: str | None


def write_card(
    path: Path,
    *,
    layout: Layout,
    title: str,
    manifest: Manifest,
    applied: Models,
    quantizer: FittedQuantizer,
) -> None:
    """Writes the model card of a run.

    Args:
      path: the file.
      layout: the run, finished.
      title: of the card.
      manifest: of the bundle.
      applied: models of the bundle.
      quantizer: that of the run.
    """
    prepared = finished_record(layout.stage("prepare")).bindings
    text = card(
        title=title,
        reader=_class_of(prepared.get("source")) or "a reader of its own",
        summary=json.loads((layout.stage("prepare") / "summary.json").read_text("utf-8")),
        metrics=json.loads(layout.metrics.read_text("utf-8")),
        manifest=manifest,
        parts=[*model_parts(manifest, applied=applied, quantizer=quantizer)],
        head=applied.heads[FULL],
        origins=[*origins(layout)],
    )
    write_text(path, text)


def card(
    *,
    title: str,
    reader: str,
    summary: Mapping[str, Any],
    metrics: Mapping[str, Any],
    manifest: Manifest,
    parts: list[Part],
    head: FittedHead,
    origins: list[Origin],
) -> str:
    """Returns a model card: Markdown with YAML at its head, as Hugging Face has it.

    Texts of the shop are only ever text: each is escaped, and loses its secrets.

    Args:
      title: of the card.
      reader: the class that read the data.
      summary: contents of `prepare/summary.json`.
      metrics: contents of `metrics.json`.
      manifest: of the bundle.
      parts: of the model.
      head: of the full model.
      origins: of pretrained weights.
    """
    language = (manifest.settings.language or "").partition("-")[0] or None
    splits = summary["queries"].get("splits", {})
    labels = summary["judgements"].get("labels") or {}
    return (
        environment()
        .get_template("card.md")
        .render(
            title=title,
            license=license_of(origins),
            other=OTHER,
            language=language,
            data={"name": reader, "slug": re.sub(r"(?<=[a-z])(?=[A-Z])|\W+", "-", reader).lower()},
            hub_metrics=hub_metrics(metrics),
            verdict=verdict(metrics),
            parts=parts,
            counts={
                "items": summary["items"]["kept"],
                "queries": sum(summary["queries"]["segments"].values()),
                "judgements": summary["judgements"]["kept"],
            },
            labels=", ".join(f"{label} {count:,}" for label, count in labels.items()),
            grades=_grades(head),
            splits=[
                {"name": name, "purpose": PURPOSES[name]} | splits[name]
                for name in PURPOSES
                if name in splits
            ],
            manifest=manifest,
            tables=tables(metrics),
            limits=limits(metrics, summary=summary, language=language),
            cached_alone=manifest.settings.encoder.kind == NONE,
            licences=[f"{origin.part}: {origin.licences}" for origin in origins],
        )
    )


def environment() -> jinja2.Environment:
    """Returns what renders the template beside this module, every value escaped as Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dsirm_jax.serving.card", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escaped,
    )
    environment.filters |= {"number": "{:,}".format, "quoted": quoted, "in_brackets": _in_brackets}
    return environment


def model_parts(
    manifest: Manifest, *, applied: Models, quantizer: FittedQuantizer
) -> Iterator[Part]:
    """Yields what a bundle's model is made of.

    Args:
      manifest: of the bundle.
      applied: its models.
      quantizer: of its SIDs.
    """
    settings = manifest.settings
    if applied.encoder is None:
        about = f"none: vectors of {settings.encoder.dim} numbers came from elsewhere"
    else:
        about = (
            f"{settings.encoder.kind}, vectors of {settings.encoder.dim} numbers, "
            f"{_parameters(applied.encoder.params)}"
        )
    yield Part(name="encoder", about=about)
    pinned = f", the first pinned to {len(quantizer.names)} categories" if quantizer.names else ""
    sizes = " × ".join(map(str, manifest.sizes))
    yield Part(
        name="quantizer",
        about=f"{type(quantizer.config.kind).__name__}, codes {sizes}{pinned}",
    )
    generator = applied.generator
    yield Part(
        name="generator",
        about=(
            f"{type(generator.config).__name__}, {_parameters(generator.params)}; reads "
            f"{generator.max_pieces} pieces of a query and writes {settings.beams} SIDs"
        ),
    )
    roles = {FULL: "head", DENSE_ONLY: "head without SIDs, for when time runs out"}
    for name, head in applied.heads.items():
        groups = ", ".join(settings.groups[name])
        yield Part(
            name=roles[name], about=f"{_kind(head.head)}, {len(head.features)} features: {groups}"
        )


def origins(layout: Layout) -> Iterator[Origin]:
    """Yields where the pretrained weights of a run came from, and what is said of their licence.

    Args:
      layout: the run.
    """
    encoder = finished_record(layout.stage("encode")).bindings.get("encoder")
    starts = {
        "encoder": encoder.get("folder") if isinstance(encoder, dict) else None,
        "generator": finished_record(layout.stage("generate")).bindings.get("start"),
    }
    for part, start in starts.items():
        if start:
            yield _origin(part, Path(start))


def license_of(origins: list[Origin]) -> str | None:
    """Returns the one licence that all pretrained weights state, by its name on hubs.

    Args:
      origins: of the weights.

    Returns:
      `OTHER` where they differ, `UNKNOWN` where one states none; None without such weights.
    """
    stated = {origin.stated or UNKNOWN for origin in origins}
    if len(stated) > 1:
        return OTHER
    return next(iter(stated), None)


def _origin(part: str, start: Path) -> Origin:
    """Returns what lies beside weights, where `import-model` leaves it, or in their own folder."""
    beside = start.is_file() or (start.parent / GIN).is_file()
    folder = start.parent if beside else start
    if not folder.is_dir():
        gone = "pretrained weights, no longer where they were: ask whoever made them"
        return Origin(part=part, licences=gone, stated=None)
    found = found_licences(folder, stated={})
    return Origin(part=part, licences=f"pretrained weights; {found}", stated=stated_licence(folder))


def _class_of(described: Any) -> str | None:
    """Returns the class of a described binding, see `configuration.description`."""
    return described.get("") if isinstance(described, dict) else None


def _kind(head: Any) -> str:
    """Returns the class of a head, and of those that it is made of."""
    inner = [getattr(head, field.name) for field in dataclasses.fields(head)]
    parts = [part for value in inner for part in (value if isinstance(value, tuple) else [value])]
    kinds = [_kind(part) for part in parts if dataclasses.is_dataclass(part)]
    name = type(head).__name__
    return f"{name} of {' and '.join(kinds)}" if kinds else name


def _parameters(params: Any) -> str:
    import jax
    import numpy as np

    return f"{sum(np.size(array) for array in jax.tree.leaves(params)):,} parameters"


def _grades(head: FittedHead) -> str:
    pairs = zip(head.gains, head.relevant, strict=True)
    relevant = [gain for gain, is_relevant in pairs if is_relevant]
    if not relevant or len(relevant) == len(head.gains):
        return ""
    return (
        f"Gains go from {head.gains[0]:g} to {head.gains[-1]:g}; an item is relevant from "
        f"{min(relevant):g} on."
    )


def _in_brackets(text: str) -> str:
    """Returns a text with round brackets about its intervals, which Markdown leaves alone."""
    return text.replace("[", "(").replace("]", ")")
