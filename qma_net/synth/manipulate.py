"""Generation of images: splicing, copy-move and removal."""

import math
from dataclasses import asdict, replace
from typing import Any

import cv2
import numpy as np

from .camera import (
    add_noise,
    compress_on_shifted_grid,
    encode_final,
    maybe_compress,
    maybe_reduce,
)
from .patches import fill_with_patches
from .photographs import Photographs, frame_of, random_crop, size_of, whole_photo
from .recipe import AUTHENTIC, KINDS, RETOUCH, Recipe
from .regions import (
    draw_placement,
    draw_placement_elsewhere,
    draw_region,
    draw_resampling,
    move_region,
    outline_of,
)
from .retouch import retouch

DRAWS_FOR_LABELS = 8  # Attempts to draw a donor with a label map.
LARGEST_OBJECT = 0.9  # Share of a donor that a segment may fill before it is scaled.
LARGEST_REMOVAL = 0.12  # Share of a native image; inpainting of larger regions looks unlike photos.


def generate_image(
    rng: np.random.Generator, kind: str, photographs: Photographs, recipe: Recipe
) -> tuple[bytes, np.ndarray, dict[str, Any]]:
    """Generate an image of a kind; see :func:`manipulate`.

    Returns:
        The bytes of its file, its mask (uint8 ``(H, W)``, 0 or 255), and its history.
    """
    frame = frame_of(recipe)
    if recipe.reduced and rng.random() < recipe.reduced:
        reduction = rng.uniform(*recipe.reduction)
        larger = round(frame[0] / reduction), round(frame[1] / reduction)
        recipe = replace(recipe, frame=larger)
    image, mask, history = manipulate(rng, kind, photographs, recipe)
    if recipe.native:
        image, mask, drawn = maybe_reduce(rng, image, mask, frame, recipe)
        history |= drawn
    data, drawn = encode_final(rng, image, recipe)
    return data, mask, {"kind": kind, **history, **drawn}


def kind_at(side: str, index: int, recipe: Recipe) -> str:
    """Determine an image's kind from its index: one of ``KINDS``, ``RETOUCH`` or ``AUTHENTIC``.

    Kinds are mixed evenly, so the beginning of a dataset has the same proportions as the whole.
    Kinds of training images follow the multiples of the golden ratio; test images cycle
    through the kinds.
    """
    authentic_before, authentic = (
        math.floor(recipe.untouched * number + 0.5) for number in (index, index + 1)
    )
    if authentic > authentic_before:
        return AUTHENTIC
    manipulated = index - authentic_before
    kinds = (*KINDS, RETOUCH) if recipe.retouched else KINDS
    if side == "test":
        return kinds[manipulated % len(kinds)]
    golden = (math.sqrt(5) - 1) / 2
    shares = np.cumsum(recipe.kinds) / np.sum(recipe.kinds) * (1 - recipe.retouched)
    shares = shares[: len(kinds) - 1]
    return kinds[int(np.searchsorted(shares, manipulated * golden % 1, side="right"))]


def manipulate(
    rng: np.random.Generator, kind: str, photographs: Photographs, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Create an image of the given kind (see :func:`kind_at`), not yet blurred or encoded.

    For the same state of ``rng``, every kind has the same host.

    Returns:
        The image, uint8 ``(H, W, 3)``; its mask, uint8 ``(H, W)``, 0 or 255; and its history.
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
        labels = crop.of_labels(photographs.label_map(name))
        labels = _maybe_united(rng, labels, recipe)
        whole = kind == "copymove"
        limits = recipe
        if recipe.native and kind == "removal":
            least, most = (min(LARGEST_REMOVAL, share) for share in recipe.area)
            limits = replace(recipe, area=(least, most))
        region, source = draw_region(rng, labels, size_of(host), limits, whole=whole)
        if kind == "removal" and source != "random":  # Segments end before the object's edge.
            region = cv2.dilate(region, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
        change = {"copymove": _copy_move, "removal": _remove, RETOUCH: retouch}[kind]
        region, filling, drawn = change(rng, host, region, recipe)
        drawn = {"region": source, **drawn}
    alpha, softness = _soft_edge(rng, region, recipe)
    if not (alpha > 0.5).any():  # The region is too thin for a soft edge.
        alpha = region.astype(np.float32)
    mask = np.where(alpha > 0.5, 255, 0).astype(np.uint8)
    return _mix(filling, host, alpha), mask, {**history, **drawn, "edge_softness": softness}


def _soft_edge(
    rng: np.random.Generator, region: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, float]:
    if recipe.hard_edges and rng.random() < recipe.hard_edges:
        return region.astype(np.float32), 0.0
    softness = rng.uniform(*recipe.edge_softness)
    return cv2.GaussianBlur(region.astype(np.float32), (0, 0), softness), softness


def _maybe_united(
    rng: np.random.Generator, labels: np.ndarray | None, recipe: Recipe
) -> np.ndarray | None:
    if labels is None or not recipe.united_labels or rng.random() >= recipe.united_labels:
        return labels
    return (labels > 0).astype(np.int32)


def _mix(first: np.ndarray, second: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha[..., None]
    return np.rint(alpha * first + (1 - alpha) * second).astype(np.uint8)


def _decoy(rng: np.random.Generator, host: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, str]:
    """Give an authentic image a trace that splices also have; return it and the trace's name."""
    if rng.random() < 0.5:
        quality = int(rng.integers(*recipe.host_quality, endpoint=True))
        rows, columns = rng.integers(8, size=2).tolist()
        shift = (rows, columns)
        return compress_on_shifted_grid(host, quality, shift), f"saved on a grid shifted by {shift}"
    region, _ = draw_region(rng, None, size_of(host), recipe, whole=False)
    alpha, softness = _soft_edge(rng, region, recipe)
    if not softness:
        return host, "none"
    rim = 4 * alpha * (1 - alpha)  # Equals 1 in the middle of the edge.
    return _mix(cv2.GaussianBlur(host, (0, 0), softness), host, rim), "a soft rim"


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
        if recipe.native and photographs.maps and rng.random() < recipe.from_labels:
            for _ in range(DRAWS_FOR_LABELS):
                if name in photographs.maps:
                    break
                name, photo = photographs.draw(rng, exclude=host_name)
    maps = photographs.label_map(name)
    if recipe.native and maps is not None:
        crop = whole_photo(rng, size_of(photo), recipe)
    else:
        crop = random_crop(rng, size_of(photo), recipe)
    donor = crop.of(photo)
    noise = rng.uniform(*recipe.donor_noise)
    donor = add_noise(rng, donor, noise)
    if (host_photo == host_photo[..., :1]).all():  # The host is grayscale.
        donor = cv2.cvtColor(cv2.cvtColor(donor, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    donor, quality = maybe_compress(
        rng, donor, probability=recipe.donor_saved_before, quality=recipe.donor_quality
    )
    match = rng.uniform(*recipe.colour_match)
    donor = _match_colours(donor, host, match)
    scale, angle = draw_resampling(rng, recipe)
    labels = _maybe_united(rng, crop.of_labels(maps), recipe)
    height, width = size_of(host)
    region, source = draw_region(
        rng,
        labels,
        (height, width),
        recipe,
        whole=not recipe.native,
        largest_segment=LARGEST_OBJECT if recipe.native else 0.0,
    )
    outline = outline_of(region)
    if source == "random":  # The region is in the host; choose the part of the donor for it.
        place, scale = draw_placement(rng, outline, size_of(donor), scale=1 / scale, angle=-angle)
        scale = 1 / scale
    else:  # The region is in the donor; choose where it goes in the host.
        least, most = (np.sqrt(a * height * width / region.sum()) for a in recipe.area)
        scale = np.clip(scale, least, most)
        place, scale = draw_placement(rng, outline, (height, width), scale=scale, angle=angle)
    if recipe.aligned and (scale, angle) == (1.0, 0.0) and rng.random() < recipe.aligned:
        place[:, 2] = 8 * np.rint(place[:, 2] / 8)
    if source != "random":
        region = move_region(region, place, (height, width))
    filling = _warp(donor, place, (height, width), inverse=source == "random")
    history = {
        "region": source,
        "donor": name,
        "donor_crop": asdict(crop),
        "donor_noise": noise,
        "donor_quality": quality,
        "colour_match": match,
        "scale": float(scale),
        "angle": angle,
        "place": place.tolist(),
    }
    return region, filling, history


def _copy_move(
    rng: np.random.Generator, host: np.ndarray, region: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return the region to paste into, the host shifted to that place, and the history."""
    scale, angle = draw_resampling(rng, recipe)
    least, most = (np.sqrt(share / region.mean()) for share in recipe.area)
    scale = float(np.clip(scale, min(1, least), max(1, most)))
    place, scale = draw_placement_elsewhere(
        rng, region, scale=scale, angle=angle, distance=recipe.copy_distance
    )
    filling = _warp(host, place, size_of(host))
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
        cover = _warp(host, place, size_of(host), inverse=True)
        filling = _blend(cover, host=host, region=grown)
        return region, filling, {"inpainting": method, "place": place.tolist()}
    if method == "patches":
        return region, fill_with_patches(host, grown), {"inpainting": method}
    algorithm = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]
    return region, cv2.inpaint(host, grown, 3, algorithm), {"inpainting": method}


def _warp(
    image: np.ndarray, place: np.ndarray, size: tuple[int, int], *, inverse: bool = False
) -> np.ndarray:
    flags = cv2.INTER_LINEAR | (cv2.WARP_INVERSE_MAP if inverse else 0)
    return cv2.warpAffine(image, place, size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _blend(cover: np.ndarray, *, host: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Cover a region of the host, with colors that agree with the host's at the edge."""
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
