//! Names of metrics: which are known, how others write them, and which way is better.

/// Metrics that grow with quality. `f1`, `precision` and `recall` also come with an ending (`f1_macro`) or behind the name of an
/// entity type (`loc_f1`).
const GREATER: [&str; 11] = [
    "f1",
    "precision",
    "recall",
    "accuracy",
    "subset_accuracy",
    "balanced_accuracy",
    "matthews_correlation",
    "r2",
    "pearson",
    "spearman",
    "average_precision",
];

/// Metrics that shrink with quality; those whose name ends in `loss` do too.
const LESS: [&str; 8] = ["mse", "rmse", "mae", "ece", "adaptive_ece", "mce", "brier", "nll"];

/// The name under which reports hold a metric: prefixes that only say where a metric was measured (`eval_`, as the `Trainer` of
/// `transformers` writes them) are taken off, and other names of the same metric replaced.
pub fn canonical(name: &str) -> &str {
    let name = name.strip_prefix("eval_").unwrap_or(name);
    match name {
        "macro-f1" => "token_f1_macro_gold",
        "macro-f1-span" | "overall_f1" => "f1",
        "overall_precision" => "precision",
        "overall_recall" => "recall",
        "overall_accuracy" => "accuracy",
        "spearmanr" => "spearman",
        "pearsonr" => "pearson",
        "matthews_corrcoef" => "matthews_correlation",
        "mean_squared_error" => "mse",
        "root_mean_squared_error" => "rmse",
        "mean_absolute_error" => "mae",
        "r2_score" => "r2",
        "log_loss" => "nll",
        "brier_score" => "brier",
        "f1_score" => "f1",
        other => other,
    }
}

/// Whether a greater value is better; none for a name that no report holds.
pub fn greater_is_better(name: &str) -> Option<bool> {
    let name = canonical(name);
    // Measured on the test split, or on words or entities alone: the same direction.
    let name = name.strip_prefix("test_").unwrap_or(name);
    let name = name.strip_prefix("token_").map_or(name, |rest| rest.strip_prefix("no_o_").unwrap_or(rest));
    let name = name.strip_suffix("_entities").unwrap_or(name);
    if name == "loss" || name.ends_with("_loss") || LESS.contains(&name) {
        return Some(false);
    }
    let top_k = name.strip_prefix("top_").and_then(|rest| rest.strip_suffix("_accuracy"));
    let family = ["f1", "precision", "recall", "average_precision"]
        .iter()
        .any(|stem| name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')));
    let of_type = ["_f1", "_precision", "_recall"].iter().any(|end| name.len() > end.len() && name.ends_with(end));
    let known = GREATER.contains(&name) || family || of_type || top_k.is_some_and(|k| k.parse::<usize>().is_ok());
    known.then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_follow_names() {
        for name in [
            "f1",
            "eval_f1",
            "test_f1",
            "f1_strict",
            "macro-f1",
            "token_f1_macro",
            "loc_f1",
            "top_5_accuracy",
            "spearmanr",
            "average_precision_micro",
            "recall_type",
            "token_accuracy",
            "token_no_o_f1_micro",
        ] {
            assert_eq!(greater_is_better(name), Some(true), "{name}");
        }
        for name in
            ["loss", "eval_loss", "train_loss", "hamming_loss", "test_mse", "ece", "ece_entities", "nll", "log_loss"]
        {
            assert_eq!(greater_is_better(name), Some(false), "{name}");
        }
        for name in ["", "f2", "top_x_accuracy", "speed", "_f1"] {
            assert_eq!(greater_is_better(name), None, "{name}");
        }
    }
}
