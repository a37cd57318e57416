# ruff: noqa: F811 (the fixture `run` is imported)
"""Publishing while the Hub fails: one sentence says what is there now and how to go on."""

import pytest
import torch
from hub_server import Fault, impatient_hub
from test_publishing import run  # noqa: F401 (a fixture)

from merhan.content_hashes import write_hashes
from merhan.errors import InputError
from merhan.hub.publishing import publish


REPOSITORY = "me/demo"

# Every request of publishing, by the state in which its failure leaves the Hub.
UNCHANGED = "nothing was changed there"
EMPTY = "the repository was created and is empty"
UNCHECKED = "the model is on the Hub (http"
REQUESTS = {
    "GET /api/models/me/demo$": UNCHANGED,
    "POST /api/repos/create": UNCHANGED,
    "POST /api/validate-yaml": EMPTY,
    "POST .*/preupload/": EMPTY,
    "POST .*/objects/batch": EMPTY,
    "PUT /lfs/": EMPTY,
    "POST .*/commit/": EMPTY,
    "GET .*/resolve/.*/model.safetensors": UNCHECKED,
    "GET .*/resolve/.*/config.json": UNCHECKED,
}


@pytest.fixture
def hub(monkeypatch):
    with impatient_hub(monkeypatch) as server:
        yield server


def failure(run, hub, *faults, repo_id=REPOSITORY) -> str:
    """The sentence with which publishing fails."""
    hub.faults[:] = faults
    with pytest.raises(InputError) as caught:
        publish(run, repo_id)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_every_request_may_fail_in_every_way(run, hub):
    """One sentence that says what is on the Hub and how to go on; `log in` only where that may help."""
    ways = [401, 403, 404, 429, 500, 503, "drop", "answer_text"]
    cases = [(request, ways[number % len(ways)]) for number, request in enumerate(REQUESTS)]
    stalls = [("GET /api/models/me/demo$", "stall"), ("POST .*/commit/", "stall")]
    stalls += [("POST .*/commit/", "trickle"), ("GET .*/resolve/.*/model.safetensors", "trickle")]
    check_faults(run, hub, [*cases, *stalls, ("GET .*/resolve/.*/config.json", "drop")])


STATUSES = (400, 401, 402, 403, 404, 408, 409, 410, 413, 422, 429, 451, 500, 501, 502, 503, 504, 507, 520)
ANSWERS = (
    "drop",
    "drop_midway",
    "stall",
    "trickle",
    "not_http",
    "answer_text",
    "answer_list",
    "answer_null",
    "answer_nothing",
)
WAYS = (*STATUSES, *ANSWERS, "redirect_to_itself", "redirect_to_nowhere", "conflict")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_whole_matrix_of_requests_and_faults(run, hub, way):
    check_faults(run, hub, [(request, way) for request in REQUESTS])


def check_faults(run, hub, cases):
    wrong = []
    for request, way in cases:
        hub.commits.clear()
        hub.faults[:] = [Fault(request, way)]
        try:
            message = f"published: {publish(run, REPOSITORY)}"
        except InputError as error:
            message = str(error)
        if not says_what_to_do(run, request, way, message):
            wrong.append((request, way, message))
    assert not wrong, "\n".join(map(str, wrong))


def says_what_to_do(run, request, way, message) -> bool:
    """Whether a message is one sentence with what is on the Hub, and the command that goes on."""
    says_state = any(state in message for state in (REQUESTS[request], "what is there now is not known"))
    says_remedy = f"`merhan publish {run} {REPOSITORY}`" in message and "\n" not in message
    return says_state and says_remedy and ("hf auth login" in message) == (way in (401, 403))


@pytest.mark.parametrize("change", ["flip", "truncate", "append"])
@pytest.mark.parametrize("name", ["model.safetensors", "modeling_merhan.py", "recipe.yaml"])
def test_what_comes_back_changed_is_named_and_never_imported(run, hub, monkeypatch, name, change):
    monkeypatch.setattr("merhan.hub.publishing.AutoModelForSequenceClassification", None)  # it would be imported here
    message = failure(run, hub, Fault(f"GET .*/resolve/.*/{name}", change))
    assert name in message and ("do not use what is there" in message or UNCHECKED in message)
    assert f"`merhan publish {run} {REPOSITORY}`" in message


def test_logits_that_are_not_numbers_are_not_equal(run, hub, monkeypatch):
    outputs = iter([torch.zeros(1, 4), torch.full((1, 4), torch.nan)])
    monkeypatch.setattr("merhan.hub.publishing._logits", lambda model, processor: next(outputs))
    assert "its logits differ by nan" in failure(run, hub)


def test_a_model_without_finite_logits_is_not_published(run, hub, monkeypatch):
    monkeypatch.setattr("merhan.hub.publishing._logits", lambda model, processor: torch.full((1, 4), torch.nan))
    assert "not finite, so it was not published" in failure(run, hub)
    assert not hub.log


@pytest.mark.parametrize("request_", [name for name in REQUESTS if not name.startswith("GET .*/resolve")])
def test_a_fault_that_passes_is_overcome(run, hub, request_):
    hub.faults[:] = [Fault(request_, 503, times=1), Fault("GET .*/resolve/", "drop", times=1)]
    assert publish(run, REPOSITORY).endswith(hub.files(REPOSITORY)[0])


def test_a_pause_of_an_hour_is_not_waited_for(run, hub):
    message = failure(run, hub, Fault("POST .*/preupload/", 429, headers={"Retry-After": "3600"}))
    assert "429 and asks to wait 3600 s" in message and EMPTY in message and not hub.pauses


def test_a_conflict_that_does_not_end_is_not_repeated_for_ever(run, hub):
    message = failure(run, hub, Fault("POST /api/repos/create", "conflict"))
    assert "answered 409" in message and UNCHANGED in message
    assert hub.log.count("POST /api/repos/create") == 2


def test_a_repository_that_exists_stays_as_it_was(run, hub):
    publish(run, REPOSITORY)
    (run / "model" / "README.md").write_text("edited\n")  # so that there is something to commit
    message = failure(run, hub, Fault("POST .*/commit/", 500))
    assert "answered 500" in message and UNCHANGED in message
    assert len(hub.commits[REPOSITORY]) == 2


def test_after_a_failure_of_the_space_the_same_command_pushes_the_space_alone(run, hub):
    hub.faults[:] = [Fault("POST /api/models/me/demo-space/commit/", 500)]
    with pytest.raises(InputError, match="me/demo-space: was not published.*; go on with `merhan publish .* --space`"):
        publish(run, REPOSITORY, space=True)
    hub.faults.clear()
    pushed, hub.log[:] = len(hub.commits[REPOSITORY]), []
    publish(run, REPOSITORY, space=True)
    assert len(hub.commits[REPOSITORY]) == pushed and "app.py" in hub.files("me/demo-space")[1]
    written = [request for request in hub.log if request.startswith("PUT") or "/commit/" in request]
    assert written == ["POST /api/spaces/me/demo-space/commit/main"]


def test_a_commit_that_arrives_without_an_answer_is_not_pushed_again_but_checked(run, hub):
    hub.faults[:] = [Fault("POST .*/commit/", "do_then_drop", times=1)]
    assert publish(run, REPOSITORY).endswith(hub.files(REPOSITORY)[0]) and len(hub.commits[REPOSITORY]) == 2


def test_a_commit_that_arrives_without_an_answer_is_said_to_be_unchecked(run, hub):
    class ThenRefused(Fault):
        def applies(self, request):
            if not super().applies(request):
                return False
            hub.faults.append(Fault("POST .*/preupload/", 403))
            return True

    assert "a commit has arrived there" in failure(run, hub, ThenRefused("POST .*/commit/", "do_then_drop", times=1))


@pytest.mark.parametrize("repo_id", ["a/b/c", "me/..", "me/my model"])
def test_a_name_that_is_none_is_named_as_that(run, hub, repo_id):
    assert "no name of a repository" in failure(run, hub, repo_id=repo_id)
    assert not hub.commits


def test_no_server_at_all(run, hub):
    hub.shutdown()
    hub.server_close()
    message = failure(run, hub)
    assert "the Hub cannot be reached" in message and UNCHANGED in message and "hf auth login" not in message


def test_the_files_of_the_tokenizer_are_published(run, hub):
    """A byte-pair tokenizer reads `vocab.json` and `merges.txt`, where it has no `tokenizer.json`."""
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (run / "model" / name).write_text("{}", encoding="utf-8")
    (run / "model" / "notes.txt").write_text("my own", encoding="utf-8")
    publish(run, REPOSITORY)
    files = hub.files(REPOSITORY)[1]
    assert {"vocab.json", "merges.txt", "special_tokens_map.json"} <= set(files) and "notes.txt" not in files


def test_a_part_of_the_model_that_cannot_be_published_is_refused(run, hub):
    (run / "model" / "words.dic").write_text("", encoding="utf-8")
    write_hashes(run / "model")
    assert "words.dic: is a part of the model" in failure(run, hub)
    assert not hub.log, "nothing was pushed"
