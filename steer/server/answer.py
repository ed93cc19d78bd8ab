"""How every call of every service is answered: counted, timed, and with errors as gRPC statuses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
import structlog

from steer import wire
from steer.errors import SteerError
from steer.server.metrics import Metrics

_Reply = TypeVar("_Reply")
_log = structlog.get_logger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


async def answer(call: str, context: Context, metrics: Metrics, work: Callable[[], Awaitable[_Reply]]) -> _Reply:
    """Do the work, count it, and turn errors into statuses. What is not ours stays in the log, with a number to find it."""
    start = time.perf_counter()
    status, details, name = "OK", "", ""
    try:
        return await work()
    except SteerError as error:
        status, details, name = error.status, str(error), type(error).__name__
    except Exception:  # noqa: BLE001 - logged; the caller gets a number and no internals
        incident = uuid.uuid4().hex[:8]
        _log.exception("internal error", call=call, incident=incident)
        status, name = "INTERNAL", SteerError.__name__
        details = f"internal error {incident} in the server: its log says more"
    finally:
        metrics.requests.labels(call, status).inc()
        metrics.request_s.labels(call).observe(time.perf_counter() - start)
    await context.abort(grpc.StatusCode[status], details, ((wire.ERROR_KEY, name),))
