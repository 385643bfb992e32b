"""The addresses of a server, and what a scorer answers there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import prometheus_client
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException

import dsirm_jax
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.http.calls import Calls
from dsirm_jax.serving.http.messages import (
    About,
    CandidatesRequest,
    DescribedFeature,
    ItemsRequest,
    ListedBranch,
    ListedBranches,
    ListedItem,
    ListedItems,
    PredictedSid,
    PredictedSids,
    PrefixRequest,
    QueryRequest,
    ScoredItem,
    Scores,
    ScoresRequest,
)
from dsirm_jax.serving.http.refusals import REFUSALS
from dsirm_jax.serving.scorer.answers import Item
from dsirm_jax.serving.scorer.scorer import Scorer

PAGE = Path(__file__).parents[1] / "explorer"
STYLE = Path(dsirm_jax.__file__).parent / "report" / "page.css"
EXAMPLE_QUERIES = 8


async def _calls(request: Request) -> Calls:
    return request.app.state.calls


ScorerCalls = Annotated[Calls, Depends(_calls)]
api = APIRouter(prefix="/api", responses=REFUSALS)
pages = APIRouter()


@api.get("/about", response_model=About)
async def about(calls: ScorerCalls) -> Response:
    """Tells what is served: codes of each level, number of items, features."""

    def make(scorer: Scorer) -> About:
        return About(
            version=dsirm_jax.__version__,
            sizes=list(scorer.sizes),
            items=int(scorer.statistics()["items"]),
            features=[
                DescribedFeature(name=feature.name, group=feature.group, about=feature.about)
                for feature in scorer.schema
            ],
            examples=scorer.examples(most=EXAMPLE_QUERIES),
        )

    return await calls.answer(make)


@api.get("/sids", response_model=PredictedSids)
async def sids(wanted: Annotated[QueryRequest, Query()], calls: ScorerCalls) -> Response:
    """Predicts the SIDs of a query."""

    def make(scorer: Scorer) -> PredictedSids:
        predicted = scorer.query_sids(wanted.query, deadline=_seconds(wanted.deadline_ms))
        calls.metrics.answers.labels(predicted.source).inc()
        pairs = zip(predicted.sids.tolist(), predicted.probabilities.tolist(), strict=True)
        return PredictedSids(
            source=predicted.source,
            sids=[PredictedSid(sid=sid, probability=probability) for sid, probability in pairs],
        )

    return await calls.answer(make)


@api.get("/candidates", response_model=ListedItems)
async def candidates(wanted: Annotated[CandidatesRequest, Query()], calls: ScorerCalls) -> Response:
    """Lists items for a query: those of its SIDs, then the nearest."""

    def make(scorer: Scorer) -> ListedItems:
        deadline = _seconds(wanted.deadline_ms)
        ids = scorer.candidates(wanted.query, most=wanted.most, deadline=deadline)
        return ListedItems(items=list(map(_listed, scorer.described(ids))))

    return await calls.answer(make)


@api.post("/score", response_model=Scores)
async def score(wanted: ScoresRequest, calls: ScorerCalls) -> Response:
    """Tells how relevant items are to a query."""
    calls.metrics.batch.observe(len(wanted.items))

    def make(scorer: Scorer) -> Scores:
        deadline = _seconds(wanted.deadline_ms)
        judged = scorer.score(wanted.query, wanted.items, deadline=deadline)
        calls.metrics.answers.labels(judged.source).inc()
        unknown = set(judged.unknown)
        features = _finite(judged.features) if wanted.features else [None] * len(wanted.items)
        scored = [
            ScoredItem(item_id=item_id, probability=full, dense_only=dense, features=values)
            for item_id, full, dense, values in zip(
                wanted.items,
                judged.probabilities.tolist(),
                _finite(judged.dense_only),
                features,
                strict=True,
            )
            if item_id not in unknown
        ]
        if not scored:
            raise HTTPException(404, "none of the items is in the catalogue")
        return Scores(source=judged.source, items=scored, unknown=list(judged.unknown))

    return await calls.answer(make)


@api.get("/items", response_model=ListedItems)
async def items(wanted: Annotated[ItemsRequest, Query()], calls: ScorerCalls) -> Response:
    """Lists items whose SIDs start with a prefix."""

    def make(scorer: Scorer) -> ListedItems:
        below = scorer.items(_codes(wanted.prefix, scorer), most=wanted.most)
        return ListedItems(items=list(map(_listed, below)))

    return await calls.answer(make)


@api.get("/tree", response_model=ListedBranches)
async def tree(wanted: Annotated[PrefixRequest, Query()], calls: ScorerCalls) -> Response:
    """Lists the codes that follow a prefix, the largest first."""

    def make(scorer: Scorer) -> ListedBranches:
        branches = scorer.children(_codes(wanted.prefix, scorer))
        largest_first = sorted(branches, key=lambda branch: (-branch.items, branch.code))
        listed = [ListedBranch(**dataclasses.asdict(branch)) for branch in largest_first]
        return ListedBranches(branches=listed)

    return await calls.answer(make)


@pages.get("/health", response_class=JSONResponse)
async def health() -> dict[str, str]:
    """Tells that the process is alive."""
    return {"status": "alive"}


@pages.get("/ready", response_class=JSONResponse, responses={503: REFUSALS[503]})
async def ready(calls: ScorerCalls) -> dict[str, str]:
    """Tells whether requests are welcome; 503, and why not, before the scorer is warm."""
    if calls.unready is not None:
        raise HTTPException(503, calls.unready)
    return {"status": "ready"}


@pages.get("/metrics", response_class=Response)
async def metrics(calls: ScorerCalls) -> Response:
    """Returns what Prometheus reads."""
    return Response(calls.metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST)


@pages.get("/", include_in_schema=False)
async def page() -> Response:
    """Returns the explorer."""
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


@pages.get("/explorer/report.css", include_in_schema=False)
async def style() -> Response:
    """Returns the report's style sheet, whose colours and pieces the explorer shares."""
    return FileResponse(STYLE, headers={"cache-control": "no-cache"})


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _codes(prefix: str, scorer: Scorer) -> tuple[int, ...]:
    codes = tuple(map(int, prefix.split("."))) if prefix else ()
    if len(codes) > len(scorer.sizes):
        raise InputError(f"prefix: {len(codes)} codes; a SID has {len(scorer.sizes)}")
    return codes


def _listed(item: Item) -> ListedItem:
    return ListedItem(**dataclasses.asdict(item))


def _finite(values: np.ndarray) -> list[Any]:
    """Returns the numbers as lists, None for what is not known."""
    shown = values.astype(object)
    shown[~np.isfinite(values)] = None
    return shown.tolist()
