//! Studies, and what clients send of trials, as Optuna's storage proxy writes them.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use quintet_proto::optuna as proto;
use runtime_core::status;
use tonic::Status;

use crate::{
    space::Distribution,
    storage::{NewTrial, Past},
    study::{Direction, Param, State, Study},
};

pub(super) fn direction(code: i32) -> Result<Direction, Status> {
    match proto::StudyDirection::try_from(code) {
        Ok(proto::StudyDirection::Minimize) => Ok(Direction::Minimize),
        Ok(proto::StudyDirection::Maximize) => Ok(Direction::Maximize),
        Err(_) => Err(status::invalid_field("directions", format!("{code} is neither MINIMIZE (0) nor MAXIMIZE (1)"))),
    }
}

pub(super) fn directions(directions: &[Direction]) -> Vec<i32> {
    let code = |direction: &Direction| match direction {
        Direction::Minimize => proto::StudyDirection::Minimize.into(),
        Direction::Maximize => proto::StudyDirection::Maximize.into(),
    };
    directions.iter().map(code).collect()
}

pub(super) fn state(code: i32) -> Result<State, Status> {
    match proto::TrialState::try_from(code) {
        Ok(proto::TrialState::Running) => Ok(State::Running),
        Ok(proto::TrialState::Complete) => Ok(State::Complete),
        Ok(proto::TrialState::Pruned) => Ok(State::Pruned),
        Ok(proto::TrialState::Fail) => Ok(State::Fail),
        Ok(proto::TrialState::Waiting) => Ok(State::Waiting),
        Err(_) => Err(status::invalid_field("state", format!("{code} is no state of a trial (0 to 4)"))),
    }
}

pub(super) fn state_code(state: State) -> i32 {
    match state {
        State::Running => proto::TrialState::Running,
        State::Complete => proto::TrialState::Complete,
        State::Pruned => proto::TrialState::Pruned,
        State::Fail => proto::TrialState::Fail,
        State::Waiting => proto::TrialState::Waiting,
    }
    .into()
}

pub(super) fn study(study: Study) -> proto::Study {
    proto::Study {
        study_id: study.id,
        study_name: study.name,
        directions: directions(&study.directions),
        user_attributes: study.user_attrs,
        system_attributes: study.system_attrs,
    }
}

pub(super) fn distribution(field: &str, json: &str) -> Result<Distribution, Status> {
    Distribution::from_json(json).map_err(|problem| status::invalid_field(field, problem))
}

/// A parameter whose value everybody can read back: one wrong value would make the whole study unreadable.
pub(super) fn param(field: &str, name: String, value: f64, distribution: Distribution) -> Result<Param, Status> {
    let readable = match distribution {
        // As in Optuna, a float may be infinite whatever its range is.
        Distribution::Float { .. } => !value.is_nan(),
        Distribution::Int { .. } => value.is_finite(),
        Distribution::Categorical { .. } => value.fract() == 0.0 && distribution.contains(value),
    };
    if !readable {
        let problem = format!("{value} is no value of `{name}` in {}", distribution.to_json());
        return Err(status::invalid_field(field, problem));
    }
    Ok(Param { name, value, distribution })
}

pub(super) fn time(field: &str, text: &str) -> Result<Option<Timestamp>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", text).and_then(|time| TimeZone::system().to_timestamp(time));
    let wrong = |_| status::invalid_field(field, format!("{text:?} is not of the form YYYY-MM-DD HH:MM:SS.ffffff"));
    time.map(Some).map_err(wrong)
}

/// A trial to be made after a template, whose id and number do not count.
pub(super) fn new_trial(template: proto::Trial) -> Result<NewTrial, Status> {
    let mut params = Vec::with_capacity(template.params.len());
    for (name, value) in template.params {
        let field = format!("template_trial.distributions[{name:?}]");
        let json = template.distributions.get(&name).ok_or_else(|| status::invalid_field(&field, "is missing"))?;
        let distribution = distribution(&field, json)?;
        params.push(param(&format!("template_trial.params[{name:?}]"), name, value, distribution)?);
    }
    Ok(NewTrial {
        params,
        user_attrs: template.user_attributes,
        system_attrs: template.system_attributes,
        past: Some(Past {
            state: state(template.state)?,
            values: template.values,
            intermediate: template.intermediate_values,
            start: time("template_trial.datetime_start", &template.datetime_start)?,
            complete: time("template_trial.datetime_complete", &template.datetime_complete)?,
        }),
        // Whoever only copies a running trial does not work on it.
        leased: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_none_stays_none() {
        assert!(time("t", "2026-09-21 14:13:20.123456").unwrap().is_some());
        assert_eq!(time("t", "").unwrap(), None);
        let wrong = time("template_trial.datetime_start", "yesterday").unwrap_err();
        assert!(wrong.message().contains("yesterday"), "{wrong}");
    }

    #[test]
    fn values_that_nobody_could_read_back_are_refused() {
        let choices = vec![crate::space::ParamValue::Null, crate::space::ParamValue::Bool(true)];
        let choice = Distribution::categorical(choices).unwrap();
        let float = Distribution::float(0.0, 1.0, false, None).unwrap();
        let refused = |value, of: &Distribution| param("f", "p".into(), value, of.clone()).is_err();
        assert!(refused(2.0, &choice) && refused(-1.0, &choice) && refused(0.5, &choice) && refused(f64::NAN, &choice));
        let int = Distribution::int(0, 9, false, 1).unwrap();
        assert!(refused(f64::NAN, &float) && refused(f64::NAN, &int) && refused(f64::INFINITY, &int));
        assert!(refused(f64::INFINITY, &choice) && refused(f64::NEG_INFINITY, &choice));
        assert!(!refused(f64::INFINITY, &float) && !refused(f64::NEG_INFINITY, &float));
        // Optuna's storages take a number outside of its range.
        assert!(!refused(1.0, &choice) && !refused(0.5, &float) && !refused(2.0, &float));
    }

    #[test]
    fn codes_go_there_and_back() {
        for code in 0..5 {
            assert_eq!(state_code(state(code).unwrap()), code);
        }
        assert!(state(5).is_err());
        assert_eq!(directions(&[direction(0).unwrap(), direction(1).unwrap()]), [0, 1]);
        assert!(direction(2).is_err());
    }
}
