"""The groups of features by name: those of this package, and which of them a rung has, in gin.

    relevance.run.rungs = {
      'no_sid': @groups.without_sids(),
      'full': @groups.all_groups(),
      'full_without_votes': @full_without_votes/groups.without(),
    }
    full_without_votes/groups.without.names = ('votes',)

The package's groups are the modules of the folder `features`. Groups of a user's own are bound as
`extra_groups` of the stage that computes them, and named by `extra` or in a rung.
"""

from __future__ import annotations

import collections
import difflib
import functools
import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType, ModuleType

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import features
from dsirm_jax.relevance.features.group import BEAMS, PAIRS, PER_NUMBER, Group
from dsirm_jax.relevance.variants import tagged_name

RUNGS = "gin binding relevance.run.rungs"


@functools.cache
def package_groups() -> Mapping[str, Group]:
    """Returns the groups of this package by name, in the order in which tables have them."""
    return MappingProxyType(groups_in(features))


@functools.cache
def control_groups() -> Mapping[str, Group]:
    """Returns the groups of this package that only controls have, each its module's `CONTROL`."""
    return MappingProxyType(groups_in(features, named="CONTROL"))


def controls_named(names: Sequence[str]) -> tuple[Group, ...]:
    """Returns some of `control_groups`, in the order given.

    Raises:
      InputError: there is no such group.
    """
    known = control_groups()
    if names:
        check_names(names, known=known, binding="gin binding features.run.control_groups")
    return tuple(known[name] for name in names)


def groups_in(package: ModuleType, *, named: str = "GROUP") -> dict[str, Group]:
    """Returns the group of each module of a package that has one, by name and in order.

    Args:
      package: whose modules may have one.
      named: what they call it.

    Raises:
      InputError: two have one name.
    """
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    groups = [getattr(module, named) for module in modules if hasattr(module, named)]
    return _by_name(sorted(groups, key=lambda group: (group.order, group.name)))


def reading(*reads: str, extra: Iterable[Group] = ()) -> tuple[Group, ...]:
    """Returns the groups that read one of `group.READS`: the package's, then others.

    Args:
      reads: what they read.
      extra: a user's own groups.

    Raises:
      InputError: one of `extra` reads something else, or has the name of another group.
    """
    for group in extra:
        if not isinstance(group, Group):
            raise InputError(f"extra_groups has {group!r}; bind a call, such as @my_module.group()")
        if group.reads not in reads:
            raise InputError(
                f"the group {group.name!r} reads {group.reads!r}; bind groups that read "
                f"{PAIRS!r} to features.run.extra_groups, others to match.run.extra_groups"
            )
    _by_name([*package_groups().values(), *extra])
    return (*(group for group in package_groups().values() if group.reads in reads), *extra)


def all_groups(*, beams: int | str | None = None, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Returns the names of all groups of this package.

    Args:
      beams: in place of the groups that read beams, their variants of so many, or of "own", which
        `match.run.beams` has to name; None: themselves.
      extra: names of further groups, such as your own.
    """
    return without(names=(), beams=beams, extra=extra)


def without(
    *, names: tuple[str, ...], beams: int | str | None = None, extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Returns the names of the groups of this package but for some.

    Args:
      names: of those left out.
      beams: as in `all_groups`.
      extra: likewise.

    Raises:
      InputError: there is no such group.
    """
    known = package_groups()
    if names:
        check_names(names, known=known, binding="gin binding groups.without.names")
    kept = [
        name if beams is None or group.reads != BEAMS else tagged_name(name, beams)
        for name, group in known.items()
        if name not in names
    ]
    return (*kept, *extra)


def without_sids(*, names: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Returns the names of the groups that know nothing of SIDs.

    Args:
      names: of those left out.
      extra: names of groups that are there all the same.

    Raises:
      InputError: one of `names` is no such group.
    """
    known = [group.name for group in reading(PAIRS)]
    if names:
        check_names(names, known=known, binding="gin binding groups.without_sids.names")
    return (*(name for name in known if name not in names), *extra)


def only(*, names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of some groups of this package, in the order in which tables have them.

    Raises:
      InputError: there is no such group.
    """
    check_names(names, known=package_groups(), binding="gin binding groups.only.names")
    return tuple(name for name in package_groups() if name in names)


def check_rungs(
    rungs: Mapping[str, Sequence[str]],
    *,
    beams: Sequence[int | str] = (),
    extra: Sequence[Group] = (),
) -> None:
    """Raises InputError where a rung names no groups, one twice, or one that nothing computes.

    Args:
      rungs: names of the groups of each.
      beams: variants of the groups that read beams, as in `match.run`.
      extra: a user's own groups.
    """
    known = _by_name([*package_groups().values(), *extra])
    variants = [
        tagged_name(name, tag)
        for tag in beams
        for name, group in package_groups().items()
        if group.reads == BEAMS
    ]
    for rung, names in rungs.items():
        check_names(names, known=[*known, *variants], binding=f"{RUNGS}[{rung!r}]")


def check_names(names: Sequence[str], *, known: Collection[str], binding: str) -> None:
    """Raises InputError where there are no names of groups, one twice, or one that is not known.

    Args:
      names: to check.
      known: names that may be among them.
      binding: what messages call them.
    """
    if isinstance(names, str) or not names:
        raise InputError(f"{binding} is {names!r}; bind a tuple of {', '.join(known)}")
    for name, times in collections.Counter(names).items():
        if times > 1:
            raise InputError(f"{binding} names the feature group {name!r} twice; name it once")
        if name not in known:
            similar = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {similar[0]!r}?)" if similar else ""
            raise InputError(
                f"{binding} names the feature group {name!r}{hint}; choose from {', '.join(known)}"
            )


def may_be_empty(name: str) -> bool:
    """Returns whether a group of this package has no column where the user has no numbers."""
    group = package_groups().get(name)
    return group is not None and all(column.per == PER_NUMBER for column in group.columns)


def served(names: Collection[str], *, head: str) -> tuple[Group, ...]:
    """Returns the groups that a head reads when serving, in the order in which tables have them.

    Args:
      names: of its groups.
      head: what messages call it.

    Raises:
      InputError: one of them is only computed in experiments, or is a user's own.
    """
    known = package_groups()
    for name in names:
        if name not in known:
            raise InputError(
                f"the head reads the group {name!r}, which is not computed when serving: only the "
                f"groups of this package are, {', '.join(known)}; bind "
                f"relevance.run.rungs[{head!r}] to these and export again"
            )
    return tuple(group for name, group in known.items() if name in names)


def _by_name(groups: Iterable[Group]) -> dict[str, Group]:
    known: dict[str, Group] = {}
    for group in groups:
        if group.name in known:
            raise InputError(f"two feature groups are named {group.name!r}; rename your own")
        known[group.name] = group
    return known
