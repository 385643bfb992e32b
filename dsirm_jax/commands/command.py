"""What a command is: its flags, its help and its function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from absl import flags

from dsirm_jax.io.errors import InputError

Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag `--NAME=VALUE`.

    Attributes:
      name: without the hyphens.
      value: what stands for the value in help; empty for a switch.
      meaning: its help, one line or several.
      kind: how it is read; `texts` may be given again, `list` is divided by commas.
      default: where it is not given.
      required: whether it has to be given.
      bounds: least and greatest number.
      choices: all values there are, where they are few; it may be given again.
    """

    name: str
    value: str = ""
    meaning: str = ""
    kind: Literal["text", "texts", "list", "number", "switch", "choices"] = "text"
    default: Any = None
    required: bool = False
    bounds: tuple[int | None, int | None] = (None, None)
    choices: tuple[str, ...] = ()

    def define(self, values: flags.FlagValues) -> None:
        """Makes it one of the flags that absl reads."""
        name, default = self.name, self.default
        if self.kind == "switch":
            flags.DEFINE_boolean(name, False, "", flag_values=values)
        elif self.kind == "number":
            flags.DEFINE_integer(name, default, "", *self.bounds, flag_values=values)
        elif self.kind == "texts":
            flags.DEFINE_multi_string(name, [], "", flag_values=values)
        elif self.kind == "list":
            flags.DEFINE_list(name, [], "", flag_values=values)
        elif self.kind == "choices":
            flags.DEFINE_multi_enum(name, [], list(self.choices), "", flag_values=values)
        else:
            flags.DEFINE_string(name, default, "", required=self.required, flag_values=values)

    def help(self) -> str:
        """Returns its lines of help."""
        name = f"--{self.name}={self.value}" if self.value else f"--{self.name}"
        first, *more = self.meaning.split("\n")
        return "\n".join([f"  {name:<24} {first}", *(f"{'':<27}{line}" for line in more)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A command of `dsirm`.

    Attributes:
      name: its first argument.
      summary: one line.
      run: `run(flags by name, arguments) -> exit code`.
      flags: beside those that all commands have.
      arguments: what its arguments are called; each has to be given.
      wanted: what is said where an argument is missing.
      configured: whether it reads gin files.
      details: gives the rest of its help.
    """

    name: str
    summary: str
    run: Callable[[Values, Sequence[str]], int]
    flags: tuple[Flag, ...] = ()
    arguments: tuple[str, ...] = ()
    wanted: str = ""
    configured: bool = True
    details: Callable[[], str] | None = None

    def help(self) -> str:
        """Returns what `dsirm COMMAND --help` prints."""
        usage = " ".join(["dsirm", self.name, *self.arguments])
        parts = [f"{usage}: {self.summary}"]
        if self.flags:
            parts.append("\n".join(["flags:", *(flag.help() for flag in self.flags)]))
        if self.details:
            parts.append(self.details())
        return "\n\n".join(filter(None, parts))

    def parse(
        self, arguments: Sequence[str], *, shared: Sequence[Flag]
    ) -> tuple[Values, list[str]]:
        """Returns the flags by name, and the arguments.

        Args:
          arguments: of the command line, without the command.
          shared: flags that every command has.

        Raises:
          InputError: a flag is unknown, wrong or missing, or there are other arguments than wanted.
        """
        values = flags.FlagValues()
        values.set_gnu_getopt(True)  # a flag may stand behind an argument
        for flag in (*self.flags, *shared):
            flag.define(values)
        try:
            given = values(["dsirm", *arguments])[1:]
        except flags.Error as error:
            raise InputError(f"{error}; see `dsirm {self.name} --help`") from error
        if len(given) > len(self.arguments):
            extra = given[len(self.arguments)]
            raise InputError(f"unexpected argument {extra!r}; see `dsirm {self.name} --help`")
        if len(given) < len(self.arguments):
            raise InputError(f"{self.wanted}: {' '.join(['dsirm', self.name, *self.arguments])}")
        return {flag.name: values[flag.name].value for flag in (*self.flags, *shared)}, given
