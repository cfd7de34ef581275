"""The recipe of synthetic images: kinds of manipulation and parameters."""

from dataclasses import dataclass

from ..core.errors import QMANetError

KINDS = ("splice", "copymove", "removal")
AUTHENTIC = "untouched"  # The kind of authentic images, in file names and manifests.
SIDES = ("train", "test")


@dataclass(frozen=True)
class Recipe:
    """Parameters of synthetic images; the defaults are for training a general model.

    A pair of numbers is a range to draw from. Areas are shares of the image, qualities are those of
    JPEG (1 to 100), noise is a standard deviation in grey levels, blur one in pixels. The host is
    the photo that is manipulated, the donor the photo that a splice is taken from.

    Attributes:
        image_size: Longest side in pixels. Photos are never enlarged, so smaller ones give smaller
            images. A photo is used if its longest side has at least half and its shortest side at
            least a quarter of this size.
        square: Draw square crops of ``image_size``, rotated by a multiple of 90 degrees, instead of
            upright crops with the photo's aspect ratio. The shortest side must have ``image_size``
            pixels.
        zoom: Pixels of the image per pixel of the photo.
        exposure: Exponent of a gamma curve; 1 keeps the brightness.
        kinds: Shares of ``KINDS`` among the manipulated training images. In the test set, all kinds
            are equally frequent.
        untouched: Share of authentic images in both sets.
        test_share: Share of the photos that are reserved for the test set.
        area: Area of a manipulated region.
        from_labels: Probability of using a segment of a label map as region, if one fits.
        edge_softness: Gaussian blur of a region's edge, in pixels.
        host_saved_before: Probability that the host was saved as JPEG before its manipulation.
        host_quality: JPEG quality of such a host.
        same_photograph: Probability that a splice is taken from the host's own photo.
        donor_noise: Noise of the donor's camera, added before any other processing.
        donor_saved_before: Probability that the donor was saved as JPEG before the splice.
        donor_quality: JPEG quality of such a donor.
        resampled: Probability that a spliced or copied region is rescaled and rotated.
        scale: Factor by which the lengths of a resampled region change.
        rotation: Largest rotation of a resampled region in either direction, in degrees.
        colour_match: How much the donor's mean and contrast are adapted to the host's, 0 to 1.
        copy_distance: Smallest distance of a copy from its original, in square roots of its area.
        inpainting: Methods of removal: ``"telea"`` and ``"ns"`` inpaint from the edge, ``"clone"``
            blends in another part of the image.
        blur: Probability that the manipulated image is blurred before it is saved.
        blur_sigma: Its Gaussian blur.
        noise: Probability that noise is added to the manipulated image before it is saved.
        noise_sigma: Its noise.
        final_quality: JPEG quality of the file.
        final_full_colour: Probability that the file has full chroma resolution, as from editors,
            instead of half, as from cameras.
        aligned: Probability that a splice that is not resampled is aligned with the host's grid of
            8x8 JPEG blocks.
        lossless: Probability that the file is a PNG instead of a JPEG.
        decoys: Share of the authentic images that only look manipulated: they have been saved on a
            shifted grid, or have an outline as soft as a splice's.
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
    """Photos, settings or folders that cannot be used."""
