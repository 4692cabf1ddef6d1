//! `CreateSweep`: a sweep for one backbone becomes a job, and a plan of what it will do.

use quintet_proto::v1::{
    CreateJobRequest, CreateSweepRequest, CreateSweepResponse, Job, JobSpec, SweepSpec, job_spec::Kind,
    sweep_spec::Trial as Work,
};
use runtime_core::{
    client::JobClient,
    status::{self, FieldViolation, in_fields_of_kind, violation},
};
use tonic::Status;

use crate::{
    storage::Store,
    study::Trial,
    sweep::{Sweep, disagreement},
    sweep_plan::sweep_plan,
};

/// Stands for the backbone in names and parameters.
const PLACEHOLDER: &str = "{backbone}";

/// The short name of a model: the last part of its path or hub id, up to the first `-`.
pub(crate) fn short_name(backbone: &str) -> &str {
    let last = backbone.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(backbone);
    match last.split_once('-') {
        Some((short, _)) if !short.is_empty() => short,
        _ => last,
    }
}

/// The specification with the backbone in its places, and what should be said about it.
///
/// # Errors
/// Every field that is wrong.
fn prepare(request: &CreateSweepRequest) -> Result<(Sweep, Vec<String>), Vec<FieldViolation>> {
    let Some(mut spec) = request.spec.clone() else {
        return Err(vec![violation("spec", "is missing; it says what the sweep does")]);
    };
    spec.dry_run |= request.dry_run;
    let mut wrong = Vec::new();
    let warnings = put_backbone(&mut spec, &request.backbone, &mut wrong);
    let sweep = Sweep::new(&spec).map_err(|found| wrong.extend(in_spec(found)));
    match sweep {
        Ok(sweep) if wrong.is_empty() => Ok((sweep, warnings)),
        _ => Err(wrong),
    }
}

/// Violations of the specification as fields of the request.
fn in_spec(wrong: Vec<FieldViolation>) -> Vec<FieldViolation> {
    wrong.into_iter().map(|v| violation(format!("spec.{}", v.field), v.description)).collect()
}

fn put_backbone(spec: &mut SweepSpec, backbone: &str, wrong: &mut Vec<FieldViolation>) -> Vec<String> {
    let unfilled = || format!("has {PLACEHOLDER}, but backbone is empty");
    let (named, anonymous) = (spec.study_name.contains(PLACEHOLDER), spec.study_name.is_empty());
    if backbone.is_empty() {
        if named {
            wrong.push(violation("spec.study_name", unfilled()));
        }
        if let Some(Work::Command(command)) = &spec.trial {
            for (name, _) in command.parameters.iter().filter(|(_, value)| value.contains(PLACEHOLDER)) {
                wrong.push(violation(format!("spec.command.parameters[{name:?}]"), unfilled()));
            }
        }
        return Vec::new();
    }
    spec.study_name = spec.study_name.replace(PLACEHOLDER, short_name(backbone));
    match &mut spec.trial {
        Some(Work::Train(train)) => {
            // A name of the Hub, a path or a URL; the server of the jobs makes a checkpoint of it.
            backbone.clone_into(&mut train.backbone);
            train.checkpoint.clear();
        }
        Some(Work::Command(command)) => {
            let mut places = 0;
            for value in command.parameters.values_mut().filter(|value| value.contains(PLACEHOLDER)) {
                *value = value.replace(PLACEHOLDER, backbone);
                places += 1;
            }
            if places == 0 {
                let problem =
                    format!("`{backbone}` reaches no trial: no value of command.parameters has {PLACEHOLDER}");
                wrong.push(violation("backbone", problem));
            }
        }
        None => {}
    }
    let shared = !named && !anonymous;
    let warning = || {
        format!(
            "study_name `{}` has no {PLACEHOLDER}: a sweep of another backbone would come into the same study",
            spec.study_name
        )
    };
    shared.then(warning).into_iter().collect()
}

/// Creates the job of a sweep, or only checks and plans it.
///
/// # Errors
/// `INVALID_ARGUMENT` by field, the job service's, or the store's.
pub(crate) async fn create(
    store: &Store,
    jobs: &JobClient,
    request: CreateSweepRequest,
) -> Result<CreateSweepResponse, Status> {
    let (sweep, warnings) = prepare(&request).map_err(status::invalid_argument)?;
    let job = job_request(request, &sweep);
    let checked = Box::pin(jobs.create(CreateJobRequest { validate_only: true, ..job.clone() }))
        .await
        .map_err(|refused| in_fields_of_kind(refused, "sweep"))?;
    let name = sweep.study_name(&checked.content_hash);
    let study = store.find_study(&name).await?;
    let trials = match &study {
        Some(study) => {
            if let Some(problem) = disagreement(study, &sweep) {
                return Err(status::invalid_field("spec.study_name", problem));
            }
            Some(store.trials(study.id).await?)
        }
        None => None,
    };
    if let Some(transfer) = &sweep.transfer {
        let none: &[Trial] = &[];
        let found = match (&study, trials.as_deref()) {
            (Some(study), Some(trials)) => transfer.left(store, study, &sweep.space, trials).await?.map(drop),
            _ => transfer.trials(store, &name, &sweep.space, none).await?.map(drop),
        };
        found.map_err(|wrong| status::invalid_argument(in_spec(wrong)))?;
    }
    // Before the job exists: it makes the study.
    let mut plan = sweep_plan(&sweep, &name, trials.as_deref());
    plan.warnings.extend(warnings);
    let job = if job.validate_only {
        checked
    } else {
        Box::pin(jobs.create(job)).await.map_err(|refused| in_fields_of_kind(refused, "sweep"))?
    };
    Ok(CreateSweepResponse { job: job.name, plan: Some(plan) })
}

fn job_request(request: CreateSweepRequest, sweep: &Sweep) -> CreateJobRequest {
    let kind = if sweep.spec.dry_run { "dry-run-sweep" } else { "hpo-sweep" };
    let mut labels = request.labels;
    let mut label = |name: &str, value: &str| {
        labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    label("job_type", if sweep.spec.dry_run { "dry_run_sweep" } else { "hpo_sweep" });
    let display_name = match request.backbone.as_str() {
        "" => kind.to_owned(),
        backbone => {
            label("backbone", backbone);
            format!("{kind}-{}", short_name(backbone))
        }
    };
    let job = Job {
        display_name,
        spec: Some(JobSpec { kind: Some(Kind::Sweep(sweep.spec.clone())) }),
        labels,
        experiment: request.experiment,
        ..Job::default()
    };
    let drawn = || format!("{:032x}", rand::random::<u128>());
    let request_id = if request.request_id.is_empty() { drawn() } else { request.request_id };
    CreateJobRequest { job: Some(job), request_id, validate_only: request.validate_only, force: false }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{self, CommandSpec, TrainSpec, parameter::Domain};

    use super::*;

    fn request(study_name: &str, backbone: &str, trial: Work) -> CreateSweepRequest {
        let domain = Some(Domain::Float(v1::FloatDomain { low: 0.0, high: 1.0, log: false, step: None }));
        let spec = SweepSpec {
            study_name: study_name.into(),
            search_space: vec![v1::Parameter { name: "learning_rate".into(), domain, condition: None }],
            objective: Some(v1::Objective { metric: "f1".into(), direction: 0 }),
            max_trials: 4,
            trial: Some(trial),
            ..SweepSpec::default()
        };
        CreateSweepRequest { spec: Some(spec), backbone: backbone.into(), ..CreateSweepRequest::default() }
    }

    fn command(parameters: &[(&str, &str)]) -> Work {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = "train ${{search_space.learning_rate}} ${{search_space.model}}".into();
        Work::Command(CommandSpec { command: text, parameters, ..CommandSpec::default() })
    }

    #[test]
    fn models_have_short_names() {
        for (backbone, short) in [
            ("distilbert-base-uncased", "distilbert"),
            ("microsoft/deberta-v3-base", "deberta"),
            ("/models/all-MiniLM-L6-v2/", "all"),
            ("s3://bucket/encoder", "encoder"),
            ("-odd", "-odd"),
            ("bert", "bert"),
        ] {
            assert_eq!(short_name(backbone), short);
        }
    }

    #[test]
    fn the_backbone_takes_its_places() {
        let train = Work::Train(TrainSpec { checkpoint: "/other".into(), ..TrainSpec::default() });
        let (sweep, warnings) = prepare(&request("hpo_{backbone}_prod", "hub/distilbert-base", train.clone())).unwrap();
        let Some(Work::Train(trained)) = &sweep.spec.trial else { panic!("no training") };
        assert_eq!(
            (sweep.spec.study_name.as_str(), trained.backbone.as_str()),
            ("hpo_distilbert_prod", "hub/distilbert-base")
        );
        assert_eq!(warnings, Vec::<String>::new());
        let (_, warnings) = prepare(&request("one", "a-b", train)).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("would come into the same study"), "{warnings:?}");
        let (sweep, _) = prepare(&request("", "hub/a-b", command(&[("model", "--model {backbone}")]))).unwrap();
        let Some(Work::Command(command)) = &sweep.spec.trial else { panic!("no command") };
        assert_eq!(command.parameters["model"], "--model hub/a-b");
    }

    #[test]
    fn a_backbone_that_is_missing_or_reaches_nothing_is_refused() {
        let fields = |request: &CreateSweepRequest| -> Vec<String> {
            prepare(request).unwrap_err().into_iter().map(|violation| violation.field).collect()
        };
        let unfilled = request("s_{backbone}", "", command(&[("model", "{backbone}")]));
        assert_eq!(fields(&unfilled), ["spec.study_name", "spec.command.parameters[\"model\"]"]);
        assert_eq!(fields(&request("s", "a-b", command(&[("model", "x")]))), ["backbone"]);
        let mut wrong = request("s", "a-b", command(&[("model", "{backbone}")]));
        wrong.spec.as_mut().unwrap().max_trials = 0;
        assert_eq!(fields(&wrong), ["spec.max_trials"]);
        assert_eq!(fields(&CreateSweepRequest::default()), ["spec"]);
    }

    #[test]
    fn a_dry_run_says_so_in_its_job() {
        let mut dry = request("s", "a-b", command(&[("model", "{backbone}")]));
        dry.dry_run = true;
        dry.labels = [("backbone".to_owned(), "mine".to_owned())].into();
        let (sweep, _) = prepare(&dry).unwrap();
        let made = job_request(dry, &sweep);
        let job = made.job.unwrap();
        assert_eq!(job.display_name, "dry-run-sweep-a");
        assert_eq!((job.labels["job_type"].as_str(), job.labels["backbone"].as_str()), ("dry_run_sweep", "mine"));
        assert_eq!((made.request_id.len(), sweep.spec.max_trials), (32, 2));
    }
}
