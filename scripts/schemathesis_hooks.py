"""Bodies that schemathesis does not know how to send: bytes, as they are."""

import json

import schemathesis


@schemathesis.serializer("application/zstd", "application/x-tar")
def as_they_are(ctx, value):
    data = getattr(value, "data", value)
    if isinstance(data, bytes):
        return data
    return data.encode() if isinstance(data, str) else json.dumps(data).encode()
