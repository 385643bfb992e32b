"""What the site has beside docs/: README and its like, and a reference page for every module."""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dsirm_jax"
# Pages that lie beside docs/, by the place that they have on the site.
BESIDE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "results.md": "benchmarks/RESULTS.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config):
    """Adds the further pages to the navigation."""
    config.nav = [
        *config.nav,
        {"Contributing": "contributing.md"},
        {"Results": "results.md"},
        {"Changelog": "changelog.md"},
        {"Reference": _navigation(PACKAGE)},
    ]
    return config


def on_files(files, config):
    """Adds the further pages."""
    for page, source in BESIDE.items():
        content = _with_links((ROOT / source).read_text("utf-8"), source=source, page=page)
        files.append(File.generated(config, page, content=content))
    for module in _modules(PACKAGE):
        name = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        content = f"# {name}\n\n::: {name}\n"
        files.append(File.generated(config, _page(module), content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Makes links into the source lead to the reference."""
    uri = page.file.src_uri
    if uri in BESIDE or uri.startswith("reference/"):
        return markdown
    return _with_links(markdown, source=f"docs/{uri}", page=uri)


def on_page_content(html, page, config, files):
    """Makes links of notebooks to other pages lead there."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="([^":]+)\.md(#[^"]*)?"', r'href="../\1/\2"', html)


def _with_links(markdown: str, *, source: str, page: str) -> str:
    """Returns a text of the repository with links as the site has them; others become plain."""

    def link(match: re.Match) -> str:
        text, target, anchor = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = _place(path)
        if place is None:
            return text
        return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor or ''})"

    return LINK.sub(link, markdown)


def _place(path: str) -> str | None:
    """Returns where the site has a file of the repository."""
    for page, source in BESIDE.items():
        if path == source:
            return page
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    file = ROOT / path
    if path.startswith("dsirm_jax"):
        module = file / "__init__.py" if file.is_dir() else file
        if module.suffix == ".py" and module.is_file():
            return _page(module)
    return None


def _page(module: Path) -> str:
    return f"reference/{module.relative_to(ROOT).with_suffix('').as_posix()}.md".replace(
        "/__init__.md", "/index.md"
    )


def _modules(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*.py"))
        if file.name != "__main__.py" and ast.get_docstring(ast.parse(file.read_text("utf-8")))
    ]


def _navigation(folder: Path) -> list:
    """Returns the reference's pages as nested lists, a folder's own first."""
    entries = [_page(folder / "__init__.py")]
    for file in sorted(folder.iterdir()):
        if file.is_dir() and (file / "__init__.py").is_file():
            entries.append({file.name: _navigation(file)})
        elif file.suffix == ".py" and not file.name.startswith("__"):
            entries.append({file.stem: _page(file)})
    return entries
