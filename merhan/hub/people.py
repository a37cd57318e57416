"""What a published model says of the people in its data: by default nothing, unless their corpora may be passed on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from merhan.data.corpora import CORPORA
from merhan.data.corpora.base import corpus_reader
from merhan.data.provenance import hidden_speaker


PERSONAL_GROUPS = ("speaker",)


def may_quote(choice: bool | None, corpora: Sequence[str]) -> bool:
    """Whether speakers and utterances may be quoted.

    Args:
        choice: `hub.quote_people`; None = what the licences permit.
        corpora: names of the corpora; one without a known licence may not be quoted.
    """
    if choice is not None:
        return choice
    return all(_may_be_passed_on(name) for name in corpora)


def _may_be_passed_on(corpus: str) -> bool:
    about = None
    if corpus in CORPORA:
        about = getattr(corpus_reader(corpus), "ABOUT", None)
    return about is not None and about.shareable


def without_people(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A provenance record, and those that it contains, with codes for the names of speakers and leaks without examples.

    The codes are hashes, by which an evaluation still notices the same speakers; they hide a name, but who knows the
    names can recognise them.
    """
    public = dict(provenance)
    if "data" in public:
        names = public["data"].get("speakers", {})
        codes = {split: sorted(map(hidden_speaker, part)) for split, part in names.items()}
        public["data"] = {**public["data"], "speakers": codes}
    if "protocol" in public:
        public["protocol"] = _without_examples(public["protocol"])
    for key, record in (public.get("initial_weights") or {}).items():
        if isinstance(record, Mapping):
            public["initial_weights"] = {**public["initial_weights"], key: without_people(record)}
    return public


def metrics_without_people(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without scores by speaker, and with leaks without examples."""
    groups = {column: group for column, group in metrics["groups"].items() if column not in PERSONAL_GROUPS}
    return {**metrics, "groups": groups, "protocol": _without_examples(metrics["protocol"])}


def _without_examples(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol whose leaks, as `text: 2.0% of test (3 rows), text 'I quit'`, end before the example."""
    leaks = [re.sub(r"(\(\d+ rows\)), .*", r"\1", leak, flags=re.DOTALL) for leak in protocol.get("leaks", [])]
    return {**protocol, "leaks": leaks}
