"""What a query of the simulated shop asks for, read back from its words."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dsirm_jax.ingestion.shop import catalogue
from dsirm_jax.ingestion.shop.catalogue import ProductType

_Words = tuple[str, ...]


class Asked(NamedTuple):
    """What a query asks for.

    Attributes:
      type: first name of the product type, as `truth_type` of an item.
      facts: `name=value` by the attribute's name, as in `truth_attributes` of an item.
    """

    type: str
    facts: Mapping[str, str]


class _Phrase(NamedTuple):
    name: str
    fact: str


def asked(query: str) -> Asked | None:
    """Returns what a query asks for; None where its words say it in no way, or in several.

    A query is the name of a type with wordings of its attributes' values before and behind, each
    attribute once, and perhaps a filler first (`queries.QueryLog`). Queries for a model, and
    misspelt ones, are none of these.

    Args:
      query: its text, in lower case.
    """
    words = tuple(query.split())
    found: dict[tuple[str, frozenset[_Phrase]], None] = {}
    for start in range(len(words)):
        for type_, length in _types_at(words, start):
            for first in _first_words(words):
                before, behind = words[first:start], words[start + length :]
                if first <= start:
                    for phrases in _readings(type_, (before, behind)):
                        found[type_.names[0], frozenset(phrases)] = None
    if len(found) != 1:
        return None
    ((name, chosen),) = found
    return Asked(name, {phrase.name: phrase.fact for phrase in chosen})


def _first_words(words: _Words) -> list[int]:
    """Returns where a query may begin: at its first word, or behind a filler."""
    fillers = (tuple(filler.split()) for filler in catalogue.words()["query filler"])
    return [0, *(len(filler) for filler in fillers if words[: len(filler)] == filler)]


def _types_at(words: _Words, start: int) -> Iterator[tuple[ProductType, int]]:
    """Yields the types whose name stands at a place, and the number of its words."""
    for name, type_ in _names()[words[start]]:
        if words[start : start + len(name)] == name:
            yield type_, len(name)


@functools.cache
def _names() -> Mapping[str, list[tuple[_Words, ProductType]]]:
    """Returns the names of types by their first word."""
    names = collections.defaultdict(list)
    for type_ in catalogue.product_types():
        for name in dict.fromkeys(type_.names):
            words = tuple(name.lower().split())
            names[words[0]].append((words, type_))
    return names


@functools.cache
def _phrases(type_: ProductType) -> Mapping[str, list[tuple[_Words, _Phrase]]]:
    """Returns the wordings of a type's attributes in queries, by their first word."""
    phrases = collections.defaultdict(list)
    for facet in type_.facets:
        for of_value in facet.phrases.values():
            for wording in dict.fromkeys(of_value.in_queries):
                words = tuple(wording.lower().split())
                phrases[words[0]].append((words, _Phrase(facet.name, of_value.fact)))
    return phrases


def _readings(
    type_: ProductType, parts: tuple[_Words, ...], used: tuple[_Phrase, ...] = ()
) -> Iterator[tuple[_Phrase, ...]]:
    """Yields the ways to read all words of some parts as phrases of different attributes."""
    if not parts:
        yield used
        return
    words, *others = parts
    if not words:
        yield from _readings(type_, tuple(others), used)
        return
    for wording, phrase in _phrases(type_)[words[0]]:
        is_new = phrase.name not in {known.name for known in used}
        if is_new and words[: len(wording)] == wording:
            yield from _readings(type_, (words[len(wording) :], *others), (*used, phrase))
