//! Database URLs as SQLAlchemy, and so Optuna, takes them.

use runtime_core::db::redact;

/// Our URL as Optuna's: four slashes before an absolute path, the schema as an option, no password.
pub(super) fn for_optuna(url: &str) -> String {
    if let Some(path) = url.strip_prefix("sqlite://") {
        let path = std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string());
        return format!("sqlite:///{path}");
    }
    let url = redact(url).replace(":***@", "@");
    let Some((base, query)) = url.split_once('?') else { return url };
    let parts: Vec<String> = query
        .split('&')
        .map(|part| match part.strip_prefix("schema=") {
            Some(schema) => format!("options=-csearch_path%3D{schema}"),
            None => part.to_owned(),
        })
        .collect();
    format!("{base}?{}", parts.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optuna_gets_its_own_form() {
        assert_eq!(for_optuna("sqlite:///data/studies.db"), "sqlite:////data/studies.db");
        assert_eq!(
            for_optuna("postgresql://me:secret@db:5432/q?schema=hpo&sslmode=disable"),
            "postgresql://me@db:5432/q?options=-csearch_path%3Dhpo&sslmode=disable"
        );
        assert_eq!(for_optuna("postgresql://me@db/q"), "postgresql://me@db/q");
    }
}
