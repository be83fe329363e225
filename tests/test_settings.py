"""Settings are checked at the start, each with a sentence that names the variable and shows no secret."""

import pytest

from sourcegraph_analytics_mcp.settings import Settings, SettingsError

HTTP = {
    "PUBLIC_URL": "https://here.example/mcp",
    "OAUTH_ISSUER": "https://issuer.example",
    "OAUTH_KEYS_URL": "https://issuer.example/keys",
}


def read(**given: str) -> Settings:
    return Settings.from_env({f"SRC_ANALYTICS_{name}": value for name, value in given.items()})


@pytest.mark.parametrize(
    ("given", "variable", "says"),
    [
        ({"URL": "https://a.example/path"}, "URL", "bare address"),
        ({"URL": "https://me@a.example"}, "URL", "bare address"),
        (HTTP | {"PUBLIC_URL": "http://here.example/mcp"}, "PUBLIC_URL", "https address"),
        (HTTP | {"OAUTH_ISSUER": "https://issuer.example?x=1"}, "OAUTH_ISSUER", "https address"),
        (HTTP | {"OAUTH_KEYS_URL": ""}, "OAUTH_KEYS_URL", "belong together"),
        (HTTP | {"OAUTH_ISSUER": ""}, "OAUTH_KEYS_URL", "belong together"),
        (HTTP | {"PUBLIC_URL": "https://here.example/"}, "PUBLIC_URL", "must end with /mcp"),
        ({"STATE_KEY": "planted-and-short"}, "STATE_KEY", "at least 32 bytes"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], variable: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(**given)
    assert str(error.value).startswith(f"SRC_ANALYTICS_{variable} cannot be used: ")
    assert says in str(error.value)
    assert "planted" not in str(error.value)


def test_settings_for_http_that_belong_together_are_taken() -> None:
    settings = read(**HTTP, STATE_KEY="k" * 32)
    assert settings.public_url == HTTP["PUBLIC_URL"]
    assert settings.state_key is not None
