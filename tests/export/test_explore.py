"""The explorer's server gives this machine's browser the page and the bundle, and nothing else."""

import http.client
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from conftest import assert_one_line_error, run_command

from vaekit.cli import main
from vaekit.errors import UserError
from vaekit.export import explore
from vaekit.export.explore import (
    RUNTIME,
    RUNTIME_FILES,
    Routes,
    bundle_routes,
    find_bundle,
    page_routes,
    serving,
    write_site,
)
from vaekit.export.manifest import write_manifest
from vaekit.storage.files import file_sha256

PAGE = {"index.html": b"<!doctype html>", "style.css": b"body {}", "draw.mjs": b"export {};"}
WEIGHTS = b"the run's present weights"


class Site(NamedTuple):
    """A server that is running, and what it serves."""

    port: int
    routes: Routes
    folder: Path


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def make_export(folder: Path) -> Path:
    """A checkout's export/ with the page and onnxruntime-web."""
    files = {f"explorer/{name}": content for name, content in PAGE.items()}
    files["clients/bundle.mjs"] = b"export const bundle = 1;"
    files |= {f"{RUNTIME}/{name}": name.encode() for name in RUNTIME_FILES}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def make_bundle(folder: Path, weights: bytes = WEIGHTS) -> Path:
    """A bundle in form; its graphs are never run here. It lies in a run of `WEIGHTS`."""
    folder.mkdir(parents=True)
    model = folder.parent / "model.safetensors"
    model.write_bytes(weights)
    for name in ("encoder.onnx", "decoder.onnx", "golden.json", "README.md"):
        (folder / name).write_bytes(f"{name} of {folder.name}".encode())
    write_manifest(
        folder,
        {
            "opset": 20,
            "ir_version": 10,
            "graphs": {
                name: {"inputs": [], "outputs": []} for name in ("encoder.onnx", "decoder.onnx")
            },
            "source": {"model_sha256": file_sha256(model), "svm_sha256": None},
        },
    )
    model.write_bytes(WEIGHTS)
    return folder


@contextmanager
def served(routes: Routes, folder: Path) -> Iterator[Site]:
    with serving(routes) as url:
        yield Site(int(url.rstrip("/").rpartition(":")[2]), routes, folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    routes = page_routes(make_export(folder / "export"))
    routes |= bundle_routes(make_bundle(folder / "run" / "onnx"))
    with served(routes, folder) as site:
        yield site


def ask(site: Site, path: str, method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    connection.request(method, path)
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    connection.close()
    return answer


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def asking(path: str = "/", method: str = "GET", **headers: str) -> bytes:
    """A request with PORT where the server's port is to stand."""
    lines = {"Host": "localhost:PORT", **headers}
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode()


def send(site: Site, request: bytes) -> bytes:
    """How the answer to a request begins that is sent as it is."""
    with connect(site.port) as client:
        client.sendall(request.replace(b"PORT", b"%d" % site.port))
        return client.recv(3000)


def test_every_file_of_the_page_and_the_bundle_is_served_as_it_lies_on_disk(site: Site) -> None:
    expected = {"/", "/bundle.mjs", "/bundle/manifest.json", "/bundle/golden.json"}
    expected |= {"/bundle/encoder.onnx", "/bundle/decoder.onnx", "/bundle/README.md"}
    expected |= {f"/{name}" for name in PAGE} | {f"/ort/{name}" for name in RUNTIME_FILES}
    assert set(site.routes) == expected
    for path, file in site.routes.items():
        answer = ask(site, path)
        assert answer.status == 200
        assert answer.body == file.read_bytes()
    assert ask(site, "/").body == PAGE["index.html"]
    assert ask(site, "/draw.mjs?version=2").body == PAGE["draw.mjs"]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/bundle.mjs", "text/javascript; charset=utf-8"),
        ("/ort/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/bundle/manifest.json", "application/json"),
        ("/bundle/encoder.onnx", "application/octet-stream"),
    ],
)
def test_browsers_get_the_types_without_which_they_refuse_modules_and_wasm(
    path: str, content_type: str, site: Site
) -> None:
    assert ask(site, path).headers["Content-Type"] == content_type


@pytest.mark.parametrize("path", ["/", "/bundle/encoder.onnx", "/none"])
def test_every_answer_isolates_the_page_and_forbids_foreign_code(path: str, site: Site) -> None:
    headers = ask(site, path).headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Referrer-Policy"] == "no-referrer"
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["frame-ancestors"] == "'none'"
    assert "Access-Control-Allow-Origin" not in headers


PATHS = rb"""
/../run/model.safetensors /bundle/../model.safetensors /bundle/./encoder.onnx /bundle//encoder.onnx
/bundle/..%2fmodel.safetensors /bundle/..%252fmodel.safetensors /bundle/%2e%2e/model.safetensors
/bundle/%252e%252e/model.safetensors /bundle/..\model.safetensors /bundle/..\..\model.safetensors
/bundle/encoder.onnx/ /bundle/encoder.onnx%00 /BUNDLE/ENCODER.ONNX /bundle/secret.txt /bundle
/bundle/ /ort/ /ort/ort.min.mjs /explorer/index.html /etc/passwd //etc/passwd file:///etc/passwd
C:\Windows\win.ini *
""".split()
BYTES = b"/bundle/\xc0\xae\xc0\xae/model.safetensors /bundle/\xff\xfe /bundle/encoder.onnx\0.png \0"


@pytest.mark.parametrize("path", [*PATHS, *BYTES.split(), b"/" + b"../" * 5000 + b"etc/passwd"])
@pytest.mark.injects(21)
def test_no_spelling_of_a_path_leads_out_of_the_listed_files(path: bytes, site: Site) -> None:
    (site.folder / "run" / "onnx" / "secret.txt").write_text("not in the manifest")
    answer = send(site, asking("PATH").replace(b"PATH", path))
    assert answer.startswith(b"HTTP/1.0 404 ")


@pytest.mark.injects(21)
def test_a_file_that_has_gone_or_gave_way_to_a_link_since_the_start_is_not_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle, secrets = make_bundle(tmp_path / "run" / "onnx"), tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "golden.json").write_text("a key")
    routes = bundle_routes(bundle)
    with served(routes, tmp_path) as site:
        (bundle / "golden.json").unlink()
        assert ask(site, "/bundle/golden.json").status == 404
        (bundle / "golden.json").symlink_to(secrets / "golden.json")
        assert ask(site, "/bundle/golden.json").status == 404
        bundle.rename(tmp_path / "run" / "moved")
        bundle.symlink_to(secrets, target_is_directory=True)
        assert ask(site, "/bundle/golden.json").status == 404
    assert capfd.readouterr().err == ""


def test_a_bundle_that_was_a_link_from_the_start_is_served(tmp_path: Path) -> None:
    make_bundle(tmp_path / "run" / "onnx").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "onnx").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with served(bundle_routes(tmp_path / "run" / "onnx"), tmp_path) as site:
        assert ask(site, "/bundle/encoder.onnx").body == b"encoder.onnx of onnx"


def test_head_gives_the_size_without_the_file(site: Site) -> None:
    answer = send(site, asking("/bundle/encoder.onnx", "HEAD"))
    assert answer.startswith(b"HTTP/1.0 200 ")
    assert b"Content-Length: %d\r\n" % len(b"encoder.onnx of onnx") in answer
    assert answer.endswith(b"\r\n\r\n")


OWN_PAGE = {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}
LINK = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


@pytest.mark.parametrize(
    "request_bytes",
    [
        *(asking(Host=host) for host in ("127.0.0.1:PORT", "localhost:PORT", "LOCALHOST:PORT")),
        asking(Host="127.0.0.1:PORT", Origin="http://127.0.0.1:PORT", **OWN_PAGE),
        *(asking(Sec_Fetch_Site=site, **LINK) for site in ("cross-site", "none")),  # in the report
    ],
)
def test_its_own_page_and_a_person_who_follows_a_link_get_what_they_ask_for(
    request_bytes: bytes, site: Site
) -> None:
    assert send(site, request_bytes).startswith(b"HTTP/1.0 200 ")


FOREIGN_HOSTS = ("rebound.example:PORT", "127.0.0.1", "localhost:1", "", "127.0.0.1.evil:80")
FOREIGN_ORIGINS = ("https://evil.example", "null", "http://127.0.0.1:1", "http://x:PORT")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        *(
            (asking(method=method), b"405")
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW")
        ),
        *((asking(Host=host), b"403") for host in FOREIGN_HOSTS),
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),
        *((asking(Origin=origin), b"403") for origin in FOREIGN_ORIGINS),
        *(
            (asking(Sec_Fetch_Site=where, Sec_Fetch_Mode=mode, Sec_Fetch_Dest=what), b"403")
            for where in ("cross-site", "same-site")  # as another port of this machine is
            for mode, what in (("cors", "empty"), ("no-cors", "image"), ("navigate", "iframe"))
        ),
        (b"\0\xff\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"G" * 70_000, b"414"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
    ],
)
@pytest.mark.injects(21)
def test_what_sends_is_malformed_or_comes_from_elsewhere_is_refused(
    request_bytes: bytes, status: bytes, site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = send(site, request_bytes)
    assert status in answer[:12]
    assert PAGE["index.html"] not in answer
    assert capfd.readouterr().err == ""


@pytest.mark.injects(21)
def test_only_the_loopback_address_is_bound(site: Site) -> None:
    with pytest.raises(OSError, match=r"refused|timed out|[Uu]nreachable"):
        socket.create_connection(("127.0.0.2", site.port), timeout=5)


@pytest.mark.slow
@pytest.mark.injects(21)
def test_no_flag_binds_another_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--host", "--bind", "--address"):
        with pytest.raises(SystemExit) as stop:
            main(["explore", str(tmp_path), flag, "0.0.0.0"])
        assert stop.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of a thousand connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
@pytest.mark.injects(21, times=1000)
def test_of_a_thousand_at_once_each_is_answered_or_refused_and_the_page_is_served_meanwhile(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore._Handler, "timeout", 3600)
    request = asking("/draw.mjs").replace(b"PORT", b"%d" % site.port)
    threads = [threading.active_count()]
    answers = []
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(site.port)) for _ in range(1000)]
        threads.append(threading.active_count())
        assert all(ask(site, path).status == 200 for path in site.routes)
        for client in clients:
            with suppress(ConnectionError):
                client.sendall(request)
            threads.append(threading.active_count())
        for client in clients:
            with suppress(ConnectionError):
                answers.append(stack.enter_context(client.makefile("rb")).read())
    # Twice, because a thread that gave its place to another may not have ended yet.
    assert max(threads) - threads[0] <= 2 * explore.MAX_CONNECTIONS
    answered = [answer for answer in answers if answer]
    assert len(answered) > explore.MAX_CONNECTIONS / 2
    assert all(answer.startswith(b"HTTP/1.0 200 ") for answer in answered)
    assert all(answer.endswith(PAGE["draw.mjs"]) for answer in answered)
    assert all(ask(site, path).status == 200 for path in site.routes)


@pytest.mark.injects(21)
def test_a_client_that_says_nothing_is_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert explore._Handler.timeout < 60
    monkeypatch.setattr(explore._Handler, "timeout", 0.2)
    with connect(site.port) as client:
        assert client.recv(1) == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_bytes", [b"", b"GET /large HTTP/1.1\r\n", asking("/large")], ids=repr
)
@pytest.mark.injects(21)
def test_slow_clients_give_way_and_hold_up_no_end(
    request_bytes: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A byte within every timeout keeps a connection alive for ever, to ask or to take."""
    monkeypatch.setattr(explore._Handler, "timeout", 3600)
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(100_000_000)
    before = set(threading.enumerate())
    with ExitStack() as clients, served({"/large": large}, tmp_path) as site:  # which ends first
        for _ in range(explore.MAX_CONNECTIONS):
            client = clients.enter_context(connect(site.port))
            client.sendall(request_bytes.replace(b"PORT", b"%d" % site.port))
        assert ask(site, "/large", "HEAD").status == 200
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.injects(21)
def test_a_client_that_goes_away_leaves_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    large = tmp_path / "large.onnx"
    large.write_bytes(bytes(50_000_000))
    with served({"/large": large}, tmp_path) as site:
        for request in (asking("/large"), b"GET /lar", b""):
            client = connect(site.port)
            # Closing with unread bytes and no lingering resets the connection.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(request.replace(b"PORT", b"%d" % site.port))
            if b"HTTP" in request:
                client.recv(1000)
            client.close()
        assert ask(site, "/large", "HEAD").status == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("made_of", "shown"),
    [
        ({"onnx": WEIGHTS}, "onnx"),
        ({"onnx": WEIGHTS, "onnx-fp16": WEIGHTS}, "onnx-fp16"),
        ({"onnx": WEIGHTS, "onnx-fp16": WEIGHTS, "onnx-int8": WEIGHTS}, "onnx-int8"),
        ({"onnx-int8": b"older", "onnx-fp16": b"older", "onnx": WEIGHTS}, "onnx"),
    ],
)
def test_the_smallest_bundle_is_shown_where_it_is_of_the_present_weights(
    made_of: dict[str, bytes], shown: str, tmp_path: Path
) -> None:
    for name, weights in made_of.items():
        make_bundle(tmp_path / name, weights)
    assert find_bundle(tmp_path) == tmp_path / shown


def test_a_run_without_a_bundle_of_its_weights_and_svm_names_the_command_that_makes_one(
    tmp_path: Path,
) -> None:
    run = tmp_path / "my run"
    with pytest.raises(UserError, match="not a trained run"):
        find_bundle(run)
    words = rf"present weights and SVM; .*`vaekit export '{re.escape(str(run))}'`"
    make_bundle(run / "onnx-fp16", weights=b"older")
    with pytest.raises(UserError, match=words):
        find_bundle(run)
    make_bundle(run / "onnx")
    (run / "svm").mkdir()
    (run / "svm" / "svm.safetensors").write_bytes(b"fitted since")
    with pytest.raises(UserError, match=words):
        find_bundle(run)


def test_the_page_is_written_for_any_web_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vaekit.export.explore.EXPORT", make_export(tmp_path / "export"))
    bundle, output = make_bundle(tmp_path / "run" / "onnx"), tmp_path / "site"
    output.mkdir()
    write_site(tmp_path / "run", output)
    assert f"python -m http.server --directory {output}" in capsys.readouterr().out
    assert (output / "index.html").read_bytes() == PAGE["index.html"]
    assert (output / "bundle.mjs").is_file()
    for name in RUNTIME_FILES:
        assert (output / "ort" / name).read_bytes() == name.encode()
    for path in bundle.iterdir():
        assert (output / "bundle" / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_holds_something_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaekit.export.explore.EXPORT", make_export(tmp_path / "export"))
    make_bundle(tmp_path / "run" / "onnx")
    (tmp_path / "thesis.txt").write_text("mine")
    for output in (tmp_path / "run", tmp_path / "thesis.txt"):
        with pytest.raises(UserError, match=f"--output {output}: is there already"):
            write_site(tmp_path / "run", output)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.injects(15)
def test_a_damaged_bundle_is_not_served(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "onnx")
    (bundle / "encoder.onnx").write_bytes(b"encoder.onnx of 0nnx")
    with pytest.raises(UserError, match=r"encoder\.onnx: damaged"):
        bundle_routes(bundle)


@pytest.mark.parametrize("name", RUNTIME_FILES)
def test_without_onnxruntime_web_the_one_command_that_fetches_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = make_export(tmp_path / "my checkout" / "export")
    (export / RUNTIME / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing; .*`npm ci --prefix '{export}' --omit=d"):
        page_routes(export)
    monkeypatch.chdir(export.parent)
    with pytest.raises(UserError, match="`npm ci --prefix export --omit=dev`"):
        page_routes(export)


@pytest.mark.parametrize("name", ["explorer/index.html", "clients/bundle.mjs"])
def test_a_page_that_was_not_installed_whole_is_named(name: str, tmp_path: Path) -> None:
    export = make_export(tmp_path)
    (export / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        page_routes(export)


def test_a_port_out_of_range_is_named() -> None:
    for port in (-1, 65536):
        with pytest.raises(UserError, match=f"--port {port}: expected a number from 0 to 65535"):
            serving({}, port).__enter__()


EXPLORE = """
import sys
import time
from pathlib import Path
from vaekit.errors import user_errors_in_one_line
from vaekit.export import explore
explore.EXPORT = Path(sys.argv[1])
with user_errors_in_one_line():
    explore.explore(Path(sys.argv[2]), int(sys.argv[3]))
"""

BROWSER = f"""#!{sys.executable}
import json, os, sys, urllib.request
page = urllib.request.urlopen(sys.argv[1], timeout=20).read().decode()
facts = {{"page": page, "terminals": [os.isatty(fd) for fd in range(3)], "session": os.getsid(0)}}
with open(os.environ["BROWSER_LOG"], "w") as log:
    json.dump({{**facts, "term": os.environ.get("TERM")}}, log)
"""


class Explorer(NamedTuple):
    """`explore` in a process of its own, at a keyboard."""

    process: "subprocess.Popen[str]"
    first_line: str
    browser_log: Path


@pytest.fixture
def explorer(tmp_path: Path) -> Iterator[Explorer]:
    make_export(tmp_path / "export")
    make_bundle(tmp_path / "run" / "onnx")
    browser, log = tmp_path / "browser", tmp_path / "browser.json"
    browser.write_text(BROWSER)
    browser.chmod(0o755)
    main, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", EXPLORE, tmp_path / "export", tmp_path / "run", "0"],
        env={**os.environ, "BROWSER": str(browser), "BROWSER_LOG": str(log), "TERM": "xterm"},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        yield Explorer(process, process.stdout.readline(), log)
        process.kill()
    os.close(main)
    os.close(terminal)


def test_explore_prints_the_url_and_ends_quietly_on_ctrl_c(
    explorer: Explorer, tmp_path: Path
) -> None:
    url = re.search(r"http://127\.0\.0\.1:\d+/", explorer.first_line)
    assert url, explorer.first_line
    assert str(tmp_path / "run" / "onnx") in explorer.first_line
    with urlopen(f"{url[0]}bundle/manifest.json", timeout=20) as response:
        assert response.read() == (tmp_path / "run" / "onnx" / "manifest.json").read_bytes()
    explorer.process.send_signal(signal.SIGINT)
    out, err = explorer.process.communicate(timeout=20)
    assert explorer.process.returncode == 130
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("vaekit: interrupted")


def test_the_browser_is_opened_without_a_hold_on_the_terminal(explorer: Explorer) -> None:
    while not explorer.browser_log.exists() or not explorer.browser_log.read_text():
        assert explorer.process.poll() is None
        time.sleep(0.02)
    facts = json.loads(explorer.browser_log.read_text())
    assert facts["page"] == PAGE["index.html"].decode()
    assert facts["terminals"] == [False, False, False]
    assert facts["term"] is None
    assert facts["session"] != os.getsid(explorer.process.pid)


def test_a_taken_port_ends_the_command_with_one_line_and_code_2(site: Site, tmp_path: Path) -> None:
    make_bundle(tmp_path / "run" / "onnx")
    export = site.folder / "export"
    arguments = [sys.executable, "-c", EXPLORE, export, tmp_path / "run", site.port]
    assert_one_line_error(run_command(arguments), f"--port {site.port}:", "give another --port")


def test_explore_needs_no_torch() -> None:
    code = "import sys, vaekit.export.explore; print('torch' in sys.modules)"
    assert run_command([sys.executable, "-c", code]).stdout == "False\n"
