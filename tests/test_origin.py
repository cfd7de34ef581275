"""The origin of a photo: Content Credentials, signs of AI and editing, credit and dates."""

import datetime
import io
import json
import random
import re
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from conftest import photograph
from qma_net.core.files import ContentError
from qma_net.examine import (
    content_credentials,
    dates,
    examine_files,
    examine_photo,
    exif,
    iptc,
    origin,
    render_page,
    xmp,
)
from qma_net.examine.content_credentials import describe_source_type, read_credentials
from qma_net.examine.xmp import XmpError, read_xmp

NEWSCODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
UUID = "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
PARAMETERS = (
    "a lighthouse, <b>35 mm</b>\nNegative prompt: text\n"
    "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 12345, Size: 512x512"
)


def encode(kind="jpeg", seed=0, size=(64, 96), **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photograph(*size, seed=seed)).save(file, kind, **options)
    return file.getvalue()


def as_bytes(text) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def jpeg_with(exif=(), xmp="", iptc=(), gps=()) -> bytes:
    """Encode a JPEG; ``iptc`` are pairs of a data set of record 2 and its text."""
    tags = Image.Exif()
    for tag, value in dict(exif).items():
        target = tags if tag < 0x8000 else tags.get_ifd(0x8769)
        target[tag] = value
    tags.get_ifd(0x8825).update(gps)
    data = encode(exif=tags, **({"xmp": xmp.encode()} if xmp else {}))
    if iptc:
        sets = b"".join(
            struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text
            for number, text in ((number, as_bytes(text)) for number, text in iptc)
        )
        block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(sets)) + sets
        data = data[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + data[2:]
    return data


def png_with(**texts) -> bytes:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword.replace("_dash_", "-"), text)
    return encode("png", pnginfo=info)


def xmp_packet(attributes="", elements="", declarations="") -> str:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" '
        'xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" '
        'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        'xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" '
        'xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f"{declarations} {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    )


def examined(data, name="photo"):
    source = io.BytesIO(data)
    source.name = name
    return examine_photo(None, source)


def origin_of(data, name="photo"):
    return examined(data, name).evidence.origin


def page_of(data) -> str:
    return " ".join(render_page(examined(data), images=False).split())


# Content Credentials.


@pytest.fixture(scope="module")
def c2pa():
    return pytest.importorskip("c2pa", reason="c2pa-python is not installed")


def make_chain(seconds=86_400):
    """Create a certificate for signing and its authority, ES256, valid for some seconds."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common):
        organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Agency")
        return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def certificate(subject, key, usage, *, is_authority):
        now = datetime.datetime.now(datetime.UTC)
        bits = dict.fromkeys(
            "content_commitment key_encipherment data_encipherment key_agreement crl_sign "
            "encipher_only decipher_only".split(),
            False,
        )
        builder = (
            x509.CertificateBuilder(name("Root"), name(subject), key.public_key(), 1 + is_authority)
            .not_valid_before(now - datetime.timedelta(1))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
            .add_extension(x509.BasicConstraints(is_authority, None), True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_authority, key_cert_sign=is_authority, **bits
                ),
                True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root), False)
        )
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), False)
        return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = root_key.public_key()
    authority = certificate("Root", root_key, [], is_authority=True)
    usage = [ExtendedKeyUsageOID.EMAIL_PROTECTION]
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    leaf = certificate("Camera 7", key, usage, is_authority=False)
    return SimpleNamespace(certificates=leaf + authority, key=private, authority=authority)


CREATED = {
    "action": "c2pa.created",
    "digitalSourceType": NEWSCODES + "trainedAlgorithmicMedia",
    "softwareAgent": {"name": "Dream Engine", "version": "3"},
    "when": "2026-05-01T10:00:00Z",
}
AUTHOR = {
    "label": "stds.schema-org.CreativeWork",
    "data": {"@type": "CreativeWork", "author": [{"@type": "Person", "name": "Ada Example"}]},
}
ADJUSTED = {"action": "c2pa.color_adjustments", "description": "<i>warmer</i>"}


@pytest.fixture(scope="module")
def sign(c2pa):
    """Return a function that signs an image with a manifest."""
    default_chain = make_chain()

    def sign_image(data, actions=(CREATED, ADJUSTED), ingredients=(), **options):
        chain = options.get("chain", default_chain)
        definition = {
            "claim_generator_info": [{"name": "Test desk", "version": "1.2"}],
            "title": "photo.jpg",
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": list(actions)}},
                AUTHOR,
            ],
        }
        definition |= options.get("older", {})
        context = c2pa.Context.from_dict({"verify": {"verify_after_sign": False}})
        builder = c2pa.Builder(definition, context=context)
        for title, relationship, content in ingredients:
            entry = {"title": title, "relationship": relationship}
            builder.add_ingredient(entry, "image/jpeg", io.BytesIO(content))
        if "remote" in options:
            builder.set_remote_url(options["remote"])
        if options.get("is_only_remote"):
            builder.set_no_embed()
        info = c2pa.C2paSignerInfo(
            alg=b"es256", sign_cert=chain.certificates, private_key=chain.key, ta_url=None
        )
        signed = io.BytesIO()
        media_type = Image.MIME[Image.open(io.BytesIO(data)).format]
        builder.sign(c2pa.Signer.from_info(info), media_type, io.BytesIO(data), signed)
        return signed.getvalue()

    sign_image.chain = default_chain
    return sign_image


@pytest.fixture(scope="module")
def signed(sign):
    return sign(encode())


def flipped(data, position):
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def with_other_pixels(data):
    """Change one bit of the coefficients, 100 bytes after the start of the scan."""
    changed = flipped(data, data.rindex(b"\xff\xda") + 100)
    before, after = (np.asarray(Image.open(io.BytesIO(item))) for item in (data, changed))
    assert (before != after).any()
    return changed


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff", "avif"])
def test_valid_credentials_name_signer_and_actions_without_claiming_trust(sign, kind):
    examination = examined(sign(encode(kind)))
    credentials = examination.evidence.origin.credentials
    assert credentials.is_valid
    assert (credentials.signature_valid, credentials.unchanged) == (True, True)
    assert (credentials.trusted, credentials.problems) == (None, ())
    (manifest,) = credentials.manifests
    assert (manifest.common_name, manifest.organization) == ("Camera 7", "Test Agency")
    assert (manifest.generator, manifest.signed) == ("Test desk 1.2", "")
    assert manifest.authors == ("Ada Example",)
    created, adjusted = manifest.actions
    assert (created.name, created.category, created.software, created.when) == (
        *("created", "AI-generated"),
        *("Dream Engine 3", "2026-05-01T10:00:00Z"),
    )
    assert adjusted.name == "colors or tones were adjusted"
    statement = "AI-generated: created with generative AI (C2PA)"
    assert examination.evidence.origin.ai_statements == (statement,)
    report = json.loads(json.dumps(examination.report()))["origin"]["c2pa"]
    assert report["manifests"][0]["actions"][0]["code"] == "c2pa.created"
    page = " ".join(render_page(examination, images=False).split())
    assert "so the name below does not show who signed" in page.replace("&#39;", "'")
    assert "Whether the signer is who they claim to be was not checked." in page
    assert "&lt;i&gt;warmer&lt;/i&gt;" in page
    assert "trusted according to" not in page


def test_file_with_changed_pixels_is_not_unchanged(signed):
    data = with_other_pixels(signed)
    credentials = origin_of(data).credentials
    assert (credentials.signature_valid, credentials.unchanged) == (True, False)
    assert not credentials.is_valid
    assert "<b>The file was changed after it was signed</b>" in page_of(data)
    statement = "AI-generated: created with generative AI (C2PA, not valid)"
    assert origin_of(data).ai_statements == (statement,)


def test_changed_statement_is_a_problem(signed):
    data = flipped(signed, signed.index(b"Dream Engine"))
    credentials = origin_of(data).credentials
    assert credentials.manifests[0].actions[0].software == "Eream Engine 3"  # D ^ 1 is E.
    assert "a statement in the credentials was changed after signing" in credentials.problems
    page = page_of(data)
    assert "<b>The Content Credentials (C2PA) are not valid</b>" in page
    assert "have not been changed since they were signed" not in page


def test_changed_signature_is_not_valid(signed):
    (signature,) = (i for i in range(len(signed)) if signed.startswith(b"c2pa.signature\0", i))
    credentials = origin_of(flipped(signed, signed.rindex(b"\x58\x40", signature) + 20)).credentials
    assert credentials.signature_valid is False
    assert credentials.unchanged is None


def test_trust_depends_on_the_list(sign, signed, tmp_path):
    comment = "# Autorité\n".encode("latin-1")
    files = {
        "right": sign.chain.authority,
        "wrong": make_chain().authority,
        "latin-1": comment + sign.chain.authority,
    }
    trusted = {}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        credentials = read_credentials(signed, "JPEG", trust_list=str(tmp_path / name))
        assert credentials.trust_list == str(tmp_path / name)
        trusted[name] = credentials.trusted
    assert trusted == {"right": True, "wrong": False, "latin-1": True}


def test_trust_list_is_checked_before_photos_are_examined(tmp_path, monkeypatch):
    (tmp_path / "list.pem").write_text("no certificate", encoding="utf-8")
    with pytest.raises(ContentError, match=r"expected trusted certificates in PEM format"):
        examine_files([], tmp_path / "out", trust_list=str(tmp_path / "list.pem"))
    (tmp_path / "list.pem").write_text("-----BEGIN CERTIFICATE-----", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(ContentError, match=r"run: pip install 'qma-net\[c2pa\]'"):
        examine_files([], tmp_path / "out", trust_list=str(tmp_path / "list.pem"))


def test_certificate_that_has_expired_is_a_problem(sign, c2pa):
    image, data = encode(), b""
    for seconds in (2, 8, 32, 128):  # It must be valid while a machine, busy or not, signs.
        with suppress(c2pa.C2paError.Signature):
            data = sign(image, chain=make_chain(seconds=seconds))
            break
    time.sleep(seconds + 1)  # There is no time stamp, so the certificate must be valid now.
    credentials = origin_of(data).credentials
    assert credentials.problems == ("the certificate had expired",)
    assert not credentials.is_valid


def test_ingredients_have_titles_relationships_and_thumbnails(sign, signed):
    composed = CREATED | {"digitalSourceType": NEWSCODES + "compositeCapture"}
    ingredients = [("ai.jpg", "componentOf", signed), ("plain.jpg", "inputTo", encode(seed=1))]
    origin = origin_of(sign(encode(seed=2), [composed], ingredients))
    manifest, nested = origin.credentials.manifests
    assert [(item.title, item.relationship) for item in manifest.ingredients] == [
        ("ai.jpg", "an image that was placed into this one"),
        ("plain.jpg", "an input of the process that made this image, such as a reference image"),
    ]
    first, second = manifest.ingredients
    assert (first.manifest, second.manifest) == (nested.label, "")
    for item, seed in ((first, 0), (second, 1)):
        thumbnail = np.asarray(Image.fromarray(item.thumbnail).resize((96, 64)), float)
        assert np.abs(thumbnail - photograph(64, 96, seed=seed)).mean() < 10
    assert origin.ai_statements == (
        "AI-generated: created with generative AI (C2PA, ingredient ai.jpg)",
    )


def with_other_signature(data):
    """Change one bit of the first signature in a file, which is that of an ingredient if any."""
    return flipped(data, data.index(b"\x58\x40", data.index(b"c2pa.signature\0")) + 20)


def test_changed_signature_of_an_ingredient_is_not_that_of_the_photo(sign, signed):
    data = sign(encode(seed=2), [CREATED], [("ai.jpg", "componentOf", signed)])
    changed = with_other_signature(data)
    credentials = origin_of(changed).credentials
    assert (credentials.signature_valid, credentials.unchanged) == (True, True)
    assert not credentials.is_valid
    assert credentials.problems == (
        "the credentials of an ingredient were changed or replaced",
        "the signature does not match the credentials, which were changed after signing "
        "(in the credentials of an ingredient)",
    )
    page = page_of(changed)
    assert "<b>Signature:</b> valid. Because of the problems below, do not rely on" in page
    assert "<b>File:</b> not changed since it was signed." in page
    # The photo itself was changed as well.
    credentials = origin_of(with_other_pixels(changed)).credentials
    assert (credentials.signature_valid, credentials.unchanged) == (True, False)


CHANGED_IMAGE = "the image had been changed after it was signed"


def test_ingredient_that_was_changed_before_it_was_added_is_not_valid(sign, signed):
    camera = CREATED | {"digitalSourceType": NEWSCODES + "digitalCapture"}
    ingredients = [("changed.jpg", "componentOf", with_other_pixels(signed))]
    data = sign(encode(seed=2), [camera], ingredients)
    origin = origin_of(data)
    assert origin.credentials.is_valid
    assert origin.credentials.manifests[0].ingredients[0].problems == (CHANGED_IMAGE,)
    statement = "AI-generated: created with generative AI (C2PA, not valid, ingredient changed.jpg)"
    assert origin.ai_statements == (statement,)
    page = page_of(data)
    assert f"<b>Its credentials were not valid when it was added</b>: {CHANGED_IMAGE}" in page
    assert f"of this ingredient were not valid when it was added: {CHANGED_IMAGE}." in page


def test_ingredient_of_an_ingredient_that_was_damaged_is_not_valid(sign, signed):
    camera = CREATED | {"digitalSourceType": NEWSCODES + "digitalCapture"}
    middle = sign(encode(seed=2), [camera], [("ai.jpg", "componentOf", signed)])
    ingredients = [("middle.jpg", "componentOf", with_other_signature(middle))]
    origin = origin_of(sign(encode(seed=3), [camera], ingredients))
    assert origin.credentials.is_valid
    assert [*origin.credentials.validity.values()] == [True, False, False]
    statement = "AI-generated: created with generative AI (C2PA, not valid, ingredient ai.jpg)"
    assert origin.ai_statements == (statement,)


def test_failures_of_ingredients_in_older_manifests_are_read(sign):
    status = [
        {"code": code, "url": "self#jumbf=c2pa.signature", "explanation": "x"}
        for code in ("claimSignature.validated", "assertion.dataHash.mismatch")
    ]
    older = {
        "claim_version": 1,
        "ingredients": [
            {
                "title": "old.jpg",
                "format": "image/jpeg",
                "instance_id": "xmp.iid:1",
                "relationship": "componentOf",
                "validation_status": status,
            }
        ],
    }
    (manifest,) = origin_of(sign(encode(), [CREATED], older=older)).credentials.manifests
    assert manifest.ingredients[0].problems == (CHANGED_IMAGE,)


@pytest.fixture
def listening():
    """Listen on a loopback port; yield its address and the list of connections."""
    server = socket.create_server(("127.0.0.1", 0))
    connections = []

    def accept():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection.recv(100))
            connection.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa", connections
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


@pytest.mark.parametrize("is_only_remote", [True, False])
def test_remote_manifest_is_named_and_not_fetched(c2pa, sign, listening, is_only_remote):
    address, connections = listening
    data = sign(encode(), remote=address, is_only_remote=is_only_remote)
    origin = origin_of(data)
    assert origin.remote_manifest == address
    assert (origin.credentials is None) == is_only_remote
    assert f"which were not fetched: {address}" in page_of(data)
    read_credentials(data, "JPEG")  # Also if the embedded one is missing.
    assert connections == []
    if is_only_remote:  # The library's default settings do fetch it.
        with pytest.raises(c2pa.C2paError):
            c2pa.Reader("image/jpeg", io.BytesIO(data), context=c2pa.Context())
        assert connections[0].startswith(b"GET /manifest.c2pa")


@pytest.mark.parametrize("value", ["Bequest of Mary Smith, 1923", "self#jumbf=/c2pa/x", "https://"])
def test_provenance_that_is_no_address_is_not_a_remote_manifest(value):
    data = jpeg_with(xmp=xmp_packet(f'dcterms:provenance="{value}"'))
    assert origin_of(data).remote_manifest == ""
    page = page_of(data)
    assert "credentials on a server" not in page
    assert "The Content Credentials were not read." not in page


def test_manifest_without_the_extra_is_mentioned_with_ways_to_read_it(signed, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert origin_of(signed).credentials.is_installed is False
    page = page_of(signed)
    assert "<b>The Content Credentials were not read.</b>" in page
    assert '<code>pip install "qma-net[c2pa]"</code>' in page
    assert "contentcredentials.org/verify" in page


def test_damaged_manifests_raise_no_error_and_are_never_valid(signed):
    rng = random.Random(0)
    start, end = signed.index(b"\xff\xeb"), signed.rindex(b"c2pa.signature") + 2000
    signature = signed.rindex(b"c2pa.signature")
    damaged = [signed[: rng.randrange(start, end)] for _ in range(6)]
    damaged += [flipped(signed, rng.randrange(start, end)) for _ in range(12)]
    damaged += [flipped(signed, rng.randrange(signature, end)) for _ in range(6)]
    for data in damaged:
        credentials = read_credentials(data, "JPEG")
        json.dumps(credentials.report())
        if credentials.is_valid:  # A bit that neither the signature nor the hash protects.
            assert credentials.manifests[0].common_name == "Camera 7"
            assert [a.code for a in credentials.manifests[0].actions] == [
                "c2pa.created",
                "c2pa.color_adjustments",
            ]


def test_crash_of_the_library_does_not_end_the_examination(signed, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    assert origin_of(signed).credentials.error == "the C2PA library crashed on it"
    assert "could not be read: the C2PA library crashed on it" in page_of(signed)


def test_library_that_hangs_is_stopped(signed, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(content_credentials, "TIMEOUT", 0.2)
    assert origin_of(signed).credentials.error == "reading it took longer than 0.2 seconds"


def test_manifest_with_unexpected_types_is_read():
    hostile = {"title": 7, "ingredients": "x", "assertions": [None, {"label": [], "data": 3}]}
    result = {"manifests": [hostile, None, {}], "results": [], "thumbnails": {"a": 1}, "state": 1}
    credentials = content_credentials._credentials(result, "")
    assert [manifest.title for manifest in credentials.manifests] == ["7", "", ""]
    assert not credentials.is_valid


# Marks of AI, editing and platforms.


def test_every_term_for_digital_sources_is_explained():
    terms = (
        "digitalCapture computationalCapture negativeFilm positiveFilm print minorHumanEdits "
        "humanEdits algorithmicallyEnhanced softwareImage digitalArt digitalCreation "
        "dataDrivenMedia trainedAlgorithmicMedia algorithmicMedia screenCapture virtualRecording "
        "composite compositeCapture compositeSynthetic compositeWithTrainedAlgorithmicMedia"
    ).split()
    categories = {term: describe_source_type(NEWSCODES + term)[0] for term in terms}
    assert "unknown" not in categories.values()
    assert {term for term, category in categories.items() if category.startswith("AI")} == {
        *("trainedAlgorithmicMedia", "compositeSynthetic", "compositeWithTrainedAlgorithmicMedia")
    }
    assert describe_source_type("digsrctype:print")[0] == "scan"
    assert describe_source_type("https://c2pa.org/digitalsourcetype/empty")[0] == "not stated"
    assert describe_source_type("http://example.org/trainedAlgorithmicMedia")[0] == "unknown"


TRAINED = NEWSCODES + "trainedAlgorithmicMedia"


@pytest.mark.parametrize(
    "xmp",
    [
        xmp_packet(f'ext:DigitalSourceType="{TRAINED}"'),
        xmp_packet("", f"<ext:DigitalSourceType>\n{TRAINED} </ext:DigitalSourceType>"),
        xmp_packet("", f'<ext:DigitalSourceType rdf:resource="{TRAINED}"/>'),
        xmp_packet('ext:DigitalSourceType="digsrctype:trainedAlgorithmicMedia"'),
        xmp_packet(f'ext:DigitalSourceType="{TRAINED}"')
        .replace("ext:", "other:")
        .replace("xmlns:ext", "xmlns:other"),
    ],
    ids=["attribute", "element", "resource", "qcode", "other-prefix"],
)
def test_digital_source_type_is_read_in_every_form(xmp):
    (mark,) = origin_of(jpeg_with(xmp=xmp)).marks
    assert (mark.category, mark.meaning) == ("AI-generated", "Created with generative AI.")
    assert mark.where == "XMP Iptc4xmpExt:DigitalSourceType"
    assert mark.quote.endswith("trainedAlgorithmicMedia")


def test_digital_source_type_is_found_in_xmp_that_is_not_well_formed():
    xmp = xmp_packet(f'ext:DigitalSourceType="{TRAINED}"').replace("</rdf:RDF>", "")
    origin = origin_of(jpeg_with(xmp=xmp))
    assert [mark.category for mark in origin.marks] == ["AI-generated"]
    assert "searched for DigitalSourceType only: it is not well-formed XML" in origin.notes[0]


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "declares a document type"),
        ("<a>" * 31 + "</a>" * 31, "implausible number of elements"),
        ("<a>" + "<b/>" * 20_000 + "</a>", "implausible number of elements"),
        ("<a>" + " " * (1 << 20) + "</a>", "more than 1,048,576 characters"),
        ("<a>\0</a>", "not well-formed"),
    ],
)
def test_hostile_xmp_is_rejected(packet, message):
    with pytest.raises(XmpError, match=message):
        read_xmp(packet)


def test_rules_refer_to_fields_that_exist_and_explain_themselves():
    rules = origin._rules()
    fields = {field for rule in rules["marks"] for field in rule["fields"]}
    fields |= {rule["also"]["field"] for rule in rules["marks"] if "field" in rule.get("also", {})}
    fields |= set(rules["software_fields"]).union(*origin.CREDITS.values())
    fields |= {field for _, *both in dates.DATES for field in both if field}
    tags = {*(exif.NEW_TAGS | ExifTags.TAGS).values()}
    names = {"EXIF": tags, "GPS": {*ExifTags.GPSTAGS.values()}, "IPTC": {*iptc.NAMES.values()}}
    for field in fields:
        kind, name = field.split(" ", 1)
        if kind == "XMP":
            assert name.split(":")[0] in xmp.PREFIXES.values()
        elif kind != "text" and field != "file name":
            assert name in names[kind]
    meanings = [rule["meaning"] for rule in rules["marks"] + rules["software"]]
    assert all(re.fullmatch(r"[A-Z][^\n]+\.", meaning) for meaning in meanings)


AIGC = json.dumps({"Label": "1", "ContentProducer": "001", "ProduceID": "2"})
MARKS = {
    "webui": (png_with(parameters=PARAMETERS), "AI-generated", 'text "parameters"'),
    "webui-jpeg": (
        jpeg_with({0x9286: b"ASCII\0\0\0" + PARAMETERS.encode()}),
        *("AI-generated", "EXIF UserComment"),
    ),
    "comfyui": (
        png_with(prompt='{"3": {"inputs": {}, "class_type": "KSampler"}}'),
        *("AI tool", 'text "prompt"'),
    ),
    "comfyui-workflow": (
        png_with(workflow='{"last_node_id": 9, "nodes": []}'),
        *("AI tool", 'text "workflow"'),
    ),
    "invokeai": (
        png_with(invokeai_metadata='{"model": 1}'),
        *("AI tool", 'text "invokeai_metadata"'),
    ),
    "invokeai-old": (png_with(sd_dash_metadata="{}"), "AI tool", 'text "sd-metadata"'),
    "dream": (
        png_with(Dream='"a cat" -s50 -S123456 -W512 -H512 -C7.5 -Ak_lms'),
        *("AI tool", 'text "Dream"'),
    ),
    "novelai": (png_with(Software="NovelAI"), "AI-generated", 'text "Software"'),
    "midjourney": (
        png_with(Description=f"a red fox --v 6.1 Job ID: {UUID}"),
        *("AI-generated", 'text "Description"'),
    ),
    "flux": (
        jpeg_with({0x0131: "AI generated;txt2img;flux"}),
        *("AI-generated", "EXIF Software"),
    ),
    "grok": (
        jpeg_with({0x010E: "Signature: " + "Ab3/" * 20 + "==", 0x013B: UUID}),
        *("AI-generated", "EXIF ImageDescription"),
    ),
    "google": (
        jpeg_with(iptc=[(110, "Made with Google AI")]),
        *("AI-generated", "IPTC Credit"),
    ),
    "clean-up": (
        jpeg_with(xmp=xmp_packet('photoshop:Credit="Apple Photos Clean Up"')),
        *("AI-edited", "XMP photoshop:Credit"),
    ),
    "aigc": (
        jpeg_with(xmp=xmp_packet("", f"<TC260:AIGC>{AIGC}</TC260:AIGC>")),
        *("AI-generated", "XMP TC260:AIGC"),
    ),
    "aigc-suspected": (
        png_with(AIGC='{"Label":"3","ContentPropagator":"x"}'),
        *("AI-generated (possibly)", 'text "AIGC"'),
    ),
    "facebook": (
        jpeg_with(iptc=[(40, "FBMD0a000a6f0100002b")]),
        *("platform", "IPTC Instructions"),
    ),
    "screenshot": (
        jpeg_with({0x9286: b"ASCII\0\0\0Screenshot"}),
        *("screenshot", "EXIF UserComment"),
    ),
    "retouched": (
        jpeg_with(
            xmp=xmp_packet(
                "",
                "<crs:RetouchAreas><rdf:Seq><rdf:li crs:SpotType='heal'/></rdf:Seq>"
                "</crs:RetouchAreas>",
            )
        ),
        *("editing settings", "XMP crs:RetouchAreas"),
    ),
    "lightroom": (
        jpeg_with(xmp=xmp_packet('crs:HasSettings="True"')),
        *("raw conversion or editing software", "XMP crs:HasSettings"),
    ),
    "ancestors": (
        jpeg_with(
            xmp=xmp_packet(
                "",
                "<photoshop:DocumentAncestors><rdf:Bag><rdf:li>xmp.did:1</rdf:li></rdf:Bag>"
                "</photoshop:DocumentAncestors>",
            )
        ),
        *("Photoshop documents", "XMP photoshop:DocumentAncestors"),
    ),
}


@pytest.mark.parametrize(("data", "category", "where"), MARKS.values(), ids=MARKS)
def test_marks_are_found_with_the_field_that_contains_them(data, category, where):
    marks = [mark for mark in origin_of(data).marks if mark.category != "software"]
    assert [(mark.category, mark.where) for mark in marks] == [(category, where)]
    assert bool(origin_of(data).ai_statements) == category.startswith("AI")


@pytest.mark.parametrize(
    "data",
    [
        png_with(parameters="Steps: 3 to the lighthouse"),
        png_with(parameters="exposure=1/200", prompt="Describe this photo", workflow="draft 2"),
        png_with(Software="NovelAIst 2"),
        png_with(Description="Job ID: 1234"),
        jpeg_with({0x010E: "Signature: Ada", 0x013B: UUID}),
        jpeg_with({0x010E: "Signature: " + "Ab3/" * 20, 0x013B: "Ada Example"}),
        jpeg_with(iptc=[(110, "Not Made with Google AI"), (40, "Embargo FBMD0a000a6f")]),
        png_with(AIGC='{"Label":"10","ContentProducer":"x"}'),
        jpeg_with({0x9286: b"ASCII\0\0\0Screenshot of the harbor"}),
        jpeg_with(xmp=xmp_packet("", "<crs:RetouchAreas><rdf:Seq/></crs:RetouchAreas>")),
        jpeg_with({0x010F: "Fujifilm", 0x0131: "Firmware 1.0"}),
    ],
)
def test_similar_texts_are_not_marks(data):
    origin = origin_of(data)
    assert [mark for mark in origin.marks if mark.category != "software"] == []
    assert origin.ai_statements == ()


EMPTY_XMP = {
    "attributes": (
        'ext:AISystemUsed="" ext:DigitalSourceType="" photoshop:DocumentAncestors=" " '
        'photoshop:Credit="" tiff:Make="" tiff:Model="" xmp:CreatorTool="" xmp:ModifyDate=""',
        "",
    ),
    "elements": ("", "<ext:AISystemUsed/><xmp:CreatorTool> </xmp:CreatorTool><tiff:Model/>"),
    "structures": (
        "",
        "<ext:AISystemUsed><rdf:Description/></ext:AISystemUsed><xmp:CreatorTool tiff:Make=''/>"
        "<photoshop:DocumentAncestors><rdf:Bag><rdf:li tiff:Make=''/></rdf:Bag>"
        "</photoshop:DocumentAncestors>",
    ),
}


@pytest.mark.parametrize(("attributes", "elements"), EMPTY_XMP.values(), ids=EMPTY_XMP)
def test_empty_properties_of_xmp_state_nothing(attributes, elements):
    data = jpeg_with(xmp=xmp_packet(attributes, elements), iptc=[(110, "Some Agency")])
    origin = origin_of(data)
    assert (origin.marks, origin.ai_statements, origin.statements) == ((), (), {})
    assert [(credit.values, credit.disagrees) for credit in origin.credits] == [
        ({"IPTC Credit": "Some Agency"}, False)
    ]
    page = page_of(data)
    assert "signs of AI use" not in page
    assert "entries" not in page[page.index('<h2 id="origin">') : page.index("<h2>The file</h2>")]


def test_png_with_an_empty_camera_names_no_camera():
    packet = xmp_packet('tiff:Make="" tiff:Model=""')
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet)
    assert "this one names no camera" in page_of(encode("png", pnginfo=info))


def test_blank_values_of_exif_iptc_and_text_state_nothing():
    blank = jpeg_with({0x0131: "  ", 0x010F: " ", 0x013B: "  "}, iptc=[(65, "  "), (80, " ")])
    for data in (blank, png_with(Software="  ")):
        origin = origin_of(data)
        assert (origin.marks, origin.credits, origin.statements) == ((), (), {})


def test_empty_source_type_in_xmp_that_is_not_well_formed_is_not_a_mark():
    packet = xmp_packet("", "<ext:DigitalSourceType>\n</ext:DigitalSourceType>\n")
    assert origin_of(jpeg_with(xmp=packet.replace("</rdf:RDF>", ""))).marks == ()


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("in/IMG-20260501-WA0007.jpg", "WhatsApp file name"),
        ("C:\\in\\photo_2026-05-01_10-00-00.jpg", "Telegram file name"),
        ("signal-2026-05-01-10-00-00-123.jpg", "Signal file name"),
        ("IMG_20260501_100000.jpg", None),
        ("MY-IMG-20260501-WA0007.jpg", None),
    ],
)
def test_file_names_of_messaging_apps_are_recognized(name, mark):
    assert [m.name for m in origin_of(encode(), name).marks] == ([mark] if mark else [])


def test_values_are_escaped_and_limited():
    long = PARAMETERS + " x" * 5000
    mark = origin_of(png_with(parameters=long)).marks[0]
    assert len(mark.quote) < 700
    assert mark.quote.endswith(f"... ({len(long)} characters)")
    page = page_of(png_with(parameters=PARAMETERS))
    assert "<q>a lighthouse, &lt;b&gt;35 mm&lt;/b&gt;" in page
    assert "their absence proves nothing" in page


@pytest.mark.parametrize(
    ("code", "encoding"), [(b"ASCII\0\0\0", "ascii"), (b"UNICODE\0", "utf-16-be")]
)
def test_parameters_after_a_long_prompt_are_found_in_a_user_comment(code, encoding):
    comment = code + ("a red fox " * 100 + PARAMETERS).encode(encoding)
    (mark,) = origin_of(jpeg_with({0x9286: comment})).marks
    assert mark.category == "AI-generated"


def test_software_and_history_are_listed():
    history = (
        "<xmpMM:History><rdf:Seq>"
        "<rdf:li stEvt:action='created' stEvt:when='2026-04-01T09:00:00+02:00'/>"
        "<rdf:li rdf:parseType='Resource'><stEvt:action>saved</stEvt:action>"
        "<stEvt:softwareAgent>Adobe Photoshop 25.0</stEvt:softwareAgent>"
        "<stEvt:changed>/</stEvt:changed></rdf:li></rdf:Seq></xmpMM:History>"
    )
    xmp = xmp_packet('xmp:CreatorTool="Adobe Photoshop 25.0"', history)
    exif = {0x0131: "Adobe Photoshop 25.0", 0x013C: "desk-3", 0xA43B: "Photo App 2"}
    data = jpeg_with(exif, xmp=xmp)
    origin = origin_of(data)
    assert [(mark.quote, mark.where) for mark in origin.marks] == [
        ("Adobe Photoshop 25.0", "EXIF Software, XMP xmp:CreatorTool"),
        ("Photo App 2", "EXIF ImageEditingSoftware"),
        ("desk-3", "EXIF HostComputer"),
    ]
    assert origin.history == (
        {"action": "created", "when": "2026-04-01T09:00:00+02:00"},
        {"action": "saved", "softwareAgent": "Adobe Photoshop 25.0", "changed": "/"},
    )
    assert "(2 entries)" in page_of(data)


def test_a_single_entry_is_called_an_entry():
    history = "<xmpMM:History><rdf:Seq><rdf:li stEvt:action='saved'/></rdf:Seq></xmpMM:History>"
    retouched = (
        "<crs:RetouchAreas><rdf:Seq><rdf:li crs:SpotType='heal'/></rdf:Seq></crs:RetouchAreas>"
    )
    data = jpeg_with({0x0131: "x"}, xmp_packet("", history + retouched), [(110, "Some Agency")])
    page = page_of(data)
    assert "1 entries" not in page
    for heading in ("EXIF, IFD0 (1 entry)", "IPTC (1 entry)", "in the XMP (1 entry)"):
        assert heading in page
    assert "<q>1 entry</q> <small>(XMP crs:RetouchAreas)" in page


# Credit and dates.


def test_credit_is_listed_by_field_and_disagreement_is_pointed_out():
    creator = "<dc:creator><rdf:Seq><rdf:li>Ada Example</rdf:li></rdf:Seq></dc:creator>"
    data = jpeg_with(
        {0x013B: "A. Example", 0x8298: "(c) Ada"},
        xmp_packet('photoshop:Source="Other Agency"', creator),
        [(80, "ADA EXAMPLE"), (115, "Some Agency"), (116, "(c) Ada")],
    )
    credits = {credit.name: credit for credit in origin_of(data).credits}
    assert credits["By-line"].values == {
        "IPTC Byline": "ADA EXAMPLE",
        "XMP dc:creator": "Ada Example",
        "EXIF Artist": "A. Example",
    }
    disagreeing = {name for name, credit in credits.items() if credit.disagrees}
    assert disagreeing == {"Source"}
    assert page_of(data).count("IPTC and XMP disagree") == 1


LONG_NAME = "Adelheid-Konstanze Beispielhausen-Musterfrau"
UMLAUTS, LAST_UMLAUT = "Maximilian-Friedrich Müller-Grüße", "Maximilian-Friedrich Beispiel-Müller"


@pytest.mark.parametrize(
    ("names", "by_lines", "shown", "disagrees"),
    [
        ([LONG_NAME], [LONG_NAME[:32]], LONG_NAME[:32], False),
        ([LONG_NAME, "Jo Doe"], [LONG_NAME[:32], "Jo Doe"], f"{LONG_NAME[:32]}; Jo Doe", False),
        ([LONG_NAME, "Jo Doe"], [LONG_NAME[:32], "Al Doe"], f"{LONG_NAME[:32]}; Al Doe", True),
        ([LONG_NAME, "Jo Doe"], [LONG_NAME[:32]], LONG_NAME[:32], False),
        # UTF-8 without a mark, truncated within a character.
        ([UMLAUTS], [UMLAUTS.encode()[:32]], "Maximilian-Friedrich Müller-Gr", False),
        ([LAST_UMLAUT], [LAST_UMLAUT.encode()[:32]], "Maximilian-Friedrich Beispiel-M", False),
        (["René"], ["René".encode("latin-1")], "René", False),
    ],
)
def test_by_lines_that_iptc_truncates_do_not_disagree(names, by_lines, shown, disagrees):
    items = "".join(f"<rdf:li>{name}</rdf:li>" for name in names)
    creator = f"<dc:creator><rdf:Seq>{items}</rdf:Seq></dc:creator>"
    data = jpeg_with(xmp=xmp_packet("", creator), iptc=[(80, line) for line in by_lines])
    (credit,) = origin_of(data).credits
    assert (credit.values["IPTC Byline"], credit.disagrees) == (shown, disagrees)


ORIGINAL, ORIGINAL_ZONE, MODIFIED, MODIFIED_ZONE = 0x9003, 0x9011, 0x0132, 0x9010


@pytest.mark.parametrize(
    ("tags", "gps", "is_contradiction"),
    [
        # Local times of unknown zones differ by up to 26 hours: UTC+14 and UTC-12.
        ({ORIGINAL: "2026:05:02 12:00:00", MODIFIED: "2026:05:01 10:05:00"}, {}, False),
        ({ORIGINAL: "2026:05:02 12:00:00", MODIFIED: "2026:05:01 09:50:00"}, {}, True),
        # 12:00 at UTC+2 is 10:00 UTC, the same instant as 05:00 at UTC-5.
        (
            {
                ORIGINAL: "2026:05:02 12:00:00",
                ORIGINAL_ZONE: "+02:00",
                MODIFIED: "2026:05:02 05:00:00",
                MODIFIED_ZONE: "-05:00",
            },
            {},
            False,
        ),
        (
            {
                ORIGINAL: "2026:05:02 12:00:00",
                ORIGINAL_ZONE: "+02:00",
                MODIFIED: "2026:05:02 04:50:00",
                MODIFIED_ZONE: "-05:00",
            },
            {},
            True,
        ),
        # Noon is 22:00 UTC of the day before at the earliest; 12 hours are tolerated.
        (
            {ORIGINAL: "2026:05:02 12:00:00"},
            {29: "2026:05:01", 7: (10.0, 5.0, 0.0)},
            False,
        ),
        (
            {ORIGINAL: "2026:05:02 12:00:00"},
            {29: "2026:05:01", 7: (9.0, 55.0, 0.0)},
            True,
        ),
        ({ORIGINAL: "0000:00:00 00:00:00", MODIFIED: "2026:05:01 10:00:00"}, {}, False),
    ],
)
def test_dates_contradict_only_if_no_time_zone_reconciles_them(tags, gps, is_contradiction):
    data = jpeg_with(tags, gps=gps)
    contradictions = origin_of(data).contradictions
    assert len(contradictions) == is_contradiction
    if contradictions:
        page = page_of(data)
        assert "Some dates contradict each other. According to the file, the photo was" in page


def test_dates_of_iptc_and_xmp_are_listed_and_compared():
    data = jpeg_with(
        {ORIGINAL: "2026:05:02 12:00:00", ORIGINAL_ZONE: "+02:00"},
        xmp_packet('xmp:ModifyDate="2026-05-02T10:00:00Z" photoshop:DateCreated="2026-05-03"'),
        [(55, "20260430"), (60, "120000+0000"), (62, "20260502"), (63, "121500+0200")],
    )
    origin = origin_of(data)
    assert [(date.meaning, date.where, date.text) for date in origin.dates] == [
        ("taken", "EXIF DateTimeOriginal", "2026:05:02 12:00:00+02:00"),
        ("content created", "XMP photoshop:DateCreated", "2026-05-03"),
        ("content created", "IPTC DateCreated", "20260430T120000+0000"),
        ("digitized", "IPTC DigitizationDate", "20260502T121500+0200"),
        ("modified", "XMP xmp:ModifyDate", "2026-05-02T10:00:00Z"),
    ]
    assert origin.contradictions == (
        "The file states two dates on which the content was created (IPTC DateCreated: "
        "20260430T120000+0000; XMP photoshop:DateCreated: 2026-05-03).",
    )


def test_date_of_an_original_work_does_not_contradict_the_date_of_its_photo():
    # A camera photographed a print of 1950 in 2020; Photoshop created a document in 2019.
    data = jpeg_with(
        {ORIGINAL: "2020:05:02 12:00:00"},
        xmp_packet('photoshop:DateCreated="1950-06-01" xmp:CreateDate="2019-01-01"'),
    )
    origin = origin_of(data)
    assert [date.meaning for date in origin.dates] == ["taken", "content created", "file created"]
    assert origin.contradictions == ()
    page = page_of(data)
    assert "contradict each other" not in page
    assert '<th scope="row">Content created</th>' in page


def test_excluded_parts_are_not_called_unchanged(signed):
    examination = examined(signed)
    origin = examination.evidence.origin
    credentials = replace(origin.credentials, partly_protected=True)
    evidence = replace(examination.evidence, origin=replace(origin, credentials=credentials))
    page = " ".join(render_page(replace(examination, evidence=evidence), images=False).split())
    assert "not been changed since; parts that the signer excluded could not be checked." in page
    assert "Parts that the signer excluded from the hash could not be checked." in page
    assert "could not be checked" not in page_of(signed)


def test_gps_keeps_its_capital_letters():
    page = page_of(jpeg_with({ORIGINAL: "2026:05:02 12:00:00"}, gps={29: "2026:05:02"}))
    assert '<th scope="row">GPS position</th>' in page


def test_summary_names_signs_of_ai_and_dates_that_contradict_each_other():
    tags = {ORIGINAL: "2026:05:02 12:00:00", MODIFIED: "2026:04:20 12:00:00"}
    page = page_of(jpeg_with(tags))
    summary = page[: page.index("<h2>Regions that")]
    assert "Dates in the file contradict each other." in summary
    plain = page_of(encode())
    assert "contradict each other" not in plain[: plain.index("<h2>Regions that")]
    page = page_of(png_with(Software="NovelAI"))
    assert "The file contains signs of AI use" in page[: page.index("<h2>Regions that")]


def test_photo_without_marks_has_a_panel_that_says_what_absence_means():
    page = page_of(encode())
    assert "No statement about AI was found in the metadata that could be read." in page
    assert "The Content Credentials were not read." not in page
    assert "No Content Credentials (C2PA) were found in the file." in page
    assert page.index('<h2 id="origin">Origin</h2>') < page.index("<h2>The file</h2>")


def test_pixels_without_a_file_have_no_origin():
    examination = examine_photo(None, photograph(64, 64))
    assert examination.report()["origin"] is None
    assert '<h2 id="origin">Origin</h2>' not in render_page(examination)
