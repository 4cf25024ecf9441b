"""Claims about settings: who wins, what is refused, and that a complaint helps without giving a secret away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from config import pools, settings, sources, values

KEY = "sk-canary-0123456789"
CERTIFICATE = Path(__file__).parent / "ca.pem"


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> settings.Settings:
    return sources.load(flags or {}, str(file) if file else None, environ or {})


def complaints(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> str:
    with pytest.raises(settings.SettingsError) as refused:
        load(flags, environ, file)
    return str(refused.value)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "dashseek.toml"


# Strength


def test_nothing_said_is_a_loopback_proxy_that_passes_keys_through() -> None:
    """Defaults; KEY-1; OPS-1."""
    chosen = load()
    assert (chosen.host, chosen.port, chosen.admin_host, chosen.admin_port) == ("127.0.0.1", 8080, "127.0.0.1", 8081)
    assert (chosen.auth, chosen.dialect, chosen.upstream) == ("passthrough", "deepseek", ())
    assert set(chosen.origins.values()) == {"default"}


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(toml: Path) -> None:
    toml.write_text("idle_timeout = 1\nwrite_timeout = 1\nbody_timeout = 1\n")
    chosen = load({"idle_timeout": "3"}, {"DASHSEEK_IDLE_TIMEOUT": "2", "DASHSEEK_WRITE_TIMEOUT": "2"}, toml)
    assert (chosen.idle_timeout, chosen.write_timeout, chosen.body_timeout, chosen.connect_timeout) == (3, 2, 1, 5)


def test_every_value_knows_where_it_was_said(toml: Path) -> None:
    toml.write_text('# ours\n\nhead_hold = 20\n[map]\na = "b"\n')
    origins = load({"idle_timeout": "3"}, {"DASHSEEK_WRITE_TIMEOUT": "2"}, toml).origins
    assert origins["idle_timeout"] == "--idle-timeout"
    assert origins["write_timeout"] == "DASHSEEK_WRITE_TIMEOUT"
    assert origins["head_hold"] == f"{toml}:3"
    assert origins["map"] == f"{toml}:4"
    assert origins["connect_timeout"] == "default"


def test_a_variable_names_the_file_and_a_flag_names_a_better_one(toml: Path, tmp_path: Path) -> None:
    toml.write_text("port = 1000\n")
    other = tmp_path / "other.toml"
    other.write_text("port = 2000\n")
    environ = {"DASHSEEK_CONFIG": str(toml)}
    assert load(environ=environ).port == 1000
    assert load(environ=environ, file=other).port == 2000


def test_tables_of_all_places_are_one_table_and_the_stronger_entry_wins(toml: Path) -> None:
    """MOD-5, MOD-3."""
    toml.write_text('[map]\nDeepSeek-V3 = "file"\nr = "file"\n')
    chosen = load({"map": ("deepseek-v3=flag", "x=y=z")}, {"DASHSEEK_MAP": "r=variable, s=variable"}, toml)
    assert chosen.map == {"deepseek-v3": "flag", "r": "variable", "s": "variable", "x": "y=z"}
    assert chosen.origins["map"] == f"{toml}:1, DASHSEEK_MAP, --map"


@pytest.mark.parametrize("said", ["a=b,c=d", '{"a": "b", "C": "d"}'], ids=["pairs", "json"])
def test_a_table_fits_into_a_variable(said: str) -> None:
    assert load(environ={"DASHSEEK_ALIASES": said}).aliases == {"a": "b", "c": "d"}


@pytest.mark.parametrize("said", ["http://a/v1/, https://b", '["http://a/v1/", "https://b"]'], ids=["commas", "json"])
def test_a_list_fits_into_a_variable_and_loses_its_trailing_slashes(said: str) -> None:
    assert load(environ={"DASHSEEK_UPSTREAM": said}).upstream == ("http://a/v1", "https://b")


def test_an_empty_variable_and_an_unused_flag_say_nothing() -> None:
    chosen = load({"port": None, "upstream": ()}, {"DASHSEEK_PORT": "", "DASHSEEK_UPSTREAM": "http://a"})
    assert (chosen.port, chosen.upstream) == (8080, ("http://a",))


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().port = 1


@pytest.mark.parametrize(
    ("name", "said", "meant"),
    [
        ("max_body_bytes", "8MiB", 8 * 1024 * 1024),
        ("max_event_bytes", "1000", 1000),
        ("log_level", "INFO", "info"),
        ("strict_thinking", "off", False),
        ("drain_delay", "0", 0),
        ("port", "0", 0),
        ("model_route", "/x/{model}", "/x/{model}"),
        ("model_route", "off", None),
        ("limits", "rpm=60, TPM=100_000", values.Limit(rpm=60, tpm=100_000)),
        ("key_limits", "concurrency=8 burst=2", values.Limit(concurrency=8, burst=2)),
        ("model_limits", ("DeepSeek-R1=rpm=6",), {"deepseek-r1": values.Limit(rpm=6)}),
        ("journal_file", "new.jsonl", Path("new.jsonl")),
    ],
)
def test_a_value_is_read_as_an_operator_writes_it(name: str, said: str, meant: object) -> None:
    assert getattr(load({name: said}), name) == meant


def test_the_admin_port_follows_the_port() -> None:
    """OPS-1; with port 0 both are picked."""
    assert load({"port": "9000"}).admin_port == 9001
    assert load({"port": "0"}).admin_port == 0
    assert load({"port": "9000", "admin_port": "7"}).admin_port == 7


# Complaints


def test_all_mistakes_of_all_places_are_told_at_once(toml: Path) -> None:
    toml.write_text('log_format = "jsn"\nidel_timeout = 3\n')
    with pytest.raises(settings.SettingsError) as refused:
        sources.load(
            {"port": "x"}, str(toml), {"DASHSEEK_HEAD_HOLD": "0", "DASHSEEK_WRITE_TIMOUT": "1"}, needs=("upstream",)
        )
    assert sorted(refused.value.lines) == sorted(
        [
            f"idel_timeout ({toml}:2): there is no such setting; did you mean idle_timeout?",
            "write_timout (DASHSEEK_WRITE_TIMOUT): there is no such setting; did you mean write_timeout?",
            "upstream: is missing: say it in --upstream, DASHSEEK_UPSTREAM or the file",
            f"log_format ({toml}:1): must be 'auto', 'json' or 'console'; did you mean json?",
            "port (--port): must be a whole number",
            "head_hold (DASHSEEK_HEAD_HOLD): must be greater than 0",
        ]
    )


def test_what_is_missing_or_unknown_is_told_of_settings_that_are_else_right() -> None:
    with pytest.raises(settings.SettingsError, match=r"^upstream: is missing"):
        sources.load({}, None, {}, needs=("upstream",))
    assert complaints(environ={"DASHSEEK_QQQQQQQQ": "1"}) == "qqqqqqqq (DASHSEEK_QQQQQQQQ): there is no such setting"


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("upstream", ("ftp://a",), "must begin with http:// or https://"),
        ("upstream", ("http:///v1",), "name a host"),
        ("upstream", ("http://a/?x=1",), "no query"),
        ("upstream", ("http://a/#x",), "no fragment"),
        ("upstream", (f"http://u:{KEY}@a",), "must not hold a user or password"),
        ("upstream", ("http://a b",), "without spaces"),
        ("upstream", ("http://a:b",), "a port from 0 to 65535"),
        ("upstream", ("http://[a]",), "must be a URL"),
        ("upstream", ("https://a/chat/completions/",), "leave /chat/completions out"),
        ("map", ("deepseek-v3",), "must be NAME=VALUE"),
        ("map", ("=x",), "must be NAME=VALUE"),
        ("model_route", "/models/", "one {model} in it"),
        ("model_route", "models/{model}", "one {model} in it"),
        ("model_route", "/{model}/{model}", "one {model} in it"),
        ("model_route", "/{a}/{a}/{model}", "one {model} in it"),
        ("idle_timeout", "inf", "finite"),
        ("idle_timeout", "-1", "greater than 0"),
        ("drain_delay", "-1", "greater than or equal to 0"),
        ("port", "65536", "less than or equal to 65535"),
        ("admin_port", "8080", "must not be the port of the calls"),
        ("max_body_bytes", "8 parsecs", "must be a number of bytes"),
        ("max_body_bytes", "many", "must be a number of bytes"),
        ("max_body_bytes", "0", "greater than 0"),
        ("keys_file", "/nowhere", "is not a file"),
        ("log_format", "yaml", "must be 'auto', 'json' or 'console'"),
        ("strict_thinking", "maybe", "must be true or false"),
        ("limits", "rpm=0", "whole number, 1 or more"),
        ("limits", "rpm=many", "whole number, 1 or more"),
        (
            "limits",
            "rps=1",
            "must name one or more of concurrency, burst, rpm, tpm, tpd, tokens_month, cost_day, cost_month",
        ),
        ("limits", "", "must be NAME=VALUE"),
        ("limits", "tpd=10 tpd=20", "says tpd twice"),
        ("limits", "tpd=10 rpm=1,TPD=10", "says tpd twice"),
        ("model_limits", ("deepseek-v3=rpm=1 rpm=2",), "says rpm twice"),
        ("model_limits", '{"deepseek-v3": {"rpm": 1, "rpm": 2}}', "says rpm twice"),
        ("map", "deepseek-v3=a,DeepSeek-V3=b", "says one name twice"),
        ("map", '{"deepseek-v3": "a", "deepseek-v3": "b"}', "says one name twice"),
        ("model_limits", ("deepseek-v3",), "must be NAME=VALUE"),
        ("journal_file", "/nowhere/usage.jsonl", "in a directory that is there"),
        ("journal_file", "/", "must be a file"),
        ("journal_fsync", "often", "must be 'never', 'interval' or 'always'"),
        ("host", "", "must not be empty"),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, said: object, told: str) -> None:
    line = complaints({name: said})
    assert line.startswith(name)
    assert f"({settings.FLAGS[name]})" in line
    assert told in line


WRONG = (
    *("true", "7", "-1", "1.5", "99999999", "nan", "1979-05-27"),
    *('""', '"x y"', '"[x"', '"{x"', "[]", "[1]", '[["a"]]', "{}", "{a = 1}", "[{a = 1}]"),
)


@pytest.mark.parametrize("name", [*settings.NAMES, *(f"pools.{field}" for field in sorted(pools.FIELDS))])
def test_what_is_wrong_is_told_in_our_own_words(name: str, tmp_path: Path) -> None:
    """Whatever value is said: none of the words of the libraries that find it wrong."""
    file = tmp_path / "dashseek.toml"
    for value in WRONG:
        if name.startswith("pools."):
            said = {"name": '"a"', "urls": '"http://a"', name.removeprefix("pools."): value}
            file.write_text("[[pools]]\n" + "".join(f"{field} = {text}\n" for field, text in said.items()))
        else:
            beside = "" if name == "pools" else '[[pools]]\nname = "a"\nurls = "http://a"\n'
            file.write_text(f"{name} = {value}\n{beside}")
        try:
            sources.load({}, str(file), {})
        except settings.SettingsError as refused:
            for line in refused.lines:
                assert not re.search(r"should|valid|instance|Expecting|validation|parse", line.partition(")")[2]), line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("idle_timeout = true", "must be a number, not true or false"),
        ("port = true", "must be a number, not true or false"),
        ("max_body_bytes = true", "must be a number, not true or false"),
        ("upstream = 3", "must be text or a list of texts"),
        ("upstream = [3]", "must be text"),
        ("map = 3", "must be a table, or NAME=VALUE"),
        ("map = {a = 3}", "must be text"),
        ('map = {a = ""}', "must not be empty"),
        ("models_file = 3", "must be a path"),
        ("limits = 3", "must be"),
        ("limits = {rpm = true}", "whole number, 1 or more"),
        ("limits = {rpm = 1.5}", "whole number, 1 or more"),
        ("limits = {}", "must name one or more of"),
        ("limits = {rpm = 1, RPM = 2}", "says rpm twice"),
        ('map = {"deepseek-v3" = "a", "DeepSeek-V3" = "b"}', "says one name twice"),
        ("dialect = 3", "must be 'deepseek'"),
        ("[server]\nport = 1", "server"),
    ],
)
def test_a_file_is_held_to_types(toml: Path, text: str, told: str) -> None:
    toml.write_text(text)
    line = complaints(file=toml)
    assert f"({toml}:1)" in line
    assert told in line


def test_a_file_that_is_not_there_or_not_toml_is_told_alone(toml: Path) -> None:
    assert complaints({"port": "x"}, file=toml) == f"{toml}: cannot be read: No such file or directory"
    toml.write_text("port 8080")
    assert complaints({"port": "x"}, file=toml).startswith(f"{toml}: is not TOML: ")
    toml.write_bytes(b"\xff")
    assert "is not TOML" in complaints(file=toml)


def test_the_variables_kubernetes_sets_for_a_service_of_our_name_are_not_ours() -> None:
    """A Service `dashseek` would else keep every pod beside it from starting."""
    links = {
        "DASHSEEK_PORT": "tcp://10.0.0.7:80",
        "DASHSEEK_ADMIN_PORT": "tcp://10.0.0.8:81",
        "DASHSEEK_SERVICE_HOST": "10.0.0.7",
        "DASHSEEK_SERVICE_PORT": "80",
        "DASHSEEK_SERVICE_PORT_HTTP": "80",
        "DASHSEEK_PORT_80_TCP": "tcp://10.0.0.7:80",
        "DASHSEEK_PORT_80_TCP_PROTO": "tcp",
        "DASHSEEK_PORT_80_TCP_PORT": "80",
        "DASHSEEK_PORT_80_TCP_ADDR": "10.0.0.7",
    }
    chosen = load(environ=links)
    assert (chosen.port, chosen.admin_port) == (8080, 8081)


# Keys


def test_a_key_comes_from_a_variable_or_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    from_file = load({"upstream_api_key_file": str(path)})
    assert from_file.upstream_api_key == load(environ={"DASHSEEK_UPSTREAM_API_KEY": KEY}).upstream_api_key
    assert from_file.upstream_api_key == SecretStr(KEY)
    assert from_file.origins["upstream_api_key"] == "--upstream-api-key-file"


def test_a_key_in_the_configuration_file_is_refused_and_no_flag_takes_one(toml: Path) -> None:
    toml.write_text(f'upstream_api_key = "{KEY}"\n')
    assert complaints(file=toml) == (
        f"upstream_api_key ({toml}:1): a secret does not belong here: "
        "say it in DASHSEEK_UPSTREAM_API_KEY, or in a file of its own named by upstream_api_key_file"
    )
    assert "upstream_api_key" not in settings.FLAGS


def test_two_keys_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    line = complaints({"upstream_api_key_file": str(path)}, {"DASHSEEK_UPSTREAM_API_KEY": KEY})
    assert "is said twice" in line


@pytest.mark.parametrize("content", ["", "two words", "a\nb", "schlüssel"], ids=["empty", "space", "lines", "umlaut"])
def test_a_key_that_cannot_be_a_header_is_refused_at_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content, "utf-8")
    line = complaints({"upstream_api_key_file": str(path)})
    assert line == "upstream_api_key (--upstream-api-key-file): must be printable ASCII without spaces"


def test_a_file_that_cannot_be_opened_is_told_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "upstream_ca_file (--upstream-ca-file): cannot be read: Permission denied" in complaints(
        {"upstream_ca_file": str(path)}
    )


def test_a_ca_file_that_holds_no_certificate_is_refused_before_anything_is_asked() -> None:
    """OPS-3."""
    assert "upstream_ca_file (--upstream-ca-file): holds no certificate in PEM" in complaints(
        {"upstream_ca_file": __file__}
    )


def test_no_key_is_shown_by_settings_or_by_any_complaint(toml: Path) -> None:
    """MET-4: whatever a key was mistaken for, no text of ours repeats it."""
    chosen = load(environ={"DASHSEEK_UPSTREAM_API_KEY": KEY})
    assert KEY not in repr(chosen) + str(chosen) + chosen.model_dump_json()
    with pytest.raises(ValidationError) as raw:
        settings.Settings(upstream=(KEY,), host="")
    assert KEY not in str(raw.value)


@pytest.mark.parametrize(
    "name", sorted({*settings.VARIABLES} - {"host", "admin_host", "aliases", "map", "journal_file"})
)
def test_a_key_in_the_wrong_place_is_refused_without_being_repeated(name: str) -> None:
    """MET-4; two keys and a space, so that no setting can take it for a value of its own."""
    with pytest.raises(settings.SettingsError) as refused:
        load(environ={settings.VARIABLES[name]: f"{KEY} {KEY}"})
    assert KEY not in str(refused.value) + repr(refused.value.__cause__)


@given(st.sampled_from([*settings.VARIABLES]), st.text(st.characters(codec="utf-8"), min_size=1))
def test_whatever_is_said_is_a_value_or_a_complaint_that_does_not_repeat_it(name: str, said: str) -> None:
    """MET-4; no text an operator can write ends in another exception."""
    told = ""
    try:
        load(environ={settings.VARIABLES[name]: said + "\N{SNOWMAN}" + said})
    except settings.SettingsError as error:
        told = str(error)
    assert "\N{SNOWMAN}" not in told


@pytest.mark.parametrize(
    "url",
    ["localhost", "http://a", "redis://", "redis://a:b", "redis://a:0", "unix://", "redis://a b", "redis://[a"],
)
def test_a_redis_that_cannot_be_is_refused_without_being_repeated(url: str) -> None:
    """LIM-1; the URL may hold a password."""
    line = complaints(environ={"DASHSEEK_REDIS_URL": url})
    assert line == (
        "redis_url (DASHSEEK_REDIS_URL): must be redis://HOST:PORT/NUMBER, rediss://… for TLS, or unix:///PATH"
    )


def test_a_redis_url_is_a_secret(toml: Path) -> None:
    """LIM-1, MET-4."""
    url = f"redis://:{KEY}@limits:6379/0"
    chosen = load(environ={"DASHSEEK_REDIS_URL": url})
    assert chosen.redis_url == SecretStr(url)
    assert KEY not in repr(chosen)
    toml.write_text(f'redis_url = "{url}"\n')
    assert complaints(file=toml) == (
        f"redis_url ({toml}:1): a secret does not belong here: say it in DASHSEEK_REDIS_URL"
    )


def test_limits_of_a_file_are_tables_or_words(toml: Path) -> None:
    """LIM-1."""
    toml.write_text('limits = "rpm=1"\nkey_limits = {rpm = 2}\n[model_limits]\n"deepseek-v3.1" = {tpm = 3}\n')
    chosen = load(file=toml)
    assert (chosen.limits, chosen.key_limits) == (values.Limit(rpm=1), values.Limit(rpm=2))
    assert chosen.model_limits == {"deepseek-v3.1": values.Limit(tpm=3)}


# Callers


@pytest.mark.parametrize(
    ("flags", "environ", "auth"),
    [
        ({}, {}, "passthrough"),
        ({}, {"DASHSEEK_UPSTREAM_API_KEY": KEY}, "any"),
        ({"auth": "passthrough"}, {"DASHSEEK_UPSTREAM_API_KEY": KEY}, "passthrough"),
        ({"auth": "none"}, {}, "none"),
    ],
)
def test_who_may_call_follows_from_whose_key_there_is(
    flags: Mapping[str, str], environ: Mapping[str, str], auth: str
) -> None:
    """KEY-1."""
    assert load(flags, environ).auth == auth


def test_a_keys_file_means_keys_and_keys_mean_a_keys_file(tmp_path: Path) -> None:
    """KEY-1."""
    path = tmp_path / "keys"
    path.write_text("")
    assert load({"keys_file": str(path), "host": "0.0.0.0"}).auth == "keys"
    assert "go together" in complaints({"auth": "keys"})
    assert "go together" in complaints({"auth": "any", "keys_file": str(path)})


@pytest.mark.parametrize("auth", ["any", "none"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "proxy.example"])
def test_an_open_door_on_an_open_street_is_refused_with_the_way_out(auth: str, host: str) -> None:
    """KEY-1."""
    line = complaints({"auth": auth, "host": host})
    assert line.startswith("host (--host): ")
    assert "bind 127.0.0.1, or say --auth passthrough" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_an_open_door_is_fine_at_home(host: str) -> None:
    """KEY-1."""
    assert load({"auth": "none", "host": host}).host == host


def test_passed_through_keys_may_come_from_everywhere() -> None:
    """KEY-1."""
    assert load({"host": "0.0.0.0"}).host == "0.0.0.0"


# The table itself


def test_every_setting_stands_in_one_section_and_says_what_it_is() -> None:
    listed = [name for names in settings.SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(set(settings.Settings.model_fields) - {"origins"})
    for name in settings.NAMES:
        assert (settings.Settings.model_fields[name].description or "").endswith("."), name


def test_every_wait_of_the_specification_is_a_setting_in_seconds() -> None:
    """ERR-5, SSE-8, SSE-11, OPS-2."""
    waits = {name for name, field in settings.Settings.model_fields.items() if field.title == "SECONDS"}
    assert waits >= {
        *("header_timeout", "body_timeout", "connect_timeout", "first_token_timeout", "idle_timeout"),
        *("write_timeout", "total_timeout", "drain_timeout", "drain_delay", "usage_timeout", "head_hold", "heartbeat"),
    }
    assert all(re.fullmatch(r"--[a-z-]+", settings.FLAGS[name]) for name in waits)


SAID = (
    {"upstream": ("https://a/v1", "http://b"), "map": ("deepseek-v3=My Model", "x.y=z"), "aliases": ("ä=deepseek-v3",)},
    {"model_route": "off", "strict_thinking": False, "limits": "rpm=60 tpm=1000", "model_limits": ("a=rpm=1",)},
    {"idle_timeout": "0.25", "total_timeout": "1e9", "max_body_bytes": "1500001", "journal_file": 'a "b".jsonl'},
    {"upstream_ca_file": str(CERTIFICATE), "port": "0", "drain_delay": "0"},
)


@pytest.mark.parametrize("said", SAID)
def test_what_is_shown_is_a_file_that_says_the_same(said: dict[str, object], tmp_path: Path) -> None:
    """`dashseek check --print`."""
    chosen = load(said)
    file = tmp_path / "shown.toml"
    file.write_text("\n".join(filter(None, (settings.shown(chosen, name) for name in settings.NAMES))), "utf-8")
    again = load(file=file)
    assert again.model_dump(exclude={"origins"}) == chosen.model_dump(exclude={"origins"})


def test_a_secret_is_shown_to_be_there_and_no_more() -> None:
    chosen = load(environ={"DASHSEEK_UPSTREAM_API_KEY": KEY, "DASHSEEK_REDIS_URL": "redis://:hush@a:1"})
    assert settings.shown(chosen, "upstream_api_key") == "# upstream_api_key = (secret)"
    assert "hush" not in (settings.shown(chosen, "redis_url") or "")


@pytest.mark.parametrize("name", ["keys_file", "journal_file", "models_file", "upstream_ca_file"])
@pytest.mark.parametrize("said", ["a" * 300, "a/" * 3_000], ids=["a name", "a path"])
def test_a_name_longer_than_a_files_can_be_is_a_complaint(name: str, said: str) -> None:
    """The system says so as an error, wherever it is looked for."""
    with pytest.raises(settings.SettingsError) as refused:
        sources.load({"upstream": ("http://a",), name: said}, None, {})
    assert "is longer than the name of a file can be" in str(refused.value)
