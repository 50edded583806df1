"""A program that has children infer, in each of the ways that multiprocessing has, and prints what it shows after each.

python batch.py START_METHOD
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

import infermeter

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

PATIENCE = 30


def infer(model: str, objects: int) -> int:
    """Find so many objects, and give the process that did."""
    with infermeter.track(model=model) as call:
        call.detections([0.5] * objects, ["person"] * objects)
        call.tokens(prompt=1)
    return os.getpid()


def infer_often(model: str) -> None:
    """Find 0 to 9 objects, ten times."""
    for _ in range(10):
        for objects in range(10):
            infer(model, objects)


def infer_and_vanish(model: str) -> None:
    """End without any of what a process does at its end."""
    infer_often(model)
    os._exit(0)


def shown(port: int, model: str) -> list[float]:
    """Inferences, tokens, persons, frames, their objects, and living processes, on the page of this process."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    families = text_string_to_metric_families(connection.getresponse().read().decode())
    connection.close()
    samples = [sample for family in families for sample in family.samples]
    names = ("inferences_total", "inference_tokens_total", "detections_total", "objects_per_frame_count")
    found = [
        sum(sample.value for sample in samples if sample.name == name and sample.labels["model"] == model)
        for name in (*names, "objects_per_frame_sum")
    ]
    return [*found, *(sample.value for sample in samples if sample.name == "infermeter_processes")]


def in_processes(context: BaseContext, port: int) -> list[list[float]]:
    """Some that end as they should, and some that do not."""
    pages = []
    for model, work in (("ended", infer_often), ("vanished", infer_and_vanish)):
        processes = [context.Process(target=work, args=(model,)) for _ in range(2)]  # type: ignore[attr-defined]
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE)
            assert process.exitcode == 0
        pages.append(shown(port, model))
    return pages


def in_pool(context: BaseContext, port: int) -> list[list[float]]:
    """While it has idle workers, as soon as these have published, and after it was terminated."""
    with context.Pool(2) as pool:
        workers = set(pool.starmap(infer, [("pool", number % 10) for number in range(200)], 10))
        deadline = time.monotonic() + PATIENCE
        while shown(port, "pool")[0] < 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        *page, processes = shown(port, "pool")
        assert processes == 1 + len(workers)
        pool.starmap(infer, [("pool", number % 10) for number in range(200)], 10)
    pool.join()
    return [page, shown(port, "pool")]


def in_executor(context: BaseContext, port: int) -> list[list[float]]:
    """The executor of the standard library."""
    with ProcessPoolExecutor(2, context) as executor:
        list(executor.map(infer, ["executor"] * 200, [number % 10 for number in range(200)], chunksize=10))
    return [shown(port, "executor")]


if __name__ == "__main__":
    start_method: BaseContext = multiprocessing.get_context(sys.argv[1])
    with infermeter.serve(0, addr="127.0.0.1") as server:
        infer("parent", 1)
        found = [in_processes, in_pool, in_executor]
        answers = {way.__name__: way(start_method, server.port) for way in found}
        answers["parent"] = [shown(server.port, "parent")]
    print(json.dumps(answers))
