//! TLS of connections: one set of authorities for all of them, and refusals that name the certificate.
//!
//! ureq's own connector takes either the public authorities or private ones, and its errors are texts. This one takes both together, and
//! says whose certificate was presented.

use super::{
    error::HttpError,
    trust::{Trust, TrustPlaces},
};
use crate::model::{chain, visible_message};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error as RustlsError, OtherError,
    SignatureScheme, StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use std::{
    fmt,
    io::{self, Read, Write},
    sync::{Arc, OnceLock},
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};
use x509_cert::{Certificate, der::Decode};

/// Why a connection over TLS was not made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct TlsFault {
    /// The reason in words.
    pub(crate) text: String,
    /// Whether another try may succeed.
    pub(crate) temporary: bool,
}

/// A certificate with which pnb proves who it is, its chain, and the private key. `Debug` shows neither.
#[derive(Clone)]
pub struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl ClientIdentity {
    /// Reads the certificate, which its authorities may follow, and the private key, both in PEM.
    ///
    /// # Errors
    ///
    /// If there is no certificate or no key, or if the key is not the one of the certificate. The text completes "the certificate of this
    /// client cannot be used: ".
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.map_err(|_| "its file is not PEM".to_owned())?;
        if chain.is_empty() {
            return Err("there is no certificate in its file".to_owned());
        }
        // The text of the parser could quote the key.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "there is no private key in PEM in the file of the key".to_owned())?;
        let identity = Self {
            chain,
            key: Arc::new(key),
        };
        let tried = client_config(Trust::default(), Some(&identity));
        tried.map_err(|e| visible_message(&e.to_string()))?;
        Ok(identity)
    }

    /// The subject of the certificate; `None` if it cannot be read.
    pub fn subject(&self) -> Option<String> {
        let certificate = Certificate::from_der(self.chain.first()?).ok()?;
        Some(visible_message(&certificate.tbs_certificate.subject.to_string()))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({} certificates)", self.chain.len())
    }
}

/// A certificate that does not count.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Untrusted(String);

/// Wraps connections to `https` addresses in TLS.
pub(super) struct TlsConnector {
    /// Authorities of the caller, or the places where they are.
    authorities: Authorities,
    /// Made with the first connection: reading the machine's authorities takes milliseconds that other runs need not spend.
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

/// The authorities of a connector.
#[derive(Clone, Debug)]
pub(super) struct Authorities {
    /// The files and directories that name some.
    pub(super) places: TrustPlaces,
    /// Certificates in PEM that the caller has.
    pub(super) given: Option<Vec<u8>>,
    /// The certificate of this client.
    pub(super) identity: Option<ClientIdentity>,
}

impl Authorities {
    pub(super) fn load(&self) -> Result<Trust, HttpError> {
        let mut trust = Trust::load(&self.places)?;
        if let Some(pem) = &self.given {
            trust.add_pem("the given file", pem)?;
        }
        Ok(trust)
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl TlsConnector {
    pub(super) fn new(authorities: Authorities) -> Self {
        Self {
            authorities,
            config: OnceLock::new(),
        }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, ureq::Error> {
        let made = self.config.get_or_init(|| {
            let trust = self
                .authorities
                .load()
                .map_err(|e| format!("failed to {}", chain(&e)))?;
            client_config(trust, self.authorities.identity.as_ref())
                .map(Arc::new)
                .map_err(|e| e.to_string())
        });
        made.clone().map_err(|text| other(text, false))
    }
}

/// TLS for connections that are no requests of [`HttpClient`](super::HttpClient): the authorities of `places`, the certificate of this
/// client, and the names of the protocols inside.
///
/// # Errors
///
/// If the authorities cannot be read.
#[cfg(feature = "remote")]
pub(crate) fn tls_config(
    places: &TrustPlaces,
    identity: Option<&ClientIdentity>,
    inside: &[&[u8]],
) -> Result<Arc<ClientConfig>, HttpError> {
    let mut config = client_config(Trust::load(places)?, identity).map_err(|e| HttpError::Authorities {
        from: "this client".to_owned(),
        problem: visible_message(&e.to_string()),
    })?;
    config.alpn_protocols = inside.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn client_config(trust: Trust, identity: Option<&ClientIdentity>) -> Result<ClientConfig, RustlsError> {
    // The cryptography of TLS is that of signatures: one library.
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusted = trust.describe();
    let checks = WebPkiServerVerifier::builder_with_provider(Arc::new(trust.roots), Arc::clone(&provider))
        .build()
        .map_err(|e| RustlsError::General(e.to_string()))?;
    let verifier = NamingVerifier {
        checks,
        named: trust.named,
        trusted,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match identity {
        Some(identity) => config.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()),
        None => Ok(config.with_no_client_auth()),
    }
}

fn other(text: String, temporary: bool) -> ureq::Error {
    ureq::Error::Other(Box::new(TlsFault { text, temporary }))
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| other(format!("{host:?} is no name that a certificate can have"), false))?;
        let mut connection = ClientConnection::new(self.config()?, name).map_err(|e| fault(&e))?;
        let mut socket = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket).map_err(|e| {
            match e.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
                Some(error) => fault(error),
                None => ureq::Error::from(e),
            }
        })?;
        Ok(Some(Either::B(TlsTransport {
            buffers: LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size()),
            stream: StreamOwned::new(connection, socket),
        })))
    }
}

/// What an error of the handshake means.
fn fault(error: &RustlsError) -> ureq::Error {
    ureq::Error::Other(Box::new(tls_problem(error)))
}

/// What an error of TLS means, in words.
pub(crate) fn tls_problem(error: &RustlsError) -> TlsFault {
    use rustls::AlertDescription as Alert;
    let text = match error {
        RustlsError::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.to_string(),
        RustlsError::InvalidMessage(_) => format!("the server does not speak TLS at this port ({error})"),
        RustlsError::AlertReceived(alert @ Alert::CertificateRequired) => {
            format!("the server wants a certificate of this client ({alert:?})")
        }
        RustlsError::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA),
        ) => format!("the server does not accept the certificate of this client ({alert:?})"),
        error => format!("TLS failed: {error}"),
    };
    let temporary = matches!(
        error,
        RustlsError::AlertReceived(Alert::InternalError | Alert::UserCanceled)
    );
    TlsFault {
        text: visible_message(&text),
        temporary,
    }
}

/// A connection over TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// The checks of webpki, with refusals that name the certificate and the authorities in force.
#[derive(Debug)]
struct NamingVerifier {
    checks: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
    trusted: String,
}

impl NamingVerifier {
    fn refusal(&self, certificate: &CertificateDer<'_>, cause: &RustlsError) -> String {
        let presented = match Certificate::from_der(certificate) {
            Ok(parsed) => {
                let names = &parsed.tbs_certificate;
                format!(
                    "it presented the certificate of \"{}\", issued by \"{}\"",
                    names.subject, names.issuer
                )
            }
            Err(_) => "it presented a certificate that cannot be read".to_owned(),
        };
        match cause {
            RustlsError::InvalidCertificate(CertificateError::UnknownIssuer) => format!(
                "no trusted authority issued the server's certificate (UnknownIssuer): {presented}; trusted are {}",
                self.trusted
            ),
            RustlsError::InvalidCertificate(cause) => {
                format!("the server's certificate is not accepted: {cause}; {presented}")
            }
            cause => format!("the server's certificate is not accepted: {cause}; {presented}"),
        }
    }

    /// The verdict on a certificate that the caller named itself; `None` if it is not one of those. Such a certificate is often self-signed
    /// and an authority's, which the checks of a chain refuse. It needs the name and must be valid now.
    fn named(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<Result<(), RustlsError>> {
        if !self.named.iter().any(|named| named == certificate) {
            return None;
        }
        let validity = Certificate::from_der(certificate).ok()?.tbs_certificate.validity;
        let from = validity.not_before.to_unix_duration();
        let until = validity.not_after.to_unix_duration();
        let check = || {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            let (not_before, not_after) = (UnixTime::since_unix_epoch(from), UnixTime::since_unix_epoch(until));
            if now.as_secs() < from.as_secs() {
                return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
            }
            match now.as_secs() > until.as_secs() {
                true => Err(CertificateError::ExpiredContext { time: now, not_after }.into()),
                false => Ok(()),
            }
        };
        Some(check())
    }
}

impl ServerCertVerifier for NamingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let checked = self
            .checks
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(cause) = checked else { return checked };
        match self.named(end_entity, server_name, now).unwrap_or(Err(cause)) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(cause) => {
                let text = self.refusal(end_entity, &cause);
                Err(RustlsError::InvalidCertificate(CertificateError::Other(OtherError(
                    Arc::new(Untrusted(text)),
                ))))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.checks.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.checks.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.checks.supported_verify_schemes()
    }
}

/// The fault of TLS in an error, if it is one.
pub(super) fn tls_fault(error: &ureq::Error) -> Option<&TlsFault> {
    match error {
        ureq::Error::Other(inner) => inner.downcast_ref(),
        _ => None,
    }
}

/// Whether an error of a connection is one of the data that came over it: such a one comes again.
pub(super) fn is_broken_data(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
