"""How manipulated photographs are made: the kinds, the sides, the recipe."""

from dataclasses import dataclass

from ..core.errors import QMANetError

KINDS = ("splice", "copymove", "removal")
UNTOUCHED = "untouched"
SIDES = ("train", "test")


@dataclass(frozen=True)
class Recipe:
    """How the images are made; the defaults are for training in earnest.

    A pair is a range to draw from. Areas are shares of the image, qualities JPEG's (1 to 100),
    noise and blur standard deviations in grey levels and in pixels; a chance is a probability.
    The host is the photograph that is manipulated, the donor the one that a splice is taken from.

    Attributes:
        image_size: longest side in pixels. A photograph smaller than that gives smaller images:
            nothing is enlarged. It is used when its longest side is at least half of this and
            its shortest a quarter.
        square: square crops of ``image_size``, turned by any quarter, in place of upright ones
            in the photograph's proportions; needs a shortest side of ``image_size``.
        zoom: pixels of the image per pixel of the photograph: how much of it is seen.
        exposure: exponent of a gamma curve, 1 leaves the photograph as it is.
        kinds: shares of ``KINDS`` among the manipulated training images; the test images have
            equal numbers of each.
        untouched: share of untouched images on both sides.
        test_share: share of the photographs kept for testing.
        area: area of a region.
        from_labels: chance that a region is a segment, where a label map offers a fitting one.
        edge_softness: Gaussian blur of a region's edge, in pixels.
        host_saved_before: chance that the host was saved as JPEG before it is manipulated.
        host_quality: JPEG quality of a host that was saved before.
        same_photograph: chance that a splice comes out of the host's own photograph.
        donor_noise: noise of the donor's camera, added before all else is done to the donor.
        donor_saved_before: chance that the donor was saved as JPEG before it is spliced.
        donor_quality: JPEG quality of a donor that was saved before.
        resampled: chance that a splice or a copy is rescaled and rotated.
        scale: factor by which the lengths of a resampled region change.
        rotation: largest angle by which a resampled region is turned to either side, in degrees.
        colour_match: how far a donor's mean and contrast are brought to the host's, 0 to 1.
        copy_distance: least distance of a copy from its original, in square roots of its area.
        inpainting: what removes, drawn from these: ``"telea"`` and ``"ns"`` paint inwards from
            the edge, ``"clone"`` covers with another part of the image, blended in.
        blur: chance that the whole image is blurred before it is saved for the last time.
        blur_sigma: Gaussian blur of an image that is blurred.
        noise: chance that noise is added to the whole image before it is saved for the last time.
        noise_sigma: noise of an image to which noise is added.
        final_quality: JPEG quality of the image as it is written.
        final_full_colour: chance that it is written with colour in full resolution, as editors
            do, in place of half, as cameras do.
        aligned: chance that a splice that is not resampled falls onto the host's grid of 8x8
            blocks, on which JPEG works.
        lossless: chance that the image is not saved as JPEG for the last time: it is a PNG.
        decoys: share of the untouched images that only look manipulated: saved once more on a
            shifted grid, or with a rim as soft as a splice's.
    """

    image_size: int = 384
    square: bool = False
    zoom: tuple[float, float] = (0.5, 1.0)
    exposure: tuple[float, float] = (1.0, 1.0)
    kinds: tuple[float, float, float] = (0.4, 0.3, 0.3)
    untouched: float = 0.1
    test_share: float = 0.25
    area: tuple[float, float] = (0.01, 0.2)
    from_labels: float = 0.8
    edge_softness: tuple[float, float] = (0.5, 2.0)
    host_saved_before: float = 0.8
    host_quality: tuple[int, int] = (60, 98)
    same_photograph: float = 0.1
    donor_noise: tuple[float, float] = (0.0, 3.0)
    donor_saved_before: float = 0.8
    donor_quality: tuple[int, int] = (60, 98)
    resampled: float = 0.6
    scale: tuple[float, float] = (0.6, 1.6)
    rotation: float = 20.0
    colour_match: tuple[float, float] = (0.0, 0.8)
    copy_distance: float = 1.0
    inpainting: tuple[str, ...] = ("telea", "ns", "clone", "clone")
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.3, 1.0)
    noise: float = 0.1
    noise_sigma: tuple[float, float] = (1.0, 4.0)
    final_quality: tuple[int, int] = (70, 98)
    final_full_colour: float = 0.3
    aligned: float = 0.0
    lossless: float = 0.0
    decoys: float = 0.0


class SynthesisError(QMANetError):
    """Photographs, settings or folders that cannot be used; one line says why."""
