"""A stand-in for the Hugging Face Hub on loopback: the endpoints that a push and a download use.

Repositories are in memory, as their commits made them.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "x" * 34
HANG, DROP = "hang", "drop"


class Repository:
    """A repository.

    Attributes:
        private: whether it is private.
        branches: files by name, by branch.
        commits: message and files of each.
    """

    def __init__(self, private=False):
        self.private = private
        self.branches = {"main": {".gitattributes": b""}}
        self.commits = []


class StandIn:
    """The server.

    Attributes:
        repositories: by name.
        objects: large files by checksum.
        requests: method and path of each request, in order.
        answers: ``(status, body)``, ``HANG`` or ``DROP`` as the response, by a part of the path.
        large: endings of file names that are uploaded as large files before the commit.
    """

    def __init__(self):
        self.repositories, self.objects, self.requests, self.answers = {}, {}, [], {}
        self.large = ()
        self.released = threading.Event()
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *_):
        """Nothing on the terminal."""

    def _answer(self, status, body=b"", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("length", str(len(content))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _handle(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, path))
        for part, answer in self.hub.answers.items():
            if part in path:
                if answer in (HANG, DROP):
                    self.hub.released.wait(60 if answer == HANG else 0)
                    self.close_connection = True
                    return None
                return self._answer(*answer)
        public = path.startswith("/objects/")
        if not public and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        for method, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                return function(self, body, *match.groups())
        return self._answer(404, {"error": "Sorry, we can't find the page you are looking for."})

    do_GET = do_POST = do_PUT = do_HEAD = _handle

    def _create(self, body):
        request = json.loads(body)
        name = f"{request['organization'] or 'somebody'}/{request['name']}"
        response = {"url": f"{self.hub.url}/{name}", "name": name}
        if name in self.hub.repositories:
            return self._answer(409, response | {"error": "You already created this model repo"})
        private = request.get("visibility") == "private" or bool(request.get("private"))
        self.hub.repositories[name] = Repository(private)
        return self._answer(200, response)

    def _info(self, body, name, revision="main"):
        if name not in self.hub.repositories:
            return self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        repository = self.hub.repositories[name]
        files = repository.branches[revision]
        response = {"id": name, "private": repository.private, "sha": _checksum(files)}
        return self._answer(200, response | {"siblings": [{"rfilename": file} for file in files]})

    def _branch(self, body, name, branch):
        branches = self.hub.repositories[name].branches
        if branch in branches:
            return self._answer(409, {"error": "Reference already exists"})
        branches[branch] = dict(branches["main"])
        return self._answer(201, {})

    def _validate(self, body):
        request = json.loads(body)
        assert request["repoType"] == "model"
        invalid = 'license: "no-such-license"' in request["content"].split("---")[1]
        errors = [{"message": '"license" must be one of [apache-2.0, mit]'}] if invalid else []
        return self._answer(400 if invalid else 200, {"errors": errors, "warnings": []})

    def _preupload(self, body, name, revision):
        if revision not in self.hub.repositories[name].branches:
            return self._answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(self.hub.large) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return self._answer(200, {"files": files})

    def _batch(self, body, name):
        request = json.loads(body)
        assert request["operation"] == "upload" and "basic" in request["transfers"]
        objects = [
            item | {"actions": {"upload": {"href": f"{self.hub.url}/objects/{item['oid']}"}}}
            for item in request["objects"]
        ]
        return self._answer(200, {"transfer": "basic", "objects": objects})

    def _put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return self._answer(400, {"error": "checksum"})
        self.hub.objects[oid] = body
        return self._answer(200)

    def _commit(self, body, name, revision):
        lines = [json.loads(line) for line in body.splitlines()]
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        repository = self.hub.repositories[name]
        repository.branches[revision] |= files
        message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        repository.commits.append((message, files))
        oid = _checksum(repository.branches[revision])
        url = f"{self.hub.url}/{name}/commit/{oid}"
        return self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _tree(self, body, name, revision):
        files = self._files(name, revision)
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": _checksum({path: content})}
            for path, content in files.items()
        ]
        return self._answer(200, entries)

    def _resolve(self, body, name, revision, path):
        files = self._files(name, revision)
        if path not in files:
            return self._answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        content = files[path]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self._answer(200, content, ETag=etag, X_Repo_Commit=_checksum(files))

    def _files(self, name, revision):
        branches = self.hub.repositories[name].branches
        return next(
            files for branch, files in branches.items() if revision in (branch, _checksum(files))
        )


def _checksum(files):
    """Returns 40 hexadecimal digits, as git's are."""
    digest = hashlib.sha1()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha1(content).digest())
    return digest.hexdigest()


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/validate-yaml", _Handler._validate),
    ("GET", f"/api/models/{_NAME}", _Handler._info),
    ("GET", f"/api/models/{_NAME}/revision/(.+)", _Handler._info),
    ("GET", f"/api/models/{_NAME}/tree/(.+)", _Handler._tree),
    ("POST", f"/api/models/{_NAME}/branch/(.+)", _Handler._branch),
    ("POST", f"/api/models/{_NAME}/preupload/(.+)", _Handler._preupload),
    ("POST", f"/api/models/{_NAME}/commit/(.+)", _Handler._commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", "/objects/(.+)", _Handler._put),
    ("GET", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._resolve),
    ("HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._resolve),
)
