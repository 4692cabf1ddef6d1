//! Plots of a study into files.

use std::path::{Path, PathBuf};

use hpo_svc::{
    study::{Study, Trial},
    sweep::ATTR_METRICS,
    view::plot::{Kind, Options, draw as svg},
};

use crate::failure::Failure;

/// A plot and its file.
#[derive(Debug, PartialEq)]
pub(super) struct Plot {
    kind: Kind,
    file: PathBuf,
}

/// Reads `KIND=FILE.svg`, or `FILE.svg` whose name is that of a kind.
///
/// # Errors
/// Usage, with the kinds that there are.
pub(super) fn parse(plots: &[String]) -> Result<Vec<Plot>, Failure> {
    plots.iter().map(|text| plot(text)).collect()
}

fn plot(text: &str) -> Result<Plot, Failure> {
    let kinds = || Kind::ALL.map(Kind::as_str).join(", ");
    let (kind, file) = match text.split_once('=') {
        Some((kind, file)) => (kind.to_owned(), file),
        None => (Path::new(text).file_stem().unwrap_or_default().to_string_lossy().into_owned(), text),
    };
    let kind = Kind::parse(&kind).ok_or_else(|| {
        Failure::usage(format!(
            "--plot {text}: `{kind}` is no plot; write KIND=FILE.svg, where KIND is one of {}",
            kinds()
        ))
    })?;
    let file = PathBuf::from(file);
    if file.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("svg")) {
        return Err(Failure::usage(format!("--plot {text}: the file must end with .svg")));
    }
    Ok(Plot { kind, file })
}

/// Draws the plots.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn draw(plots: &[Plot], study: &Study, trials: &[Trial]) -> Result<(), Failure> {
    let names = study.system_attrs.get(ATTR_METRICS).and_then(|json| serde_json::from_str(json).ok());
    let options = Options { names: names.unwrap_or_default(), ..Options::default() };
    for Plot { kind, file } in plots {
        let fail = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
        std::fs::write(file, svg(*kind, trials, &study.directions, &options)).map_err(fail)?;
        eprintln!("{} is in {}", kind.as_str(), file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_named_by_its_kind_or_its_file() {
        let plot = |kind, file: &str| Plot { kind, file: file.into() };
        let texts = ["history.svg".to_owned(), "slice=/tmp/a=b.svg".to_owned()];
        assert_eq!(parse(&texts).unwrap(), [plot(Kind::History, "history.svg"), plot(Kind::Slice, "/tmp/a=b.svg")]);
        for (text, problem) in [("a.svg", "KIND is one of history, parallel"), ("history.png", "end with .svg")] {
            let message = format!("{:?}", parse(&[text.to_owned()]).unwrap_err());
            assert!(message.contains(problem), "{message}");
        }
    }
}
