"""Read the C2PA manifests of the image on standard input; write JSON to standard output.

:mod:`.content_credentials` runs this file as a separate process, because the native library may
crash or hang on a hostile file. It must not import from this package, which would take seconds.

Arguments: the media type of the image, and a PEM file of trusted certificates or an empty string.
"""

import base64
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

MAX_MANIFESTS = 12
MAX_THUMBNAILS = 12
MAX_THUMBNAIL_BYTES = 1 << 20
MEMORY = 4 << 30
CPU_SECONDS = 60


def main() -> None:
    """Read, verify and print the manifests; if that fails, print ``{"error": ...}``."""
    media_type, trust_list = sys.argv[1:]
    settings: dict = {
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
        "core": {"allowed_network_hosts": []},
    }
    image = io.BytesIO(sys.stdin.buffer.read())
    try:
        import c2pa

        if trust_list:  # Certificates are ASCII; comments may be in any encoding.
            with open(trust_list, encoding="ascii", errors="replace") as file:
                settings["trust"] = {"trust_anchors": file.read()}
        _restrict_process()
        context = c2pa.Context.from_dict(settings)
        with c2pa.Reader(media_type, image, context=context) as reader:
            store = json.loads(reader.json())
            manifests = _manifests(store)
            result = {
                "manifests": manifests,
                "results": store.get("validation_results"),
                "state": store.get("validation_state"),
                "thumbnails": dict(_thumbnails(reader, manifests)),
            }
    except Exception as error:
        result = {"error": str(error)[:400]}
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # Without running the destructors of the native library.


def _restrict_process() -> None:
    """Limit memory and time, forbid core dumps, and forbid opening files and sockets."""
    try:
        import resource
    except ImportError:  # Windows.
        return
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 3,  # Standard input, output and error.
    }
    for limit, value in limits.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))


def _manifests(store: dict) -> list[dict]:
    """Return the active manifest, then those of its ingredients, their ingredients and so on."""
    labels = [store["active_manifest"]]
    for label in labels:  # The loop extends this list.
        for ingredient in store["manifests"][label].get("ingredients", ()):
            nested = ingredient.get("active_manifest")
            is_new = nested in store["manifests"] and nested not in labels
            if is_new and len(labels) < MAX_MANIFESTS:
                labels.append(nested)
    return [{"label": label, **store["manifests"][label]} for label in labels]


def _thumbnails(reader, manifests: list[dict]) -> Iterator[tuple[str, str]]:
    """Yield the identifier and the Base64 content of each manifest's and ingredient's thumbnail."""
    count = 0
    for manifest in manifests:
        for item in (manifest, *manifest.get("ingredients", ())):
            identifier = (item.get("thumbnail") or {}).get("identifier")
            if not identifier or count >= MAX_THUMBNAILS:
                continue
            content = io.BytesIO()
            with suppress(Exception):
                reader.resource_to_stream(identifier, content)
                if 0 < len(content.getbuffer()) <= MAX_THUMBNAIL_BYTES:
                    count += 1
                    yield identifier, base64.b64encode(content.getvalue()).decode("ascii")


if __name__ == "__main__":
    main()
