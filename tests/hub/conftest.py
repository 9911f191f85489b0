"""A hub and a web of our own on the loopback interface; no test reaches the network."""

import hashlib
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Site:
    """What is published: hub models by id, plain files by path, who is refused how.

    `lost` is how many bytes of each answer never arrive.
    """

    def __init__(self):
        self.models = {}
        self.plain = {}
        self.refused = {}
        self.lost = 0
        self.asked = []
        self.address = ""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        site = self.server.site
        path = unquote(urlsplit(self.path).path)
        site.asked.append(f"{self.command} {path}")
        if path in site.plain:
            return self.send(200, site.plain[path], {}, body)
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        hub_id = "/".join(parts[2:4] if api else parts[:2])
        if hub_id in site.refused:
            code, name = site.refused[hub_id]
            return self.send(code, b"{}", {"X-Error-Code": name, "X-Error-Message": "no"}, body)
        if hub_id not in site.models:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        files = site.models[hub_id]
        if COMMIT not in path and "revision" in parts and parts[-1] != "main":
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        if api and "tree" in parts:
            return self.send_json([entry(name, data) for name, data in files.items()], body)
        if api:
            siblings = [{"rfilename": name, **entry(name, data)} for name, data in files.items()]
            found = {"_id": "1", "id": hub_id, "sha": COMMIT, "siblings": siblings, "tags": []}
            return self.send_json(found | {"private": False, "downloads": 0, "likes": 0}, body)
        data = files.get("/".join(parts[4:]))
        if data is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        etag = hashlib.sha256(data).hexdigest()
        return self.send(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}, body)

    def send_json(self, value, body):
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)

    def send(self, code, data, headers, body):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) - self.server.site.lost])


def entry(name, data):
    """A file as the hub lists it; what is no text is stored apart, with its sha256."""
    listed = {"type": "file", "path": name, "size": len(data), "oid": "0" * 40, "blobId": "0" * 40}
    if not name.endswith((".json", ".md", ".py")):
        digest = hashlib.sha256(data).hexdigest()
        listed["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 100}
    return listed


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every address that is not of the loopback interface is out of reach."""
    urlopen = urllib.request.urlopen

    def guarded(asked, **more):
        if urlsplit(asked.full_url).hostname != "127.0.0.1":
            raise urllib.error.URLError("no network in tests")
        return urlopen(asked, **more)

    monkeypatch.setattr(urllib.request, "urlopen", guarded)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The site, with a cache of the hub that is empty."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = Site()
    server.site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def put(tmp_path):
    """Writes a public definition into a folder of own ones and returns that folder."""

    def write(name, **keys):
        given = {
            "name": name,
            "summary": "A small model.",
            "role": "observation",
            "family": "transformers",
            "license": "MIT",
            "license_source": "https://example.org/licence",
            "reference": "https://example.org/paper",
            "inputs": ["camera"],
            "checked": ["all: https://example.org/model"],
        } | keys
        files = given.pop("files", [])
        lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
        for file in files:
            lines += ["[[files]]", *(f"{key} = {json.dumps(v)}" for key, v in file.items())]
        path = tmp_path / "own" / "checkpoints" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")
        return tmp_path / "own"

    return write
