//! The server: every service, or some of them, in one process on one port; also inside other commands, without a flag.

use anyhow::Context as _;
use runtime_core::{
    config::{Config, ConfigArgs, Service},
    host::{self, Error, Host},
    server::ServerHandle,
};

/// Options of `quintet serve`.
#[derive(clap::Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Serves until a signal ends it. Blocks; must not be called inside a runtime.
///
/// # Errors
/// See [`Error`]; its exit code is that of the program.
pub(crate) fn serve(args: &ServeArgs) -> Result<(), Error> {
    let config = args.config.load()?;
    if args.config.dump_config {
        print!("{}", config.dump());
        return Ok(());
    }
    host::serve(config, mount)
}

/// Mounts the configured services.
///
/// # Errors
/// A database that cannot be opened, or a malformed address.
pub(crate) async fn mount(mut host: Host) -> Result<Host, Error> {
    for service in host.config().services.clone() {
        host = match service {
            Service::Tracking => tracking_svc::mount(host).await?,
            Service::Hpo => hpo_svc::mount(host).await?,
            Service::Train => train_svc::mount(host)?,
            Service::Convert => convert_svc::mount(host)?,
            Service::Bench => bench_svc::mount(host)?,
        };
    }
    Ok(host)
}

/// A server inside a command that was given no `--server`.
pub(crate) struct Embedded {
    handle: ServerHandle,
}

impl Embedded {
    /// Starts the configured services.
    ///
    /// # Errors
    /// The data folder is in use by another server, or cannot be used.
    pub(crate) async fn start(mut config: Config) -> anyhow::Result<Self> {
        config.ready_file = None;
        let host = Host::open(config).await.context("cannot start the embedded server")?;
        let handle = mount(host).await?.start().await?;
        Ok(Self { handle })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        self.handle.url()
    }

    /// Ends it in good order: workers give their attempts back.
    ///
    /// # Errors
    /// A background task had failed.
    pub(crate) async fn shutdown(self) -> anyhow::Result<()> {
        Ok(self.handle.shutdown().await?)
    }
}
