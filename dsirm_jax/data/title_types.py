"""Words that end titles and are no product types: brands, "series", what stands by any type.

A type that modifies others ("cable ties", "phone cases") does so with few of them, and is often the
head of its part itself; a word that hardly ever is, and stands before heads of many types, is none.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

from dsirm_jax.data.product_type import ENGLISH, has_rules, head_part, product_type

LEAST_TITLES = 10
MOST_HEAD_SHARE = 0.05
LEAST_SPREAD = 10.0
SAMPLE_TITLES = 1 << 17
_HASHES = 1 << 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class TitleTypes:
    """How the titles of a catalogue become product types.

    Attributes:
      language: as in `product_type`.
      noise: words that are no types here, rising.
    """

    language: str | None
    noise: tuple[str, ...] = ()

    def of(self, title: str) -> str | None:
        """Returns the product type of a title, see `product_type`."""
        return product_type(title, language=self.language, noise=self.noise)


def types_of_catalogue(titles: Iterable[str], *, language: str | None) -> TitleTypes:
    """Returns how the titles of a catalogue become product types; the first rules know no noise.

    Args:
      titles: all of them.
      language: as in `product_type`.
    """
    if language is None or not has_rules(language) or language == ENGLISH:
        return TitleTypes(language=language)
    parts = (head_part(title, language=language) for title in sampled(titles))
    return TitleTypes(language=language, noise=noise_words(part for part in parts if part))


def sampled(titles: Iterable[str], *, most: int = SAMPLE_TITLES) -> list[str]:
    """Returns all titles or, of very many, those of the lowest hashes: at most twice `most`."""
    below, kept = _HASHES, list[tuple[int, str]]()
    for title in titles:
        digest = hashlib.blake2b(title.encode(errors="surrogatepass"), digest_size=4).digest()
        number = int.from_bytes(digest, "little")
        if number < below:
            kept.append((number, title))
        while len(kept) > 2 * most and below > 1:
            below //= 2
            kept = [entry for entry in kept if entry[0] < below]
    return [title for _, title in kept]


def noise_words(parts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Returns the words that are no product types, by their spread over types.

    Of the titles whose head part has a word, `n` in all, it is the head of `h`; the heads of the
    others have the entropy `H`. Noise has n ≥ `LEAST_TITLES`, h / n < `MOST_HEAD_SHARE` and
    exp(H) ≥ `LEAST_SPREAD`: so many types, were they equally frequent, does it stand by.

    Args:
      parts: of each title the nouns of its head part, the head last; see `product_type.head_part`.

    Returns:
      Words that are heads at least once, rising. Source: this project; the effective number of
      types is Hill's (1973) of order 1.
    """
    beside: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for part in parts:
        for word in set(part):
            beside[word][part[-1]] += 1
    return tuple(sorted(word for word, heads in beside.items() if _is_noise(word, heads)))


def _is_noise(word: str, heads: Mapping[str, int]) -> bool:
    own, titles = heads.get(word, 0), sum(heads.values())
    if not own or titles < LEAST_TITLES or own >= MOST_HEAD_SHARE * titles:
        return False
    others = titles - own
    shares = (count / others for head, count in heads.items() if head != word)
    return math.exp(-sum(share * math.log(share) for share in shares)) >= LEAST_SPREAD
