#!/usr/bin/env python3
"""Finds near-duplicates among the texts of trace parts with datatrove, and says how long each stage took.

    pip install 'datatrove[processing]' spacy pyarrow
    python scripts/peers/datatrove_minhash.py RUN_DIR/traces [TASKS]

5-grams of words, 14 buckets of 8 hashes of 64 bits: datatrove's defaults. One process by default. Ours:
cargo bench -p stillroom-dataset --bench minhash -- RUN_DIR/traces
"""

import glob
import os
import sys
import tempfile
import time

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)


class Traces:
    """The texts, rank by rank."""

    name, type = "traces", "reader"

    def __init__(self, folder):
        self.parts = sorted(glob.glob(os.path.join(folder, "*.parquet")))

    def __call__(self, data=None, rank=0, world_size=1):
        for part in self.parts[rank::world_size]:
            for batch in pq.ParquetFile(part).iter_batches(1024, columns=["trace_id", "text"]):
                for name, text in zip(batch["trace_id"].to_pylist(), batch["text"].to_pylist()):
                    if text is not None:
                        yield Document(text=text, id=name)


def main():
    folder, tasks = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rows = sum(pq.ParquetFile(path).metadata.num_rows for path in glob.glob(os.path.join(folder, "*.parquet")))
    config = MinhashConfig()
    with tempfile.TemporaryDirectory() as work:
        path = lambda name: os.path.join(work, name)
        stages = [
            ("signatures", tasks, [Traces(folder), MinhashDedupSignature(output_folder=path("sig"), config=config)]),
            ("buckets", config.num_buckets, [MinhashDedupBuckets(path("sig"), path("buckets"), config=config)]),
            ("clusters", 1, [MinhashDedupCluster(path("buckets"), path("remove"), config=config)]),
        ]
        total = 0.0
        for name, n_tasks, pipeline in stages:
            start = time.perf_counter()
            workers = min(tasks, n_tasks)
            LocalPipelineExecutor(pipeline=pipeline, tasks=n_tasks, workers=workers, logging_dir=path(f"log-{name}")).run()
            seconds = time.perf_counter() - start
            total += seconds
            print(f"{name}: {seconds:.1f} s", flush=True)
    print(f"datatrove, {tasks} processes: {rows} rows in {total:.1f} s, {rows / total:.0f} rows/s")


if __name__ == "__main__":
    main()
