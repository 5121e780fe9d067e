"""The client alone, installed from its lock file into a fresh environment.  Needs uv and an index.

Interpreters are found by name (``python3.10``) or in pyenv; what is not there is skipped.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_CLIENT_MB = 100
ML_PACKAGES = {
    "bentoml", "keras", "numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "scipy",
    "sklearn", "tensorflow", "tf2onnx", "torch",
}  # fmt: skip
IMPORTS = """
import sys
import cipherscore.cli, cipherscore.client, cipherscore.client.records, cipherscore.rekeymap
import cipherscore.client.gateway.app, cipherscore.client.keys, cipherscore.schema_file
from cipherscore.client import AsyncClient, Client, Score, Tls
from cipherscore.client.encryption import FieldCipher
from cipherscore.client.keys import Keyset
from cipherscore.client.records import RecordCodec
schema = cipherscore.schema_file.load_schema("german-credit-capstone")
codec = RecordCodec(FieldCipher(Keyset.create(), schema))
record = {f.name: f.edges[0] if f.edges else next(iter(f.categories)) for f in schema.fields}
assert codec.decode(codec.encode(record))["duration"] == "[4, 21)"
print(sys.version_info[:2], "ok")
"""


def uv():
    found = shutil.which("uv") or Path(sys.executable).with_name("uv")
    if not Path(found).is_file():
        pytest.skip("no uv to make an environment with")
    return str(found)


def interpreter(version):
    """Return a Python that really starts: a pyenv shim may stand for one that is not selected."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
    for path in filter(None, candidates):
        code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
        found = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if found.stdout.strip() == version:
            return str(path)
    pytest.skip(f"no Python {version}")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_client_alone(tmp_path, version):
    environment = tmp_path / "venv"
    subprocess.run([uv(), "venv", "-q", "--python", interpreter(version), environment], check=True)
    command = [uv(), "pip", "install", "-q", "--no-deps", "--require-hashes", "-r"]
    made = subprocess.run(
        [*command, ROOT / "requirements/client.txt"], capture_output=True, text=True, check=False,
        env={**os.environ, "VIRTUAL_ENV": str(environment)},
    )  # fmt: skip
    if made.returncode and "hash" not in made.stderr.lower():
        pytest.skip(f"no index: {made.stderr.strip()[:200]}")
    assert made.returncode == 0, made.stderr
    (packages,) = environment.glob("lib/python*/site-packages")
    assert not ML_PACKAGES.intersection(path.name for path in packages.iterdir())
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    assert size < MAX_CLIENT_MB << 20
    found = subprocess.run(
        [environment / "bin/python", "-c", IMPORTS], capture_output=True, text=True, check=False,
        cwd=ROOT, env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    help_text = subprocess.run(
        [environment / "bin/python", "-m", "cipherscore", "encrypt", "--data", __file__],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert help_text.returncode == 2
    assert "pip install 'cipherscore[tables]'" in help_text.stderr
