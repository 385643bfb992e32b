"""gin files of version 0.2, whose names have moved since, as those of today."""

from __future__ import annotations

from typing import Any

from gin import config_parser

STAGES = (
    *("prepare", "encode", "quantize", "generate", "features", "match", "relevance", "report"),
    "assign",
)
_KIND = "dsirm_jax.quantizer.model.QuantizerConfig.kind"
_LATENT_DIM = "dsirm_jax.quantizer.model.QuantizerConfig.latent_dim"
MOVED = {
    "dsirm_jax.ablation.Ladder": "dsirm_jax.stages.ablate.Ladder",
    "dsirm_jax.ahead.Target": "dsirm_jax.ahead.compile.Target",
    "dsirm_jax.generator.losses.Objective": "dsirm_jax.generator.losses.GeneratorObjective",
    "dsirm_jax.job.Job": "dsirm_jax.run.job.Job",
    "dsirm_jax.quantizer.losses.Objective": "dsirm_jax.quantizer.losses.QuantizerObjective",
    _LATENT_DIM: "dsirm_jax.quantizer.kinds.rq_vae.RqVae.latent_dim",
    "dsirm_jax.quantizer.model.QuantizerConfig.hidden_dim": (
        "dsirm_jax.quantizer.kinds.rq_vae.RqVae.hidden_dim"
    ),
    **{f"dsirm_jax.pipeline.{name}": f"dsirm_jax.stages.{name}.run" for name in STAGES},
}
"""A name of version 0.2, `MODULE.NAME` or `MODULE.NAME.ARGUMENT`, and that of today."""
CLASSES = {
    _KIND: {
        "rq_vae": "dsirm_jax.quantizer.kinds.rq_vae.RqVae",
        "residual_kmeans": "dsirm_jax.quantizer.kinds.residual_kmeans.ResidualKmeans",
        "hierarchical_kmeans": "dsirm_jax.quantizer.kinds.hierarchical_kmeans.HierarchicalKmeans",
    },
}
"""Arguments that were texts in version 0.2, and the class that each text is today."""
IMPLIED = {_LATENT_DIM: (_KIND, "rq_vae")}
"""Arguments beside which another one had a default in version 0.2, and has none today."""
GONE = ("dsirm_jax.ablation", "dsirm_jax.job", "dsirm_jax.pipeline")
"""Modules of version 0.2 that cannot be imported any more."""


class Text(config_parser.ParserDelegate):
    """References and macros stay what the file says."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Name:
        return Name(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, scoped_name: str) -> Name:
        return Name(f"%{scoped_name}")


class Name(str):
    """A reference or macro, which stands without quotes."""

    __repr__ = str.__str__


def is_old(text: str) -> bool:
    """Returns whether a gin text binds or refers to anything by its name of version 0.2."""
    return _Translation(text).renamed


def translated(text: str) -> str:
    """Returns a gin text of version 0.2 with the names of today, a binding a line.

    Args:
      text: of a file, or of bindings with the imports that they need.
    """
    translation = _Translation(text)
    return "\n".join([*translation.imports, *translation.lines, ""])


class _Translation(config_parser.ParserDelegate):
    """One text's: as gin's parser comes to a reference, it asks this for what it becomes."""

    def __init__(self, text: str):
        imports = [
            statement
            for statement in config_parser.ConfigParser(text, Text())
            if isinstance(statement, config_parser.ImportStatement)
        ]
        self._modules = {statement.bound_name(): statement.module for statement in imports}
        kept = [statement for statement in imports if statement.module not in GONE]
        self._aliases = {statement.module: statement.bound_name() for statement in kept}
        self.renamed = False
        self.lines: list[str] = []
        bound: dict[str, str] = {}  # without a scope: a name of version 0.2, and how it is written
        for statement in config_parser.ConfigParser(text, self):
            if isinstance(statement, config_parser.IncludeStatement):
                self.lines.append(f"include {statement.filename!r}")
            elif isinstance(statement, config_parser.BindingStatement):
                name = self._name(statement.scope, statement.selector, statement.arg_name)
                path = f"{self._path(statement.selector)}.{statement.arg_name}"
                self.lines.append(f"{name} = {self._value(path, statement.value)!r}")
                if not statement.scope:
                    bound[path] = statement.selector
        for path, (other, value) in IMPLIED.items():
            if path in bound and other not in bound:
                argument = other.rpartition(".")[2]
                self.lines.append(f"{bound[path]}.{argument} = {self._value(other, value)!r}")
        known = {statement.module for statement in kept}
        self.imports = [
            *(statement.format() for statement in kept),
            *(_import(*pair) for pair in self._aliases.items() if pair[0] not in known),
        ]

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Name:
        scope, _, selector = scoped_configurable_name.rpartition("/")
        return Name(f"@{self._name(scope, selector)}{'()' if evaluate else ''}")

    def macro(self, scoped_name: str) -> Name:
        return Name(f"%{scoped_name}")

    def _path(self, selector: str) -> str:
        """Returns the name in version 0.2 of a class or function, with its module."""
        module, _, name = selector.partition(".")
        return f"{self._modules.get(module, module)}.{name}"

    def _name(self, scope: str, selector: str, argument: str = "") -> str:
        """Returns the name today of a class or function, or of an argument of it."""
        path = self._path(selector)
        if f"{path}.{argument}" in MOVED:
            path, _, argument = MOVED[f"{path}.{argument}"].rpartition(".")
        elif path in MOVED:
            path = MOVED[path]
        else:
            return "/".join(filter(None, (scope, ".".join(filter(None, (selector, argument))))))
        name = ".".join(filter(None, (self._alias(path), argument)))
        return "/".join(filter(None, (scope, name)))

    def _value(self, path: str, value: Any) -> Any:
        """Returns what an argument of version 0.2 is bound to today."""
        kinds = CLASSES.get(path, {})
        if isinstance(value, str) and value in kinds:
            return Name(f"@{self._alias(kinds[value])}()")
        return value

    def _alias(self, path: str) -> str:
        """Returns how a class or function of today is written, whose module gets imported."""
        self.renamed = True
        home, _, name = path.rpartition(".")
        if home not in self._aliases:
            last = home.rpartition(".")[2]
            longer = home.removeprefix("dsirm_jax.").replace(".", "_")
            self._aliases[home] = longer if last in self._aliases.values() else last
        return f"{self._aliases[home]}.{name}"


def _import(module: str, alias: str) -> str:
    folder, _, name = module.rpartition(".")
    return f"from {folder} import {name}" + (f" as {alias}" if alias != name else "")
