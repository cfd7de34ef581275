"""Pretrained weights from the Hugging Face Hub, which one process per machine downloads."""

import argparse
import logging
import os
from collections.abc import Callable

from .contracts import install

logger = logging.getLogger(__name__)


def hub_download(flags: list[str]) -> Callable[[], None] | None:
    """Return a function that downloads QMA-Net's ``--init_from`` or ``--backbone_weights``.

    It downloads to Hugging Face's cache, where all processes find the weights, and raises a
    WeightsError if they can be neither downloaded nor found there. The result is None if no weights
    have to come from the Hub.
    """
    from ..weights.locate import load_model
    from ..weights.reading import is_hub_id
    from ..weights.sources import mit_state

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("model", "backbone_weights", "init_from"):
        parser.add_argument(f"--{name}", default="")
    given, _ = parser.parse_known_args(flags)
    source: str = given.init_from or given.backbone_weights
    if given.model != "QMANet" or os.path.exists(source) or not is_hub_id(source):
        return None

    def download() -> None:
        load_model(source) if given.init_from else mit_state(source)
        logger.info("the weights of %s are in Hugging Face's cache", source)

    return download


def use_cache_only() -> None:
    """Let this process load from Hugging Face's cache without asking the Hub for newer files."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # For processes that are started later.
    install("huggingface_hub.constants:HF_HUB_OFFLINE", True)
