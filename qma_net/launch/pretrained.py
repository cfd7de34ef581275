"""Pretrained weights from the Hugging Face Hub, which one process per machine downloads."""

import argparse
import logging
import os

from .contracts import install

logger = logging.getLogger(__name__)


def hub_weights(flags: list[str]) -> str:
    """Return the Hub ID in ``--backbone_weights`` of QMA-Net, or an empty string."""
    from ..weights.reading import is_hub_id

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("model", "backbone_weights", "init_from"):
        parser.add_argument(f"--{name}", default="")
    given, _ = parser.parse_known_args(flags)
    source: str = given.backbone_weights
    is_used = given.model == "QMANet" and not given.init_from and not os.path.exists(source)
    return source if is_used and is_hub_id(source) else ""


def download(hub_id: str) -> None:
    """Download a SegFormer to Hugging Face's cache, where all processes find it.

    Raises:
        WeightsError: If it can be neither downloaded nor found in the cache.
    """
    from ..weights.sources import mit_state

    mit_state(hub_id)
    logger.info("the weights of %s are in Hugging Face's cache", hub_id)


def use_cache_only() -> None:
    """Let this process load from Hugging Face's cache without asking the Hub for newer files."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # For processes that are started later.
    install("huggingface_hub.constants:HF_HUB_OFFLINE", True)
