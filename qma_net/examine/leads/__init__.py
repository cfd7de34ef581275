"""Leads: views and measurements that say where to look, not what was done.

None of them needs a trained model, except NoisePrint++. docs/examine.md states how often each is
right and wrong.
"""

from collections.abc import Sequence

import numpy as np

from ...modeling.noise import NoisePrint
from .copies import copies_lead
from .double_jpeg import double_jpeg_lead
from .jpeg_grid import grid_lead, present_grid
from .lead import Lead
from .noise_level import noise_lead
from .views import error_levels, noise_views, noiseprint_texture, srm_strength

__all__ = ["Lead", "error_levels", "leads", "noiseprint_texture", "present_grid", "srm_strength"]


def leads(
    pixels: np.ndarray,
    noiseprint: NoisePrint | None = None,
    *,
    file_grid: tuple[int, int] | None = None,
    luma_table: Sequence[int] | None = None,
    is_transposed: bool = False,
    file_format: str = "",
) -> tuple[Lead, ...]:
    """Compute all leads of a photo: copies, JPEG grid, double compression and noise views.

    Args:
        pixels: uint8 ``(H, W, 3)`` RGB, at least 32x32.
        noiseprint: NoisePrint++ with its weights, to compute its view; None for none.
        file_grid: ``(x, y)`` of the first complete block of the JPEG that the pixels come from;
            None if they come from a file of a different format.
        luma_table: The JPEG's 64 quantization steps for luma, row by row, as in the file.
        is_transposed: Whether the rows of the file are columns of the pixels.
        file_format: The format of the file that the pixels come from; empty if it is unknown. The
            JPEG grid is examined only in formats for which its rates hold.
    """
    return (
        copies_lead(pixels),
        grid_lead(pixels, file_grid, file_format),
        double_jpeg_lead(pixels, file_grid, luma_table, is_transposed=is_transposed),
        noise_lead(pixels),
        *noise_views(pixels, noiseprint),
    )
