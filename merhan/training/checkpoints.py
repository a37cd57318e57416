"""Finding the checkpoint from which an interrupted stage is resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from merhan.content_hashes import damage
from merhan.logs import get_logger


logger = get_logger(__name__)


def last_checkpoint(folder: Path) -> str | None:
    """The newest intact checkpoint of a stage, None without any.

    Newer ones are removed: those that were never finished, those whose files are damaged, and those whose best epoch
    so far is. The damaged are named in a warning.
    """
    checkpoints = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    passed_over = False
    for step in sorted(checkpoints, reverse=True):
        checkpoint = checkpoints[step]
        state = _state(checkpoint)
        reason = _damage(checkpoint, state)
        if state and reason is None:
            if passed_over:
                logger.warning(f"note: resuming from {checkpoint}, the one before it")
            return str(checkpoint)
        if reason is not None:
            passed_over = True
            logger.warning(f"note: {reason}; this checkpoint is passed over")
        shutil.rmtree(checkpoint)
    if passed_over:
        logger.warning(f"note: {folder.name} has no checkpoint before it; the stage starts again")
    return None


def _state(checkpoint: Path) -> dict[str, Any]:
    """Content of `trainer_state.json`, the last file that Trainer writes into a checkpoint; empty if it is unusable."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _damage(checkpoint: Path, state: dict[str, Any]) -> str | None:
    """What is damaged in a checkpoint, or in that of the best epoch so far, which is read at the end of the stage."""
    reason = damage(checkpoint)
    best = state.get("best_model_checkpoint")
    if reason is None and best:
        reason = damage(checkpoint.parent / Path(best).name)
    return reason
