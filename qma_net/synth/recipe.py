"""The recipe of synthetic images: kinds of manipulation and parameters."""

from dataclasses import dataclass

from ..core.errors import QMANetError

KINDS = ("splice", "copymove", "removal")
RETOUCH = "retouch"  # The kind of local edits, which only some recipes have.
AUTHENTIC = "untouched"  # The kind of authentic images, in file names and manifests.
SIDES = ("train", "test")


@dataclass(frozen=True)
class Recipe:
    """Parameters of synthetic images; the defaults are for training a general model.

    A pair of numbers is a range to draw from. Areas are fractions of the image, qualities are JPEG
    qualities (1 to 100), noise is a standard deviation in gray levels, and blur is a standard
    deviation in pixels. The host is the photo that is tampered with, the donor the photo that a
    splice is taken from.
    """

    # Longest side in pixels. Photos are never enlarged, so smaller ones yield smaller images. A
    # photo is used if its longest side has at least half and its shortest side at least a quarter
    # of this size.
    image_size: int = 384
    # Draw square crops of ``image_size``, rotated by a multiple of 90 degrees, instead of upright
    # crops with the photo's aspect ratio. The photo's shortest side must have at least
    # ``image_size`` pixels.
    square: bool = False
    zoom: tuple[float, float] = (0.5, 1.0)  # Pixels of the image per pixel of the photo.
    exposure: tuple[float, float] = (1.0, 1.0)  # Exponent of a gamma curve; 1 keeps the brightness.
    # Shares of ``KINDS`` among the tampered training images. In the test set, all kinds are
    # equally frequent.
    kinds: tuple[float, float, float] = (0.4, 0.3, 0.3)
    untouched: float = 0.1  # Share of authentic images in both sets.
    test_share: float = 0.25  # Share of the photos that are reserved for the test set.
    area: tuple[float, float] = (0.01, 0.2)  # Area of a tampered region.
    # Probability of using a segment of a label map as the region, if one fits.
    from_labels: float = 0.8
    edge_softness: tuple[float, float] = (0.5, 2.0)  # Gaussian blur of a region's edge, in pixels.
    # Probability that the host was saved as JPEG before its manipulation.
    host_saved_before: float = 0.8
    host_quality: tuple[int, int] = (60, 98)  # JPEG quality of such a host.
    same_photograph: float = 0.1  # Probability that a splice is taken from the host's own photo.
    # Camera noise of the donor, added before any other processing.
    donor_noise: tuple[float, float] = (0.0, 3.0)
    # Probability that the donor was saved as JPEG before the splice.
    donor_saved_before: float = 0.8
    donor_quality: tuple[int, int] = (60, 98)  # JPEG quality of such a donor.
    resampled: float = 0.6  # Probability that a spliced or copied region is rescaled and rotated.
    # Factor by which the lengths of a resampled region change.
    scale: tuple[float, float] = (0.6, 1.6)
    # Largest rotation of a resampled region in either direction, in degrees.
    rotation: float = 20.0
    # How much the donor's mean and contrast are adapted to the host's, 0 to 1.
    colour_match: tuple[float, float] = (0.0, 0.8)
    # Smallest distance of a copy from its original, in square roots of its area.
    copy_distance: float = 1.0
    # Methods of removal: ``"telea"`` and ``"ns"`` inpaint from the edge, ``"clone"`` blends in
    # another part of the image, ``"patches"`` fills in the most similar patches.
    inpainting: tuple[str, ...] = ("telea", "ns", "clone", "clone")
    blur: float = 0.1  # Probability that the tampered image is blurred before it is saved.
    blur_sigma: tuple[float, float] = (0.3, 1.0)  # Standard deviation of this blur.
    # Probability that noise is added to the tampered image before it is saved.
    noise: float = 0.1
    noise_sigma: tuple[float, float] = (1.0, 4.0)  # Standard deviation of this noise.
    final_quality: tuple[int, int] = (70, 98)  # JPEG quality of the file.
    # Probability that the file has full chroma resolution, as from editors, instead of half, as
    # from cameras.
    final_full_colour: float = 0.3
    # Probability that a splice that is not resampled is aligned with the host's grid of 8x8 JPEG
    # blocks.
    aligned: float = 0.0
    lossless: float = 0.0  # Probability that the file is a PNG instead of a JPEG.
    # Share of the authentic images that only look tampered: they have been saved on a shifted
    # grid, or have an outline as soft as a splice's.
    decoys: float = 0.0

    # The following fields are for photos with their original bytes.
    # How photos are split: "seed" shuffles them; "hash" assigns each one by the SHA-256 of its
    # file, so that the split depends on nothing else.
    split: str = "seed"
    validation_share: float = 0.0  # Share of the photos reserved for validation, with "hash".
    # Folders of photos that are all reserved for the test set, with "hash": sources that the model
    # does not see during training.
    held_out: tuple[str, ...] = ()
    # Draw photos in proportion to their numbers of pixels instead of equally often.
    by_area: bool = False
    # Draw upright crops of exactly ``frame`` with the photo's own pixels, which are rescaled by
    # ``zoom`` with the probability ``rescaled`` or if the photo is too small.
    native: bool = False
    # Height and width of such a crop; a square of ``image_size`` if they are zero.
    frame: tuple[int, int] = (0, 0)
    rescaled: float = 0.0
    retouched: float = 0.0  # Share of local edits (blur, color, ...) among the tampered images.
    # Probability that all segments of a label map (a person and their clothes) count as one.
    united_labels: float = 0.0
    angular: float = 0.0  # Probability that a random region is a quadrilateral, like a sign.
    hard_edges: float = 0.0  # Probability that a region is pasted without a soft edge.
    turned: float = 0.0  # Probability that a resampled region is rotated by any angle.
    toned: float = 0.0  # Probability that the tones of the whole image are changed at the end.
    # Probability that the tampered image is downscaled before it is saved, and the factor.
    reduced: float = 0.0
    reduction: tuple[float, float] = (0.5, 1.0)
    saved_before_reduction: float = 0.0  # Probability that it was saved as JPEG before that.
    saved_twice: float = 0.0  # Probability that it is saved as JPEG once more before the end.
    # Probability of using quantization tables found in photos (``quantization_tables.json``)
    # instead of the standard IJG (libjpeg) ones, whenever the tampered image is saved.
    found_tables: float = 0.0


class SynthesisError(QMANetError):
    """Raised if photos, settings or folders cannot be used."""
