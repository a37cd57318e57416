"""Calls of the Hub: their waits bounded, repeated once where that may help, their errors put into words."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from json import JSONDecodeError
from typing import Any, TypeVar

from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import _http, hf_raise_for_status, parse_ratelimit_headers

from merhan.hub_ids import HTTP_ERROR


SECONDS_PER_ANSWER = 60.0  # for one request; huggingface_hub itself would wait for ever
LEAST_RATE = 10_000  # bytes per second, beyond those seconds, of an answer that is long
LONGEST_PAUSE = 60  # seconds; a server that asks for a longer one is not waited for
PAUSE = 5.0  # seconds before a call is repeated

_NO_RIGHTS = (401, 403)
_MAY_PASS = (408, 409, 429, 500, 502, 503, 504)

_HTTP: Any = import_module(HTTP_ERROR.__module__.partition(".")[0])

Result = TypeVar("Result")


@contextmanager
def bounded_waits() -> Iterator[None]:
    """Within it, every call of the Hub ends: each request and each pause between two of them has a longest time."""
    previous = _http._GLOBAL_CLIENT_FACTORY  # it may be the user's own, with a proxy
    set_client_factory(lambda: _bounded(previous()))
    try:
        yield
    finally:
        set_client_factory(previous)


def _bounded(client: Any) -> Any:
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks["request"], _bound_timeouts],
        "response": [*hooks["response"], _bound_body, _refuse_to_wait],
    }
    return client


def _bound_timeouts(request: Any):
    """Shorten the timeouts of a request (seconds; None: for ever, which some calls of huggingface_hub ask for)."""
    timeouts = request.extensions["timeout"]
    bounded = {phase: min(seconds or SECONDS_PER_ANSWER, SECONDS_PER_ANSWER) for phase, seconds in timeouts.items()}
    request.extensions = {**request.extensions, "timeout": bounded}


class _BoundedBody(_HTTP.SyncByteStream):
    """The body of an answer, an error if it comes too slowly, however short the pauses within it are."""

    def __init__(self, body: Any):
        self.body = body
        self.begun = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for chunk in self.body:
            yield chunk
            received += len(chunk)
            seconds = time.monotonic() - self.begun
            if seconds > SECONDS_PER_ANSWER + received / LEAST_RATE:
                raise ConnectionAbortedError(f"{received} bytes of an answer came in {seconds:.0f} s")

    def close(self):
        self.body.close()


def _bound_body(response: Any):
    response.stream = _BoundedBody(response.stream)


def _refuse_to_wait(response: Any):
    """Raise where huggingface_hub would sleep as long as the server asks for, or repeat a request without an end."""
    is_conflict = response.status_code == 409 and b"another conflicting operation" in response.read()
    if is_conflict or _asked_pause(response) > LONGEST_PAUSE:
        response.read()
        hf_raise_for_status(response)


def _asked_pause(response: Any) -> int:
    """Seconds that the server asks to wait; 0 if it does not."""
    if response.status_code < 400:
        return 0
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    asked = response.headers.get("Retry-After", "")
    return int(asked) if asked.isdigit() else 0


def repeated_once(call: Callable[[], Result]) -> Result:
    """The result of a call of the Hub, which is repeated once if it fails for a reason that may pass."""
    try:
        return call()
    except Exception as error:
        if not _may_pass(root_cause(error)):
            raise
    time.sleep(PAUSE)
    return call()


def _may_pass(cause: BaseException) -> bool:
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code in _MAY_PASS and _asked_pause(cause.response) <= LONGEST_PAUSE
    return _is_unreachable(cause)


def _is_unreachable(cause: BaseException) -> bool:
    """No answer at all: an error of the HTTP client, from which that of the Hub derives, or offline mode."""
    return isinstance(cause, (HTTP_ERROR, ConnectionError))


def root_cause(error: BaseException) -> BaseException:
    """The error of the Hub that another one stands for, as `Error while uploading` of a thread; else the error."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, HfHubHTTPError) or _is_unreachable(link):
            return link
        link = link.__cause__
    return error


def lacks_rights(error: BaseException) -> bool:
    """Whether logging in may help."""
    cause = root_cause(error)
    return isinstance(cause, HfHubHTTPError) and cause.response.status_code in _NO_RIGHTS


def reason(error: BaseException) -> str:
    """Why a call of the Hub failed, in words that follow a colon."""
    cause = root_cause(error)
    lines = str(cause).strip().splitlines() or ["no message"]
    detail = f"{type(cause).__name__}: {lines[0]}"
    if isinstance(cause, HfHubHTTPError):
        return f"the Hub answered {cause.response.status_code}{_pause_note(cause.response)} ({detail})"
    if _is_unreachable(cause):
        return f"the Hub cannot be reached ({detail})"
    if isinstance(cause, HFValidationError):
        return f"it is no name of a repository ({detail})"
    if isinstance(cause, (JSONDecodeError, KeyError, AssertionError)):
        return f"the answer of the Hub cannot be used ({detail})"
    return detail


def _pause_note(response: Any) -> str:
    seconds = _asked_pause(response)
    if not seconds:
        return ""
    return f" and asks to wait {seconds} s"
