"""A server on this host that answers as the OpenAI API does: chat, responses, embeddings, streams, and errors."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT, COMPLETION = 11, 5
"""Tokens that each answer tells."""
WORDS = ("one", "two", "three", "four", "five")
# What a model of that name does; every other one answers.
BUSY, BROKEN, BREAKS = "busy", "broken", "breaks"
# It answers never, not after the first word, at the second time, as far as it was allowed to, that it failed.
LATE, STUCK, AGAIN, CUT, FAILS = "late", "stuck", "again", "cut", "fails"
# It tells of an error in the midst of a stream, as the newer endpoint does.
ERRS = "errs"

_CHAT = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}
_RESPONSE = {
    "input_tokens": PROMPT,
    "output_tokens": COMPLETION,
    "total_tokens": PROMPT + COMPLETION,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def _response(model: str, status: str) -> dict[str, Any]:
    text = {"type": "output_text", "text": " ".join(WORDS), "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "r",
        "object": "response",
        "created_at": 0,
        "model": model,
        "status": status,
        "output": [message] if status == "completed" else [],
        "error": {"code": "server_error", "message": "it fails"} if status == "failed" else None,
        "usage": None if status == "in_progress" else _RESPONSE,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer what is asked of the model that is named."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = asked["model"]
        if model == LATE:
            self._wait()
        elif model == AGAIN and self.headers.get("x-stainless-retry-count") == "0":
            self._send(500, b"{}")
        elif model in {BUSY, BROKEN}:
            code = 429 if model == BUSY else 500
            self._send(code, json.dumps({"error": {"message": f"it is {model}", "type": model}}).encode())
        elif asked.get("stream"):
            self._stream(model, list(self._events(asked)))
        else:
            self._send(200, json.dumps(self._answer(asked)).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class calls it so)
        """Say nothing."""

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, model: str, events: list[tuple[str, dict[str, Any]]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for number, (name, event) in enumerate(events):
                if model == BREAKS and number == 3:
                    return  # without the chunk that ends it
                if model == STUCK and number == 2:
                    self._wait()
                    return
                text = (f"event: {name}\n" if name else "") + f"data: {json.dumps(event)}\n\n"
                self._chunk(text.encode())
            if not self.path.endswith("/responses"):
                self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except OSError:  # the reader went away
            pass

    def _wait(self) -> None:
        """Wait until nobody waits for the answer."""
        self.close_connection = True
        self.rfile.read(1)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _events(self, asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        model = asked["model"]
        if self.path.endswith("/responses"):
            kinds: list[tuple[str, dict[str, Any]]] = [
                ("response.created", {"response": _response(model, "in_progress")})
            ]
            item = {"type": "message", "id": "m", "role": "assistant", "status": "in_progress", "content": []}
            kinds.append(("response.output_item.added", {"output_index": 0, "item": item}))
            part = {"type": "output_text", "text": "", "annotations": []}
            place = {"item_id": "m", "output_index": 0, "content_index": 0}
            kinds.append(("response.content_part.added", {**place, "part": part}))
            kinds += [("response.output_text.delta", {**place, "delta": word, "logprobs": []}) for word in WORDS]
            if model == ERRS:
                kinds.append(("error", {"code": "server_error", "message": "it errs", "param": None}))
            else:
                status = "failed" if model == FAILS else "completed"
                kinds.append((f"response.{status}", {"response": _response(model, status)}))
            for number, (kind, rest) in enumerate(kinds):
                yield kind, {"type": kind, "sequence_number": number, **rest}
            return
        base = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": model}
        yield (
            "",
            base | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        )
        for word in WORDS:
            yield "", base | {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        yield "", base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield "", base | {"choices": [], "usage": _CHAT}

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        model = asked["model"]
        if self.path.endswith("/embeddings"):
            texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
            data = [{"object": "embedding", "index": index, "embedding": [0.5, 0.25]} for index in range(len(texts))]
            usage = {"prompt_tokens": PROMPT, "total_tokens": PROMPT}
            return {"object": "list", "model": model, "data": data, "usage": usage}
        if self.path.endswith("/responses"):
            return _response(model, "failed" if model == FAILS else "completed")
        if not self.path.endswith("/chat/completions"):
            legacy = {"index": 0, "text": " ".join(WORDS), "finish_reason": "stop", "logprobs": None}
            return {
                "id": "c",
                "object": "text_completion",
                "created": 0,
                "model": model,
                "choices": [legacy],
                "usage": _CHAT,
            }
        message = {"role": "assistant", "content": " ".join(WORDS)}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "length" if model == CUT else "stop",
            "logprobs": None,
        }
        dated = model + "-2026-01-01"
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": dated,
            "choices": [choice],
            "usage": _CHAT,
        }


class _Server(ThreadingHTTPServer):
    """Takes many at once."""

    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving() -> Iterator[str]:
    """The base URL of such a server, while it runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
