"""`python -m helenite.core.health TARGET`: exit 0 when what runs there serves. For container health checks.

TARGET is `HOST:PORT` of a gRPC service, asked by the standard health protocol, or the `http://` address of a gateway,
which serves when it answers at all (401 included).
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 2.0


def is_serving(address: str) -> bool:
    """Ask the gRPC health service at `address`."""
    try:
        with grpc.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its type depends on which stubs are installed
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    except grpc.RpcError:
        return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def is_answering(url: str) -> bool:
    """Whether an HTTP server answers with anything but its own trouble."""
    request = urllib.request.Request(url, method="OPTIONS")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


if __name__ == "__main__":
    target = sys.argv[1]
    sys.exit(0 if (is_answering if target.startswith("http") else is_serving)(target) else 1)
