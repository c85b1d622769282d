"""Certificates made for one run, so that a cluster can be driven over TLS.

::

    run's own CA ──signs──> server   127.0.0.1, ::1, localhost, MEMBER_NETWORK   server and client use (etcd's gateway dials it)
                 ├────────> peer     127.0.0.1, ::1, localhost, MEMBER_NETWORK   server and client use (each peer is both)
                 └────────> client   nothing, or a user's name                   client use

Server and client have no common name unless asked: where etcd demands client certificates, it takes a common name for a
user, and its HTTP gateway, which shows the server's own certificate, would act as that user. Without one, a request is
judged by its token alone.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pekan.errors import ClusterFailure, EnvironmentFailure
from pekan.etcd.spec import TlsFiles

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

# Faults may set a member's clock years off; that shall show what etcd does, not that its certificate has expired.
VALID_BEFORE = datetime.timedelta(days=3650)
VALID_AFTER = datetime.timedelta(days=36500)

HOST_NAMES = ("localhost",)
HOST_ADDRESSES = ("127.0.0.1", "::1")
MEMBER_NETWORK = ipaddress.ip_network("198.18.0.0/22")
"""For members in namespaces of their own (RFC 6890: for tests of devices). etcd looks for a peer's address in its certificate, whichever
side dials, so that all of them are in every certificate: 1,022, which makes it 6 KB long and is enough for members that come and go for
five hours, 200 of them in each."""


def make_certificates(directory: Path, client_user: str = "", client_certificate_required: bool = False) -> TlsFiles:
    """Make a CA and the three certificates in `directory` (created, mode 0700; files 0600, PEM).

    `client_user` becomes the client certificate's common name, which etcd takes for the user where certificates are
    required and authentication is enabled. `EnvironmentFailure` without `cryptography`, `ClusterFailure` when the
    directory cannot be written.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise EnvironmentFailure("TLS needs the Python package cryptography, which is not installed: pip install 'pekan[hunt]'") from error
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("pekan run CA", authority_key, None, authority_key, serves=False)
        ca = directory / "ca.crt"
        _write(ca, _pem(authority))
        made = {}
        for role in ("server", "peer", "client"):
            key = ec.generate_private_key(ec.SECP256R1())
            name = client_user if role == "client" else ""
            made[role] = (directory / f"{role}.crt", directory / f"{role}.key")
            _write(made[role][0], _pem(_certificate(name, key, authority, authority_key, serves=role != "client")))
            _write(made[role][1], _key_pem(key))
    except OSError as error:
        raise ClusterFailure(f"cannot write certificates under {directory}: {error.strerror}") from error
    return TlsFiles(ca, *made["server"], *made["peer"], *made["client"], client_certificate_required)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    serves: bool,
) -> x509.Certificate:
    """A certificate for `key`; the CA's own when there is no issuer. Without a name, the alternative names are critical."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    is_authority = issuer is None
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID_BEFORE)
        .not_valid_after(now + VALID_AFTER)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not is_authority:
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if serves:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        hosts = [
            *(x509.DNSName(host) for host in HOST_NAMES),
            *(x509.IPAddress(ipaddress.ip_address(host)) for host in HOST_ADDRESSES),
            *(x509.IPAddress(host) for host in MEMBER_NETWORK.hosts()),
        ]
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=not name)
    return builder.sign(signer, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, unencrypted: etcd 3.4 (Go 1.12 and later) reads it."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """A file of mode 0600 from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
