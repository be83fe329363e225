"""Settings are checked at the start, each with a sentence that names the variable and shows no secret."""

import os
import pwd
from pathlib import Path

import pytest

from sourcegraph_analytics_mcp.cli.main import run
from sourcegraph_analytics_mcp.settings import Settings, SettingsError

HTTP = {
    "PUBLIC_URL": "https://here.example/mcp",
    "OAUTH_ISSUER": "https://issuer.example",
    "OAUTH_KEYS_URL": "https://issuer.example/keys",
}

FILES = ("DATA_DIR", "ACCESS_TOKEN_FILE", "TEAMS_FILE", "SEATS_FILE")


def read(**given: str) -> Settings:
    return Settings.from_env({f"SRC_ANALYTICS_{name}": value for name, value in given.items()})


@pytest.mark.parametrize(
    ("given", "variable", "says"),
    [
        ({"URL": "https://a.example/path"}, "URL", "bare address"),
        ({"URL": "https://me@a.example"}, "URL", "bare address"),
        ({"URL": "https://:planted@a.example"}, "URL", "bare address"),
        ({"URL": "https://me:planted@a.example"}, "URL", "bare address"),
        ({"URL": "https://@a.example"}, "URL", "bare address"),
        ({"URL": "https://a.example:planted"}, "URL", "bare address"),
        ({"URL": "https://a.example:0"}, "URL", "bare address"),
        ({"URL": "https://a.example:65536"}, "URL", "bare address"),
        ({"URL": "https://[planted"}, "URL", "bare address"),
        ({"URL": "https://pl anted.example"}, "URL", "bare address"),
        ({"URL": "https://pl\tanted.example"}, "URL", "bare address"),
        ({"URL": "https://a.example\x7f"}, "URL", "bare address"),
        ({"URL": "https://"}, "URL", "bare address"),
        ({"URL": "http://a.example"}, "URL", "https address"),
        ({"URL": "ftp://a.example"}, "URL", "https address"),
        (HTTP | {"PUBLIC_URL": "http://here.example/mcp"}, "PUBLIC_URL", "https address"),
        (HTTP | {"OAUTH_ISSUER": "https://issuer.example?x=1"}, "OAUTH_ISSUER", "https address"),
        (HTTP | {"OAUTH_KEYS_URL": "https://:planted@issuer.example/keys"}, "OAUTH_KEYS_URL", "https address"),
        (HTTP | {"OAUTH_KEYS_URL": "https://issuer.example:planted/keys"}, "OAUTH_KEYS_URL", "https address"),
        (HTTP | {"OAUTH_KEYS_URL": ""}, "OAUTH_KEYS_URL", "belong together"),
        (HTTP | {"OAUTH_ISSUER": ""}, "OAUTH_KEYS_URL", "belong together"),
        (HTTP | {"PUBLIC_URL": "https://here.example/"}, "PUBLIC_URL", "must end with /mcp"),
        (HTTP | {"PUBLIC_URL": "https://here.example/tools/mcp"}, "PUBLIC_URL", "no other path"),
        ({"INSTANCES": ","}, "INSTANCES", "at least one"),
        ({"INSTANCES": " , ,"}, "INSTANCES", "at least one"),
        ({"INSTANCE": "planted.example", "INSTANCES": "a.example, b.example"}, "INSTANCES", "must be among them"),
        *(({name: "~nobody-here/planted"}, name, "write the whole path") for name in FILES),
        (HTTP | {"CALLERS_FILE": "~nobody-here/planted"}, "CALLERS_FILE", "write the whole path"),
        *(({name: " sams_at_planted.x/y "}, name, "is a token, not a file: set SRC_") for name in FILES),
        ({"ACCESS_TOKEN": "planted"}, "ACCESS_TOKEN", "at least 12 characters"),
        ({"CAS_COOKIE": " planted-it \n"}, "CAS_COOKIE", "at least 12 characters"),
        ({"COOKIE_NAME": "MTcxNzAw_plantedDAwMHx"}, "COOKIE_NAME", "must be the name of a cookie, like cas"),
        ({"COOKIE_NAME": "planted=MTcxNzAwDAwMHxab"}, "COOKIE_NAME", "must be the name of a cookie, like cas"),
        ({"COOKIE_NAME": "planted0a1b2c3d4e5f60718"}, "COOKIE_NAME", "must be the name of a cookie, like cas"),
        ({"COOKIE_NAME": "plantedQwErTyUiOp"}, "COOKIE_NAME", "must be the name of a cookie, like cas"),
        ({"COOKIE_NAME": "plantedandverylongabcdef"}, "COOKIE_NAME", "must be the name of a cookie, like cas"),
        ({"COOKIE_NAME": "planted_word" * 5}, "COOKIE_NAME", "must be the name of a cookie, like cas"),
        ({"STATE_KEY": "planted-and-short"}, "STATE_KEY", "at least 32 bytes"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], variable: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(**given)
    assert str(error.value).startswith(f"SRC_ANALYTICS_{variable} cannot be used: ")
    assert says in str(error.value)
    assert "planted" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["cas", "accounts_session_v2", "__Host-cas", "__Secure-sgSession", "JSESSIONID", "connect-sid", "_oauth2_proxy_0",
     "src_analytics_cas_cookie", " session\n"],
)  # fmt: skip
def test_a_cookie_may_have_any_name_of_a_few_words(name: str) -> None:
    assert read(COOKIE_NAME=name).cookie_name == name.strip()


@pytest.mark.parametrize(
    ("url", "taken"),
    [(" https://A.example:8443/\n", "https://a.example:8443"), ("http://localhost:1", "http://localhost:1"),
     ("http://[::1]:1/", "http://[::1]:1"), ("HTTPS://A.example:443", "https://a.example"),
     ("https://a.example:", "https://a.example"), ("http://localhost:80", "http://localhost"),
     ("https://a.example:80", "https://a.example:80")],
)  # fmt: skip
def test_an_address_is_taken_with_its_port_and_without_its_slash(url: str, taken: str) -> None:
    assert read(URL=url).url == taken


def test_a_path_is_taken_without_blanks_around_it_and_from_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in FILES:
        assert getattr(read(**{name: f" {tmp_path}/x y\n"}), name.lower()) == tmp_path / "x y"
        assert getattr(read(**{name: "~/x"}), name.lower()) == tmp_path / "x"


@pytest.mark.parametrize("command", [[], ["doctor"], ["export", "list"], ["serve", "--http", "127.0.0.1:9"]])
@pytest.mark.parametrize("given", [{}, {"DATA_DIR": "~/x"}])
def test_who_has_no_home_directory_is_told_what_to_set(
    command: list[str],
    given: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(f"SRC_ANALYTICS_{name}", value)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert run(command) == 2
    told = capsys.readouterr().err
    assert told.startswith("SRC_ANALYTICS_DATA_DIR ")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_settings_for_http_that_belong_together_are_taken() -> None:
    settings = read(**HTTP, STATE_KEY="k" * 32)
    assert settings.public_url == HTTP["PUBLIC_URL"]
    assert settings.state_key is not None


def test_the_default_instance_is_taken_however_it_and_the_list_are_written() -> None:
    assert read(INSTANCE="https://A.example/", INSTANCES="b.example, a.example").instance == "a.example"
    assert read(INSTANCES="b.example").instance is None
    assert read(INSTANCE="a.example").instances == ()


def test_a_path_means_the_same_wherever_this_goes_from_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    settings = read(DATA_DIR="data", TEAMS_FILE="./teams.csv")
    assert (settings.data_dir, settings.teams_file) == (gone / "data", gone / "teams.csv")
    gone.rmdir()
    with pytest.raises(SettingsError, match=r"^SRC_ANALYTICS_DATA_DIR cannot be used: .* is not there any more; write"):
        read(DATA_DIR="data")
    assert read(DATA_DIR=str(tmp_path)).home == tmp_path


def test_a_key_that_is_no_text_is_refused_in_a_sentence() -> None:
    told = "SRC_ANALYTICS_STATE_KEY cannot be used: it must be at least 32 bytes long, in UTF-8."
    with pytest.raises(SettingsError) as refusal:
        read(STATE_KEY=os.fsdecode(b"\xff" * 40))
    assert str(refusal.value) == told
