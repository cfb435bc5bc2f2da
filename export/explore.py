"""`vaekit explore RUN`: the explorer page and a run's bundle, for the browser of this machine."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Event, Thread
from typing import Any, BinaryIO

from vaekit.errors import UserError
from vaekit.export.manifest import MANIFEST, read_manifest, require_intact
from vaekit.storage.files import file_sha256, temporary_path

EXPORT = Path(__file__).resolve().parent
RUNTIME = Path("node_modules", "onnxruntime-web", "dist")
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
HOST = "127.0.0.1"
MAX_CONNECTIONS = 64  # at once; a browser opens six

# By suffix, not from the system's own table, where .mjs and .wasm may be missing or wrong.
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
HEADERS = {
    # The first two isolate the page, which is what lets WebAssembly use threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data: blob:; "
        "style-src 'self'; worker-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Allow": "GET, HEAD",
}

Routes = dict[str, Path]  # the path of a URL -> the file that answers it; there are no others


def explore(run: Path, port: int = 8000) -> None:
    """Show a run's bundle in the user's browser, until Ctrl-C.

    Port 0 takes any free one. Raises `UserError` where the run has no bundle of its present
    weights, the bundle is damaged, onnxruntime-web has not been fetched, or the port is taken.
    """
    bundle = find_bundle(run)
    routes = page_routes(EXPORT) | bundle_routes(bundle)
    with serving(routes, port) as url:
        print(f"{bundle} is at {url} (Ctrl-C ends it)", flush=True)
        _open_browser(url)
        Event().wait()


def write_site(run: Path, output: Path) -> None:
    """Write the page with the run's bundle into the folder `output`, for any web server.

    Raises `UserError` as `explore` does, and where something lies in the folder.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output {output}: is there already; give a new or an empty folder")
    routes = page_routes(EXPORT) | bundle_routes(find_bundle(run))
    temporary = temporary_path(output)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for url, path in routes.items():
            place = temporary / (url[1:] or "index.html")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        temporary.replace(output)
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}; give another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(
        f"{output}: the page and the bundle, for any web server; here: "
        f"python -m http.server --directory {shlex.quote(str(output))}"
    )


def find_bundle(run: Path) -> Path:
    """The bundle of the run as it is now: the smallest of those that there are."""
    weights, svm = run / "model.safetensors", run / "svm" / "svm.safetensors"
    if not weights.is_file():
        raise UserError(
            f"{run}: not a trained run (no {weights.name}); give a folder that `vaekit train` made"
        )
    present = file_sha256(weights), file_sha256(svm) if svm.is_file() else None
    for bundle in (run / "onnx-int8", run / "onnx-fp16", run / "onnx"):
        if (bundle / MANIFEST).is_file():
            manifest = read_manifest(bundle)
            if (manifest.model_sha256, manifest.svm_sha256) == present:
                return bundle
    raise UserError(
        f"{run}: has no bundle of its present weights and SVM; "
        f"make one with `vaekit export {shlex.quote(str(run))}`"
    )


def page_routes(export: Path) -> Routes:
    """The page, what it imports, and onnxruntime-web, out of the folder `export`.

    Raises `UserError` for a file that is missing.
    """
    page = export / "explorer"
    routes = {
        f"/{path.relative_to(page).as_posix()}": path for path in page.rglob("*") if path.is_file()
    }
    routes |= {"/": page / "index.html", "/bundle.mjs": export / "clients" / "bundle.mjs"}
    for path in routes.values():
        if not path.is_file():
            raise UserError(f"{path}: missing, and part of vaekit; install vaekit again")
    for name in RUNTIME_FILES:
        path = export / RUNTIME / name
        if not path.is_file():
            raise UserError(
                f"{path}: missing; fetch onnxruntime-web with "
                f"`npm ci --prefix {_as_typed(export)} --omit=dev`"
            )
        routes[f"/ort/{name}"] = path
    return routes


def bundle_routes(bundle: Path) -> Routes:
    """The files that the bundle's manifest lists. Raises `UserError` where one is damaged."""
    manifest = read_manifest(bundle)
    require_intact(bundle, manifest)
    return {f"/bundle/{name}": bundle / name for name in (MANIFEST, *manifest.files)}


@contextmanager
def serving(routes: Routes, port: int = 0) -> Iterator[str]:
    """Serve `routes` on this machine's loopback from a thread of its own; gives the URL.

    Port 0 takes any free one. Raises `UserError` for a port that can't be had.
    """
    with _bind({url: path.resolve() for url, path in routes.items()}, port) as server:
        thread = Thread(target=server.serve_forever, name="explorer", daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _bind(routes: Routes, port: int) -> "_Server":
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: expected a number from 0 to {2**16 - 1}")
    try:
        return _Server(routes, port)
    except OSError as error:
        raise UserError(
            f"--port {port}: {error.strerror}; give another --port, or --port 0 for any free one"
        ) from error


def _open_browser(url: str) -> None:
    """Ask the user's browser for a page; nothing happens on a machine without one.

    In a process without a terminal, because on a machine without a display Python would choose
    a text browser, which would take the terminal over. Browsers may also wait, or print.
    """
    subprocess.run(
        [sys.executable, "-I", "-m", "webbrowser", url],
        env={name: value for name, value in os.environ.items() if name != "TERM"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )


def _open_unlinked(path: Path) -> BinaryIO | None:
    """A file at a path that had no links in it; None where it has gone, or leads elsewhere now.

    In a folder that others may write to, a link put there since could lead to any of the user's
    files.
    """
    if not path.is_file():
        return None
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except OSError:
        return None
    if path.resolve() != path:
        file.close()
        return None
    return file


def _as_typed(folder: Path) -> str:
    """A folder as one would type it here: short where it lies below the present folder."""
    here = Path.cwd()
    return shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))


class _Server(ThreadingHTTPServer):
    """One connection a thread; the oldest gives way where there would be too many."""

    request_queue_size = 1024

    def __init__(self, routes: Routes, port: int) -> None:
        self.routes = routes
        self._open: list[socket.socket] = []  # the oldest first
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks for the host's name, in DNS if need be.
        TCPServer.server_bind(self)
        self.server_port = int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own.

        A client that sends, or takes, a byte now and then never runs into a socket's timeout, so
        what ends it is the need for its place.
        """
        self._open.append(request)
        if len(self._open) > MAX_CONNECTIONS:
            with suppress(OSError):  # it has just ended by itself
                self._open.pop(0).shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with suppress(ValueError):  # it has given way
            self._open.remove(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of a route, for this machine's own pages alone."""

    server: _Server
    timeout = 10  # seconds for which a client may neither send nor take a byte
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s: %(explain)s\n"

    def handle(self) -> None:
        with suppress(ConnectionError):  # a tab was closed in the middle of an answer
            super().handle()

    def parse_request(self) -> bool:
        """Also refuse what is none of our page's requests, nor a link that a person followed."""
        if not super().parse_request():
            return False
        if self.command not in ("GET", "HEAD"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return False
        if not (self._for_this_server() and self._from_here()):
            self.send_error(
                HTTPStatus.FORBIDDEN,
                explain=f"only pages of http://{HOST}:{self.server.server_port} may ask for this",
            )
            return False
        return True

    def do_GET(self) -> None:
        path = self.server.routes.get(self.path.partition("?")[0])
        file = None if path is None else _open_unlinked(path)
        if path is None or file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            self.send_response(HTTPStatus.OK)
            content_type = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.end_headers()
            if self.command == "GET":
                self.connection.sendfile(file)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _for_this_server(self) -> bool:
        """Not so under DNS rebinding, where a stranger's name leads to this machine."""
        name, _, port = self.headers.get("Host", "").partition(":")
        own_port = str(self.server.server_port)
        return name.lower() in (HOST, "localhost") and (port or "80") == own_port

    def _from_here(self) -> bool:
        """Not so where another origin's page made the request; a link on one may lead here."""
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers['Host']}":
            return False
        followed = (
            self.headers.get("Sec-Fetch-Mode") == "navigate"
            and self.headers.get("Sec-Fetch-Dest") == "document"
        )
        return followed or self.headers.get("Sec-Fetch-Site") in (None, "none", "same-origin")

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        return "vaekit"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the page shows what is wrong."""
