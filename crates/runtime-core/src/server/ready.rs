//! The ready file: absent until the server answers, then its address, gone again when it drains.
use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Error;

/// The address that a program on this machine connects to: loopback when the server listens on every address.
pub(super) fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Asks the server for `/healthz` over a connection of its own. With TLS it only connects: the handshake is the client's matter.
pub(super) async fn probe(address: SocketAddr, plain: bool) -> Result<(), Error> {
    let address = local(address);
    let failed = |reason: String| Error::NotAnswering { address: address.to_string(), reason };
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        if !plain {
            return Ok(String::from("HTTP/1.1 200"));
        }
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), exchange)
        .await
        .map_err(|_| failed("no answer within 10 s".into()))?
        .map_err(|error| failed(error.to_string()))?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    Err(failed(answer.lines().next().unwrap_or("an empty answer").to_owned()))
}

/// Writes the address under a temporary name, syncs it, and renames it, so that a reader sees all of it or nothing.
pub(super) fn write(path: &Path, address: SocketAddr) -> Result<(), Error> {
    let attempt = || -> io::Result<()> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(file, "{}", local(address))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| Error::ReadyFile { path: path.to_owned(), source })
}

/// Removes it; that it is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::ReadyFile { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
