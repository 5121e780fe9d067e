"""The bill of materials of an image, from a report as pip writes it."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from tests.support.server import ROOT

_SPEC = importlib.util.spec_from_file_location("image_sbom", ROOT / "scripts/image_sbom.py")
assert _SPEC is not None
assert _SPEC.loader is not None
sbom: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sbom)


def item(name: str, version: str, **metadata: object) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "version": version, **metadata},
        "download_info": {
            "url": f"https://user:secret@mirror.example/{name}.whl",
            "archive_info": {"hashes": {"sha256": name[0] * 64}},
        },
    }


def report(*items: dict[str, Any]) -> dict[str, Any]:
    return {"install": list(items), "environment": {"python_full_version": "3.12.1"}}


def test_packages_are_listed_with_digests_and_without_addresses() -> None:
    found = sbom.bill(report(item("Zope.Thing_x", "2"), item("attrs", "1")), "cpu")
    assert [part["purl"] for part in found["components"]] == [
        "pkg:pypi/attrs@1",
        "pkg:pypi/zope-thing-x@2",
    ]
    assert found["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert found["dependencies"][0]["dependsOn"] == [p["bom-ref"] for p in found["components"]]
    text = json.dumps(found)
    assert "mirror" not in text
    assert "secret" not in text


def test_the_same_packages_give_the_same_document() -> None:
    one, two = item("a", "1"), item("b", "2")
    assert sbom.bill(report(one, two), "cpu") == sbom.bill(report(two, one), "cpu")
    other = sbom.bill(report(one), "cpu")["serialNumber"]
    assert other != sbom.bill(report(one, two), "cpu")["serialNumber"]


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license_expression": "MIT OR Apache-2.0", "license": "x"}, "MIT OR Apache-2.0"),
        ({"classifier": ["License :: OSI Approved :: MIT License"]}, "MIT License"),
        ({"license": "BSD\n" + "long text " * 100}, "BSD"),
        ({}, None),
        ({"license": ""}, None),
    ],
)
def test_a_licence_is_what_the_package_states(
    metadata: dict[str, Any], licence: str | None
) -> None:
    found = sbom.licence_of(metadata)
    told = found and (found.get("expression") or found["license"]["name"])
    assert told == licence
