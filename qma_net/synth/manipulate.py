"""Splicing, copy-move and removal."""

from dataclasses import asdict

import cv2
import numpy as np

from .camera import is_grey, perhaps_saved_before, saved_on_another_grid, with_noise
from .crops import random_crop
from .photographs import Photographs
from .recipe import UNTOUCHED, Recipe
from .regions import (
    draw_region,
    draw_resampling,
    moved_region,
    random_place,
    random_place_elsewhere,
)


def manipulate(
    rng: np.random.Generator, kind: str, photographs: Photographs, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict]:
    """One image before it is blurred, made noisy and saved.

    The host is the same for every kind when the generator's state is.

    Args:
        rng: source of everything random.
        kind: one of ``KINDS``, or ``"untouched"``: the host itself.
        photographs: to make it from.
        recipe: how it is made.

    Returns:
        The image, uint8 ``(H, W, 3)``; its mask, uint8 ``(H, W)`` of 0 and 255; its history.
    """
    name, photo = photographs.draw(rng)
    crop = random_crop(rng, photo.shape[:2], recipe)
    host, quality = perhaps_saved_before(
        rng, crop.of(photo), chance=recipe.host_saved_before, quality=recipe.host_quality
    )
    history = {"host": name, "host_crop": asdict(crop), "host_quality": quality}
    if kind == UNTOUCHED:
        if recipe.decoys and rng.random() < recipe.decoys:
            host, decoy = _decoy(rng, host, recipe)
            history |= {"decoy": decoy}
        return host, np.zeros(host.shape[:2], np.uint8), history
    if kind == "splice":
        region, filling, drawn = _splice(rng, photographs, name, photo, host, recipe)
    else:
        labels = photographs.label_map(name)
        labels = None if labels is None else crop.of_labels(labels)
        whole = kind == "copymove"
        region, source = draw_region(rng, labels, host.shape[:2], recipe, whole=whole)
        if kind == "removal" and source != "random":  # with its rim
            region = cv2.dilate(region, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
        change = _copy_move if kind == "copymove" else _remove
        region, filling, drawn = change(rng, host, region, recipe)
        drawn = {"region": source, **drawn}
    softness = rng.uniform(*recipe.edge_softness)
    alpha = cv2.GaussianBlur(region.astype(np.float32), (0, 0), softness)
    if not (alpha > 0.5).any():  # too thin to be softened
        alpha = region.astype(np.float32)
    alpha = alpha[..., None]
    image = np.rint(alpha * filling + (1 - alpha) * host).astype(np.uint8)
    mask = np.where(alpha[..., 0] > 0.5, 255, 0).astype(np.uint8)
    return image, mask, {**history, **drawn, "edge_softness": softness}


def _decoy(rng: np.random.Generator, host: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, str]:
    """A host with a trace that a splice has too and that is none, and which trace it is."""
    if rng.random() < 0.5:
        quality = int(rng.integers(*recipe.host_quality, endpoint=True))
        shift = tuple(int(one) for one in rng.integers(8, size=2))
        return saved_on_another_grid(host, quality, shift), f"saved on a grid shifted by {shift}"
    region, _ = draw_region(rng, None, host.shape[:2], recipe, whole=False)
    softness = rng.uniform(*recipe.edge_softness)
    alpha = cv2.GaussianBlur(region.astype(np.float32), (0, 0), softness)
    rim = (4 * alpha * (1 - alpha))[..., None]  # 1 in the middle of the edge
    soft = cv2.GaussianBlur(host, (0, 0), softness)
    return np.rint(rim * soft + (1 - rim) * host).astype(np.uint8), "a soft rim"


def _splice(
    rng: np.random.Generator,
    photographs: Photographs,
    host_name: str,
    host_photo: np.ndarray,
    host: np.ndarray,
    recipe: Recipe,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """The region, the donor moved there, and the history of both."""
    name, photo = host_name, host_photo
    if rng.random() >= recipe.same_photograph:
        name, photo = photographs.draw(rng, but=host_name)
    crop = random_crop(rng, photo.shape[:2], recipe)
    donor = crop.of(photo)
    noise = rng.uniform(*recipe.donor_noise)
    donor = with_noise(rng, donor, noise)
    if is_grey(host_photo):
        donor = cv2.cvtColor(cv2.cvtColor(donor, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    donor, quality = perhaps_saved_before(
        rng, donor, chance=recipe.donor_saved_before, quality=recipe.donor_quality
    )
    match = rng.uniform(*recipe.colour_match)
    donor = _colour_matched(donor, host, match)
    scale, angle = draw_resampling(rng, recipe)
    labels = photographs.label_map(name)
    labels = None if labels is None else crop.of_labels(labels)
    region, source = draw_region(rng, labels, host.shape[:2], recipe, whole=True)
    height, width = host.shape[:2]
    if source == "random":  # in the host's frame: find it a place in the donor
        place, scale = random_place(rng, region, donor.shape[:2], scale=1 / scale, angle=-angle)
        scale, flags = 1 / scale, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    else:  # in the donor's frame: find it a place in the host
        least, most = (np.sqrt(a * height * width / region.sum()) for a in recipe.area)
        scale = np.clip(scale, least, most)
        place, scale = random_place(rng, region, (height, width), scale=scale, angle=angle)
        flags = cv2.INTER_LINEAR
    if recipe.aligned and (scale, angle) == (1.0, 0.0) and rng.random() < recipe.aligned:
        place[:, 2] = 8 * np.rint(place[:, 2] / 8)
    if source != "random":
        region = moved_region(region, place, (height, width))
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
) -> tuple[np.ndarray, np.ndarray, dict]:
    """The region where it is copied to, never onto itself, the host moved there, the history."""
    scale, angle = draw_resampling(rng, recipe)
    least, most = (np.sqrt(share / region.mean()) for share in recipe.area)
    scale = float(np.clip(scale, min(1, least), max(1, most)))
    place, scale = random_place_elsewhere(
        rng, region, scale=scale, angle=angle, distance=recipe.copy_distance
    )
    filling = cv2.warpAffine(host, place, host.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    history = {"scale": scale, "angle": angle, "place": place.tolist()}
    return moved_region(region, place, host.shape[:2]), filling, history


def _remove(
    rng: np.random.Generator, host: np.ndarray, region: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict]:
    """The region, the host without what was in it, the history."""
    method = recipe.inpainting[rng.integers(len(recipe.inpainting))]
    grown = cv2.dilate(region, np.ones((5, 5), np.uint8))
    if method == "clone":
        place, _ = random_place_elsewhere(
            rng, region, scale=1.0, angle=0.0, distance=recipe.copy_distance
        )
        cover = cv2.warpAffine(
            host,
            place,
            host.shape[1::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        filling = _blended(cover, host=host, region=grown)
        return region, filling, {"inpainting": method, "place": place.tolist()}
    algorithm = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]
    return region, cv2.inpaint(host, grown, 3, algorithm), {"inpainting": method}


def _blended(cover: np.ndarray, *, host: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The host with its region covered, the cover's colours led to the host's at the edge."""
    region = region.copy()
    region[[0, -1]] = region[:, [0, -1]] = 0  # Poisson's equation needs a rim
    x, y, width, height = cv2.boundingRect(region)
    centre = (x + width // 2, y + height // 2)
    return cv2.seamlessClone(cover, host, 255 * region, centre, cv2.NORMAL_CLONE)


def _colour_matched(donor: np.ndarray, host: np.ndarray, strength: float) -> np.ndarray:
    """The donor with each channel's mean and contrast brought towards the host's."""
    if strength == 0:
        return donor
    (mean, std), (goal, goal_std) = (
        [values.ravel() for values in cv2.meanStdDev(image)] for image in (donor, host)
    )
    gain = np.clip(goal_std / np.maximum(std, 1), 0.6, 1.6) ** strength
    levels = np.arange(256)[:, None]
    curve = gain * (levels - mean) + mean + strength * (goal - mean)  # (256, 3)
    return cv2.LUT(donor, np.rint(curve).clip(0, 255).astype(np.uint8)[None])
