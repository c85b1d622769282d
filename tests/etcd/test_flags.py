"""Each release's own flags, from one table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pekan.errors import UsageError
from pekan.etcd.flags import DEFAULTS, OPTIONS, OWNED, Release, arguments, release, spelling
from pekan.etcd.spec import Address, MemberSpec, TlsFiles

RELEASES = ("3.4.0", "3.4.23", "3.4.45", "3.5.0", "3.5.1", "3.5.16", "3.5.35", "3.6.0", "3.6.16", "3.7.0", "3.7.3")


@dataclass(frozen=True)
class Executable:
    path: str = "/opt/etcd"
    version: str = "3.5.1"


def member(name: str = "m1", version: str = "3.5.1", port: int = 20001, **options: str) -> MemberSpec:
    return MemberSpec(
        name=name,
        binary=Executable(version=version),
        data_dir=Path(f"/run/{name}/data"),
        log=Path(f"/run/{name}/etcd.log"),
        listen_client=Address("127.0.0.1", port),
        advertise_client=Address("127.0.0.1", port + 1),
        listen_peer=Address("127.0.0.1", port + 2),
        advertise_peer=Address("127.0.0.1", port + 3),
        options={name.replace("_", "-"): value for name, value in options.items()},
    )


def line(spec: MemberSpec) -> list[str]:
    return arguments(spec, (spec,), "token")


@pytest.mark.parametrize(
    ("option", "version", "flag"),
    [
        ("watch-progress-notify-interval", "3.4.11", "experimental-watch-progress-notify-interval"),
        ("watch-progress-notify-interval", "3.5.35", "experimental-watch-progress-notify-interval"),
        ("watch-progress-notify-interval", "3.6.0", "watch-progress-notify-interval"),
        ("compaction-batch-limit", "3.4.0", "experimental-compaction-batch-limit"),
        ("compaction-batch-limit", "3.7.3", "compaction-batch-limit"),
        ("compaction-sleep-interval", "3.5.16", "experimental-compaction-sleep-interval"),
        ("snapshot-catchup-entries", "3.5.14", "experimental-snapshot-catchup-entries"),
        ("snapshot-catchup-entries", "3.6.16", "snapshot-catchup-entries"),
        ("corrupt-check-time", "3.5.1", "experimental-corrupt-check-time"),
        ("initial-corrupt-check", "3.5.1", "experimental-initial-corrupt-check"),
        ("initial-corrupt-check", "3.6.0", "feature:InitialCorruptCheck"),
        ("compact-hash-check-enabled", "3.5.5", "experimental-compact-hash-check-enabled"),
        ("unsafe-no-fsync", "3.4.10", "unsafe-no-fsync"),
        ("snapshot-count", "3.7.0", "snapshot-count"),
    ],
)
def test_spelling_of_a_release(option: str, version: str, flag: str) -> None:
    """The release's own flag is used, and from 3.6 on never an experimental name."""
    assert spelling(version, option) == flag


@pytest.mark.parametrize(
    ("option", "version", "named"),
    [
        ("snapshot-catchup-entries", "3.5.1", "3.5.14, 3.6.0 and 3.7.0"),
        ("compact-hash-check-enabled", "3.4.45", "3.5.5, 3.6.0 and 3.7.0"),
        ("watch-progress-notify-interval", "3.4.3", "3.4.11, 3.5.0, 3.6.0 and 3.7.0"),
        ("lease-checkpoint-persist", "3.5.1", "3.4.20, 3.5.2, 3.6.0 and 3.7.0"),
        ("max-learners", "3.5.35", "3.6.0 and 3.7.0"),
        ("enable-v2", "3.6.0", "last series with it is 3.5"),
    ],
)
def test_an_option_the_release_lacks(option: str, version: str, named: str) -> None:
    """The error names the release asked for and the releases that have the option."""
    with pytest.raises(UsageError) as caught:
        spelling(version, option)
    assert f"etcd {version} has no option {option!r}" in str(caught.value)
    assert named in str(caught.value)


def test_an_unknown_option_lists_the_known() -> None:
    """A misspelt option is refused with the names there are and the way to pass any flag."""
    with pytest.raises(UsageError, match=r"unknown etcd option 'snapshot-cuont'.*snapshot-count.*extra flag"):
        spelling("3.5.1", "snapshot-cuont")


@pytest.mark.parametrize("version", RELEASES)
def test_no_experimental_name_reaches_a_release_that_renamed_it(version: str) -> None:
    """In 3.6 and 3.7 no option is spelt with experimental-, and none with a feature gate before them."""
    for option in OPTIONS:
        try:
            flag = spelling(version, option)
        except UsageError:
            continue
        assert flag.startswith("experimental-") <= (release(version)[:2] < (3, 6)), option
        assert flag.startswith("feature:") <= (release(version)[:2] >= (3, 6)), option
        assert flag not in OWNED


def test_the_table_is_in_order() -> None:
    """Every option names each minor series at most once, and every default exists in every release."""
    for option, spellings in OPTIONS.items():
        series = [first[:2] for each in spellings for first in each.first]
        assert len(series) == len(set(series)), option
    for version in RELEASES:
        assert [spelling(version, option) for option in DEFAULTS]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("3.5.1", (3, 5, 1)), ("v3.6.0-rc.1", (3, 6, 0)), ("3.4.23+git", (3, 4, 23)), ("3.8.0-alpha.0", (3, 8, 0))],
)
def test_release_numbers(text: str, parsed: tuple[int, int, int]) -> None:
    """Pre-releases and packaged builds count as the release they name."""
    assert release(text) == Release(*parsed)


def test_a_newer_series_is_spelt_as_the_newest_known() -> None:
    """A 3.8 that nobody has seen yet is given 3.7's flags."""
    assert spelling("3.8.0", "compaction-batch-limit") == "compaction-batch-limit"
    with pytest.raises(UsageError, match="any more"):
        spelling("3.8.0", "enable-v2")


@pytest.mark.parametrize("text", ["", "3.5", "latest", "3.3.27", "2.3.8"])
def test_what_is_no_drivable_release(text: str) -> None:
    """Text that is no version, and releases before 3.4, are refused."""
    with pytest.raises(UsageError):
        release(text)


def test_addresses_are_inputs_of_their_own() -> None:
    """Listening and advertised addresses, peer and client, reach four different flags, and peers are named as advertised."""
    one, two = member("m1", port=20001), member("m2", port=20011)
    given = arguments(one, (one, two), "run-7")
    assert given[0] == "/opt/etcd"
    assert "--listen-client-urls=http://127.0.0.1:20001" in given
    assert "--advertise-client-urls=http://127.0.0.1:20002" in given
    assert "--listen-peer-urls=http://127.0.0.1:20003" in given
    assert "--initial-advertise-peer-urls=http://127.0.0.1:20004" in given
    assert "--initial-cluster=m1=http://127.0.0.1:20004,m2=http://127.0.0.1:20014" in given
    assert "--initial-cluster-token=run-7" in given
    assert not [flag for flag in given if "cert" in flag]


def test_extra_flags_pass_through() -> None:
    """A raw flag, with or without dashes or value, goes to etcd as it is, after Pekan's own."""
    spec = replace(member(), extra_flags=("experimental-whatever=7", "--force-new-cluster"))
    assert line(spec)[-2:] == ["--experimental-whatever=7", "--force-new-cluster"]


@pytest.mark.parametrize("flag", ["data-dir=/elsewhere", "--name=x", "listen-client-urls=http://127.0.0.1:1"])
def test_owned_flags_are_refused(flag: str) -> None:
    """A raw flag that would take the member out of Pekan's hands is a usage error that names it."""
    with pytest.raises(UsageError, match=flag.lstrip("-").partition("=")[0]):
        line(replace(member(), extra_flags=(flag,)))


def test_feature_gates_share_one_flag() -> None:
    """Options that 3.6 makes feature gates, and gates given raw, end up in a single --feature-gates."""
    spec = member(version="3.6.16", initial_corrupt_check="true", compact_hash_check_enabled="true")
    given = line(replace(spec, extra_flags=("feature-gates=LeaseCheckpoint=true",)))
    assert [flag for flag in given if "feature" in flag] == [
        "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true,LeaseCheckpoint=true"
    ]


def test_options_replace_defaults() -> None:
    """A default given as an option is passed once, with the option's value."""
    given = line(member(logger="capnslog", snapshot_count="100"))
    assert [flag for flag in given if flag.startswith("--logger")] == ["--logger=capnslog"]
    assert "--snapshot-count=100" in given


def test_tls_flags() -> None:
    """With TLS every URL is https and peers prove themselves; clients are asked for a certificate only when required."""
    files = TlsFiles(*(Path(f"/run/tls/{number}") for number in range(7)))
    optional = line(replace(member(), tls=files))
    required = line(replace(member(), tls=replace(files, client_certificate_required=True)))
    assert not [flag for flag in optional if "=http://" in flag]
    assert "--peer-client-cert-auth=true" in optional
    # etcd demands client certificates as soon as it knows a client CA.
    assert not [flag for flag in optional if flag.startswith(("--trusted-ca-file", "--client-cert-auth"))]
    assert {"--client-cert-auth=true", f"--trusted-ca-file={files.ca}"} <= set(required)
