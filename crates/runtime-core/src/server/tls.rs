//! TLS of the one port: certificate and key from PEM files, HTTP/2 and HTTP/1.1 by ALPN, client certificates when asked for.
use std::{path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

use super::{Error, TlsOptions};

/// Reads the files and builds the acceptor; each error names the file.
pub(super) fn acceptor(options: &TlsOptions) -> Result<TlsAcceptor, Error> {
    // Both `ring` and `aws-lc-rs` are linked through other crates, so the provider is named rather than guessed.
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(&options.cert, error))?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| fail(file, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| fail(file, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&options.cert)?;
    let key = PrivateKeyDer::from_pem_file(&options.key).map_err(|error| fail(&options.key, error))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| fail(&options.cert, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(|error| fail(file, error))?;
    if certificates.is_empty() {
        return Err(fail(file, "holds no certificate in PEM form"));
    }
    Ok(certificates)
}

fn fail(file: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Tls { file: file.to_owned(), reason: reason.to_string() }
}
