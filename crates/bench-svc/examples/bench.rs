//! Measures local models without a server: `cargo run --example bench -- PROGRAM OUTPUT SPEC MODEL...`, where PROGRAM is the
//! built `bench-svc` and SPEC the JSON of a `BenchmarkSpec`, such as `{}`.

use std::path::PathBuf;

use bench_svc::{Observer, Request, Settings, benchmark, worker::MEASURE};

struct Terminal;

impl Observer for Terminal {
    fn progress(&mut self, _: u64, _: u64, _: &str) {}

    fn log(&mut self, line: &str) {
        eprintln!("{line}");
    }

    fn stop_requested(&mut self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, output, spec, models @ ..] = arguments.as_slice() else {
        return Err("usage: bench PROGRAM OUTPUT SPEC MODEL...".into());
    };
    let request = Request {
        models: models.iter().map(|model| PathBuf::from(model).into()).collect(),
        settings: Settings::from_spec(&serde_json::from_str(spec)?)?,
        output: output.into(),
        program: program.into(),
        program_arguments: vec![MEASURE.into()],
    };
    benchmark(&request, &mut Terminal)?;
    print!("{}", std::fs::read_to_string(request.output.join("benchmark.md"))?);
    Ok(())
}
