//! Every family of encoders in whole runs.
use std::fs;

use quintet_nlp::{checkpoint::Checkpoint, testing::TinyCheckpoint};
use train_worker::train;

use crate::support::{Bench, NAMES, PLACES, Recorder};

#[test]
fn every_family_learns_and_its_checkpoint_is_taken_up_again() {
    for model_type in ["roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2", "mpnet", "modernbert"] {
        let mut bench = Bench::new();
        let words = PLACES.iter().chain(&NAMES).chain(&["lives", "in", "new", "we", "saw", "like"]);
        let words = words.map(|w| (*w).to_owned()).collect();
        fs::remove_dir_all(bench.path("base")).unwrap();
        TinyCheckpoint { model_type, words, ..TinyCheckpoint::default() }.write(&bench.path("base")).unwrap();
        let mut recorder = Recorder::default();
        let report = train(&bench.request("out"), &mut recorder).unwrap();
        assert!(report.metrics["test_f1"] > 0.8, "{model_type}: {:?}", report.epochs);
        assert!(recorder.log.iter().any(|line| line.contains("drawn anew: ") && line.contains("classifier.weight")));

        let checkpoint = Checkpoint::open(&bench.path("out/checkpoint")).unwrap();
        assert_eq!(checkpoint.config.family.model_type(), model_type);
        assert!(checkpoint.has_head());
        bench.spec.checkpoint = bench.path("out/checkpoint").display().to_string();
        bench.spec.metrics_only = true;
        let mut recorder = Recorder::default();
        let again = train(&bench.request("again"), &mut recorder).unwrap();
        assert!(again.epochs[0].train_loss < report.epochs[0].train_loss / 2.0, "{model_type}");
        assert!(!recorder.log.iter().any(|line| line.contains("drawn anew")));
    }
}
