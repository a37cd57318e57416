"""FSDP2 with one process on a CPU: accelerate shards on GPUs alone, so a test must make it believe in one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from merhan.training.trainer import shard_by_layer


REPOSITORY = Path(__file__).parent.parent
RECIPE = """
output_dir: {folder}/outputs
data: {{corpus: demo, source: {folder}/demo, options: {{scale: 0.1}}, accept_leaks: [text], max_seconds: 2}}
model: {{audio_backbone: tiny, text_backbone: tiny, config: {{hidden_size: 32, intermediate_size: 32}}}}
stages:
  - {{name: warmup, epochs: 1, learning_rate: {{head: 1.0e-3}}}}
  - {{name: finetune, epochs: 1, learning_rate: {{head: 1.0e-3, audio: 1.0e-4, text: 1.0e-4}}}}
trainer: {{per_device_train_batch_size: 16, report_to: none, logging_steps: 1}}
"""
# What runs in place of train_hf_e2e.py.
PROGRAM = """
import os, runpy, sys
os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
import torch.distributed.fsdp
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.device_mesh import init_device_mesh

PartialState._prepare_backend = lambda *args: ("gloo", DistributedType.MULTI_GPU)
fully_shard = torch.distributed.fsdp.fully_shard

def on_the_cpu(module, mesh=None, **options):
    return fully_shard(module, mesh=init_device_mesh("cpu", (1,)), **options)

torch.distributed.fsdp.fully_shard = on_the_cpu
sys.path.insert(0, os.getcwd())
runpy.run_path("train_hf_e2e.py", run_name="__main__")
"""


def test_layers_are_sharded_one_by_one_unless_the_config_says_otherwise(trained_like):
    plugin = SimpleNamespace(transformer_cls_names_to_wrap=None)
    shard_by_layer(trained_like, plugin)
    assert plugin.transformer_cls_names_to_wrap == [
        "MerhanBlock",
        "RobertaLayer",
        "Wav2Vec2EncoderLayerStableLayerNorm",
    ]
    plugin.transformer_cls_names_to_wrap = ["RobertaLayer"]
    shard_by_layer(trained_like, plugin)
    assert plugin.transformer_cls_names_to_wrap == ["RobertaLayer"]


@pytest.mark.slow
def test_a_sharded_run_has_the_losses_of_a_plain_one(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path), encoding="utf-8")

    def losses(name: str, program: str, *launch: str, cpu: bool) -> list[float]:
        accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"]
        words = ["--config", str(tmp_path / "recipe.yaml"), "--run_name", name, "--overwrite"]
        command = [*accelerate, *launch, program, *words, "--set", f"trainer.use_cpu={str(cpu).lower()}"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        folder = next(tmp_path.rglob(f"{name}/finetune"))
        history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        return [entry["loss"] for entry in history if "loss" in entry]

    plain = losses("plain", "train_hf_e2e.py", "--cpu", cpu=True)
    options = ("--config_file", "configs/accelerate/fsdp2.yaml", "--main_process_port", "0")
    sharded = losses("sharded", str(tmp_path / "program.py"), *options, cpu=False)
    assert len(plain) > 2
    assert sharded == pytest.approx(plain, rel=1e-4)
