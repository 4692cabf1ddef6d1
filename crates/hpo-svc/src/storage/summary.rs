//! The best trial of a study for those who want no other one, found without reading all of them.

use runtime_core::db::Tx;

use super::{
    Error, Store,
    trials::{self, Which},
};
use crate::study::{Direction, Trial, best};

/// What the tables say by themselves.
enum Found {
    Best(Option<Trial>),
    /// Which trials keep their constraints stands in texts.
    Constrained,
}

impl Store {
    /// The best trial of a study by its first objective: the one that [`best`] finds among all.
    ///
    /// # Errors
    /// [`Error::NoStudy`], the database's, or [`Error::Corrupt`].
    pub async fn best_trial(&self, study: i64, direction: Direction) -> Result<Option<Trial>, Error> {
        match self.db.read(move |tx| find(tx, study, direction)).await? {
            Found::Best(best) => Ok(best),
            Found::Constrained => Ok(best(&self.trials(study).await?, direction).cloned()),
        }
    }
}

fn find(tx: &mut dyn Tx, study: i64, direction: Direction) -> Result<Found, Error> {
    let constrained = "SELECT 1 FROM trials t JOIN trial_system_attributes a ON a.trial_id = t.trial_id \
                       WHERE t.study_id = $1 AND (a.\"key\" = 'constraints' OR a.\"key\" LIKE 'constraints:%') LIMIT 1";
    if !tx.query(constrained, &[study.into()])?.is_empty() {
        return Ok(Found::Constrained);
    }
    let order = match direction {
        Direction::Minimize => "ASC",
        Direction::Maximize => "DESC",
    };
    let sql = format!(
        "SELECT t.trial_id FROM trials t JOIN trial_values v ON v.trial_id = t.trial_id \
         WHERE t.study_id = $1 AND CAST(t.state AS TEXT) = 'COMPLETE' AND v.objective = 0 \
         ORDER BY CASE CAST(v.value_type AS TEXT) WHEN 'INF_NEG' THEN -1 WHEN 'INF_POS' THEN 1 ELSE 0 END {order}, \
         v.value {order}, t.number LIMIT 1"
    );
    let rows = tx.query(&sql, &[study.into()])?;
    let Some(row) = rows.first() else { return Ok(Found::Best(None)) };
    let only = Which::Since(study, i64::MAX, &[row.int(0)?]);
    Ok(Found::Best(trials::read(tx, only)?.pop()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use runtime_core::db::testing::PostgresServer;

    use super::*;
    use crate::{
        storage::{Attributes, Edit, NewTrial},
        study::State,
    };

    async fn the_best_is_that_of_all_trials(url: &str) {
        let store = Store::open(url).unwrap();
        let none = Attributes::new;
        let study = store.create_study("s", &[Direction::Minimize], none(), none()).await.unwrap().id;
        let other = store.create_study("t", &[Direction::Minimize], none(), none()).await.unwrap().id;
        let check = async || {
            let all = store.trials(study).await.unwrap();
            let mut numbers = Vec::new();
            for direction in [Direction::Minimize, Direction::Maximize] {
                let found = store.best_trial(study, direction).await.unwrap();
                assert_eq!(found.as_ref(), best(&all, direction));
                numbers.extend(found.map(|best| best.number));
            }
            numbers
        };
        let end = async |study: i64, state: State, values: &[f64], attributes: &[(&str, &str)]| {
            let new = store.create_trial(study, NewTrial::default(), Timestamp::UNIX_EPOCH).await.unwrap();
            let attribute = |(key, json): &(&str, &str)| ((*key).to_owned(), (*json).to_owned());
            let system_attrs = attributes.iter().map(attribute).collect();
            let end = Edit { system_attrs, ..Edit::state(state, values.to_vec()) };
            store.edit(new.id, end, Timestamp::UNIX_EPOCH).await.unwrap();
        };
        assert!(check().await.is_empty());
        end(study, State::Pruned, &[-9.0], &[("completed_rung_0", "1.0")]).await;
        end(study, State::Fail, &[], &[]).await;
        end(other, State::Complete, &[-5.0], &[("constraints:c", "1.0")]).await;
        assert!(check().await.is_empty());
        for value in [2.0, 1.0, 1.0, 2.0] {
            end(study, State::Complete, &[value], &[]).await;
        }
        assert_eq!(check().await, [3, 2], "the first of equals");
        end(study, State::Complete, &[f64::INFINITY], &[]).await;
        end(study, State::Complete, &[f64::NEG_INFINITY], &[]).await;
        assert_eq!(check().await, [7, 6]);
        end(study, State::Complete, &[f64::NEG_INFINITY], &[("constraints:c", "0.0")]).await;
        end(study, State::Complete, &[f64::INFINITY], &[("constraints:c", "0.5")]).await;
        assert_eq!(check().await, [7, 6], "who breaks a constraint is none");
    }

    #[tokio::test]
    async fn on_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        the_best_is_that_of_all_trials(&format!("sqlite://{}", folder.path().join("studies.db").display())).await;
    }

    #[tokio::test]
    async fn on_postgresql() {
        let server = PostgresServer::start().unwrap();
        the_best_is_that_of_all_trials(&format!("{}?schema=hpo", server.database().unwrap())).await;
    }
}
