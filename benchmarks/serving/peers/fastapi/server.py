"""FastAPI on uvicorn (uvloop, httptools), pydantic body, orjson answer, model run inline."""

from __future__ import annotations

import orjson
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.serving.peers.common import PORT, Indexer, Model

app = FastAPI()
indexer, model = Indexer(), Model()


class ScoreBody(BaseModel):
    """The request of CipherScore's own JSON API."""

    key_id: str
    records: list[dict[str, str]]


@app.post("/v1/score")
async def score(body: ScoreBody) -> Response:
    """Return the probability of each record."""
    probability = model(indexer.records(body.records))
    content = orjson.dumps({"probability": probability}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=PORT, loop="uvloop", http="httptools", access_log=False,
        log_level="warning",
    )  # fmt: skip
