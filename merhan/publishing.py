"""The model folder that is complete in itself, and its way to the Hub and back."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import filter_repo_objects
from omegaconf import OmegaConf
from transformers import AutoModelForSequenceClassification, AutoProcessor

import modeling_merhan
from merhan.corpora import CORPORA, About, room
from merhan.errors import InputError
from merhan.evaluation import FEWEST_ROWS
from merhan.history import Stage, stages_of
from merhan.metrics import SCORES
from merhan.recipe import BUILT_IN, Recipe, chooses_epoch, save_recipe
from merhan.report import TITLES, interval_note, scores_table, temperatures_note
from modeling_merhan import MerhanForSequenceClassification
from processing_merhan import SAMPLING_RATE, MerhanProcessor


TEMPLATE = Path(modeling_merhan.__file__).parent / "hub_card" / "README.md.jinja"

# What travels. Never optimizer state, training_args.bin (a pickle that can hold a token), logs or predictions.
ALLOWED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "modeling_merhan.py",
    "processing_merhan.py",
    "README.md",
    "recipe.yaml",
    "provenance.json",
    "evaluation/*/metrics.json",
    "evaluation/*/*.png",
)


def export(
    run: Path,
    recipe: Recipe,
    model: MerhanForSequenceClassification,
    processor: MerhanProcessor,
    found: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Write `run/model`: what would be published, complete. Returns the folder."""
    folder = run / "model"
    with tempfile.TemporaryDirectory(dir=run, prefix="model.") as temporary:
        part = Path(temporary) / "model"
        model.save_pretrained(part)
        processor.save_pretrained(part)
        save_recipe(without_paths(recipe), part / "recipe.yaml")
        shutil.copy(run / "provenance.json", part)
        for file in (run / "evaluation").glob("*/*"):
            if file.name == "metrics.json" or file.suffix == ".png":
                (part / "evaluation" / file.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, part / "evaluation" / file.parent.name)
        provenance = json.loads((run / "provenance.json").read_text())
        card(recipe, provenance, model, found, stages_of(run)).save(part / "README.md")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe as others may read it: a folder of this machine becomes its last name."""
    public = OmegaConf.to_object(OmegaConf.structured(recipe))
    public.output_dir = Path(recipe.output_dir).name
    public.data.source = _public(recipe.data.source)
    public.data.options = {key: _public(value) for key, value in recipe.data.options.items()}
    public.model.audio_backbone = _public(recipe.model.audio_backbone)
    public.model.text_backbone = _public(recipe.model.text_backbone)
    public.model.checkpoint = _public(recipe.model.checkpoint)
    return public


def _public(value: Any) -> Any:
    if isinstance(value, list):
        return [_public(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).exists() else value


def card(
    recipe: Recipe,
    provenance: Mapping[str, Any],
    model: MerhanForSequenceClassification,
    found: Mapping[str, Mapping[str, Any]],
    history: Sequence[Stage] = (),
) -> ModelCard:
    """The model card, from `hub_card/` and the run's own files; nothing in it is typed by hand."""
    first = next(iter(found.values()))
    public = without_paths(recipe)
    backbones = [name for name in (public.model.audio_backbone, public.model.text_backbone) if name]
    modalities = model.config.modalities
    return ModelCard.from_template(
        _card_data(recipe, provenance, modalities, found),
        template_path=str(TEMPLATE),
        model_name=public.run_name,
        repo_id=public.hub.repo_id or "<this folder>",
        modalities=["speech" if name == "audio" else "words" for name in modalities],
        example=", ".join(
            ['"a.wav"'] * ("audio" in modalities) + ['text="I cannot believe it!"'] * ("text" in modalities)
        ),
        labels=list(model.config.label2id),
        backbones=[
            {"light": "a light speech encoder", "tiny": "a tiny random encoder"}.get(name, f"`{name}`")
            for name in backbones
        ],
        protocol=provenance["protocol"],
        corpora=provenance["data"]["corpora"],
        sources=_sources(provenance["data"]["corpora"]),
        splits=provenance["data"]["splits"],
        speakers=len(provenance["data"]["speakers"].get("train", ())),
        interval_note=interval_note(first),
        metric=TITLES[public.metric] if chooses_epoch(public, public.stages[-1]) else None,
        results=scores_table(found),
        picture=first["folder"],
        temperature=temperatures_note(first),
        calibration=first["calibration"],
        uncalibrated=first["uncalibrated"],
        groups={column: _extremes(groups) for column, groups in first["groups"].items()},
        abstention=_abstention(first["risk_coverage"]),
        stages=public.stages,
        minutes=sum(stage.seconds for stage in history) / 60,
        peak_memory=max((stage.peak_memory for stage in history), default=0.0),
        hardware=provenance["hardware"],
    )


def _abouts(corpora: Sequence[str]) -> list[About]:
    return [room(name).ABOUT for name in corpora if name in CORPORA and hasattr(room(name), "ABOUT")]


def _sources(corpora: Sequence[str]) -> list[str]:
    """Title, licence and citation of the corpora that have them."""
    return [f"{about.title} ({about.licence}). {about.citation}".rstrip(". ") + "." for about in _abouts(corpora)]


def _licence(recipe: Recipe, corpora: Sequence[str]) -> dict[str, str]:
    """The recipe's word for the weights; without one, a name that says what the data forbids."""
    if recipe.hub.license:
        return {"license": recipe.hub.license}
    free = all(about.commercial for about in _abouts(corpora))
    return {"license": "other", **({} if free else {"license_name": "non-commercial-as-its-training-data"})}


def _extremes(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The worst and the best of the groups that are large enough to say so, or of all where none is."""
    large = [group for group in groups if group["n"] >= FEWEST_ROWS] or groups
    ranked = sorted(large, key=lambda group: group["uar"])
    return {"count": len(groups), "worst": ranked[0], "best": ranked[-1]}


def _abstention(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The threshold at which about four in five utterances are answered."""
    nearest = int(np.argmin(np.abs(np.array(found["coverage"]) - 0.8)))
    return {name: found[name][nearest] for name in ("coverage", "threshold", "risk")}


def _card_data(
    recipe: Recipe, provenance: Mapping[str, Any], modalities: list[str], found: Mapping[str, Mapping[str, Any]]
) -> ModelCardData:
    corpora = provenance["data"]["corpora"]
    results = [
        EvalResult(
            task_type="audio-classification" if "audio" in modalities else "text-classification",
            task_name=f"Speech emotion recognition, given {metrics['condition']}",
            dataset_type=corpora[0],
            dataset_name=f"{', '.join(corpora)} ({provenance['protocol']['name']})",
            dataset_config=f"given {metrics['condition']}",
            dataset_split=metrics["split"],
            metric_type=score,
            metric_name=TITLES[score],
            metric_value=metrics[score],
        )
        for metrics in found.values()
        for score in SCORES
    ]
    names = (recipe.model.audio_backbone, recipe.model.text_backbone)
    hub_ids = [name for name in names if name not in (None, *BUILT_IN) and not Path(name).exists()]
    return ModelCardData(
        **_licence(recipe, corpora),
        library_name="transformers",
        pipeline_tag="audio-classification" if "audio" in modalities else "text-classification",
        tags=["emotion-recognition", "speech-emotion-recognition", "merhan", "custom_code"],
        base_model=hub_ids or None,
        metrics=list(SCORES),
        model_name=recipe.run_name,
        eval_results=results,
    )


def publish(run: Path, repo_id: str, private: bool = True) -> str:
    """Push a run's model in one commit, load it back from the Hub, and compare logits; returns the commit's address.

    What is pushed is assembled in a fresh folder by allow-list, so that nothing else can slip in.

    Raises:
        InputError: the run is not finished, the Hub refuses, or what came back differs.
    """
    source = run / "model"
    if not (source / "README.md").is_file():
        raise InputError(f"{run}: has no finished model; finish the run with --resume.")
    with tempfile.TemporaryDirectory() as temporary:
        outbox = Path(temporary) / "outbox"
        files = [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()]
        for name in filter_repo_objects(files, allow_patterns=list(ALLOWED)):
            (outbox / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, outbox / name)
        _address(outbox / "README.md", repo_id)
        try:
            HfApi().create_repo(repo_id, private=private, exist_ok=True)
            commit = HfApi().upload_folder(
                repo_id=repo_id, folder_path=outbox, commit_message=f"MER-HAN: {run.name}", delete_patterns="*"
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise InputError(
                f"hub.repo_id: the Hub refused {repo_id!r} ({str(error).strip()}); log in with "
                f"`hf auth login` and check that you may write there."
            ) from None
        _compare(source, repo_id, commit.oid, Path(temporary) / "cache")
    print(f"published and loaded back with equal logits: {commit.commit_url}")
    return commit.commit_url


def _address(readme: Path, repo_id: str):
    readme.write_text(readme.read_text().replace("<this folder>", repo_id))


def _compare(folder: Path, repo_id: str, revision: str, cache: Path):
    """Load what was pushed into an empty cache, and ask it what the local one is asked."""
    options = {"revision": revision, "cache_dir": cache, "trust_remote_code": True}
    remote = AutoModelForSequenceClassification.from_pretrained(repo_id, **options).eval()
    inputs = _probe(AutoProcessor.from_pretrained(repo_id, **options))
    local = MerhanForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        difference = (remote(**inputs).logits - local(**inputs).logits).abs().max().item()
    if difference > 1e-5:  # the same weights on the same machine; arithmetic may differ in the last bit
        raise InputError(
            f"{repo_id}: was pushed, but its logits differ by {difference:.3g} from {folder}; do not use it."
        )


def _probe(processor: MerhanProcessor) -> dict[str, torch.Tensor]:
    """One utterance of noise and some words, of whatever the model reads."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLING_RATE)
    whole = {"audio": {"array": noise, "sampling_rate": SAMPLING_RATE}, "text": "I cannot believe it!"}
    return dict(processor(**{name: whole[name] for name in processor.modalities}))
