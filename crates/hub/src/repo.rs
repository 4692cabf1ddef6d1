//! Names of repositories: `name`, `org/name`, either with `@revision`, and the same behind `hf://`.

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;

use crate::Error;

/// What a repository's address begins with where a path could stand as well.
pub const SCHEME: &str = "hf://";
/// The revision of a name without one.
const DEFAULT_REVISION: &str = "main";
/// Longest id that the Hub has.
const LONGEST_ID: usize = 96;
/// Longest revision that is taken: it becomes a file name of the cache.
const LONGEST_REVISION: usize = 200;

/// A model repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repo {
    id: String,
    revision: String,
}

impl Repo {
    /// `name` or `org/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Branch, tag or commit; `main` when none was given.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The same repository at another revision.
    ///
    /// # Errors
    /// [`Error::Name`] when it is no revision.
    pub fn at(&self, revision: &str) -> Result<Self, Error> {
        check_revision(revision).map_err(|problem| Error::Name { given: revision.to_owned(), problem })?;
        Ok(Self { id: self.id.clone(), revision: normal(revision) })
    }

    /// Whether the revision is a commit, so that the content can never change.
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// `hf://org/name@revision`: an address that cannot be taken for a path.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{self}")
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.revision)
    }
}

impl FromStr for Repo {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |problem: String| Error::Name { given: text.to_owned(), problem };
        let (name, revision) = match text.strip_prefix(SCHEME) {
            None => text.split_once('@').map_or((text, None), |(name, revision)| (name, Some(revision.to_owned()))),
            Some(rest) => {
                let rest = rest.strip_prefix("models/").unwrap_or(rest);
                let (name, revision) = rest.split_once('@').map_or((rest, None), |(name, rev)| (name, Some(rev)));
                // In an address a slash of a revision may be written as %2F, as Python's `HfFileSystem` does.
                let revision = revision.map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
                (name, revision)
            }
        };
        check_id(name).map_err(&bad)?;
        let revision = revision.unwrap_or_else(|| DEFAULT_REVISION.to_owned());
        check_revision(&revision).map_err(&bad)?;
        Ok(Self { id: name.to_owned(), revision: normal(&revision) })
    }
}

/// Commits are written in small letters.
fn normal(revision: &str) -> String {
    let hexadecimal = revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal { revision.to_ascii_lowercase() } else { revision.to_owned() }
}

/// 40 hexadecimal digits in small letters.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The Hub's rules for ids (`validate_repo_id` of `huggingface_hub`); they also make an id safe as a folder's name.
fn check_id(id: &str) -> Result<(), String> {
    let forms = "the forms are `name` and `org/name`, each with `@revision` if wanted";
    if id.starts_with("datasets/") || id.starts_with("spaces/") {
        return Err("is no model; encoders are in model repositories".into());
    }
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(format!("the id has {} characters, allowed are 1 to {LONGEST_ID}; {forms}", id.len()));
    }
    if id.split('/').count() > 2 {
        return Err(format!("more than one `/` in `{id}`; {forms}"));
    }
    let edge = |c: char| c == '-' || c == '.';
    for part in id.split('/') {
        if part.is_empty() || part.starts_with(edge) || part.ends_with(edge) {
            return Err(format!("`{part}` begins or ends with `-` or `.`, or is empty; {forms}"));
        }
        if let Some(c) = part.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
            return Err(format!("{c:?} stands in no id: letters, digits, `-`, `_` and `.` do; {forms}"));
        }
    }
    match ["--", ".."].iter().find(|pair| id.contains(**pair)) {
        Some(pair) => Err(format!("`{pair}` stands in no id; {forms}")),
        None if id.ends_with(".git") => Err(format!("an id does not end in `.git`; {forms}")),
        None => Ok(()),
    }
}

/// Git's rules for references, as far as they keep a revision inside its folder of the cache.
fn check_revision(revision: &str) -> Result<(), String> {
    let fail = |problem: &str| Err(format!("revision {revision:?} {problem}; give a branch, a tag or a commit"));
    if revision.is_empty() || revision.len() > LONGEST_REVISION {
        return fail("is empty or too long");
    }
    let forbidden = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\' | '@' | '#');
    if let Some(c) = revision.chars().find(|c| forbidden(*c)) {
        return fail(&format!("contains {c:?}"));
    }
    let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock") || part.contains("..");
    if revision.starts_with('-') || revision.split('/').any(bad) {
        return fail("is no name of git's");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "12040accade4e8a0f71eabdb258fecc2e7e948be";

    #[test]
    fn names_are_read() {
        for (text, id, revision) in [
            ("distilbert-base-uncased", "distilbert-base-uncased", "main"),
            ("microsoft/deberta-v3-base", "microsoft/deberta-v3-base", "main"),
            ("org/name@v1.0", "org/name", "v1.0"),
            ("org/name@refs/pr/7", "org/name", "refs/pr/7"),
            ("hf://org/name", "org/name", "main"),
            ("hf://models/org/name@refs%2Fpr%2F7", "org/name", "refs/pr/7"),
            ("name@12040ACCADE4E8A0F71EABDB258FECC2E7E948BE", "name", COMMIT),
        ] {
            let repo: Repo = text.parse().unwrap();
            assert_eq!((repo.id(), repo.revision()), (id, revision), "{text}");
            assert_eq!(repo.uri().parse::<Repo>().unwrap(), repo);
        }
        let repo: Repo = "name".parse().unwrap();
        assert!(!repo.is_pinned() && repo.at(COMMIT).unwrap().is_pinned());
        assert_eq!(repo.at(COMMIT).unwrap().uri(), format!("hf://name@{COMMIT}"));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (text, part) in [
            ("", "0 characters"),
            ("a/b/c", "more than one `/`"),
            ("../secrets", "begins or ends"),
            ("org/", "begins or ends"),
            ("a--b", "`--`"),
            ("a..b", "`..`"),
            ("name.git", "`.git`"),
            ("na me", "' '"),
            ("datasets/org/name", "is no model"),
            ("name@", "empty"),
            ("name@../../etc", "no name of git's"),
            ("name@-x", "no name of git's"),
            ("name@a b", "contains ' '"),
            ("hf://name@a%00b", "contains"),
            ("name@/etc", "no name of git's"),
        ] {
            let error = text.parse::<Repo>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_leaves_its_folder(text in "[a-z./@%0-9-]{0,24}") {
            if let Ok(repo) = text.parse::<Repo>() {
                let parts = repo.id().split('/').chain(repo.revision().split('/'));
                for part in parts {
                    assert!(!part.is_empty() && part != "." && part != "..", "{text}");
                }
            }
        }
    }
}
