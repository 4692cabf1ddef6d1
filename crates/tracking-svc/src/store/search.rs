//! Searches over runs, experiments and logged models, page by page.

use runtime_core::db::{Dialect, Value};

use super::{
    Store, experiments,
    keys::KeyCache,
    models::{self, LoggedModel},
    page_offset, page_token, runs,
};
use crate::{
    error::Error,
    filter::{Order, Scope, Subject, parse_filter, parse_order, sql::Builder},
    model::{Experiment, Page, Run, ViewType},
};

/// Rows that one page holds at most.
const MAX_RESULTS: i64 = 50_000;

/// What to look for among runs.
#[derive(Clone, Debug)]
pub struct RunSearch {
    /// The experiments to look in; unknown ones are ignored.
    pub experiment_ids: Vec<i64>,
    /// A filter in MLflow's language; empty means all.
    pub filter: String,
    /// Active runs, deleted ones or both.
    pub view: ViewType,
    /// Rows of a page, 1 to 50,000.
    pub max_results: i64,
    /// Keys to order by; then the newest first.
    pub order_by: Vec<String>,
    /// Where to go on.
    pub page_token: Option<String>,
}

/// What to look for among experiments.
#[derive(Clone, Debug)]
pub struct ExperimentSearch {
    /// A filter in MLflow's language; empty means all.
    pub filter: String,
    /// Active experiments, deleted ones or both.
    pub view: ViewType,
    /// Rows of a page, 1 to 50,000.
    pub max_results: i64,
    /// Attributes to order by; then the newest first.
    pub order_by: Vec<String>,
    /// Where to go on.
    pub page_token: Option<String>,
}

/// What to look for among logged models.
#[derive(Clone, Debug)]
pub struct ModelSearch {
    /// The experiments to look in.
    pub experiment_ids: Vec<i64>,
    /// A filter in MLflow's language; empty means all.
    pub filter: String,
    /// Rows of a page, 1 to 50,000.
    pub max_results: i64,
    /// Attributes to order by, `name [ASC|DESC]`; then the newest first.
    pub order_by: Vec<String>,
    /// Where to go on.
    pub page_token: Option<String>,
}

fn check_max_results(value: i64) -> Result<(), Error> {
    if (1..=MAX_RESULTS).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid("max_results", format!("{value} is not between 1 and {MAX_RESULTS}")))
}

fn view_condition(column: &str, view: ViewType) -> Option<String> {
    match view {
        ViewType::ActiveOnly => Some(format!("{column} = 0")),
        ViewType::DeletedOnly => Some(format!("{column} = 1")),
        ViewType::All => None,
    }
}

/// Keys that make every order total, unless they are named.
fn settle(builder: &mut Builder, orders: &[Order], rest: &[(&'static str, &str)]) {
    builder.order_by(orders);
    for (attribute, term) in rest {
        let named = |order: &Order| matches!(&order.subject, Subject::Attribute(a) if a.name() == *attribute);
        if !orders.iter().any(named) {
            builder.order.push((*term).to_owned());
        }
    }
}

/// Cuts the row that shows that there are more.
fn page<T>(mut items: Vec<T>, limit: i64, offset: i64) -> Page<T> {
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let next = (items.len() > size).then(|| page_token(offset + limit));
    items.truncate(size);
    Page { items, next }
}

/// The condition that a column is one of the experiments; one of them alone leaves the index its order.
fn in_experiments(builder: &mut Builder, column: &str, ids: &[i64], dialect: Dialect) -> String {
    match ids {
        [one] => format!("{column} = {}", builder.bind(*one)),
        many => {
            builder.bind(Value::id_list(many.iter().copied()));
            format!("{column} IN {}", dialect.id_set(builder.parameters.len()))
        }
    }
}

impl Store {
    /// Finds runs.
    ///
    /// # Errors
    /// A filter, an order, a page token or a page size that is not allowed.
    pub async fn search_runs(&self, search: RunSearch) -> Result<Page<Run>, Error> {
        check_max_results(search.max_results)?;
        let clauses = parse_filter(&search.filter, Scope::Runs)?;
        let orders = parse_order(&search.order_by, Scope::Runs)?;
        let offset = page_offset(search.page_token.as_deref())?;
        if search.experiment_ids.is_empty() {
            return Ok(Page { items: Vec::new(), next: None });
        }
        self.read(move |tx, keys: &KeyCache| {
            let mut builder = Builder::new(tx.dialect(), Scope::Runs);
            let experiments = in_experiments(&mut builder, "r.experiment", &search.experiment_ids, tx.dialect());
            builder.conditions.push(experiments);
            builder.conditions.extend(view_condition("r.lifecycle", search.view));
            builder.filter(&clauses);
            let uid = match tx.dialect() {
                runtime_core::db::Dialect::Sqlite => "r.uid",
                runtime_core::db::Dialect::Postgres => "r.uid COLLATE \"C\"",
            };
            settle(&mut builder, &orders, &[("start_time", "r.start_time DESC"), ("run_id", uid)]);
            let select = format!("SELECT {} FROM runs r", runs::COLUMNS);
            let (sql, parameters) = builder.finish(&select, search.max_results, offset);
            let found = tx.query(&sql, &parameters)?.iter().map(runs::from_row).collect::<Result<Vec<_>, _>>()?;
            let found = page(found, search.max_results, offset);
            Ok(Page { items: runs::with_data(tx, keys, found.items)?, next: found.next })
        })
        .await
    }

    /// Finds experiments.
    ///
    /// # Errors
    /// A filter, an order, a page token or a page size that is not allowed.
    pub async fn search_experiments(&self, search: ExperimentSearch) -> Result<Page<Experiment>, Error> {
        check_max_results(search.max_results)?;
        let clauses = parse_filter(&search.filter, Scope::Experiments)?;
        let orders = parse_order(&search.order_by, Scope::Experiments)?;
        let offset = page_offset(search.page_token.as_deref())?;
        self.read(move |tx, keys: &KeyCache| {
            let mut builder = Builder::new(tx.dialect(), Scope::Experiments);
            builder.conditions.extend(view_condition("e.lifecycle", search.view));
            builder.filter(&clauses);
            settle(&mut builder, &orders, &[("creation_time", "e.created DESC"), ("experiment_id", "e.id ASC")]);
            let select = format!("SELECT {} FROM experiments e", experiments::COLUMNS);
            let (sql, parameters) = builder.finish(&select, search.max_results, offset);
            let found =
                tx.query(&sql, &parameters)?.iter().map(experiments::from_row).collect::<Result<Vec<_>, _>>()?;
            let found = page(found, search.max_results, offset);
            Ok(Page { items: experiments::with_tags(tx, keys, found.items)?, next: found.next })
        })
        .await
    }

    /// Finds logged models.
    ///
    /// # Errors
    /// A filter, an order, a page token or a page size that is not allowed.
    pub async fn search_models(&self, search: ModelSearch) -> Result<Page<LoggedModel>, Error> {
        check_max_results(search.max_results)?;
        let clauses = parse_filter(&search.filter, Scope::Models)?;
        let orders = parse_order(&search.order_by, Scope::Models)?;
        let offset = page_offset(search.page_token.as_deref())?;
        if search.experiment_ids.is_empty() {
            return Ok(Page { items: Vec::new(), next: None });
        }
        self.read(move |tx, keys: &KeyCache| {
            let mut builder = Builder::new(tx.dialect(), Scope::Models);
            let experiments = in_experiments(&mut builder, "m.experiment", &search.experiment_ids, tx.dialect());
            builder.conditions.push(experiments);
            builder.conditions.push("m.lifecycle = 0".to_owned());
            builder.filter(&clauses);
            settle(&mut builder, &orders, &[("creation_time", "m.created DESC"), ("model_id", "m.uid ASC")]);
            let select = format!("SELECT {} FROM models m", models::COLUMNS);
            let (sql, parameters) = builder.finish(&select, search.max_results, offset);
            let found = tx.query(&sql, &parameters)?.iter().map(models::from_row).collect::<Result<Vec<_>, _>>()?;
            let found = page(found, search.max_results, offset);
            Ok(Page { items: models::with_data(tx, keys, found.items)?, next: found.next })
        })
        .await
    }
}
