#!/usr/bin/env python3
"""The telescope's master controller, as its people would write it: a plain
HTTP client that installs the night's nodes in one call and follows the events.
It may be killed at any moment and started again: what it has begun and heard
is in its journal, and the request has a name of its own.

  night.py BASE CA TOKEN_FILE JOURNAL NODE...

Ends with 0 when the operation has succeeded, 1 when it has failed.
"""

import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

base, ca, token_file, journal_path, *nodes = sys.argv[1:]
token = open(token_file).read().strip()
tls = ssl.create_default_context(cafile=ca)


def call(method, path, body=None, headers=None, timeout=10):
    request = urllib.request.Request(base + path, method=method, headers={
        "Authorization": "Bearer " + token, **(headers or {})})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    return urllib.request.urlopen(request, timeout=timeout, context=tls)


def patiently(method, path, *args, **kwargs):
    """Until there is an answer; a refusal is one."""
    end = time.monotonic() + 120
    while True:
        try:
            return call(method, path, *args, **kwargs)
        except urllib.error.HTTPError as e:
            if e.code < 500 or time.monotonic() > end:
                raise SystemExit(f"{method} {path}: {e.code} {e.read().decode()}")
        except (OSError, http.client.HTTPException) as e:
            if time.monotonic() > end:
                raise SystemExit(f"{method} {path}: {e}")
        time.sleep(0.2)


class Journal:
    """What was heard, one event a line, on the disk before it counts."""

    def __init__(self, path):
        self.last = None
        whole = 0
        if os.path.exists(path):
            with open(path, "rb") as f:
                for line in f:
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    self.last = json.loads(line)["seq"]
        self.file = open(path, "ab")
        self.file.truncate(whole)

    def write(self, event):
        self.file.write(json.dumps(event).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.last = event["seq"]


def follow(journal, until):
    """Server-Sent Events from the last one that is in the journal."""
    headers = {"Accept": "text/event-stream"}
    path = "/v1/events"
    if journal.last is None:
        path += "?after=0"
    else:
        headers["Last-Event-ID"] = str(journal.last)
    with call("GET", path, headers=headers, timeout=30) as stream:
        data = []
        for raw in stream:
            line = raw.decode().rstrip("\r\n")
            if line.startswith("data:"):
                data.append(line[5:].lstrip(" "))
            elif not line and data:
                journal.write(json.loads("\n".join(data)))
                data = []
            # Also where nothing is told: a stream that is quiet is kept alive.
            if not line and until():
                return


began = time.monotonic()
with patiently("POST", "/v1/installs",
               {"nodes": nodes, "type": "base", "at_once": 2, "stop_after": 1},
               {"Idempotency-Key": "night-20261121"}) as answer:
    operation = json.load(answer)
    print(f"{answer.status} {operation['id']} in {1000 * (time.monotonic() - began):.0f} ms"
          f" replayed={answer.headers.get('Idempotency-Replayed', 'false')}", flush=True)


def state():
    with patiently("GET", f"/v1/operations/{operation['id']}") as answer:
        return json.load(answer)


journal = Journal(journal_path)
final = ("done", "failed", "cancelled")
looked, over = 0.0, False


def done():
    # The end of the whole is an event too; asking once a second does as well.
    global looked, over
    if not over and time.monotonic() - looked >= 1:
        looked = time.monotonic()
        over = state()["state"] in final
    return over


while not done():
    try:
        follow(journal, done)
    except (OSError, http.client.HTTPException) as e:
        print(f"the stream broke off after {journal.last}: {e}", flush=True)
        time.sleep(0.2)

end = state()
print(f"{end['state']}: {end.get('reason')}", flush=True)
sys.exit(0 if end["state"] == "done" else 1)
