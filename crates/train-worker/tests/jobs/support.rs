//! A server with the service, which launches the worker program.
use std::path::Path;

use runtime_core::{config::Loader, host::Host, server::ServerHandle};

pub(crate) async fn serve(data: &Path) -> ServerHandle {
    let programs = Path::new(env!("CARGO_BIN_EXE_train-worker")).parent().unwrap();
    let config = Loader::new()
        .set("data_dir", data.to_str().unwrap())
        .set("listen", "127.0.0.1:0")
        .set("services", "train")
        .set("worker.program_dir", programs.to_str().unwrap())
        .load()
        .unwrap();
    train_svc::mount(Host::open(config).await.unwrap()).unwrap().start().await.unwrap()
}
