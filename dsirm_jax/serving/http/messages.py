"""What requests and answers look like over HTTP, and how large a request may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from dsirm_jax.data.limits import ID_CHARACTERS, QUERY_CHARACTERS
from dsirm_jax.serving.scorer.answers import AnswerSource

ITEMS, LISTED, LEVELS = 1000, 500, 16

Text = Annotated[str, Field(min_length=1, max_length=QUERY_CHARACTERS, pattern=r"\S")]
Prefix = Annotated[
    str,
    Field(
        pattern=rf"^([0-9]{{1,6}}(\.[0-9]{{1,6}}){{0,{LEVELS - 1}}})?$",
        description="The first codes of a SID with dots between them; none: the root.",
        examples=["12.87"],
    ),
]
Most = Annotated[int, Field(ge=1, le=LISTED, description="How many to list at most.")]
Deadline = Annotated[
    float | None,
    Field(gt=0, le=60_000, description="When the answer falls back on dense features alone."),
]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Request(BaseModel):
    """The fields of a request; a name that does not exist is an error."""

    model_config = ConfigDict(extra="forbid")


class QueryRequest(_Request):
    """A query's text."""

    query: Text
    deadline_ms: Deadline = None


class CandidatesRequest(QueryRequest):
    """A query's text, and how many items to list."""

    most: Most = 50


class PrefixRequest(_Request):
    """A prefix of SIDs."""

    prefix: Prefix = ""


class ItemsRequest(PrefixRequest):
    """A prefix of SIDs, and how many items to list."""

    most: Most = 50


class ScoresRequest(_Request):
    """A query's text and the items to judge."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: Text
    items: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=ID_CHARACTERS)]],
        Field(min_length=1, max_length=ITEMS, description="Item ids."),
    ]
    features: bool = Field(False, description="Whether to list the features, too.")
    deadline_ms: Deadline = None


class PredictedSid(BaseModel):
    """One SID that answers a query."""

    sid: list[int]
    probability: Probability


class PredictedSids(BaseModel):
    """The SIDs of a query, the most probable first."""

    source: AnswerSource
    sids: list[PredictedSid]


class ScoredItem(BaseModel):
    """An item's relevance."""

    item_id: str
    probability: Probability
    dense_only: Probability | None = Field(description="By the head without SIDs.")
    features: list[float | None] | None = Field(description="In the order of /api/about.")


class Scores(BaseModel):
    """Relevance of items to a query, in the order of the request."""

    source: AnswerSource
    items: list[ScoredItem]
    unknown: list[str] = Field(description="Ids that are not in the catalogue.")


class ListedItem(BaseModel):
    """An item of the catalogue."""

    item_id: str
    title: str
    sid: list[int]
    attributes: dict[str, str]


class ListedItems(BaseModel):
    """Items of the catalogue."""

    items: list[ListedItem]


class ListedBranch(BaseModel):
    """What follows a prefix of SIDs."""

    code: int
    items: int = Field(description="How many items have it.")
    category: str | None = Field(description="The commonest among its items.")
    purity: Probability | None = Field(description="Its share of them.")
    titles: list[str] = Field(description="Titles of some of them.")


class ListedBranches(BaseModel):
    """What follows a prefix of SIDs, the largest first."""

    branches: list[ListedBranch]


class DescribedFeature(BaseModel):
    """A feature that the head sees."""

    name: str
    group: str
    about: str


class About(BaseModel):
    """What is served."""

    version: str
    sizes: list[int] = Field(description="Number of codes of each level.")
    items: int
    features: list[DescribedFeature]
    examples: list[str] = Field(description="Some queries that are known beforehand.")


class Problem(BaseModel):
    """Why a request is refused."""

    code: str
    reason: str
