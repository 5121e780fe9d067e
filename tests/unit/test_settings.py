"""Settings from the environment and a TOML file; no server is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cipherscore.cli import app
from cipherscore.errors import ConfigurationError
from serving import settings_check, settings_file
from serving.settings import Settings, load_settings
from serving.settings_file import Origins
from tests.support.certificates import make_authority


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("CIPHERSCORE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        monkeypatch.setenv("CIPHERSCORE_SETTINGS_FILE", str(path))
        return path

    return write


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(write, monkeypatch):
    path = write('# ours\nmax_rows = 7\n\n"max_streams" = 8\n')
    monkeypatch.setenv("CIPHERSCORE_MAX_STREAMS", "9")
    found = load_settings()
    assert (found.max_rows, found.max_streams, found.workers) == (7, 9, 1)
    origins = Origins.now(Settings.model_fields)
    assert origins.of("max_rows") == f"{path}:2"
    assert origins.of("max_streams") == "environment variable CIPHERSCORE_MAX_STREAMS"
    assert origins.of("workers") == "default"


def test_an_empty_variable_is_none(write, monkeypatch):
    write("max_rows = 7")
    monkeypatch.setenv("CIPHERSCORE_MAX_ROWS", "")
    assert load_settings().max_rows == 7


def test_no_file_is_picked_up_by_accident(tmp_path, monkeypatch):
    (tmp_path / "cipherscore.toml").write_text("max_rows = 7")
    monkeypatch.chdir(tmp_path)
    assert load_settings().max_rows == 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_row = 7", "there is no setting 'max_row'; did you mean max_rows"),
        ("zzzzzz = 7", "there is no setting 'zzzzzz'$"),
        ("[limits]\nmax_rows = 7", "there is no setting 'limits'"),
        ("max_rows = 7\nmax_rows = 8", "not TOML"),
        ("max_rows = x", "not TOML, line 1, column"),
        ("max_rows = ", "not TOML, end of document"),
        ("x" * 2_000_000, "longer than 1 MiB"),
        ("a = " + "[" * 100_000, "nested too deeply|not TOML"),
        ("max_rows = true", "max_rows: no setting is true or false"),
        ("\nmax_rows = 0", r"settings.toml:2: max_rows: Input should be greater"),
        ('log_format = "xml"', r"settings.toml:1: log_format: Input should be 'json' or 'text'"),
        ("rate_per_second = inf", "finite"),
        ("tls_cert_file = 7", "settings.toml:1: tls_cert_file"),
        ('tls_cert_file = "c.pem"', "tls_cert_file needs CIPHERSCORE_TLS_KEY_FILE"),
        ('jwt_issuer = "me"', "jwt_issuer needs CIPHERSCORE_JWT_KEY_FILE"),
        ('clients_file = "nowhere.toml"', "clients_file: .*nowhere.toml does not exist"),
        ('clients_file = "."', "clients_file: .* is not a file"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_its_place(write, text, message):
    path = write(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_settings()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CIPHERSCORE_GRPC_PORT", "tcp://10.0.0.1:50051", "CIPHERSCORE_GRPC_PORT: .*integer"),
        ("CIPHERSCORE_TLS_CERTFILE", "/x", "did you mean CIPHERSCORE_TLS_CERT_FILE"),
        ("CIPHERSCORE_MAXROWS", "7", "did you mean CIPHERSCORE_MAX_ROWS"),
        ("CIPHERSCORE_CLIENTS_FILE", "clients.toml", "CIPHERSCORE_CLIENTS_FILE: .*absolute"),
        ("CIPHERSCORE_SETTINGS_FILE", "s.toml", "CIPHERSCORE_SETTINGS_FILE: .*absolute"),
        ("CIPHERSCORE_SETTINGS_FILE", "/nowhere/s.toml", "cannot read /nowhere/s.toml"),
        ("CIPHERSCORE_TLS_CLIENT_CA_FILE", "/x", "needs CIPHERSCORE_TLS_CERT_FILE"),
        ("CIPHERSCORE_JWT_KEY_FILE", "/x", "needs CIPHERSCORE_JWT_AUDIENCE"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        load_settings()


@pytest.mark.parametrize(
    "name",
    ["PORT", "SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT_50051_TCP", "HOME", "API_KEY_FILE", "PLAN"],
)
def test_variables_of_others_are_left_alone(monkeypatch, name):
    """Kubernetes makes such variables for a service named cipherscore; the rest are our own."""
    monkeypatch.setenv(f"CIPHERSCORE_{name}", "/x")
    assert load_settings() == Settings()


def test_several_values_fit_one_variable(write, monkeypatch):
    write('extra_models = ["a:1", "b:2"]')
    assert load_settings().extra_models == ["a:1", "b:2"]
    monkeypatch.setenv("CIPHERSCORE_EXTRA_MODELS", " c:1, d:2,")
    assert load_settings().extra_models == ["c:1", "d:2"]


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.none() | st.integers() |
       st.floats() | st.booleans() | st.text() | st.lists(st.integers())))  # fmt: skip
def test_any_value_gives_settings_or_an_error_that_names_one(values):
    import tomli_w

    content = {name: value for name, value in values.items() if value is not None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings_file, "read_text", lambda *_: tomli_w.dumps(content))
        patch.setenv("CIPHERSCORE_SETTINGS_FILE", "/s.toml")
        try:
            load_settings()
        except ConfigurationError as error:
            message = str(error)
        else:
            return
    assert any(name in message for name in content)


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Path]:
    authority = make_authority()
    key, certificate = authority.issue("localhost")
    contents = {"key": key, "cert": certificate, "client_ca": authority.certificate}
    files = {}
    for name, content in contents.items():
        path = tmp_path / f"{name}.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        files[f"tls_{name}_file"] = path
    return files


def test_relative_files_are_found_beside_the_settings_file(write, tls, tmp_path):
    write('tls_cert_file = "cert.pem"\ntls_key_file = "./key.pem"')
    found = load_settings()
    assert found.tls_cert_file == tmp_path / "cert.pem"
    assert found.tls_key_file is not None
    assert found.tls_key_file.is_absolute()


def test_what_is_allowed_but_dangerous_is_said(tls):
    texts = settings_check.warnings(Settings())
    assert any("not authenticated" in text for text in texts)
    assert any("tokens and scores cross" in text for text in texts)
    assert settings_check.warnings(Settings(grpc_host="::1")) == []
    assert settings_check.warnings(Settings(grpc_host="localhost")) == []
    assert settings_check.warnings(Settings(**tls)) == []
    plain = settings_check.warnings(Settings(clients_file=tls["tls_cert_file"]))
    assert len(plain) == 1
    assert "credentials" in plain[0]
    tls["tls_key_file"].chmod(0o644)
    assert "every user" in settings_check.warnings(Settings(**tls))[0]


# ---- the command


def test_show_prints_everything_with_its_origin(write, tls, monkeypatch, tmp_path):
    path = write('max_rows = 7\ntls_cert_file = "cert.pem"\ntls_key_file = "key.pem"')
    monkeypatch.setenv("CIPHERSCORE_WORKERS", "3")
    result = CliRunner().invoke(app, ["settings", "show", "--json"], catch_exceptions=False)
    facts = {fact["name"]: fact for fact in json.loads(result.stdout)}
    assert facts.keys() == Settings.model_fields.keys()
    assert facts["max_rows"]["origin"] == f"{path}:1"
    assert (facts["workers"]["value"], facts["workers"]["origin"]) == (
        3,
        "environment variable CIPHERSCORE_WORKERS",
    )
    assert facts["drain_seconds"]["origin"] == "default"
    assert facts["tls_key_file"]["value"] == str(tmp_path / "key.pem")
    assert all(fact["description"] for fact in facts.values())
    assert "PRIVATE" not in result.output
    human = CliRunner().invoke(app, ["settings", "show"], catch_exceptions=False)
    assert all(name in human.stdout for name in Settings.model_fields)
    assert "not authenticated" in human.stderr


def test_show_refuses_what_a_server_would_refuse(write):
    write("max_row = 7")
    with pytest.raises(ConfigurationError, match="did you mean max_rows"):
        CliRunner().invoke(app, ["settings", "show"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "given", "host", "expected"),
    [
        ((), {}, "127.0.0.1", {"GRPC_HOST": "127.0.0.1"}),
        ((), {"GRPC_HOST": "10.0.0.1"}, "127.0.0.1", {"GRPC_HOST": "10.0.0.1"}),
        ((), {"SETTINGS_FILE": "/s.toml"}, "127.0.0.1", {"SETTINGS_FILE": "/s.toml"}),
        (("--host", "::", "--grpc-port", "7", "--device", "cpu"), {"GRPC_PORT": "8"}, "::",
         {"GRPC_HOST": "::", "GRPC_PORT": "7", "DEVICE": "cpu"}),
    ],
)  # fmt: skip
def test_serve_sets_only_what_it_was_given(monkeypatch, words, given, host, expected):
    import os

    for name, value in given.items():
        monkeypatch.setenv(f"CIPHERSCORE_{name}", value)
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    CliRunner().invoke(app, ["serve", *words], catch_exceptions=False)
    ((_, command, environment),) = started
    found = {name[12:]: value for name, value in environment.items() if name[:12] == "CIPHERSCORE_"}
    assert found == expected
    assert command[command.index("--host") + 1] == host
