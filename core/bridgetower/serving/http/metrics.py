"""Figures for Prometheus: requests as they end, and what the queue, the engine and its model count."""

import time
from collections.abc import Iterator

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridgetower import __version__
from bridgetower.serving.engine import Engine
from bridgetower.serving.http.errors import GONE
from bridgetower.serving.http.routes.schemas import failures
from bridgetower.serving.request_queue import RequestQueue

_KIND = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST"})  # others count as one: a client may name any


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, engine: Engine, queue: RequestQueue) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "path", "status")
        self._requests = Counter("bt_http_requests", "Requests that have ended.", labels, registry=self.registry)
        self._seconds = Histogram(
            "bt_http_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_State(engine, queue))

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        path = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)


class _State(Collector):
    """The figures that the parts of the server count by themselves."""

    def __init__(self, engine: Engine, queue: RequestQueue) -> None:
        self._engine, self._queue = engine, queue

    def describe(self) -> list[Metric]:
        return []  # so that registering reads nothing

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("bt_build_info", "The version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily("bt_model_awake", "Whether the weights are in memory.", int(self._engine.is_awake))
        yield GaugeMetricFamily("bt_queue_running", "Requests that run.", self._queue.running)
        yield GaugeMetricFamily("bt_queue_waiting", "Requests that wait for a thread.", max(0, self._queue.waiting))
        yield CounterMetricFamily("bt_queue_refused", "Requests refused as too many waited.", self._queue.refused)
        stages = SummaryMetricFamily("bt_stage_seconds", "Seconds of each stage of a request.", labels=["stage"])
        for stage, (times, seconds) in sorted(self._engine.stages().items()):
            stages.add_metric([stage], times, seconds)
        yield stages
        items = SummaryMetricFamily("bt_batch_items", "Texts, pictures or pairs in a pass.", labels=["kind"])
        calls = SummaryMetricFamily("bt_batch_calls", "Calls of requests that share a pass.", labels=["kind"])
        for kind, (passes, some, all_items) in sorted(self._engine.batches().items()):
            items.add_metric([kind], passes, all_items)
            calls.add_metric([kind], passes, some)
        yield items
        yield calls


class Measured:
    """ASGI middleware that counts requests; the outermost, so that it sees refusals, too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.add(scope, status, time.perf_counter() - began)


def router(metrics: Metrics) -> APIRouter:
    """Return the route of the figures."""
    routes = APIRouter()
    told = {"description": "The text format of Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @routes.get("/metrics", responses={**failures(), 200: told}, response_class=Response, operation_id="metrics")
    async def figures() -> Response:
        """Tell the figures of the server to Prometheus. They do not wait in the queue."""
        return Response(generate_latest(metrics.registry), headers={"Content-Type": _KIND})

    return routes
