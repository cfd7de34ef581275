"""Content Credentials: what C2PA manifests state, and whether they are valid (extra ``c2pa``).

The native library runs in a separate process (:mod:`.c2pa_process`) with limits on time and
memory, without network access. See https://spec.c2pa.org for the terms.
"""

import base64
import binascii
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import ContentError, read_yaml
from ..core.images import ImageError, decoding, open_image, rgb_pixels
from .texts import printable

VOCABULARY = Path(__file__).with_name("content_credentials.yaml")
PROCESS = Path(__file__).with_name("c2pa_process.py")
TIMEOUT = 30.0  # Seconds. A photo takes 0.2 s, most of it to start Python.

MAX_LISTED = 50  # Actions, ingredients or problems of one manifest.
MAX_THUMBNAIL_PIXELS = 4_000_000  # c2pa-python writes thumbnails of up to 1024 x 1024 pixels.
THUMBNAIL_SIDE = 240

MEDIA_TYPES = {kind: f"image/{kind.lower()}" for kind in "JPEG PNG WebP GIF TIFF AVIF HEIC".split()}
SOURCE_TYPE = re.compile(
    r"(?:https?://(?:cv\.iptc\.org/newscodes|c2pa\.org)/digitalsourcetype/|digsrctype:)?(\w{1,60})/?"
)

UNTRUSTED, TRUSTED = "signingCredential.untrusted", "signingCredential.trusted"
VALID_STATES = ("Valid", "Trusted")
SIGNATURE_VALID = "claimSignature.validated"
HASHES = ("assertion.dataHash", "assertion.bmffHash", "assertion.boxesHash")
HASH_MATCHES = {f"{name}.match" for name in HASHES}
HASH_MISMATCHES = {f"{name}.mismatch" for name in HASHES}
EXCLUSIONS = "assertion.dataHash.additionalExclusionsPresent"


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that was done to an image, as stated by the signer.

    Attributes:
        code: The C2PA term for the action, such as ``c2pa.created``.
        name: The action in plain words.
        software: The program that was used.
        when: The time, as stated by the signer.
        source_type: The digital source type, usually an IPTC URI.
        source: The meaning of the digital source type in plain words.
        category: The category of the digital source type, such as ``AI-generated``.
        description: The signer's description and reason.
    """

    code: str
    name: str
    software: str = ""
    when: str = ""
    source_type: str = ""
    source: str = ""
    category: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """An image from which another one was made.

    Attributes:
        title: The name of the image; empty if not stated.
        relationship: What it was used for.
        manifest: The label of its manifest; empty if it has none.
        problems: Why its credentials were not valid when it was added, apart from trust, according
            to the signer of the image that was made.
        thumbnail: A thumbnail; None if there is none.
    """

    title: str
    relationship: str
    manifest: str = ""
    problems: tuple[str, ...] = ()
    thumbnail: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What one signer states about an image.

    All texts are printable and limited in length.

    Attributes:
        label: The identifier of the manifest.
        title: The name of the image.
        generator: The program or camera that wrote the manifest.
        organization: The organization in the signer's certificate.
        common_name: The name in the signer's certificate.
        authors: Names of authors, as stated by the signer.
        signed: Time of the signature according to its time stamp; empty if there is none.
        actions: What was done, in order.
        ingredients: The images from which this one was made.
        assertions: The labels of all statements.
        thumbnail: A thumbnail of the image as it was signed; None if there is none.
    """

    label: str
    title: str
    generator: str
    organization: str
    common_name: str
    authors: tuple[str, ...]
    signed: str
    actions: tuple[Action, ...]
    ingredients: tuple[Ingredient, ...]
    assertions: tuple[str, ...]
    thumbnail: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The result of reading the C2PA manifests of a file.

    Attributes:
        is_installed: Whether c2pa-python is installed.
        error: Why reading the manifests failed; empty if it did not.
        signature_valid: Whether the signature matches the active manifest; None if unknown.
        unchanged: Whether the file has the signed hash; None if unknown.
        partly_protected: Whether the signed hash excludes parts of the file besides the manifest.
        trusted: Whether the certificate is trusted according to the list; None without a list.
        trust_list: The file of trusted certificates; empty if none was used.
        problems: Why the credentials are not valid, apart from trust and the hash of the file.
        manifests: The active manifest, then those of the ingredients.
    """

    is_installed: bool = True
    error: str = ""
    signature_valid: bool | None = None
    unchanged: bool | None = None
    partly_protected: bool = False
    trusted: bool | None = None
    trust_list: str = ""
    problems: tuple[str, ...] = ()
    manifests: tuple[Manifest, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether the credentials are valid; trust in the certificate is a separate question."""
        return bool(self.signature_valid and self.unchanged and not self.problems)

    @property
    def validity(self) -> dict[str, bool]:
        """Whether each manifest is valid, by its label.

        The manifest of an ingredient counts as valid only if it was valid when the ingredient was
        added, and if the image to which it was added is valid.
        """
        valid = {manifest.label: self.is_valid for manifest in self.manifests[:1]}
        for manifest in self.manifests:
            for item in manifest.ingredients:
                is_valid = valid.get(manifest.label, False) and not item.problems
                valid.setdefault(item.manifest, is_valid)
        return valid

    def ingredient(self, label: str) -> Ingredient:
        """Return the first ingredient whose manifest has this label."""
        ingredients = (item for manifest in self.manifests for item in manifest.ingredients)
        found = (item for item in ingredients if item.manifest == label)
        return next(found, Ingredient(title="", relationship=""))

    def report(self) -> dict[str, Any]:
        """Return the content for ``report.json``, without thumbnails."""
        content = asdict(self)
        for manifest in content["manifests"]:
            for item in (manifest, *manifest["ingredients"]):
                del item["thumbnail"]
        return content


def read_credentials(data: bytes, kind: str, *, trust_list: str = "") -> Credentials:
    """Read and verify the C2PA manifests embedded in an image, without network access.

    Args:
        data: The file.
        kind: Its format, such as ``JPEG``.
        trust_list: A file with the certificates (PEM) of trusted authorities. Without one, trust
            is not checked, although anyone can create a certificate in any name.
    """
    if not _is_installed():
        return Credentials(is_installed=False)
    if kind not in MEDIA_TYPES:
        return Credentials(error=f"C2PA does not support {kind} files")
    command = [sys.executable, "-I", str(PROCESS), MEDIA_TYPES[kind], trust_list]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT)
        result = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Credentials(error=f"reading it took longer than {TIMEOUT:g} seconds")
    except (OSError, ValueError, RecursionError):
        return Credentials(error="the C2PA library crashed on it")
    if "error" in result:
        return Credentials(error=printable(str(result["error"])) or "the C2PA library rejected it")
    return _credentials(result, trust_list)


def require_trust_list(path: str) -> None:
    """Check a file of trusted certificates.

    Raises:
        ContentError: If it contains no certificate, or if c2pa-python is not installed.
        OSError: If it cannot be read.
    """
    if b"-----BEGIN CERTIFICATE-----" not in Path(path).read_bytes():
        raise ContentError(f"got {path}, expected trusted certificates in PEM format")
    if not _is_installed():
        raise ContentError("a trust list needs c2pa-python; run: pip install 'qma-net[c2pa]'")


def _is_installed() -> bool:
    return importlib.util.find_spec("c2pa") is not None


def describe_source_type(value: str) -> tuple[str, str]:
    """Return the category and meaning of an IPTC source type, given as a URI, QCode or term."""
    match = SOURCE_TYPE.fullmatch(value.strip())
    category, meaning = _vocabulary()["source_types"].get(match[1] if match else "", ("", ""))
    return category or "unknown", meaning or "not a known IPTC or C2PA term"


@cache
def _vocabulary() -> Any:
    return read_yaml(VOCABULARY, "the vocabulary of Content Credentials")


def _credentials(result: Mapping[str, Any], trust_list: str) -> Credentials:
    results = _mapping(result.get("results"))
    active = _mapping(results.get("activeManifest"))
    codes = {name: _codes(active.get(name)) for name in ("success", "informational", "failure")}
    failures, of_ingredients = _failures(results)
    signature_valid = SIGNATURE_VALID in codes["success"]
    signature_failed = any(code.startswith("claimSignature.") for code in failures)
    hash_failed = not HASH_MISMATCHES.isdisjoint(failures)
    # A failure of an ingredient makes the state invalid as well.
    is_sound = not failures and (result.get("state") in VALID_STATES or bool(of_ingredients))
    hash_matches = is_sound and not HASH_MATCHES.isdisjoint(codes["success"])
    shown = {code: text for code, text in failures.items() if code not in HASH_MISMATCHES}
    problems = _explain(shown, of_ingredients)
    if not is_sound and not problems and not hash_failed:
        problems.append("the C2PA library does not regard them as valid")
    thumbnails = _mapping(result.get("thumbnails"))
    return Credentials(
        signature_valid=False if signature_failed else signature_valid or None,
        unchanged=False if hash_failed else hash_matches or None,
        partly_protected=EXCLUSIONS in codes["informational"] | codes["success"],
        trusted=TRUSTED in codes["success"] and UNTRUSTED not in codes["failure"]
        if trust_list
        else None,
        trust_list=printable(trust_list),
        problems=tuple(dict.fromkeys(problems))[:MAX_LISTED],
        manifests=tuple(
            _manifest(_mapping(manifest), thumbnails) for manifest in _list(result.get("manifests"))
        ),
    )


def _failures(results: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the failures of a manifest and those of its ingredients, apart from trust.

    The latter leave out what was already recorded when the ingredient was added.
    """
    own = _codes(_mapping(results.get("activeManifest")).get("failure"))
    of_ingredients: dict[str, str] = {}
    for delta in _list(results.get("ingredientDeltas")):
        changes = _mapping(_mapping(delta).get("validationDeltas"))
        of_ingredients |= _codes(changes.get("failure"))
    own.pop(UNTRUSTED, None)
    of_ingredients.pop(UNTRUSTED, None)
    return own, of_ingredients


def _explain(failures: Mapping[str, str], of_ingredients: Mapping[str, str]) -> list[str]:
    """Put failures into words, first those of a manifest, then those of its ingredients."""

    def explain(code: str, text: str) -> str:
        return _vocabulary()["problems"].get(code) or f"{text} ({code})"

    problems = [explain(code, text) for code, text in failures.items()]
    for code, text in of_ingredients.items():
        place = "" if code.startswith("ingredient.") else " (in the credentials of an ingredient)"
        problems.append(explain(code, text) + place)
    return problems


def _codes(statuses: object) -> dict[str, str]:
    """Map validation codes to the library's explanations."""
    entries = map(_mapping, _list(statuses))
    return {_text(entry.get("code")): _text(entry.get("explanation")) for entry in entries}


def _manifest(content: Mapping[str, Any], thumbnails: Mapping[str, Any]) -> Manifest:
    signature = _mapping(content.get("signature_info"))
    generators = _list(content.get("claim_generator_info"))
    assertions = [_mapping(item) for item in _list(content.get("assertions"))]
    actions = [
        _action(_mapping(action))
        for assertion in assertions
        if _text(assertion.get("label")).startswith("c2pa.actions")
        for action in _list(_mapping(assertion.get("data")).get("actions"))
    ]
    authors = [
        _text(_mapping(author).get("name"))
        for assertion in assertions
        if _text(assertion.get("label")).startswith("stds.schema-org.CreativeWork")
        for author in _list(_mapping(assertion.get("data")).get("author"))
    ]
    return Manifest(
        label=_text(content.get("label")),
        title=_text(content.get("title")),
        generator=", ".join(filter(None, map(_software, generators)))
        or _text(content.get("claim_generator")),
        organization=_text(signature.get("issuer")),
        common_name=_text(signature.get("common_name")),
        authors=tuple(filter(None, authors))[:MAX_LISTED],
        signed=_text(signature.get("time")),
        actions=tuple(actions[:MAX_LISTED]),
        ingredients=tuple(
            _ingredient(_mapping(item), thumbnails)
            for item in _list(content.get("ingredients"))[:MAX_LISTED]
        ),
        assertions=tuple(_text(item.get("label")) for item in assertions[:MAX_LISTED]),
        thumbnail=_thumbnail(content, thumbnails),
    )


def _action(content: Mapping[str, Any]) -> Action:
    name = _text(content.get("action"))
    source = _text(content.get("digitalSourceType"))
    category, meaning = describe_source_type(source) if source else ("", "")
    descriptions = (content.get("description"), content.get("reason"))
    return Action(
        code=name,
        name=_vocabulary()["actions"].get(name, name),
        software=_software(content.get("softwareAgent")),
        when=_text(content.get("when")),
        source_type=source,
        source=meaning,
        category=category,
        description="; ".join(filter(None, map(_text, descriptions))),
    )


def _ingredient(content: Mapping[str, Any], thumbnails: Mapping[str, Any]) -> Ingredient:
    relationship = _text(content.get("relationship"))
    failures, of_ingredients = _failures(_mapping(content.get("validation_results")))
    # Older manifests have a single list, which can also contain codes of success.
    older = _codes(content.get("validation_status")).items()
    failures |= {code: text for code, text in older if code in _vocabulary()["problems"]}
    return Ingredient(
        title=_text(content.get("title")),
        relationship=_vocabulary()["relationships"].get(relationship, relationship),
        manifest=_text(content.get("active_manifest")),
        problems=tuple(dict.fromkeys(_explain(failures, of_ingredients)))[:MAX_LISTED],
        thumbnail=_thumbnail(content, thumbnails),
    )


def _thumbnail(content: Mapping[str, Any], thumbnails: Mapping[str, Any]) -> np.ndarray | None:
    identifier = _mapping(content.get("thumbnail")).get("identifier")
    try:
        data = base64.b64decode(thumbnails[str(identifier)])
        with open_image(data, name="a thumbnail", max_pixels=MAX_THUMBNAIL_PIXELS) as image:
            with decoding("a thumbnail"):
                image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            return rgb_pixels(image)
    except (ImageError, KeyError, TypeError, binascii.Error):
        return None


def _software(value: object) -> str:
    """Return a program's name and version; older manifests give them as one text."""
    if not isinstance(value, Mapping):
        return _text(value)
    return " ".join(filter(None, (_text(value.get("name")), _text(value.get("version")))))


def _text(value: object) -> str:
    return printable(str(value)) if isinstance(value, str | int | float) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
