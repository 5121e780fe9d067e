"""Bill of materials of an image: CycloneDX 1.6 on standard output, pip's report on standard input.

The report is of ``pip install --report``; it names the archive of each package by its digest.  The
addresses they were fetched from stay out.  Needs nothing but Python.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from typing import Any


def bill(report: dict[str, Any], target: str) -> dict[str, Any]:
    """Return the document.

    Args:
        report: pip's.
        target: Of the image: cpu, cuda or maxwell.
    """
    components = sorted(
        (component(item) for item in report["install"]), key=lambda found: str(found["bom-ref"])
    )
    python = report["environment"]["python_full_version"]
    # The same packages give the same document.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([target, python, components]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "cipherscore",
                "name": f"cipherscore-{target}",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
            "properties": [{"name": "cipherscore:python", "value": python}],
        },
        "components": components,
        "dependencies": [
            {"ref": "cipherscore", "dependsOn": [found["bom-ref"] for found in components]}
        ],
    }


def component(item: dict[str, Any]) -> dict[str, Any]:
    """Return one package of the report."""
    metadata = item["metadata"]
    name = re.sub(r"[-_.]+", "-", metadata["name"]).lower()
    purl = f"pkg:pypi/{name}@{metadata['version']}"
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": metadata["version"],
        "purl": purl,
        "hashes": [
            {"alg": "SHA-256", "content": item["download_info"]["archive_info"]["hashes"]["sha256"]}
        ],
    }
    licence = licence_of(metadata)
    if licence:
        found["licenses"] = [licence]
    return found


def licence_of(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """Return a package's licence as it states it itself."""
    if metadata.get("license_expression"):
        return {"expression": metadata["license_expression"]}
    stated = [
        entry.rpartition(" :: ")[2]
        for entry in metadata.get("classifier", [])
        if entry.startswith("License :: ")
    ]
    # Some packages have the whole text in this field.
    first = (metadata.get("license") or "").partition("\n")[0][:100]
    name = ", ".join(stated) or first
    return {"license": {"name": name}} if name else None


if __name__ == "__main__":
    json.dump(bill(json.load(sys.stdin), sys.argv[1]), sys.stdout, indent=1, sort_keys=True)
