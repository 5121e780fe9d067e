"""CTGAN, TVAE (Xu et al., NeurIPS 2019) and a Gaussian copula, as SDV sets them up."""

from __future__ import annotations

import pandas as pd
import torch
from sdv.metadata import Metadata
from sdv.single_table import CTGANSynthesizer, GaussianCopulaSynthesizer, TVAESynthesizer

from benchmarks.synthetic.peers import common

METHODS = {
    "ctgan": CTGANSynthesizer,
    "tvae": TVAESynthesizer,
    "copula": GaussianCopulaSynthesizer,
}


def make(table: pd.DataFrame, task: common.Task) -> pd.DataFrame:
    """Fit with the library's defaults but for ``task["settings"]``, and sample."""
    torch.manual_seed(task["seed"])
    torch.set_num_threads(1)
    columns = {
        name: {"sdtype": "numerical" if name in task["numeric"] else "categorical"}
        for name in table
    }
    metadata = Metadata.load_from_dict({"tables": {"table": {"columns": columns}}})
    synthesizer = METHODS[task["method"]](metadata, **task["settings"])
    synthesizer.fit({"table": table})
    return synthesizer.sample(task["rows"])["table"]


if __name__ == "__main__":
    common.run(make)
