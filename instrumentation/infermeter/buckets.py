"""Bucket edges, one family of edges per kind of quantity, each with the reason for these edges.

An edge is the inclusive upper bound (`le`) of its bucket, in the base unit of the quantity; `+Inf` is added by the
exposition and never listed here.
"""

# 1-2.5-5 per decade from 1 ms (a small detector on a GPU) to 60 s (a long LLM answer): p50, p95 and p99 of a model
# land at least two edges apart, and every latency objective people state (10, 50, 100, 250 ms, 1, 5, 10 s) is an edge.
DURATION_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# Logit-spaced toward 1: detectors are overconfident, so most of what changes when they drift changes above 0.9;
# steps of 0.1 keep 18 % of the population stability index of such a drift, these keep 91 %.
CONFIDENCE = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)

# Exact for the counts that decide something (none, one, two, three), then Fibonacci-like; 300 is the usual cap of
# detections per image in YOLO-style post-processing, so a model that hits its cap is seen.
OBJECTS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 50.0, 100.0, 300.0)

# 1 and 3 per decade from 1e-7 USD (a 1 ms call on a 0.40 USD/h share of a GPU) to 1 USD (a long-context LLM answer).
COST_USD = (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)

# Powers of two, because batch sizes are: every configured batch size is an edge.
BATCH_SIZE = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

# Powers of four from 1 KiB (a prompt) to 64 MiB (an uncompressed 4K batch).
SIZE_BYTES = (1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0)

# Time to the first token or frame of a stream: what a person waits for, 5 ms to 30 s.
FIRST_ITEM_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Time between two tokens: 1 ms (a small model on a GPU) to 2.5 s; 50, 100 and 200 ms, around the pace at which people
# read, are edges, and between them steps are small because a stream that falls behind its reader is what is noticed.
PER_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)

# From 100 us (resizing an image) to 10 s (a prompt of a hundred thousand tokens): stages are parts of DURATION_SECONDS.
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# A small network from the page cache to a large one over the network; 30 s, where a cold start is too slow, is an edge.
LOAD_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

# 1 ms (an idle worker takes it at once) to a minute; 5 s, from where a queue is too slow, is an edge.
WAIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# An HTTP request around an inference: as DURATION_SECONDS, so that the two can be laid over each other, and two edges
# below it, because health checks and answers from a cache take some tenths of a millisecond; every latency objective
# that people state for a service (50, 100, 250, 500 ms, 1, 2.5 s) is an edge.
REQUEST_SECONDS = (0.00025, 0.0005, *DURATION_SECONDS)

# 0 (most requests have no body), then powers of four from 256 bytes (a small JSON) over photographs to 64 MiB.
REQUEST_BYTES = (0.0, 256.0, *SIZE_BYTES)
