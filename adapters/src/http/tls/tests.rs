//! A private authority, servers it vouches for, and what clients make of them.

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::PrivatePkcs8KeyDer,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;
use crate::{
    AttemptResult, Failure, Health, Verdict,
    http::{
        RetryOn,
        testing::{Seen, Server, answer, api, api_config, attempt, target_config, write},
    },
};

/// A certificate authority of our own, its files in a folder that goes with it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// A client's configuration that trusts this authority alone.
    pub(crate) fn trusted(&self) -> TlsConfig {
        TlsConfig { ca: Some(self.folder.path().join("ca.pem")), cert: None, key: None }
    }

    /// The same, with a client certificate by this authority.
    fn trusted_with_identity(&self) -> TlsConfig {
        let (cert, key) = self.issue("client", ExtendedKeyUsagePurpose::ClientAuth);
        let path = |name| self.folder.path().join(name);
        std::fs::write(path("client.pem"), cert.pem()).unwrap();
        std::fs::write(path("client.key"), key.serialize_pem()).unwrap();
        TlsConfig {
            cert: Some(path("client.pem")),
            key: Some(path("client.key")),
            ..self.trusted()
        }
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Handshakes for a server called `name`.
    pub(crate) fn acceptor(&self, name: &str, clients: Option<&Authority>) -> TlsAcceptor {
        self.acceptor_for(name, clients, b"http/1.1")
    }

    /// The same, speaking `protocol`.
    pub(crate) fn acceptor_for(
        &self,
        name: &str,
        clients: Option<&Authority>,
        protocol: &[u8],
    ) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ClientCertVerifier> = match clients {
            None => Arc::new(NoClientAuth),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let roots = Arc::new(roots);
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .unwrap()
            }
        };
        let (cert, key) = self.issue(name, ExtendedKeyUsagePurpose::ServerAuth);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config).into()
    }
}

async fn serve(acceptor: TlsAcceptor) -> Server {
    Server::start(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream): Result<TlsStream<TcpStream>, _> = acceptor.accept(stream).await
            else {
                return;
            };
            while Seen::read(&mut stream).await.is_some() {
                write(&mut stream, answer("200 OK", "", "")).await;
            }
        }
    })
    .await
}

async fn call(server: &Server, tls: TlsConfig) -> Result<AttemptResult, Failure> {
    let mut config = api_config(&format!("https://localhost:{}/", server.address.port()));
    config.tls = Some(tls);
    let mut rules = target_config();
    rules.retry_on = vec![RetryOn::Connect];
    attempt(&api(&config), &rules).await.map(|receipt| receipt.result)
}

async fn refused(server: &Server, tls: TlsConfig) -> String {
    let failure = call(server, tls).await.unwrap_err();
    assert_eq!(failure.result, Some(AttemptResult::Tls), "{failure}");
    // Nothing was sent, as far as the other side's program is concerned.
    assert_eq!(failure.verdict, Verdict::Retry { after: None }, "{failure}");
    assert_eq!(failure.health, Health::Bad, "{failure}");
    failure.detail
}

#[tokio::test]
async fn u15_a_private_authority_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    let server = serve(authority.acceptor("localhost", None)).await;
    assert_eq!(call(&server, authority.trusted()).await.unwrap(), AttemptResult::Success);
}

#[tokio::test]
async fn u15_an_unknown_authority_a_wrong_name_and_no_tls_at_all_are_tls_errors() {
    let authority = Authority::new();
    let server = serve(authority.acceptor("localhost", None)).await;
    let detail = refused(&server, Authority::new().trusted()).await;
    assert!(detail.contains("no TLS connection: invalid peer certificate"), "{detail}");

    let misnamed = serve(authority.acceptor("elsewhere.example", None)).await;
    let detail = refused(&misnamed, authority.trusted()).await;
    assert!(detail.contains("not valid for name"), "{detail}");

    let plain = Server::start(|_, mut stream| async move {
        write(&mut stream, "HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
    })
    .await;
    refused(&plain, authority.trusted()).await;

    let closing = Server::start(|_, mut stream| async move {
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
    })
    .await;
    refused(&closing, authority.trusted()).await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_its_want_is_a_tls_error() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = serve(authority.acceptor("localhost", Some(&authority))).await;
    let with_identity = authority.trusted_with_identity();
    assert_eq!(call(&server, with_identity).await.unwrap(), AttemptResult::Success);

    let detail = refused(&server, authority.trusted()).await;
    assert!(detail.starts_with("the client certificate was refused: "), "{detail}");

    let foreign = TlsConfig { ca: authority.trusted().ca, ..other.trusted_with_identity() };
    refused(&server, foreign).await;
}

#[test]
fn files_that_cannot_work_are_named_with_their_key() {
    let authority = Authority::new();
    let path = |name: &str| Some(authority.folder.path().join(name));
    std::fs::write(path("empty.pem").unwrap(), "nothing here\n").unwrap();
    let good = authority.trusted_with_identity();
    let other = Authority::new();
    let stranger = other.trusted_with_identity();
    let none = TlsConfig::default;
    let cases = [
        (TlsConfig { ca: path("missing.pem"), ..none() }, "tls.ca: ", "missing.pem"),
        (TlsConfig { ca: path("empty.pem"), ..none() }, "tls.ca: ", "holds no certificate"),
        (TlsConfig { key: None, ..good.clone() }, "tls.cert and tls.key go together", ""),
        (TlsConfig { cert: None, ..good.clone() }, "tls.cert and tls.key go together", ""),
        (TlsConfig { key: path("empty.pem"), ..good.clone() }, "tls.key: ", "empty.pem"),
        (TlsConfig { key: stranger.key.clone(), ..good.clone() }, "tls.cert and tls.key: ", ""),
    ];
    for (config, start, word) in cases {
        let error = client_config(Some(&config)).unwrap_err().to_string();
        assert!(error.starts_with(start) && error.contains(word), "{error}");
    }
    assert!(client_config(Some(&good)).is_ok());
}
