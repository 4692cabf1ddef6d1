//! Plots of a study into files.

use std::path::{Path, PathBuf};

use hpo_svc::{
    select::objective_names,
    study::{Study, Trial},
    sweep::ATTR_METRICS,
    view::plot::{Kind, Options, draw as svg},
};

use super::{files::folder_of, png::png};
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

/// Which objective a plot of a single one shows: that of the name, or the first.
///
/// # Errors
/// Usage, with the objectives that there are.
pub(super) fn objective(study: &Study, name: Option<&str>) -> Result<usize, Failure> {
    let Some(name) = name else { return Ok(0) };
    let names = objective_names(study);
    let found = names.iter().position(|objective| objective == name);
    found.ok_or_else(|| {
        let study = &study.name;
        Failure::usage(format!(
            "--objective {name}: study `{study}` has no such objective; it has {}",
            names.join(", ")
        ))
    })
}

/// Draws the plots, each into its file, whose folder is made where there is none.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn draw(plots: &[Plot], study: &Study, trials: &[Trial], objective: usize) -> Result<(), Failure> {
    let names = study.system_attrs.get(ATTR_METRICS).and_then(|json| serde_json::from_str(json).ok());
    let options = Options { names: names.unwrap_or_default(), objective, ..Options::default() };
    for Plot { kind, file, format } in plots {
        let fail = |error: String| Failure::failed(format!("{}: {error}", file.display()));
        let picture = svg(*kind, trials, &study.directions, &options);
        let bytes = match format {
            Format::Svg => picture.into_bytes(),
            Format::Png => png(&picture).map_err(fail)?,
        };
        folder_of(file)?;
        std::fs::write(file, bytes).map_err(|error| fail(error.to_string()))?;
        eprintln!("{} is in {}", kind.as_str(), file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hpo_svc::view::export::read_json;
    use serde_json::json;

    use super::*;

    fn study() -> Study {
        let document = json!({"format": 1, "id": 1, "name": "s", "directions": ["MAXIMIZE", "MINIMIZE"], "user_attrs": {},
            "system_attrs": {ATTR_METRICS: ["f1", "ms"]}, "trials": []});
        read_json(&document).unwrap().0
    }

    #[test]
    fn an_objective_is_chosen_by_its_name() {
        let chosen = |name| objective(&study(), name);
        assert_eq!(chosen(None).unwrap(), 0);
        assert_eq!(chosen(Some("ms")).unwrap(), 1);
        let refused = chosen(Some("loss")).unwrap_err();
        assert_eq!(refused.code, crate::failure::USAGE);
        assert!(refused.message.ends_with("study `s` has no such objective; it has f1, ms"), "{refused:?}");
    }

    #[test]
    fn a_plot_makes_the_folder_that_it_lies_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/folder/history.svg");
        let plots = parse(&[file.display().to_string()]).unwrap();
        draw(&plots, &study(), &[], 1).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("<svg"));
        let below = parse(&[file.join("history.svg").display().to_string()]).unwrap();
        let refused = draw(&below, &study(), &[], 0).unwrap_err();
        assert!(refused.message.starts_with(&file.display().to_string()), "{refused:?}");
    }

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
