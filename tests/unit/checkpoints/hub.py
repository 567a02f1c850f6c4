"""A Hub that answers on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Hub:
    """A Hub of one repository, as `huggingface_hub` sees it over HTTP; counts what is asked of it."""

    repository = "someone/bridgetower-tiny"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = "1" * 40
        self.requests: list[str] = []
        self.cut: str | None = None  # a file of which only half is sent
        self.refuses: dict[str, tuple[int, dict[str, str]]] = {}  # "listing", "files": status and headers instead
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.requests.append(f"{request.command} {path}")
        files = {file.name: file for file in self.folder.iterdir()}
        api = f"/api/models/{self.repository}"
        path = path.replace(f"/{self.repository}/resolve/main/", f"/{self.repository}/resolve/{self.commit}/")
        resolve_prefix = f"/{self.repository}/resolve/{self.commit}/"
        part = "listing" if path.startswith(api) else "files"
        if self.repository in path and part in self.refuses:
            self.refuse(request, *self.refuses[part])
        elif path in (f"{api}/revision/main", api):
            siblings = [{"rfilename": name, "size": file.stat().st_size} for name, file in files.items()]
            self.send_json(request, {"id": self.repository, "sha": self.commit, "siblings": siblings, "tags": []})
        elif path.startswith(f"{api}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": self.tag(file)}
                for name, file in files.items()
            ]
            self.send_json(request, tree)
        elif path.startswith(resolve_prefix) and (name := path.removeprefix(resolve_prefix)) in files:
            self.send_file(request, files[name])
        else:
            known = self.repository in path
            code = "EntryNotFound" if known else "RepoNotFound"
            self.refuse(request, 404 if known else 401, {"X-Error-Code": code})

    def refuse(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def tag(self, file: Path) -> str:
        return hashlib.sha1(file.read_bytes()).hexdigest()

    def send_json(self, request: BaseHTTPRequestHandler, content: Any) -> None:
        body = json.dumps(content).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def send_file(self, request: BaseHTTPRequestHandler, file: Path) -> None:
        body = file.read_bytes()
        request.send_response(200)
        request.send_header("X-Repo-Commit", self.commit)
        request.send_header("ETag", f'"{self.tag(file)}"')
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[: len(body) // 2] if file.name == self.cut else body)
            request.close_connection = True
