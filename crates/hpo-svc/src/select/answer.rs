//! The answer to a choice: the response, or the status that says why nothing can be chosen.

use quintet_proto::v1::{self, GetBestConfigResponse};
use runtime_core::status::{self, ErrorReason};
use tonic::Status;

use super::{Candidate, Choice, Judged, Nothing, Request, Rule, choose, gather, gather::Whole, known, why};

/// Trials that a message names at most.
const NAMED: usize = 10;

/// The chosen trial, by the index of its study and its number, and the answer but for that trial.
///
/// # Errors
/// `INVALID_ARGUMENT` when the request does not fit to the studies, `FAILED_PRECONDITION` when no trial has completed, or none of those
/// that have may be chosen.
pub fn answer(request: &Request, studies: &[Whole]) -> Result<((usize, i64), GetBestConfigResponse), Status> {
    let (rule, candidates) = gather(request, studies).map_err(status::invalid_argument)?;
    let choice = choose(&candidates, &rule).map_err(|nothing| refusal(&nothing, &candidates, &rule, studies))?;
    let Choice { ranked, reasons } = choice;
    let Some(chosen) = ranked.first().map(|chosen| &candidates[chosen.at]) else {
        return Err(refusal(&Nothing::Completed, &candidates, &rule, studies));
    };
    let place = studies.iter().position(|(study, _)| study.name == *chosen.study).unwrap_or_default();
    let chosen = (place, chosen.number);
    let shown = ranked.iter().enumerate().take(request.most_candidates);
    let response = GetBestConfigResponse {
        strategy: rule.strategy().to_owned(),
        reasons,
        candidates: shown.map(|(index, judged)| wire(&candidates, &rule, judged, index == 0)).collect(),
        candidate_count: i32::try_from(ranked.len()).unwrap_or(i32::MAX),
        direction: rule.direction.to_proto().into(),
        metric: rule.metric,
        ..GetBestConfigResponse::default()
    };
    Ok((chosen, response))
}

fn resource(candidate: &Candidate) -> String {
    format!("studies/{}/trials/{}", candidate.study, candidate.number)
}

fn named_studies(studies: &[Whole]) -> String {
    studies.iter().map(|(study, _)| format!("studies/{}", study.name)).collect::<Vec<_>>().join(", ")
}

fn wire(candidates: &[Candidate], rule: &Rule, judged: &Judged, chosen: bool) -> v1::Candidate {
    let candidate = &candidates[judged.at];
    let weighted = rule.objective_weights.as_ref().map(|_| judged.goodness).filter(|goodness| goodness.is_finite());
    v1::Candidate {
        trial: resource(candidate),
        metric: if rule.objective_weights.is_some() { weighted } else { candidate.metric },
        latency_ms: candidate.latency.filter(|_| rule.speed.is_some()),
        score: judged.score,
        pareto_front: judged.front,
        champion: judged.champion,
        chosen,
        excluded: judged.excluded.as_ref().map(|excluded| why(candidates, rule, excluded)).unwrap_or_default(),
    }
}

/// Some trials by name, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// That nothing can be chosen yet: the studies are there, their results are not.
fn none_completed(studies: &[Whole]) -> String {
    let names: Vec<String> = studies.iter().map(|(study, _)| format!("`{}`", study.name)).collect();
    let of = format!("{} {}", if names.len() == 1 { "study" } else { "studies" }, names.join(", "));
    match studies.iter().map(|(_, trials)| trials.len()).sum() {
        0 => format!("{of}: there is no trial yet"),
        1_usize => format!("{of}: the only trial has not completed"),
        count => format!("{of}: none of the {count} trials has completed"),
    }
}

fn refusal(nothing: &Nothing, candidates: &[Candidate], rule: &Rule, studies: &[Whole]) -> Status {
    let subject = named_studies(studies);
    let message = match nothing {
        Nothing::Completed => none_completed(studies),
        Nothing::NoLatency(at) => {
            let trials: Vec<String> = at.iter().map(|at| resource(&candidates[*at])).collect();
            let mut there: Vec<String> = studies.iter().flat_map(|(study, trials)| known(study, trials)).collect();
            there.sort_unstable();
            there.dedup();
            format!(
                "no candidate has a latency: {}; their metrics are {}; name another latency_metric, or give latencies_ms",
                some(&trials),
                there.join(", ")
            )
        }
        Nothing::Excluded(judged) => {
            let told = judged.iter().filter_map(|one| {
                let excluded = one.excluded.as_ref()?;
                Some(format!("{} {}", resource(&candidates[one.at]), why(candidates, rule, excluded)))
            });
            format!("none of the completed trials can be chosen: {}", some(&told.collect::<Vec<_>>()))
        }
    };
    status::failed_precondition(ErrorReason::IllegalState, &subject, message, [("studies", subject.clone())])
}
