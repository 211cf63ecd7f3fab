"""Keys as the settings have them: what is accepted, and that no secret is shown."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import ConfigError, SecuritySettings, Settings
from rf_jobs.cli.app import app
from rf_jobs.words.config import load_settings
from rf_jobs.words.secret_keys import SecretKey, mask_keys, new_key, parse_keys

IDS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=32)
SECRETS = st.binary(min_size=32, max_size=32)


@given(st.lists(st.builds(SecretKey, IDS, SECRETS), unique_by=lambda key: key.id))
def test_keys_are_read_as_they_are_written(keys: list[SecretKey]) -> None:
    assert list(parse_keys(key.text() for key in keys)) == keys
    assert list(parse_keys(f" {key.text().rstrip('=').replace('+', '-').replace('/', '_')}\n" for key in keys)) == keys


@given(st.lists(st.text(max_size=60) | st.builds(lambda key: key.text(), st.builds(SecretKey, IDS, SECRETS))))
def test_any_text_is_keys_or_a_clear_error_and_masked(items: list[str]) -> None:
    try:
        keys = parse_keys(items)
    except ValueError as error:
        assert "key" in str(error)
    else:
        masked = str(mask_keys(items))
        assert not any(key.text().partition(":")[2] in masked for key in keys)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["k1"], "key 1 is not of the form id:base64"),
        (["a b:x"], "key 1 is not of the form"),
        ([f"{'x' * 33}:x"], "key 1 is not of the form"),
        (["k1:"], "has 0 bytes, not 32"),
        (["k1:AAAA"], "the secret of key 'k1' has 3 bytes, not 32"),
        (["k1:*"], "the secret of key 'k1' is no base64"),
        ([new_key("k1").text(), new_key("k1").text()], "two keys have the id 'k1'"),
    ],
)
def test_keys_that_are_none(items: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_keys(items)
    with pytest.raises(ConfigError, match=r"jobs\.security\.signing_keys is ") as caught:
        load_settings(environ={}, overrides={"jobs.security.signing_keys": items})
    secrets = [item.partition(":")[2] for item in items]
    assert not any(secret in str(caught.value) for secret in secrets if len(secret) > 1)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    key = new_key("k1")
    secret = key.text().partition(":")[2]
    shown = [
        repr(key),
        repr(SecuritySettings(encryption_keys=(key.text(),))),
        repr(Settings(security=SecuritySettings(signing_keys=(key.text(),)))),
    ]
    assert not any(secret in text or repr(key.secret) in text for text in shown)
    (tmp_path / "rf-jobs.toml").write_text(f'[jobs.security]\nencryption_keys = ["{key.text()}", "k2"]\n')
    with pytest.raises(ConfigError, match=r"\['k1:\*\*\*', '\*\*\*'\]") as caught:
        load_settings(tmp_path / "rf-jobs.toml", environ={})
    assert secret not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"RF_JOBS_SECURITY_ENCRYPTION_KEYS": secret})
    assert secret not in str(caught.value)


@pytest.mark.parametrize("value", [7, {"k1": "secret"}, [["k1:secret"]], None, "k1:secret,secret"])
def test_whatever_stands_there_is_masked(value: Any) -> None:
    assert "secret" not in str(mask_keys(value))


def run(*args: str, **env: str) -> str:
    result = CliRunner().invoke(app, list(args), env=env)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (key,) = parse_keys([run("keys", "new")])
    made = json.loads(run("keys", "new", "--id", "mine", "--json"))
    assert parse_keys([made["key"]])[0].name == made["name"]
    (tmp_path / "keys").write_text(made["key"])
    env = {"RF_JOBS_SECURITY_ENCRYPTION_KEYS": key.text(), "RF_JOBS_SECURITY_ENCRYPTION_KEYS_FILE": "keys"}
    assert json.loads(run("keys", "list", "--json", **env)) == {"encryption": [key.name, made["name"]], "signing": []}
    assert "no keys are configured" in run("keys", "list")
    listed = run("keys", "list", **env)
    assert "seals and opens" in listed
    for output in (listed, run("config", **env), run("config", "--json", **env)):
        assert key.id in output
        assert key.text() not in output
    result = CliRunner().invoke(app, ["keys", "new", "--id", "no good"])
    assert result.exit_code == 2
    assert "1 to 32 letters" in result.output


def test_keys_are_no_options_of_commands() -> None:
    assert "encryption-keys" not in run("worker", "--help").replace("encryption-keys-file", "")
    assert "--encryption-keys-file" in run("worker", "--help")
