"""Random crops of photos, from which synthetic images are created."""

from dataclasses import dataclass

import cv2
import numpy as np

from .recipe import Recipe


@dataclass(frozen=True)
class Crop:
    """A crop of a photo and its transform: lengths in pixels, ``turns`` by 90 degrees."""

    top: int
    left: int
    height: int
    width: int
    out_height: int
    out_width: int
    gamma: float
    turns: int
    mirrored: bool

    def of(self, photo: np.ndarray) -> np.ndarray:
        """Return the crop of a photo, uint8 ``(H, W, 3)``."""
        levels = 255 * (np.arange(256) / 255) ** self.gamma
        crop = self._resized(photo, cv2.INTER_AREA)
        return self._turned(cv2.LUT(crop, np.rint(levels).astype(np.uint8)))

    def of_labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the same crop of its label map, int32 ``(H, W)``."""
        return self._turned(self._resized(labels, cv2.INTER_NEAREST_EXACT))

    def _resized(self, photo: np.ndarray, interpolation: int) -> np.ndarray:
        crop = photo[self.top : self.top + self.height, self.left : self.left + self.width]
        if (self.height, self.width) == (self.out_height, self.out_width):
            return crop
        return cv2.resize(crop, (self.out_width, self.out_height), interpolation=interpolation)

    def _turned(self, photo: np.ndarray) -> np.ndarray:
        photo = np.rot90(photo, self.turns)
        return np.ascontiguousarray(photo[:, ::-1] if self.mirrored else photo)


def size_of(image: np.ndarray) -> tuple[int, int]:
    """Return (height, width) of an image or a mask."""
    return image.shape[0], image.shape[1]


def random_crop(rng: np.random.Generator, size: tuple[int, int], recipe: Recipe) -> Crop:
    """Draw a crop of a photo of ``size`` (height, width)."""
    longest_side = recipe.image_size / rng.uniform(*recipe.zoom)  # In pixels of the photo.
    if recipe.square:
        height = width = min(*size, round(longest_side))
        out_height = out_width = recipe.image_size
    else:
        share = min(1, longest_side / max(size))
        height, width = (max(1, round(share * side)) for side in size)
        longest = min(recipe.image_size, max(height, width))
        out_height, out_width = (max(1, round(longest / max(size) * side)) for side in size)
    return Crop(
        top=int(rng.integers(size[0] - height, endpoint=True)),
        left=int(rng.integers(size[1] - width, endpoint=True)),
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
        gamma=rng.uniform(*recipe.exposure),
        turns=int(rng.integers(4)) if recipe.square else 0,
        mirrored=bool(rng.random() < 0.5),
    )
