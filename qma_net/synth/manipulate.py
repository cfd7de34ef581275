"""Splicing, copy-move and removal."""

from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from .camera import add_noise, compress_on_shifted_grid, is_greyscale, maybe_compress
from .crops import random_crop, size_of
from .photographs import Photographs
from .recipe import AUTHENTIC, Recipe
from .regions import (
    draw_placement,
    draw_placement_elsewhere,
    draw_region,
    draw_resampling,
    move_region,
)


def manipulate(
    rng: np.random.Generator, kind: str, photographs: Photographs, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Create an image, before it is blurred, made noisy and encoded.

    For the same state of ``rng``, every kind has the same host.

    Args:
        rng: Source of randomness.
        kind: One of ``KINDS``, or ``AUTHENTIC`` for the host itself.
        photographs: The photos to use.
        recipe: The recipe.

    Returns:
        The image, uint8 ``(H, W, 3)``; its mask, uint8 ``(H, W)`` of 0 and 255; its history.
    """
    name, photo = photographs.draw(rng)
    crop = random_crop(rng, size_of(photo), recipe)
    host, quality = maybe_compress(
        rng, crop.of(photo), probability=recipe.host_saved_before, quality=recipe.host_quality
    )
    history: dict[str, Any] = {"host": name, "host_crop": asdict(crop), "host_quality": quality}
    if kind == AUTHENTIC:
        if recipe.decoys and rng.random() < recipe.decoys:
            host, decoy = _decoy(rng, host, recipe)
            history |= {"decoy": decoy}
        return host, np.zeros(size_of(host), np.uint8), history
    if kind == "splice":
        region, filling, drawn = _splice(rng, photographs, name, photo, host, recipe)
    else:
        labels = photographs.label_map(name)
        labels = None if labels is None else crop.of_labels(labels)
        whole = kind == "copymove"
        region, source = draw_region(rng, labels, size_of(host), recipe, whole=whole)
        if kind == "removal" and source != "random":  # Segments end before the object's edge.
            region = cv2.dilate(region, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
        change = _copy_move if kind == "copymove" else _remove
        region, filling, drawn = change(rng, host, region, recipe)
        drawn = {"region": source, **drawn}
    softness = rng.uniform(*recipe.edge_softness)
    alpha = cv2.GaussianBlur(region.astype(np.float32), (0, 0), softness)
    if not (alpha > 0.5).any():  # The region is too thin for a soft edge.
        alpha = region.astype(np.float32)
    alpha = alpha[..., None]
    image = np.rint(alpha * filling + (1 - alpha) * host).astype(np.uint8)
    mask = np.where(alpha[..., 0] > 0.5, 255, 0).astype(np.uint8)
    return image, mask, {**history, **drawn, "edge_softness": softness}


def _decoy(rng: np.random.Generator, host: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, str]:
    """Give an authentic image a trace that splices also have; return it and the trace's name."""
    if rng.random() < 0.5:
        quality = int(rng.integers(*recipe.host_quality, endpoint=True))
        rows, columns = rng.integers(8, size=2).tolist()
        shift = (rows, columns)
        return compress_on_shifted_grid(host, quality, shift), f"saved on a grid shifted by {shift}"
    region, _ = draw_region(rng, None, size_of(host), recipe, whole=False)
    softness = rng.uniform(*recipe.edge_softness)
    alpha = cv2.GaussianBlur(region.astype(np.float32), (0, 0), softness)
    rim = (4 * alpha * (1 - alpha))[..., None]  # Equals 1 in the middle of the edge.
    soft = cv2.GaussianBlur(host, (0, 0), softness)
    return np.rint(rim * soft + (1 - rim) * host).astype(np.uint8), "a soft rim"


def _splice(
    rng: np.random.Generator,
    photographs: Photographs,
    host_name: str,
    host_photo: np.ndarray,
    host: np.ndarray,
    recipe: Recipe,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return the region, the donor placed there, and their history."""
    name, photo = host_name, host_photo
    if rng.random() >= recipe.same_photograph:
        name, photo = photographs.draw(rng, exclude=host_name)
    crop = random_crop(rng, size_of(photo), recipe)
    donor = crop.of(photo)
    noise = rng.uniform(*recipe.donor_noise)
    donor = add_noise(rng, donor, noise)
    if is_greyscale(host_photo):
        donor = cv2.cvtColor(cv2.cvtColor(donor, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    donor, quality = maybe_compress(
        rng, donor, probability=recipe.donor_saved_before, quality=recipe.donor_quality
    )
    match = rng.uniform(*recipe.colour_match)
    donor = _match_colours(donor, host, match)
    scale, angle = draw_resampling(rng, recipe)
    labels = photographs.label_map(name)
    labels = None if labels is None else crop.of_labels(labels)
    region, source = draw_region(rng, labels, size_of(host), recipe, whole=True)
    height, width = size_of(host)
    if source == "random":  # The region is in the host; choose the part of the donor for it.
        place, scale = draw_placement(rng, region, size_of(donor), scale=1 / scale, angle=-angle)
        scale, flags = 1 / scale, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    else:  # The region is in the donor; choose where it goes in the host.
        least, most = (np.sqrt(a * height * width / region.sum()) for a in recipe.area)
        scale = np.clip(scale, least, most)
        place, scale = draw_placement(rng, region, (height, width), scale=scale, angle=angle)
        flags = cv2.INTER_LINEAR
    if recipe.aligned and (scale, angle) == (1.0, 0.0) and rng.random() < recipe.aligned:
        place[:, 2] = 8 * np.rint(place[:, 2] / 8)
    if source != "random":
        region = move_region(region, place, (height, width))
    filling = cv2.warpAffine(
        donor, place, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return (
        region,
        filling,
        {
            "region": source,
            "donor": name,
            "donor_crop": asdict(crop),
            "donor_noise": noise,
            "donor_quality": quality,
            "colour_match": match,
            "scale": float(scale),
            "angle": angle,
            "place": place.tolist(),
        },
    )


def _copy_move(
    rng: np.random.Generator, host: np.ndarray, region: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return the region that is pasted to, the host moved there, and the history."""
    scale, angle = draw_resampling(rng, recipe)
    least, most = (np.sqrt(share / region.mean()) for share in recipe.area)
    scale = float(np.clip(scale, min(1, least), max(1, most)))
    place, scale = draw_placement_elsewhere(
        rng, region, scale=scale, angle=angle, distance=recipe.copy_distance
    )
    filling = cv2.warpAffine(host, place, host.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    history = {"scale": scale, "angle": angle, "place": place.tolist()}
    return move_region(region, place, size_of(host)), filling, history


def _remove(
    rng: np.random.Generator, host: np.ndarray, region: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return the region, the host with the region removed, and the history."""
    method = recipe.inpainting[rng.integers(len(recipe.inpainting))]
    grown = cv2.dilate(region, np.ones((5, 5), np.uint8))
    if method == "clone":
        place, _ = draw_placement_elsewhere(
            rng, region, scale=1.0, angle=0.0, distance=recipe.copy_distance
        )
        cover = cv2.warpAffine(
            host,
            place,
            host.shape[1::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        filling = _blend(cover, host=host, region=grown)
        return region, filling, {"inpainting": method, "place": place.tolist()}
    algorithm = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]
    return region, cv2.inpaint(host, grown, 3, algorithm), {"inpainting": method}


def _blend(cover: np.ndarray, *, host: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Cover a region of the host, with colours that agree with the host's at the edge."""
    region = region.copy()
    region[[0, -1]] = region[:, [0, -1]] = 0  # Poisson blending needs a border.
    x, y, width, height = cv2.boundingRect(region)
    centre = (x + width // 2, y + height // 2)
    return cv2.seamlessClone(cover, host, 255 * region, centre, cv2.NORMAL_CLONE)


def _match_colours(donor: np.ndarray, host: np.ndarray, strength: float) -> np.ndarray:
    """Adapt the mean and the contrast of each channel of the donor to those of the host."""
    if strength == 0:
        return donor
    (mean, std), (goal, goal_std) = (
        [values.ravel() for values in cv2.meanStdDev(image)] for image in (donor, host)
    )
    gain = np.clip(goal_std / np.maximum(std, 1), 0.6, 1.6) ** strength
    levels = np.arange(256)[:, None]
    curve = gain * (levels - mean) + mean + strength * (goal - mean)  # (256, 3)
    return cv2.LUT(donor, np.rint(curve).clip(0, 255).astype(np.uint8)[None])
