"""gin files of version 0.2, whose names have moved since, as those of today."""

from __future__ import annotations

from typing import Any

from gin import config_parser

STAGE_NAMES = (
    *("prepare", "encode", "quantize", "generate", "features", "match", "relevance", "report"),
    "assign",
)
OLD_QUANTIZER = "dsirm_jax.quantizer.model.QuantizerConfig"
QUANTIZER = "dsirm_jax.quantizer.config.QuantizerConfig"
RQ_VAE = "dsirm_jax.quantizer.kinds.rq_vae.RqVae"
MOVED = {
    "dsirm_jax.ablation.Ladder": "dsirm_jax.stages.ablate.Ladder",
    "dsirm_jax.ahead.Target": "dsirm_jax.ahead.compile.Target",
    "dsirm_jax.data.database.Database": "dsirm_jax.ingestion.readers.database.Database",
    "dsirm_jax.data.readers.Esci": "dsirm_jax.ingestion.readers.esci.Esci",
    "dsirm_jax.data.readers.Tables": "dsirm_jax.ingestion.readers.tables.Tables",
    "dsirm_jax.data.readers.Wands": "dsirm_jax.ingestion.readers.wands.Wands",
    "dsirm_jax.data.simulated_shop.SimulatedShop": (
        "dsirm_jax.ingestion.readers.simulated_shop.SimulatedShop"
    ),
    "dsirm_jax.encoder.model.Precomputed": "dsirm_jax.encoder.kinds.precomputed.Precomputed",
    "dsirm_jax.encoder.model.Pretrained": "dsirm_jax.encoder.kinds.pretrained.Pretrained",
    "dsirm_jax.encoder.model.TwoTowers": "dsirm_jax.encoder.kinds.towers.TwoTowers",
    "dsirm_jax.generator.model.T5Config": "dsirm_jax.generator.architectures.t5.T5Config",
    "dsirm_jax.generator.losses.Objective": "dsirm_jax.generator.losses.GeneratorObjective",
    "dsirm_jax.job.Job": "dsirm_jax.run.job.Job",
    "dsirm_jax.quantizer.losses.Objective": "dsirm_jax.quantizer.losses.QuantizerObjective",
    OLD_QUANTIZER: QUANTIZER,
    f"{OLD_QUANTIZER}.hidden_dim": f"{RQ_VAE}.hidden_dim",
    f"{OLD_QUANTIZER}.latent_dim": f"{RQ_VAE}.latent_dim",
    "dsirm_jax.relevance.model.Blend": "dsirm_jax.relevance.heads.blend.Blend",
    "dsirm_jax.relevance.model.BoostedTrees": "dsirm_jax.relevance.heads.trees.BoostedTrees",
    "dsirm_jax.relevance.model.Linear": "dsirm_jax.relevance.heads.linear.Linear",
    "dsirm_jax.relevance.model.Mlp": "dsirm_jax.relevance.heads.mlp.Mlp",
    **{f"dsirm_jax.pipeline.{name}": f"dsirm_jax.stages.{name}.run" for name in STAGE_NAMES},
}
"""A name of version 0.2, `MODULE.NAME` or `MODULE.NAME.ARGUMENT`, and that of today."""
KINDS = {
    "rq_vae": RQ_VAE,
    "residual_kmeans": "dsirm_jax.quantizer.kinds.residual_kmeans.ResidualKmeans",
    "hierarchical_kmeans": "dsirm_jax.quantizer.kinds.hierarchical_kmeans.HierarchicalKmeans",
}
"""Classes of what `QuantizerConfig.kind` called by its name; `rq_vae` where it was not bound."""
REMOVED = (
    "dsirm_jax.ablation",
    "dsirm_jax.data.database",
    "dsirm_jax.data.readers",
    "dsirm_jax.data.simulated_shop",
    "dsirm_jax.encoder.model",
    "dsirm_jax.generator.model",
    "dsirm_jax.job",
    "dsirm_jax.pipeline",
    "dsirm_jax.relevance.model",
)
"""Modules of version 0.2 that cannot be imported any more."""


class GinText(config_parser.ParserDelegate):
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
            for statement in config_parser.ConfigParser(text, GinText())
            if isinstance(statement, config_parser.ImportStatement)
        ]
        self._modules = {statement.bound_name(): statement.module for statement in imports}
        kept = [statement for statement in imports if statement.module not in REMOVED]
        self._aliases = {statement.module: statement.bound_name() for statement in kept}
        self.renamed = False
        self.lines: list[str] = []
        for statement in config_parser.ConfigParser(text, self):
            if isinstance(statement, config_parser.IncludeStatement):
                self.lines.append(f"include {statement.filename!r}")
            elif isinstance(statement, config_parser.BindingStatement):
                name = self._name(statement.scope, statement.selector, statement.arg_name)
                value = self._value(self._path(statement.selector), statement)
                self.lines.append(f"{name} = {value!r}")
        if self.renamed and RQ_VAE.rpartition(".")[0] in self._aliases:
            kind = f"{self._named(QUANTIZER)}.kind = "
            if not any(line.startswith(kind) for line in self.lines):
                self.lines.append(f"{kind}@{self._named(RQ_VAE)}()")
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

    def _name(self, scope: str, selector: str, argument: str = "") -> str:
        """Returns the name today of a class or function, or of an argument of it."""
        path = self._path(selector)
        if f"{path}.{argument}" in MOVED:
            path, _, argument = MOVED[f"{path}.{argument}"].rpartition(".")
        elif path in MOVED:
            path = MOVED[path]
        else:
            return _joined(scope, selector, argument)
        self.renamed = True
        return _joined(scope, self._named(path), argument)

    def _path(self, selector: str) -> str:
        module, _, name = selector.partition(".")
        return f"{self._modules.get(module, module)}.{name}"

    def _named(self, path: str) -> str:
        """Returns what this text calls a class or function, whose module it then imports."""
        home, _, name = path.rpartition(".")
        if home not in self._aliases:
            last = home.rpartition(".")[2]
            longer = home.removeprefix("dsirm_jax.").replace(".", "_")
            self._aliases[home] = longer if last in self._aliases.values() else last
        return f"{self._aliases[home]}.{name}"

    def _value(self, path: str, statement: config_parser.BindingStatement) -> Any:
        """Returns a value of today; the kind of a quantizer was a text."""
        if path == OLD_QUANTIZER and statement.arg_name == "kind" and statement.value in KINDS:
            self.renamed = True
            return Name(f"@{self._named(KINDS[statement.value])}()")
        return statement.value


def _joined(scope: str, selector: str, argument: str) -> str:
    return "/".join(filter(None, (scope, ".".join(filter(None, (selector, argument))))))


def _import(module: str, alias: str) -> str:
    folder, _, name = module.rpartition(".")
    return f"from {folder} import {name}" + (f" as {alias}" if alias != name else "")
