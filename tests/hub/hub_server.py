"""A small Hugging Face hub on this machine, for the tests of downloading."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000  # files from this size on are named by their SHA-256, as the hub does with those in its large-file storage


class Hub:
    """Serves ``repositories[name][file] = bytes``; ``gated`` names show their lists but not their files."""

    def __init__(self):
        self.repositories = {}
        self.gated = set()
        self.cut_after = None  # bytes after which the connection is dropped, and no other answered
        self.down = False
        self.corrupt = False
        self.requests = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                hub.answer(self, body=False)

            def do_GET(self):
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request, body):
        path = request.path.partition("?")[0]
        self.requests.append((path, request.headers.get("Range"), request.headers.get("Authorization")))
        if path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            return self.describe(request, name, revision)
        if self.down:
            return self.reply(request, 503, b"", {})
        name, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        if name in self.gated:
            return self.reply(request, 403, b"", {"X-Error-Code": "GatedRepo"})
        data = self.repositories[name][file]
        first = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"X-Repo-Commit": COMMIT, "ETag": '"x"'}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if self.corrupt:
            data = bytes(len(data))
        data, cut = data[first:], self.cut_after
        self.down = cut is not None and cut < len(data)
        self.reply(request, 206 if first else 200, data, headers, cut)

    def describe(self, request, name, revision):
        files = self.repositories.get(name)
        if files is None:
            return self.reply(request, 401, b"", {"X-Error-Code": "RepoNotFound"})
        if revision not in ("", "main", COMMIT):
            return self.reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for file, data in files.items():
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"rfilename": file, "size": len(data), "blobId": git}
            if len(data) >= LARGE:
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
            siblings.append(entry)
        answer = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        self.reply(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def reply(request, status, data, headers, cut=None):
        request.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data if cut is None else data[:cut])
        if cut is not None and cut < len(data):
            request.wfile.flush()
            request.close_connection = True
            request.connection.shutdown(2)
