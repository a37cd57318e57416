"""Finding the checkpoint from which an interrupted stage is resumed."""

import json
import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of a stage, None without any; incomplete newer ones are removed."""
    checkpoints = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    for step in sorted(checkpoints, reverse=True):
        if _is_complete(checkpoints[step]):
            return str(checkpoints[step])
        shutil.rmtree(checkpoints[step])
    return None


def _is_complete(checkpoint: Path) -> bool:
    """Whether `trainer_state.json`, the last file that Trainer writes into a checkpoint, can be read."""
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False
