//! Where the splits of a data set come from, and what its examples are.
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{
    Fold, HoldOut, ReadOptions, TextOptions,
    folder::{self, SplitFiles},
};
use crate::{Error, files};

/// Where the splits come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// Training file, or a folder of splits, whose others are taken when they are not given.
    pub train: PathBuf,
    /// Absent: a part of the training file is held out.
    pub validation: Option<PathBuf>,
    /// Optional.
    pub test: Option<PathBuf>,
    /// What the examples are and how to read them.
    pub form: Form,
    /// Part held out, between 0 and 1.
    pub validation_fraction: f64,
    /// Chooses the rows held out.
    pub seed: u64,
    /// Hold this fold of the training file out instead; `validation` is absent.
    pub fold: Option<Fold>,
}

/// What the examples are and how to read them.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Words with tags.
    Tokens(ReadOptions),
    /// Texts for the sequence tasks.
    Text(TextOptions),
}

/// The files of each split.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) train: SplitFiles,
    pub(crate) validation: Option<SplitFiles>,
    pub(crate) test: Option<SplitFiles>,
    pub(crate) notes: Vec<String>,
}

impl Sources {
    /// Finds the files: a folder of splits gives what is not given apart.
    pub(crate) fn resolve(&self) -> Result<Resolved, Error> {
        let mut notes = Vec::new();
        let mut splits = folder::splits(&self.train)?;
        let Some(train) = splits.remove("train").or_else(|| splits.remove("")) else {
            return Err(Error::Split { split: "train", problem: format!("`{}` has none", self.train.display()) });
        };
        let mut other = |name: &'static str, given: Option<&PathBuf>| match given {
            Some(path) => {
                let mut found = folder::splits(path)?;
                let ours = found.remove(name).or_else(|| found.remove(""));
                ours.map(Some)
                    .ok_or_else(|| Error::Split { split: name, problem: format!("`{}` has none", path.display()) })
            }
            None => Ok(splits.remove(name)),
        };
        let mut validation = other("validation", self.validation.as_ref())?;
        let test = other("test", self.test.as_ref())?;
        if self.fold.is_some() && validation.take().is_some() {
            notes.push("validation: the folder's own split is left aside, a fold of train is validated on".to_owned());
        }
        for (name, split) in [("train", Some(&train)), ("validation", validation.as_ref()), ("test", test.as_ref())] {
            let Some(split) = split else { continue };
            if split.files.len() > 1 {
                notes.push(format!("{name}: {} files", split.files.len()));
            }
            if !split.aside.is_empty() {
                notes.push(format!("{name}: {} of the same folder was left aside", split.aside.join(", ")));
            }
        }
        Ok(Resolved { train, validation, test, notes })
    }

    /// Whether rows are held out of training: no split to validate on is given or found beside it.
    pub fn holds_out(&self) -> Result<bool, Error> {
        Ok(self.resolve()?.validation.is_none())
    }

    /// How rows are held out of training when no validation split is given.
    pub fn hold_out(&self) -> HoldOut {
        match self.fold {
            Some(fold) => HoldOut::Fold(fold),
            None => HoldOut::Share {
                fraction: self.validation_fraction,
                seed: self.seed,
                // Labels of texts may be many and rare; sentences have several each.
                stratified: matches!(self.form, Form::Text(_)),
            },
        }
    }

    /// Identifies what is trained on by content and settings; the test split is no part of it.
    pub fn digest(&self) -> Result<String, Error> {
        let resolved = self.resolve()?;
        let mut hash = Sha256::new();
        // Where files lie does not matter, what they hold does.
        let mut form = self.form.clone();
        let labels = match &mut form {
            Form::Text(options) => options.labels.take(),
            Form::Tokens(_) => None,
        };
        hash.update(format!("{form:?} {} {} {:?}\n", self.validation_fraction, self.seed, self.fold));
        for (name, split) in [("train", Some(&resolved.train)), ("validation", resolved.validation.as_ref())] {
            for file in split.iter().flat_map(|split| &split.files) {
                hash.update(format!("{name} {}\n", files::digest(file)?));
            }
        }
        if let Some(path) = labels {
            hash.update(format!("labels {}\n", files::digest(&path)?));
        }
        Ok(hex::encode(hash.finalize()))
    }
}

/// A file by which a split is named in errors.
pub(crate) fn place(split: &SplitFiles) -> &Path {
    split.files.first().map_or(Path::new(""), PathBuf::as_path)
}
