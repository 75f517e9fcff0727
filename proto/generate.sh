#!/bin/sh
# Regenerate helenite/core/pb from proto/; CI runs it and compares. Needs the `dev` extra.
set -eu
cd "$(dirname "$0")/.."
python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
    proto/helenite/core/pb/*.proto
