//! What a client tells of a trial: which one, and how it has ended.

use quintet_proto::v1::{self, TellTrialRequest};
use runtime_core::status::{self, violation};
use tonic::Status;

use super::Search;
use crate::{
    pyjson::{dump_text, float_repr},
    storage::Edit,
    study::State,
    sweep::ATTR_ERROR,
};

/// The study and the number in the name of a trial.
pub(super) fn numbered(name: &str) -> Result<(&str, i64), Status> {
    let form =
        || status::invalid_field("name", format!("`{name}` is not of the form studies/{{study}}/trials/{{number}}"));
    let (study, number) = name.rsplit_once("/trials/").ok_or_else(form)?;
    Ok((study, number.parse().map_err(|_| form())?))
}

/// How a trial ends.
pub(super) fn end(request: &TellTrialRequest, search: &Search) -> Result<Edit, Status> {
    let mut wrong = Vec::new();
    let state = match v1::TrialState::try_from(request.state) {
        Ok(v1::TrialState::Unspecified | v1::TrialState::TrialComplete) => State::Complete,
        Ok(v1::TrialState::TrialPruned) => State::Pruned,
        Ok(v1::TrialState::TrialFail) => State::Fail,
        _ => {
            wrong.push(violation("state", "is not one of TRIAL_COMPLETE, TRIAL_PRUNED and TRIAL_FAIL"));
            State::Fail
        }
    };
    let (told, wanted) = (request.values.len(), search.directions.len());
    let fits = match state {
        State::Complete => told == wanted,
        State::Pruned => told == 0 || told == wanted,
        _ => told == 0,
    };
    if !fits {
        wrong.push(violation("values", format!("{told} were told for {state}; the study has {wanted} objectives")));
    }
    for (index, _) in request.values.iter().enumerate().filter(|(_, value)| value.is_nan()) {
        wrong.push(violation(format!("values[{index}]"), "is NaN; a trial without a result ends with TRIAL_FAIL"));
    }
    for (name, _) in request.constraints.iter().filter(|(_, value)| value.is_nan()) {
        wrong.push(violation(format!("constraints[{name:?}]"), "is NaN"));
    }
    if !wrong.is_empty() {
        return Err(status::invalid_argument(wrong));
    }
    let mut edit = Edit::state(state, request.values.clone());
    if !request.error.is_empty() {
        edit.user_attrs.insert(ATTR_ERROR.to_owned(), dump_text(&request.error));
    }
    let constraint = |(name, value): (&String, &f64)| (format!("constraints:{name}"), float_repr(*value));
    edit.system_attrs.extend(request.constraints.iter().map(constraint));
    Ok(edit)
}
