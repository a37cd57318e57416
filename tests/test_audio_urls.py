"""Sound at an address: off unless asked, http and https only, its size and time bounded."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError
from urllib.request import Request

import numpy as np
import pytest
import soundfile

import processing_merhan
from processing_merhan import AudioError


@pytest.fixture(scope="module")
def sound() -> bytes:
    """A tone of a second, as a wav file."""
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(np.arange(16000) / 7), 16000, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def address(sound):
    """A server that gives sound, and fails in several ways."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.strip("/")
            if name.startswith("to=") or name == "loop":
                self.send_response(302)
                self.send_header("Location", name.removeprefix("to=").replace("HERE", place))
                self.end_headers()
            elif name == "silent":  # not even a header
                ended.wait()
            elif name == "stops":
                self.answer(sound[:100], len(sound))
                ended.wait()
            elif name == "cut":
                self.answer(sound[:-100], len(sound))
            elif name == "endless":
                self.answer(sound, None)
            elif name == "a.wav":
                self.answer(sound, len(sound))
            else:
                self.send_error(404)

        def answer(self, content: bytes, length: int | None):
            self.send_response(200)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    place = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        yield place
    ended.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["a.wav", "to=HERE/a.wav", "to=/a.wav"])
def test_an_address_is_read_like_its_bytes(path, address, sound, processor, recogniser):
    url = f"{address}/{path}"
    expected = recogniser(sound)
    assert recogniser(url, allow_urls=True) == expected
    rows = [{"audio": {"path": url, "bytes": None}}, {"audio": url}, {"text": "no"}]
    assert recogniser(rows, allow_urls=True) == recogniser([{"audio": sound}, {"audio": sound}, {"text": "no"}])
    (streamed,) = recogniser(iter([url]), allow_urls=True)
    assert streamed == expected
    values = processor(url, allow_urls=True)["input_values"]
    assert values.equal(processor(sound)["input_values"])
    loaded = processor.load_audio(url, 0.2, 0.8, allow_urls=True)
    assert np.array_equal(loaded, processor.load_audio(sound, 0.2, 0.8))


def test_no_address_is_read_unless_it_is_allowed(address, recogniser, processor):
    for read in (recogniser, processor, processor.load_audio):
        with pytest.raises(AudioError, match=r"a\.wav: is an address; download it first, or .* allow_urls=True"):
            read(f"{address}/a.wav")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:9/a.wav", "file:///etc/hosts", "hf://datasets/me/x/a.wav"])
def test_other_schemes_are_never_read(url, address, recogniser):
    with pytest.raises(AudioError, match="is an address"):
        recogniser(url, allow_urls=True)
    with pytest.raises(AudioError, match=r"cannot be downloaded \(.*(redirects|not allowed)"):
        recogniser(f"{address}/to={url}", allow_urls=True)


def test_a_redirection_does_not_leave_https():
    redirect = processing_merhan._Redirects().redirect_request
    with pytest.raises(URLError, match="it redirects from https to http"):
        redirect(Request("https://a/b"), None, 302, "Found", {}, "http://a/b")
    assert redirect(Request("http://a/b"), None, 302, "Found", {}, "https://a/b").full_url == "https://a/b"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nothing", r"cannot be downloaded \(HTTP Error 404: Not Found\)"),
        ("loop", r"cannot be downloaded \(HTTP Error 302: .* would lead to an infinite loop"),
        ("cut", "ended 100 bytes before its end"),
        ("a b", r"cannot be downloaded \(URL can't contain control characters"),
    ],
)
def test_what_cannot_be_downloaded_is_named(path, expected, address, recogniser):
    with pytest.raises(AudioError, match=f"^{address}/{path}: {expected}.*; download it yourself, and give the path"):
        recogniser(f"{address}/{path}", allow_urls=True)
    with pytest.raises(AudioError, match=r"a\.wav: cannot be downloaded"):
        recogniser("http://127.0.0.1:1/a.wav", allow_urls=True)


@pytest.mark.parametrize("path", ["silent", "stops"])
def test_a_download_has_a_time_limit(path, address, recogniser, monkeypatch):
    monkeypatch.setattr(processing_merhan, "_DOWNLOAD_SECONDS", 0.2)
    with pytest.raises(AudioError, match=f"{path}: (takes over 0.2 s|cannot be downloaded .*timed out)"):
        recogniser(f"{address}/{path}", allow_urls=True)


@pytest.mark.parametrize("path", ["a.wav", "endless"])
def test_a_download_has_a_size_limit(path, address, sound, recogniser, monkeypatch):
    monkeypatch.setattr(processing_merhan, "_MOST_DOWNLOADED", len(sound))
    assert recogniser(f"{address}/{path}", allow_urls=True)
    monkeypatch.setattr(processing_merhan, "_MOST_DOWNLOADED", len(sound) - 1)
    with pytest.raises(AudioError, match=f"{path}: holds over .* MiB; download it yourself"):
        recogniser(f"{address}/{path}", allow_urls=True)
