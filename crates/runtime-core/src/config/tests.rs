//! Layers, errors that name their origin, and a dump without secrets.
use std::{fs, path::PathBuf};

use super::{ByteSize, Config, ConfigArgs, Duration, Loader, LogFormat, Service};

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn file(text: &str) -> tempfile::TempPath {
    let path = tempfile::Builder::new().suffix(".toml").tempfile().unwrap().into_temp_path();
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn later_layers_win() {
    let path = file(
        "listen = 'file:1'\ndata_dir = 'from-file'\nservices = ['hpo']\n[limits]\nupload = '1GiB'\nmessage = '1MiB'\n",
    );
    let load = |loader: Loader| loader.file(path.to_path_buf()).load().unwrap();
    let config = load(Loader::new());
    assert_eq!(
        (config.listen.as_str(), config.limits.upload, config.services),
        ("file:1", ByteSize(1 << 30), vec![Service::Hpo])
    );
    let environment = variables([
        ("QUINTET_LISTEN", "env:2"),
        ("QUINTET_LIMITS__UPLOAD", "2GiB"),
        ("HOME", "/x"),
        ("QUINTET_SERVER", "x"),
    ]);
    let config = load(Loader::new().variables(environment.clone()).set("listen", "flag:3"));
    assert_eq!((config.listen.as_str(), config.data_dir), ("flag:3", PathBuf::from("from-file")));
    assert_eq!((config.limits.upload, config.limits.message), (ByteSize(2 << 30), ByteSize(1 << 20)));
    assert_eq!(config.limits.connection_age_grace, Duration::from_secs(60), "the default");
}

#[test]
fn variables_hold_text_for_every_type() {
    let config = Loader::new()
        .variables(variables([
            ("QUINTET_SERVICES", "train, tracking"),
            ("QUINTET_WORKER__CPUS", "4"),
            ("QUINTET_WORKER__ENABLED", "false"),
            ("QUINTET_WORKER_ID", "not a setting"),
            ("QUINTET_TOKEN", "12345"),
            ("QUINTET_AUTH__TOKENS", "true,678"),
            ("QUINTET_LEASE__TERM", "1m30s"),
            ("QUINTET_LOG__FORMAT", "json"),
            ("QUINTET_ARTIFACTS__OPTIONS__ENDPOINT", "http://127.0.0.1:5000"),
            ("QUINTET_LIMITS__CONNECTION_AGE", "1h"),
        ]))
        .load()
        .unwrap();
    assert_eq!(config.services, [Service::Train, Service::Tracking]);
    assert_eq!((config.worker.cpus, config.worker.gpus, config.worker.enabled), (Some(4), None, false));
    assert_eq!(config.token.unwrap().expose(), "12345");
    assert_eq!(config.auth.tokens.iter().map(|token| token.expose()).collect::<Vec<_>>(), ["true", "678"]);
    assert_eq!((config.lease.term, config.log.format), (Duration::from_secs(90), LogFormat::Json));
    assert_eq!(config.artifacts.options["endpoint"].expose(), "http://127.0.0.1:5000");
    assert_eq!(config.limits.connection_age, Some(Duration::from_secs(3600)));
}

#[test]
fn an_error_names_where_and_what() {
    let env =
        |name: &str, value: &str| Loader::new().variables(variables([(name, value)])).load().unwrap_err().to_string();
    for (name, value, problem) in [
        ("QUINTET_LISTNE", "x", "unknown key"),
        ("QUINTET_LOG__LEVLE", "x", "unknown key"),
        ("QUINTET_LEASE__TERM", "30", "`30` is not a duration"),
        ("QUINTET_LEASE__TERM", "5ms", "5ms is below 1s"),
        ("QUINTET_WORKER__CPUS", "many", "`many`"),
        ("QUINTET_SERVICES", "hpo,cook", "`cook` is no service"),
        ("QUINTET_LOG__FORMAT", "xml", "`xml` is not one of text, json"),
        ("QUINTET_HPO__SYNC", "none", "`none` is not one of ends, all"),
        ("QUINTET_LISTEN", "7700", "`7700` is not HOST:PORT"),
        ("QUINTET_LOG__LEVEL", "no=such=level", "no=such=level"),
        ("QUINTET_BACKUP__ENABLED", "true", "needs `backup.location`"),
        ("QUINTET_TLS__CERT", "x.pem", "needs `tls.key`"),
        ("QUINTET_ENDPOINTS__HPO", "hpo:7700", "is not a URL"),
    ] {
        let error = env(name, value);
        assert!(error.contains(name) && error.contains(problem), "{error}");
    }
    for (text, key, problem) in [
        ("listne = 'x'", "`listne`", "unknown key"),
        ("[lease]\nterm = 30", "`lease.term`", "`30` is not a duration"),
        (
            "[lease]\nterm = '1s'\nextra = 1",
            "`lease.extra`",
            "unknown key; known here: term, check_interval, trial, idle_trial",
        ),
        ("data_dir = 5", "`data_dir`", "expected"),
        ("listen = ", "", "line 1"),
    ] {
        let path = file(text);
        let error = Loader::new().file(path.to_path_buf()).load().unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&path.display().to_string()) && message.contains(key) && message.contains(problem),
            "{message}"
        );
        assert_eq!(error.exit_code(), 78);
    }
    let error = Loader::new().file("/no/such/file.toml").load().unwrap_err().to_string();
    assert!(error.contains("/no/such/file.toml"), "{error}");
    let error = Loader::new().set("log.level", "=").load().unwrap_err().to_string();
    assert!(error.contains("flag for `log.level`"), "{error}");
    let flags = ConfigArgs { set: vec!["limits.upload".into()], ..ConfigArgs::default() };
    assert!(flags.load().unwrap_err().to_string().contains("is not KEY=VALUE"));
}

#[test]
fn the_dump_reads_back_and_holds_no_secret() {
    let config = Loader::new()
        .set("token", "hush1")
        .set("auth.tokens", "hush2")
        .set("database.url", "postgresql://me:hush3@host/db")
        .set("artifacts.options.secret_access_key", "hush4")
        .set("limits.upload", "3GiB")
        .load()
        .unwrap();
    let text = config.dump();
    assert!(!text.contains("hush") && !format!("{config:?}").contains("hush"), "{text}");
    assert!(text.contains("upload = \"3GiB\"") && text.contains("postgresql://me:***@host/db"), "{text}");
    let path = file(&text);
    assert_eq!(Loader::new().file(path.to_path_buf()).load().unwrap().dump(), text);
}

#[test]
fn tokens_come_from_a_file_too() {
    let path = file("# people\n  one \n\ntwo\n");
    let config =
        Loader::new().set("auth.tokens", "zero").set("auth.token_file", path.to_str().unwrap()).load().unwrap();
    let tokens = config.server_options().unwrap().tokens;
    assert_eq!(tokens.iter().map(|token| token.expose()).collect::<Vec<_>>(), ["zero", "one", "two"]);
    fs::write(&path, "# nobody yet\n").unwrap();
    assert!(config.tokens().unwrap_err().to_string().contains("holds no token"));
}

#[test]
fn places_default_to_the_data_folder() {
    let config = Config { data_dir: "/data".into(), ..Config::default() };
    assert_eq!(config.database_url("jobs").unwrap(), "sqlite:///data/jobs.db");
    assert_eq!(config.artifacts_url().unwrap(), "/data/artifacts");
}
