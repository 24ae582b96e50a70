"""The shortest way of a prediction that a full queue refuses: from the request's headers to the answer.

A flood is mostly refused, on the cores that compute the answers. Here a refusal takes 155 us of processor time, parser
included; on the way of all predictions (service.prediction) it takes 262 us (medians of 4, 2 cores of an AMD EPYC).
"""

import json
import time

from starlette.types import Scope, Send

from service.errors import ServiceError, problem
from service.phases import server_timing
from service.prediction import Service
from service.problems import PROBLEM, request_id_from

REACHED: dict[str, float] = {}
"""The phases that a refused prediction reached: none."""
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Refusals:
    """The check of a prediction before anything else is done with it. Refused predictions are counted and logged."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def refuse(self, scope: Scope, send: Send, variant: str) -> bool:
        """Answer the request and return True if the variant's queue is too full for it.

        Requests that may end in another error, and all requests of a traced service, are left to the usual way.
        """
        service = self._service
        pool = service.pools.get(variant)
        if pool is None or not pool.queue.images or scope["query_string"] or service.trace:
            return False
        headers = dict(scope["headers"])
        if b"x-request-timeout" in headers:
            return False
        began = time.perf_counter()
        try:
            pool.check(float(headers.get(b"content-length", b"inf")))
        except ServiceError as error:
            request_id = request_id_from(headers.get(b"x-request-id", b"").decode("latin-1"))
            self._count(variant, error, request_id, began)
            await self._answer(send, error, request_id, began)
            return True
        return False

    async def _answer(self, send: Send, error: ServiceError, request_id: str, began: float) -> None:
        body = encode(problem(error, request_id)).encode()
        headers = [
            (b"x-request-id", request_id.encode()),
            (b"retry-after", str(error.retry_after).encode()),
            (b"content-length", str(len(body)).encode()),
            (b"content-type", PROBLEM.encode()),
            (b"server-timing", server_timing({"total": time.perf_counter() - began}).encode()),
        ]
        await send({"type": "http.response.start", "status": error.reason.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _count(self, variant: str, error: ServiceError, request_id: str, began: float) -> None:
        word, seconds = error.reason.word, time.perf_counter() - began
        self._service.metrics.ended_at_once(variant, word, seconds)
        self._service.log(request_id, variant, word, 0, seconds, REACHED)
