//! Converts a local checkpoint without a server: `cargo run --example convert -- CHECKPOINT EVALUATION OUTPUT [OPSET]`.

use convert_svc::{Observer, Request, convert};
use quintet_proto::v1::ConvertSpec;

struct Terminal;

impl Observer for Terminal {
    fn progress(&mut self, phase: &str, done: u64, total: u64) {
        eprintln!("{phase} {done}/{total}");
    }

    fn log(&mut self, line: &str) {
        eprintln!("{line}");
    }

    fn stop_requested(&mut self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (checkpoint, evaluation, output, opset) = match arguments.as_slice() {
        [checkpoint, evaluation, output] => (checkpoint, evaluation, output, 0),
        [checkpoint, evaluation, output, opset] => (checkpoint, evaluation, output, opset.parse()?),
        _ => return Err("usage: convert CHECKPOINT EVALUATION OUTPUT [OPSET]".into()),
    };
    let spec = ConvertSpec { opset, ..ConvertSpec::default() };
    let request = Request::from_spec(&spec, checkpoint.into(), evaluation.into(), output.into())?;
    let report = convert(&request, &mut Terminal)?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
