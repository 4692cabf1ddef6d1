//! Whole pipeline files: good ones become jobs, bad ones an error with its place.

use std::{collections::BTreeMap, path::Path};

use quintet_proto::v1::{
    FinalTrainingMode, GetBestConfigRequest, Precision, command_input::Source, job_spec::Kind, sweep_spec::Trial,
};

use super::{Pipeline, parse};

const GOOD: &str = "name: addresses
experiment: demo-${{params.size}}
params:
  size: small
  trials: 8
  data: ../data
stages:
  convert:
    convert:
      checkpoint: ${{stages.train.outputs.checkpoint}}
      evaluation: ${{stages.train.outputs.evaluation}}
      precisions: [FP32, INT8]
  sweep:
    sweep:
      search_space:
        - {name: learning_rate, float: {low: 1e-5, high: 5e-4, log: true}}
      objective: {metric: validation.f1, direction: MAXIMIZE}
      max_trials: ${{params.trials}}
      train:
        checkpoint: ./encoder
        data: {train: '${{params.data}}/train.txt', test: /abs/test.txt}
    resources: {cpus: 2}
    timeouts: {total: 600s}
    retry: {max_attempts: 2}
    labels: {team: a1}
  train:
    config_from: sweep
    train: {checkpoint: 's3://bucket/encoder', data: {train: a.txt}, hyperparameters: {epochs: 3}}
  check:
    command:
      command: python check.py ${{inputs.model}} ${{params.size}} > ${{outputs.out}}/x
      inputs: {model: {uri: '${{stages.convert.outputs.model}}'}, local: {uri: check.py}, n: {literal: 5}}
      outputs: [out]
      environment: {N: 1}
";

fn read(text: &str, sets: &[(&str, &str)]) -> Result<Pipeline, String> {
    let sets: Vec<(String, String)> = sets.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    parse::parse("p.yaml", text, Path::new("/base/pipes"), &sets).map_err(|problem| problem.text("p.yaml"))
}

#[test]
fn texts_are_expressed_as_the_message_says() {
    let text = "
name: intents
stages:
  train:
    train:
      checkpoint: base
      text_classification:
        train: data/train.csv
        labels: labels.json
        label_column: intent
        task: SINGLE_LABEL
        fold: {n_splits: 5, index: 1}
";
    let pipeline = read(text, &[]).unwrap();
    let Some(Kind::Train(train)) = &pipeline.stages[0].spec.kind else { panic!("no training") };
    let data = train.text_classification.as_ref().unwrap();
    assert_eq!((data.train.as_str(), data.labels.as_str()), ("/base/pipes/data/train.csv", "/base/pipes/labels.json"));
    assert_eq!((data.task(), data.label_column.as_str()), (quintet_proto::v1::TextTask::SingleLabel, "intent"));
    assert!(train.data.is_none() && data.fold.as_ref().is_some_and(|fold| fold.index == 1));
}

#[test]
fn what_decides_which_trial_is_the_best_may_be_said() {
    let mapping =
        "config_from: {sweep: sweep, latency_metric: ms, accuracy_threshold: 0.02, scoring: {latency_weight: 0.5}}";
    let pipeline = read(&GOOD.replacen("config_from: sweep", mapping, 1), &[]).unwrap();
    let train = pipeline.stage("train").unwrap();
    assert_eq!(train.needs().collect::<Vec<_>>(), ["sweep"]);
    let request = train.config_from.as_ref().unwrap().request("s");
    assert_eq!((request.study.as_str(), request.latency_metric.as_str()), ("studies/s", "ms"));
    assert_eq!((request.accuracy_threshold, request.scoring.unwrap().latency_weight), (Some(0.02), Some(0.5)));
    let alone = read(GOOD, &[]).unwrap().stage("train").unwrap().config_from.as_ref().unwrap().request("s");
    assert_eq!(alone, GetBestConfigRequest { study: "studies/s".into(), ..GetBestConfigRequest::default() });
}

#[test]
fn the_mode_of_a_final_training_stands_in_train_stages() {
    let with = |stage: &str, text: &str| {
        let line = format!("\n  {stage}:\n    final_training: {text}\n");
        read(&GOOD.replacen(&format!("\n  {stage}:\n"), &line, 1), &[])
    };
    let pipeline = with("train", "{mode: RESUME_IF_INCOMPLETE, variant: 2}").unwrap();
    let wanted = pipeline.stage("train").unwrap().final_training.unwrap();
    assert_eq!((wanted.mode, wanted.variant), (FinalTrainingMode::ResumeIfIncomplete, 2));
    assert_eq!(read(GOOD, &[]).unwrap().stage("train").unwrap().final_training, None);
    for (stage, text, part) in [
        ("convert", "{mode: FORCE_NEW}", "stages.convert.final_training: stands in train stages alone"),
        ("train", "{mode: FORCE_NEW, variant: 2}", "stages.train.final_training.variant: found 2, but FORCE_NEW"),
        ("train", "{variant: -1}", "found -1, expected 1 or more"),
        ("train", "{mode: FORCE}", "FORCE"),
        ("train", "{modus: FORCE_NEW}", "modus"),
    ] {
        let error = with(stage, text).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_encoder_is_a_name_of_the_hub_unless_there_is_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("models/enc")).unwrap();
    let backbone = |text: &str| {
        let yaml = format!("name: p\nstages:\n  t:\n    train: {{backbone: {text}, data: {{train: /t}}}}\n");
        let pipeline =
            parse::parse("p.yaml", &yaml, folder.path(), &[]).map_err(|problem| problem.text("p.yaml")).unwrap();
        match pipeline.stages[0].spec.kind.clone() {
            Some(Kind::Train(train)) => train.backbone,
            other => panic!("{other:?}"),
        }
    };
    let local = folder.path().join("models/enc").display().to_string();
    for (text, expected) in [
        ("distilbert-base-uncased", "distilbert-base-uncased"),
        ("org/name@v1", "org/name@v1"),
        ("models/enc", local.as_str()),
        ("./models/enc", local.as_str()),
        ("/abs/enc", "/abs/enc"),
        ("hf://models/enc", "hf://models/enc"),
    ] {
        assert_eq!(backbone(text), expected);
    }
}

#[test]
fn a_good_file_becomes_jobs_in_the_order_of_their_needs() {
    let pipeline = read(GOOD, &[("trials", "3")]).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.experiment.as_str()), ("addresses", "demo-small"));
    assert_eq!(pipeline.params["trials"], "3");
    let order: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(order, ["sweep", "train", "convert", "check"]);

    let sweep = pipeline.stage("sweep").unwrap().job(&pipeline, &BTreeMap::new()).unwrap();
    let Some(Kind::Sweep(spec)) = sweep.spec.unwrap().kind else { panic!("no sweep") };
    assert_eq!(spec.max_trials, 3);
    let Some(Trial::Train(train)) = spec.trial else { panic!("no training") };
    assert_eq!(train.checkpoint, "/base/pipes/encoder");
    let data = train.data.unwrap();
    assert_eq!((data.train.as_str(), data.test.as_str()), ("/base/data/train.txt", "/abs/test.txt"));
    assert_eq!((sweep.resources.unwrap().cpus, sweep.timeouts.unwrap().total.unwrap().seconds), (2, 600));
    assert_eq!((sweep.retry.unwrap().max_attempts, sweep.labels["team"].as_str()), (2, "a1"));
    assert_eq!((sweep.labels["quintet.stage"].as_str(), sweep.experiment.as_str()), ("sweep", "demo-small"));

    let train = pipeline.stage("train").unwrap();
    assert_eq!(train.needs().collect::<Vec<_>>(), ["sweep"]);
    let Some(Kind::Train(spec)) = &train.spec.kind else { panic!("no training") };
    assert_eq!(spec.checkpoint, "s3://bucket/encoder");

    let jobs = BTreeMap::from([("train".to_owned(), "jobs/11".to_owned()), ("convert".into(), "jobs/22".into())]);
    let convert = pipeline.stage("convert").unwrap().job(&pipeline, &jobs).unwrap();
    let Some(Kind::Convert(spec)) = convert.spec.unwrap().kind else { panic!("no conversion") };
    assert_eq!(spec.checkpoint, "jobs/11/outputs/checkpoint");
    assert_eq!(spec.precisions().collect::<Vec<_>>(), [Precision::Fp32, Precision::Int8]);

    let check = pipeline.stage("check").unwrap().job(&pipeline, &jobs).unwrap();
    let Some(Kind::Command(spec)) = check.spec.unwrap().kind else { panic!("no command") };
    assert_eq!(spec.command, "python check.py ${{inputs.model}} small > ${{outputs.out}}/x");
    assert_eq!(spec.inputs["model"].source, Some(Source::Uri("jobs/22/outputs/model".into())));
    assert_eq!(spec.inputs["local"].source, Some(Source::Uri("/base/pipes/check.py".into())));
    assert_eq!(spec.inputs["n"].source, Some(Source::Literal("5".into())));
    assert_eq!(spec.environment["N"], "1");
}

#[test]
fn a_prediction_takes_the_checkpoint_of_a_training() {
    let stage = "  predict:
    predict:
      checkpoint: ${{stages.train.outputs.checkpoint}}
      input: new/texts.jsonl
      aggregation_strategy: first
";
    let pipeline = read(&format!("{GOOD}{stage}"), &[]).unwrap();
    let predict = pipeline.stage("predict").unwrap();
    assert_eq!((predict.needs().collect::<Vec<_>>(), predict.outputs()), (vec!["train"], vec!["predictions"]));
    let jobs = BTreeMap::from([("train".to_owned(), "jobs/11".to_owned())]);
    let Some(Kind::Predict(spec)) = predict.job(&pipeline, &jobs).unwrap().spec.unwrap().kind else {
        panic!("no prediction")
    };
    assert_eq!(
        (spec.checkpoint.as_str(), spec.input.as_str()),
        ("jobs/11/outputs/checkpoint", "/base/pipes/new/texts.jsonl")
    );
    let unknown = read(&format!("{GOOD}{stage}").replace("aggregation_strategy", "aggregation"), &[]).unwrap_err();
    assert!(unknown.contains("aggregation"), "{unknown}");
}

#[test]
fn fields_of_the_server_are_found_in_the_file() {
    let pipeline = read(GOOD, &[]).unwrap();
    let sweep = pipeline.stage("sweep").unwrap();
    let (place, path) = sweep.locate("job.spec.sweep.search_space[0].float.low");
    assert_eq!((place.to_string().as_str(), path.as_str()), ("16:46", "stages.sweep.sweep.search_space[0].float.low"));
    assert_eq!(sweep.locate("spec.sweep.seed").0.line, 15, "the nearest value above");
    assert_eq!(sweep.locate("job.resources.cpus").0.line, 22);
    let convert = pipeline.stage("convert").unwrap();
    assert!(convert.is_open("job.spec.convert.checkpoint") && convert.is_open("spec.convert"));
    assert!(!convert.is_open("spec.convert.opset") && !sweep.is_open("spec.sweep.max_trials"));
    assert!(pipeline.stage("train").unwrap().is_open("spec.train.hyperparameters.learning_rate"));
}

#[test]
fn bad_files_are_refused_with_place_and_what_is_allowed() {
    let change = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    for (text, expected) in [
        (
            change("name: addresses", "nane: addresses"),
            "p.yaml:1:1: unknown key `nane`; did you mean `name`? Allowed: name, experiment, params, stages",
        ),
        (change("name: addresses\n", ""), "p.yaml:1:1: name: is missing; it names the pipeline's jobs"),
        (
            change("name: addresses", "name: a b"),
            "p.yaml:1:7: name: \"a b\" is no name; 1 to 60 letters, digits, `-` and `_` are allowed",
        ),
        ("name: a\nstages:\n".into(), "p.yaml:2:7: stages: is empty; a pipeline has at least one stage"),
        (
            change("max_trials:", "max_trails:"),
            "p.yaml:18:7: stages.sweep.sweep: unknown key `max_trails`; did you mean `max_trials`? Allowed: study_name",
        ),
        (
            change("precisions: [FP32,", "precisions: [FP16,"),
            "p.yaml:12:20: stages.convert.convert.precisions[0]: `FP16` is not allowed; did you mean `FP32`? Allowed: FP32, INT8",
        ),
        (
            change("resources: {cpus: 2}", "resources: {cpu: 2}"),
            "p.yaml:22:17: stages.sweep.resources: unknown key `cpu`; did you mean `cpus`?",
        ),
        (
            change("timeouts: {total: 600s}", "timeouts: {total: 600}"),
            "p.yaml:23:23: stages.sweep.timeouts.total: is \"600\"; a duration in seconds is expected, such as 90s or 0.5s",
        ),
        (
            change("    resources:", "    resource:"),
            "p.yaml:22:5: stages.sweep: unknown key `resource`; did you mean `resources`? Allowed: sweep, train",
        ),
        (
            change("convert:\n    convert:", "convert:\n    train: {}\n    convert:"),
            "p.yaml:8:3: stages.convert: has train and convert; one kind of work is allowed",
        ),
        (
            change("    command:\n      command:", "    retry:\n      command:"),
            "p.yaml:29:3: stages.check: says no work; give one of sweep, train, convert, benchmark, command, predict",
        ),
        (
            change("outputs.checkpoint}}", "outputs.model}}"),
            "p.yaml:10:19: stages.convert.convert.checkpoint: stage `train` (train) has no output `model`; allowed: checkpoint, evaluation",
        ),
        (
            change("${{stages.train.outputs.checkpoint}}", "${{stages.trian.outputs.checkpoint}}"),
            "p.yaml:10:19: stages.convert.convert.checkpoint: there is no stage `trian`; did you mean `train`? Allowed: convert, sweep, train, check",
        ),
        (
            change("${{stages.train.outputs.evaluation}}", "${{stages.sweep.best}}"),
            "p.yaml:11:19: stages.convert.convert.evaluation: `${{stages.sweep.best}}` has no place inside a value; write `config_from: sweep`",
        ),
        (
            change("${{params.trials}}", "${{params.trails}}"),
            "p.yaml:18:19: stages.sweep.sweep.max_trials: there is no parameter `trails` in `params:`; did you mean `trials`? Allowed: data, size, trials",
        ),
        (
            change("config_from: sweep", "config_from: convert"),
            "p.yaml:27:18: stages.train.config_from: `convert` is a convert stage, not a sweep; allowed: sweep",
        ),
        (
            change("config_from: sweep", "config_from: swep"),
            "p.yaml:27:18: stages.train.config_from: there is no stage `swep`; did you mean `sweep`?",
        ),
        (
            change("environment: {N: 1}", "environment: {N: '${{inputs.model}}'}"),
            "p.yaml:34:24: stages.check.command.environment.N: placeholders of a command",
        ),
        (
            change("{name: learning_rate,", "{name: lr,"),
            "p.yaml:27:18: stages.train.config_from: `sweep` tunes `lr`, which is no hyperparameter of the trainer",
        ),
        (
            change("config_from: sweep", "config_from: {sweep: sweep, latency: ms}"),
            "p.yaml:27:33: stages.train.config_from: unknown key `latency`; allowed: sweep, metric, direction, objective_weights, latency_metric, scoring,",
        ),
        (
            change("config_from: sweep", "config_from: {latency_metric: ms}"),
            "p.yaml:27:18: stages.train.config_from: `sweep` is missing",
        ),
        (change("size: small", "size: [a]"), "p.yaml:4:9: params.size: is a list; a single value is expected"),
        (
            change("data: {train: a.txt}", "data: {train: '${{stages.convert.outputs.model}}'}"),
            "p.yaml:8:3: stages.convert: stages need each other in a circle: convert -> train -> convert",
        ),
        (
            change("max_trials: ${{params.trials}}", "max_trials: ${{params.size}}"),
            "p.yaml:18:19: stages.sweep.sweep.max_trials: is \"small\"; a number is expected",
        ),
    ] {
        let error = read(&text, &[]).unwrap_err();
        assert!(error.starts_with(expected), "got      {error}\nexpected {expected}");
    }
    let error = read(GOOD, &[("trails", "3")]).unwrap_err();
    assert!(error.contains("`--set trails=...`: there is no such parameter; did you mean `trials`?"), "{error}");
    assert!(read(GOOD, &[("size", "a"), ("size", "b")]).unwrap_err().contains("given twice"));
    assert!(read("name: a\nstages: {}\n", &[("x", "1")]).unwrap_err().contains("the file has no `params:`"));
}
