//! Database URLs as SQLAlchemy, and so Optuna, takes them.

use runtime_core::db::redact;

/// Our URL as Optuna's: four slashes before an absolute path, schema and socket folder as options, no password.
pub(super) fn for_optuna(url: &str) -> String {
    if let Some(path) = url.strip_prefix("sqlite://") {
        let path = std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string());
        return format!("sqlite:///{path}");
    }
    let url = redact(url).replace(":***@", "@");
    let (base, query) = url.split_once('?').unwrap_or((&url, ""));
    let mut base = base.to_owned();
    let mut options: Vec<String> = query.split('&').filter(|part| !part.is_empty()).map(option).collect();
    // A socket's folder stands in the place of the host, its slashes escaped.
    let authority = base.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default().to_owned();
    if host.to_ascii_uppercase().starts_with("%2F") {
        base = base.replacen(&host, "", 1);
        options.push(format!("host={}", host.replace("%2F", "/").replace("%2f", "/")));
    }
    if options.is_empty() { base } else { format!("{base}?{}", options.join("&")) }
}

fn option(part: &str) -> String {
    match part.strip_prefix("schema=") {
        Some(schema) => format!("options=-csearch_path%3D{schema}"),
        None => part.to_owned(),
    }
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
        assert_eq!(for_optuna("postgresql://me@%2Ftmp%2Fpg/q"), "postgresql://me@/q?host=/tmp/pg");
    }
}
