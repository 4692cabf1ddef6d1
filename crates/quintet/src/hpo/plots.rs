//! Plots of a study into files.

use std::path::{Path, PathBuf};

use hpo_svc::{
    study::{Study, Trial},
    sweep::ATTR_METRICS,
    view::plot::{Kind, Options, draw as svg},
};

use super::png::png;
use crate::failure::Failure;

/// A plot and its file.
#[derive(Debug, PartialEq)]
pub(super) struct Plot {
    kind: Kind,
    file: PathBuf,
    format: Format,
}

/// What a file holds, by its name.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Svg,
    Png,
}

/// Reads `KIND=FILE.svg`, or `FILE.svg` whose name is that of a kind; the same with `.png`.
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
            "--plot {text}: `{kind}` is no plot; write KIND=FILE.svg or KIND=FILE.png, where KIND is one of {}",
            kinds()
        ))
    })?;
    let file = PathBuf::from(file);
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let format = match extension.as_deref() {
        Some("svg") => Format::Svg,
        Some("png") => Format::Png,
        _ => return Err(Failure::usage(format!("--plot {text}: the file must end with .svg or .png"))),
    };
    Ok(Plot { kind, file, format })
}

/// Draws the plots.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn draw(plots: &[Plot], study: &Study, trials: &[Trial]) -> Result<(), Failure> {
    let names = study.system_attrs.get(ATTR_METRICS).and_then(|json| serde_json::from_str(json).ok());
    let options = Options { names: names.unwrap_or_default(), ..Options::default() };
    for Plot { kind, file, format } in plots {
        let fail = |error: String| Failure::failed(format!("{}: {error}", file.display()));
        let picture = svg(*kind, trials, &study.directions, &options);
        let bytes = match format {
            Format::Svg => picture.into_bytes(),
            Format::Png => png(&picture).map_err(fail)?,
        };
        std::fs::write(file, bytes).map_err(|error| fail(error.to_string()))?;
        eprintln!("{} is in {}", kind.as_str(), file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_named_by_its_kind_or_its_file() {
        let plot = |kind, file: &str, format| Plot { kind, file: file.into(), format };
        let texts = ["history.svg".to_owned(), "slice=/tmp/a=b.PNG".to_owned()];
        assert_eq!(
            parse(&texts).unwrap(),
            [plot(Kind::History, "history.svg", Format::Svg), plot(Kind::Slice, "/tmp/a=b.PNG", Format::Png)]
        );
        for (text, problem) in [("a.svg", "KIND is one of history, parallel"), ("history.gif", "end with .svg or .png")]
        {
            let message = format!("{:?}", parse(&[text.to_owned()]).unwrap_err());
            assert!(message.contains(problem), "{message}");
        }
    }
}
