"""What the files of a model say of its licence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

NAMES = re.compile(
    r"(licen[cs]e|copying|copyright|notice|.*terms|use_policy)[-_.\w]*", re.IGNORECASE
)
CARD = "README.md"
ENTRIES = ("license", "license_name", "license_link")
"""Of a model card's head, in YAML."""
NAMED = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""What hubs call licences, such as `apache-2.0`."""
LONGEST = 70


def licence_files(folder: Path) -> list[Path]:
    """Returns the files of a folder that are named as licences are."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return [path for path in files if NAMES.fullmatch(path.name)]


def found_licences(folder: Path, *, stated: Mapping[str, str]) -> str:
    """Returns a line on the licence of a model, which does not replace its text.

    Args:
      folder: of the model.
      stated: what files of the model state, by the names of these.
    """
    found = [f"{path.name} ({_first_line(path)})" for path in licence_files(folder)]
    stated = {CARD: _of_card(folder / CARD), **stated}
    found += [f"{name} says {words}" for name, words in stated.items() if words]
    return "; ".join(found) or "no licence text found: ask whoever made the model"


def _first_line(path: Path) -> str:
    text = re.sub(r"<[^>]*>", " ", path.read_text("utf-8", errors="replace"))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return next((line for line in lines if line), "empty")[:LONGEST]


def stated_licence(folder: Path) -> str | None:
    """Returns the licence of a model by its name on hubs, where its model card states one.

    Args:
      folder: of the model.
    """
    stated = _entries(folder / CARD).get(ENTRIES[0], "").lower()
    return stated if NAMED.fullmatch(stated) else None


def _of_card(path: Path) -> str:
    """Returns the entries on the licence in the head of a model card."""
    entries = _entries(path)
    return ", ".join(entries[name] for name in ENTRIES if entries.get(name))


def _entries(path: Path) -> dict[str, str]:
    """Returns the plain entries in the head of a model card, each as text."""
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((place for place, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
    entries = dict(line.split(":", 1) for line in lines[1:end] if ":" in line)
    return {name: value.strip().strip("\"'")[:LONGEST] for name, value in entries.items()}
