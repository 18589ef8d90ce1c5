//! A certificate authority of the tests' own, and a TLS server with a certificate of it for this machine.
//!
//! Source: RFC 5280; the structures are written in DER by hand, because each test makes its keys anew.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use std::sync::Arc;

const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
const ALTERNATIVE_NAMES: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];

/// An authority.
pub(crate) struct Authority {
    key: EcdsaKeyPair,
    /// Its name, of which no other authority has one.
    name: String,
    certificate: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let (key, _) = new_key();
        let extension = sequence(&[
            BASIC_CONSTRAINTS,
            &der(0x01, &[0xff]),
            &der(0x04, &sequence(&[&der(0x01, &[0xff])])),
        ]);
        let name = format!("tests {}", hex::encode(&key.public_key().as_ref()[1..9]));
        let certificate = certificate(&key, &name, &public_key(&key), &name, &extension);
        Self { key, name, certificate }
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> Vec<u8> {
        pem_of(&self.certificate).into_bytes()
    }

    /// A new certificate for 127.0.0.1 and localhost, which a server or a client may show, and its key, both in PEM.
    pub(crate) fn pair(&self, subject: &str) -> (Vec<u8>, Vec<u8>) {
        let (key, pkcs8) = new_key();
        let names = sequence(&[&der(0x87, &[127, 0, 0, 1]), &der(0x82, b"localhost")]);
        let extension = sequence(&[ALTERNATIVE_NAMES, &der(0x04, &names)]);
        let own = certificate(&self.key, &self.name, &public_key(&key), subject, &extension);
        (pem_of(&own).into_bytes(), pem(&pkcs8, "PRIVATE KEY").into_bytes())
    }

    /// A certificate for `key`, a public key with its algorithm, in PEM.
    pub(crate) fn issue(&self, subject: &str, key: &[u8]) -> String {
        let extension = sequence(&[BASIC_CONSTRAINTS, &der(0x04, &sequence(&[]))]);
        pem_of(&certificate(&self.key, &self.name, key, subject, &extension))
    }

    /// A server with a new certificate for 127.0.0.1 and localhost.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server_at(&[127, 0, 0, 1], rustls::ALL_VERSIONS)
    }

    /// A server with a new certificate for this address and localhost, which speaks these versions.
    pub(crate) fn server_at(
        &self,
        address: &[u8; 4],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let (key, pkcs8) = new_key();
        let names = sequence(&[&der(0x87, address), &der(0x82, b"localhost")]);
        let extension = sequence(&[ALTERNATIVE_NAMES, &der(0x04, &names)]);
        let own = certificate(&self.key, &self.name, &public_key(&key), "server", &extension);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(own)], PrivatePkcs8KeyDer::from(pkcs8).into());
        Arc::new(config.expect("the key is the certificate's"))
    }
}

fn new_key() -> (EcdsaKeyPair, Vec<u8>) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("random numbers");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref());
    (key.expect("its own form"), pkcs8.as_ref().to_vec())
}

/// The public key with its algorithm.
fn public_key(key: &EcdsaKeyPair) -> Vec<u8> {
    sequence(&[&sequence(&[EC_PUBLIC_KEY, P256]), &bits(key.public_key().as_ref())])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], bytes].concat())
}

fn pem_of(certificate: &[u8]) -> String {
    pem(certificate, "CERTIFICATE")
}

fn pem(bytes: &[u8], label: &str) -> String {
    let text = base64(bytes);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn certificate(signer: &EcdsaKeyPair, issuer: &str, key: &[u8], subject: &str, extension: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[ECDSA_SHA256]);
    let name = |text: &str| {
        let attribute = sequence(&[COMMON_NAME, &der(0x0c, text.as_bytes())]);
        sequence(&[&der(0x31, &attribute)])
    };
    let body = sequence(&[
        &der(0xa0, &der(0x02, &[2])),
        &der(0x02, &[1]),
        &algorithm,
        &name(issuer),
        &sequence(&[&der(0x17, b"200101000000Z"), &der(0x18, b"20990101000000Z")]),
        &name(subject),
        key,
        &der(0xa3, &sequence(&[extension])),
    ]);
    let signature = signer.sign(&SystemRandom::new(), &body).expect("signed");
    sequence(&[&body, &algorithm, &bits(signature.as_ref())])
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

/// A value with its tag and length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let [high, low] = length.to_be_bytes();
    let head = match length {
        0..=127 => vec![tag, low],
        128..=255 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}

/// Text of bytes, as in PEM.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (number >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() {
                char::from(DIGITS[index as usize])
            } else {
                '='
            });
        }
    }
    text
}
