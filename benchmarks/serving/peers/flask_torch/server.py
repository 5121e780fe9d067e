"""Flask with the network in torch (eager), as the capstone serves it, tokens in place of values.

gunicorn, one worker, one thread per open connection up to 64.  torch comes from the project's own
environment, whose site-packages the harness names in ``BENCH_TORCH_SITE``.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.environ["BENCH_TORCH_SITE"])

import numpy as np
import torch
from flask import Flask, jsonify, request
from gunicorn.app.base import BaseApplication

from benchmarks.serving.peers.common import PORT, Indexer

app = Flask(__name__)
torch.set_num_threads(1)


def _network() -> tuple[torch.nn.Sequential, np.ndarray]:
    """Return the dense layers and the first column of each field."""
    with np.load(os.environ["BENCH_WEIGHTS"]) as stored:
        layers: list[torch.nn.Module] = []
        for i in range(sum(name.startswith("weight") for name in stored.files)):
            weight = torch.from_numpy(stored[f"weight{i}"])
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = weight, torch.from_numpy(stored[f"bias{i}"])
            layers += [torch.nn.ReLU(), layer] if layers else [layer]
        return torch.nn.Sequential(*layers).eval(), stored["offsets"]


indexer = Indexer()
network, offsets = _network()
width = network[0].in_features


@app.post("/v1/score")
def score() -> object:
    """Return the probability of each record."""
    indices = indexer.records(request.get_json()["records"])
    row = np.zeros((len(indices), width), np.float32)
    np.put_along_axis(row, indices + offsets, 1.0, axis=1)
    with torch.inference_mode():
        probability = torch.sigmoid(network(torch.from_numpy(row)))[:, 0]
    return jsonify(probability=probability.tolist())


class Gunicorn(BaseApplication):
    """gunicorn without a command line."""

    def load_config(self) -> None:
        """Set what its documentation advises for keep-alive connections."""
        options = {
            "bind": f"127.0.0.1:{PORT}", "workers": 1, "worker_class": "gthread", "threads": 64,
            "keepalive": 60, "loglevel": "warning",
        }  # fmt: skip
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application."""
        return app


if __name__ == "__main__":
    Gunicorn().run()
