//! Hyperparameters with every value decided: defaults filled in, ranges checked.
use std::collections::BTreeMap;

use quintet_nlp::metrics::greater_is_better;
use quintet_proto::v1::Hyperparameters;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::request::{FieldError, FieldErrors};

/// How weights follow gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optim {
    /// Loshchilov and Hutter 2019.
    AdamW,
    /// Shazeer and Stern 2018, with a given rate.
    Adafactor,
    /// Chen et al. 2023.
    Lion,
}

/// The learning rate after the warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerType {
    /// Falls to 0 in a line.
    Linear,
    /// Falls to 0 in half a wave.
    Cosine,
    /// Stays.
    Constant,
}

/// What the batches of one step make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accumulation {
    /// The mean over all that counts in them, as one large batch.
    Tokens,
    /// The mean of their means.
    Mean,
}

/// Numbers of the computation; weights and moments are kept in fp32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 on a GPU, else fp32.
    Auto,
    /// 32 bits.
    Fp32,
    /// 16 bits, the exponent of fp32.
    Bf16,
    /// 16 bits, the exponent of 5 bits; the loss is scaled so that small gradients stay within its range.
    Fp16,
}

/// Low-rank changes of the projections (Hu et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// Rank.
    pub r: usize,
    /// The change is scaled by this over the rank.
    pub alpha: f64,
}

/// Hyperparameters with every value decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hyper {
    /// Peak of the schedule.
    pub learning_rate: f64,
    /// Rows a batch.
    pub batch_size: usize,
    /// Passes over the training split.
    pub epochs: usize,
    /// Of all weights but biases and norms.
    pub weight_decay: f64,
    /// Share of all steps.
    pub warmup_ratio: f64,
    /// Global L2 norm of the gradient; 0 means no clipping.
    pub max_grad_norm: f64,
    /// Of hidden states and the head; absent means the checkpoint's.
    pub dropout: Option<f64>,
    /// Longest row in sub-tokens, the special ones included.
    pub max_length: usize,
    /// Key of all random streams.
    pub seed: u64,
    /// Batches of rows of similar length.
    pub group_by_length: bool,
    /// Keep the weights of the best epoch.
    pub load_best_model: bool,
    /// Optimizer.
    pub optim: Optim,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment (Lion: of the only one).
    pub adam_beta2: f64,
    /// Added to the root of the second moment.
    pub adam_epsilon: f64,
    /// Learning rate after the warmup.
    pub lr_scheduler_type: SchedulerType,
    /// Steps of warmup; absent: by `warmup_ratio`.
    pub warmup_steps: Option<usize>,
    /// Peak of the head's rate; absent: `learning_rate`.
    pub head_learning_rate: Option<f64>,
    /// Factor of the rate from each layer to the one below.
    pub layer_decay: f64,
    /// The embeddings and so many layers are not trained; absent: all are.
    pub freeze_layers: Option<usize>,
    /// Batches a step.
    pub gradient_accumulation_steps: usize,
    /// What they make.
    pub gradient_accumulation: Accumulation,
    /// Share of a label's probability that goes to all labels alike.
    pub label_smoothing_factor: f64,
    /// Weights of labels in the loss by name.
    pub class_weights: BTreeMap<String, f64>,
    /// Weigh labels by how rare they are.
    pub balanced_class_weights: bool,
    /// Power of the focal loss (Lin et al. 2017); 0 is cross-entropy.
    pub focal_gamma: f64,
    /// Score labels of words by their neighbours.
    pub crf: bool,
    /// Decay of the moving average of the weights; 0 is none.
    pub ema_decay: f64,
    /// Epochs without improvement after which training stops; absent: never.
    pub early_stopping_patience: Option<usize>,
    /// What counts as an improvement is more than this.
    pub early_stopping_threshold: f64,
    /// Metric that chooses the best epoch; absent: that of the task.
    pub metric_for_best_model: Option<String>,
    /// Numbers of the computation.
    pub precision: Precision,
    /// Compute the layers again in the backward pass instead of keeping their activations.
    pub gradient_checkpointing: bool,
    /// Sub-tokens of a batch, padding included; absent: `batch_size` rows.
    pub tokens_per_batch: Option<usize>,
    /// Low-rank changes; absent: all weights are trained.
    pub lora: Option<Lora>,
    /// Halve the rows of a batch when memory runs out.
    pub auto_find_batch_size: bool,
}

/// Reads the fields of one message, and keeps what is wrong with them: a wrong field reads as its default, so that the others are
/// looked at too.
#[derive(Default)]
struct Fields {
    wrong: Vec<FieldError>,
}

impl Fields {
    fn refuse(&mut self, name: &str, problem: String) {
        self.wrong.push(FieldError::new(format!("hyperparameters.{name}"), problem));
    }

    fn out_of_range(&mut self, name: &str, found: impl std::fmt::Display, range: &str) {
        self.refuse(name, format!("found {found}, expected {range}"));
    }

    fn excluded(&mut self, name: &str, other: &str) {
        self.refuse(name, format!("is given beside `{other}`; give one of them"));
    }

    /// Whether nothing was wrong with a field so far.
    fn is_good(&self, name: &str) -> bool {
        self.wrong.iter().all(|error| error.field.strip_prefix("hyperparameters.") != Some(name))
    }

    fn number(
        &mut self,
        name: &str,
        value: Option<f64>,
        default: f64,
        allowed: impl Fn(f64) -> bool,
        range: &str,
    ) -> f64 {
        self.maybe_number(name, value, allowed, range).unwrap_or(default)
    }

    fn maybe_number(
        &mut self,
        name: &str,
        value: Option<f64>,
        allowed: impl Fn(f64) -> bool,
        range: &str,
    ) -> Option<f64> {
        let value = value?;
        if value.is_finite() && allowed(value) {
            return Some(value);
        }
        self.out_of_range(name, value, range);
        None
    }

    fn count(&mut self, name: &str, value: Option<i32>, default: usize, least: i32) -> usize {
        self.maybe_count(name, value, least).unwrap_or(default)
    }

    fn maybe_count(&mut self, name: &str, value: Option<i32>, least: i32) -> Option<usize> {
        let value = value?;
        let count = usize::try_from(value).ok().filter(|_| value >= least);
        if count.is_none() {
            self.out_of_range(name, value, &format!("{least} or more"));
        }
        count
    }

    fn word<T: DeserializeOwned>(&mut self, name: &str, value: Option<&String>, default: T, range: &str) -> T {
        let Some(word) = value else { return default };
        serde_json::from_value(word.as_str().into()).unwrap_or_else(|_| {
            self.out_of_range(name, format!("`{word}`"), range);
            default
        })
    }
}

const POSITIVE: &str = "a number above 0";
const NOT_NEGATIVE: &str = "a number of 0 or more";
const SHARE: &str = "a number from 0 to below 1";

fn share(value: f64) -> bool {
    (0.0..1.0).contains(&value)
}

impl Hyper {
    /// Fills in the defaults and checks the ranges.
    ///
    /// # Errors
    /// Every field out of its range, and of two that exclude each other.
    pub fn from_proto(given: &Hyperparameters) -> Result<Self, FieldErrors> {
        let mut fields = Fields::default();
        let optim = fields.word("optim", given.optim.as_ref(), Optim::AdamW, "`adamw`, `adafactor` or `lion`");
        let beta2 = if optim == Optim::Lion { 0.99 } else { 0.999 };
        let hyper = Self {
            learning_rate: fields.number("learning_rate", given.learning_rate, 5e-5, |x| x > 0.0, POSITIVE),
            batch_size: fields.count("batch_size", given.batch_size, 16, 1),
            epochs: fields.count("epochs", given.epochs, 3, 1),
            weight_decay: fields.number("weight_decay", given.weight_decay, 0.01, |x| x >= 0.0, NOT_NEGATIVE),
            warmup_ratio: fields.number(
                "warmup_ratio",
                given.warmup_ratio,
                0.0,
                |x| (0.0..=1.0).contains(&x),
                "a number from 0 to 1",
            ),
            max_grad_norm: fields.number("max_grad_norm", given.max_grad_norm, 1.0, |x| x >= 0.0, NOT_NEGATIVE),
            dropout: fields.maybe_number("dropout", given.dropout, share, SHARE),
            max_length: fields.count("max_length", given.max_length, 128, 3),
            seed: given.seed.unwrap_or(42),
            group_by_length: given.group_by_length.unwrap_or(true),
            load_best_model: given.load_best_model.unwrap_or(true),
            optim,
            adam_beta1: fields.number("adam_beta1", given.adam_beta1, 0.9, share, SHARE),
            adam_beta2: fields.number("adam_beta2", given.adam_beta2, beta2, share, SHARE),
            adam_epsilon: fields.number("adam_epsilon", given.adam_epsilon, 1e-8, |x| x > 0.0, POSITIVE),
            lr_scheduler_type: fields.word(
                "lr_scheduler_type",
                given.lr_scheduler_type.as_ref(),
                SchedulerType::Linear,
                "`linear`, `cosine` or `constant`",
            ),
            warmup_steps: fields.maybe_count("warmup_steps", given.warmup_steps, 0),
            head_learning_rate: fields.maybe_number(
                "head_learning_rate",
                given.head_learning_rate,
                |x| x > 0.0,
                POSITIVE,
            ),
            layer_decay: fields.number(
                "layer_decay",
                given.layer_decay,
                1.0,
                |x| x > 0.0 && x <= 1.0,
                "a number above 0, at most 1",
            ),
            freeze_layers: fields.maybe_count("freeze_layers", given.freeze_layers, 0),
            gradient_accumulation_steps: fields.count(
                "gradient_accumulation_steps",
                given.gradient_accumulation_steps,
                1,
                1,
            ),
            gradient_accumulation: fields.word(
                "gradient_accumulation",
                given.gradient_accumulation.as_ref(),
                Accumulation::Tokens,
                "`tokens` or `mean`",
            ),
            label_smoothing_factor: fields.number(
                "label_smoothing_factor",
                given.label_smoothing_factor,
                0.0,
                share,
                SHARE,
            ),
            class_weights: class_weights(given, &mut fields),
            balanced_class_weights: given.balanced_class_weights.unwrap_or(false),
            focal_gamma: fields.number("focal_gamma", given.focal_gamma, 0.0, |x| x >= 0.0, NOT_NEGATIVE),
            crf: given.crf.unwrap_or(false),
            ema_decay: fields.number("ema_decay", given.ema_decay, 0.0, share, SHARE),
            early_stopping_patience: fields.maybe_count("early_stopping_patience", given.early_stopping_patience, 1),
            early_stopping_threshold: fields.number(
                "early_stopping_threshold",
                given.early_stopping_threshold,
                0.0,
                |x| x >= 0.0,
                NOT_NEGATIVE,
            ),
            metric_for_best_model: given.metric_for_best_model.clone().filter(|name| !name.is_empty()),
            precision: fields.word(
                "precision",
                given.precision.as_ref(),
                Precision::Auto,
                "`auto`, `fp32`, `bf16` or `fp16`",
            ),
            gradient_checkpointing: given.gradient_checkpointing.unwrap_or(false),
            tokens_per_batch: fields.maybe_count("tokens_per_batch", given.tokens_per_batch, 1),
            lora: lora(given, &mut fields),
            auto_find_batch_size: given.auto_find_batch_size.unwrap_or(true),
        };
        hyper.check_together(given, &mut fields);
        if fields.wrong.is_empty() { Ok(hyper) } else { Err(FieldErrors(fields.wrong)) }
    }

    /// Checks what no field can be told of alone.
    fn check_together(&self, given: &Hyperparameters, fields: &mut Fields) {
        if given.warmup_steps.is_some() && given.warmup_ratio.is_some_and(|ratio| ratio > 0.0) {
            fields.excluded("warmup_steps", "warmup_ratio");
        }
        if self.balanced_class_weights && !self.class_weights.is_empty() {
            fields.excluded("balanced_class_weights", "class_weights");
        }
        if let Some(name) = self.metric_for_best_model.as_ref().filter(|name| greater_is_better(name).is_none()) {
            let range = "a metric of docs/evaluation.md, such as `f1`, `f1_strict`, `accuracy`, `mse` or `loss`";
            fields.out_of_range("metric_for_best_model", format!("`{name}`"), range);
        }
        if self.crf {
            // The likelihood of a sequence has no terms by label.
            for other in self.of_terms_by_label() {
                fields.excluded("crf", other);
            }
        }
        if self.lora.is_some() && self.freeze_layers.is_some() {
            fields.excluded("lora_r", "freeze_layers");
        }
        if let Some(budget) = self.tokens_per_batch.filter(|budget| *budget < self.max_length)
            && fields.is_good("max_length")
        {
            let range = format!("at least max_length, {}: one row must fit", self.max_length);
            fields.out_of_range("tokens_per_batch", budget, &range);
        }
    }

    /// The settings in use that change a loss label by label, which not every loss has.
    pub fn of_terms_by_label(&self) -> impl Iterator<Item = &'static str> {
        let settings = [
            ("label_smoothing_factor", self.label_smoothing_factor > 0.0),
            ("class_weights", !self.class_weights.is_empty()),
            ("balanced_class_weights", self.balanced_class_weights),
            ("focal_gamma", self.focal_gamma > 0.0),
        ];
        settings.into_iter().filter_map(|(name, used)| used.then_some(name))
    }

    /// The rate of a weight over that of the schedule. `depth` is 0 for the embeddings, the number of the layer from 1, and above
    /// `layers` for what follows them; a head has a rate of its own.
    pub fn rate_scale(&self, depth: usize, layers: usize, head: bool) -> f64 {
        if head {
            self.head_learning_rate.map_or(1.0, |rate| rate / self.learning_rate)
        } else {
            let below = i32::try_from((layers + 1).saturating_sub(depth)).unwrap_or(i32::MAX);
            self.layer_decay.powi(below)
        }
    }
}

fn class_weights(given: &Hyperparameters, fields: &mut Fields) -> BTreeMap<String, f64> {
    for (label, weight) in &given.class_weights {
        fields.maybe_number(&format!("class_weights.{label}"), Some(*weight), |x| x >= 0.0, NOT_NEGATIVE);
    }
    given.class_weights.clone()
}

fn lora(given: &Hyperparameters, fields: &mut Fields) -> Option<Lora> {
    let r = fields.count("lora_r", given.lora_r, 0, 0);
    let alpha = fields.number("lora_alpha", given.lora_alpha, 2.0 * r as f64, |x| x > 0.0 || r == 0, POSITIVE);
    (r > 0).then_some(Lora { r, alpha })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_contract() {
        let hyper = Hyper::from_proto(&Hyperparameters::default()).unwrap();
        assert_eq!((hyper.learning_rate, hyper.batch_size, hyper.epochs, hyper.max_length), (5e-5, 16, 3, 128));
        assert_eq!(
            (hyper.weight_decay, hyper.warmup_ratio, hyper.max_grad_norm, hyper.dropout),
            (0.01, 0.0, 1.0, None)
        );
        assert_eq!((hyper.seed, hyper.group_by_length, hyper.load_best_model), (42, true, true));
        assert_eq!((hyper.optim, hyper.adam_beta1, hyper.adam_beta2), (Optim::AdamW, 0.9, 0.999));
        assert_eq!((hyper.lr_scheduler_type, hyper.precision), (SchedulerType::Linear, Precision::Auto));
        assert_eq!((hyper.lora, hyper.freeze_layers, hyper.tokens_per_batch), (None, None, None));
        let lion = Hyperparameters { optim: Some("lion".into()), lora_r: Some(4), ..Default::default() };
        let lion = Hyper::from_proto(&lion).unwrap();
        assert_eq!((lion.adam_beta2, lion.lora), (0.99, Some(Lora { r: 4, alpha: 8.0 })));
    }

    #[test]
    fn values_out_of_range_name_their_field() {
        let h = Hyperparameters::default;
        let word = |word: &str| Some(word.to_owned());
        let cases = [
            (Hyperparameters { learning_rate: Some(0.0), ..h() }, "learning_rate"),
            (Hyperparameters { learning_rate: Some(f64::NAN), ..h() }, "learning_rate"),
            (Hyperparameters { learning_rate: Some(f64::INFINITY), ..h() }, "learning_rate"),
            (Hyperparameters { batch_size: Some(0), ..h() }, "batch_size"),
            (Hyperparameters { epochs: Some(-1), ..h() }, "epochs"),
            (Hyperparameters { weight_decay: Some(-0.1), ..h() }, "weight_decay"),
            (Hyperparameters { warmup_ratio: Some(1.1), ..h() }, "warmup_ratio"),
            (Hyperparameters { max_grad_norm: Some(-1.0), ..h() }, "max_grad_norm"),
            (Hyperparameters { dropout: Some(1.0), ..h() }, "dropout"),
            (Hyperparameters { max_length: Some(2), ..h() }, "max_length"),
            (Hyperparameters { optim: word("sgd"), ..h() }, "optim"),
            (Hyperparameters { lr_scheduler_type: word("Linear"), ..h() }, "lr_scheduler_type"),
            (Hyperparameters { precision: word("int8"), ..h() }, "precision"),
            (Hyperparameters { adam_beta2: Some(1.0), ..h() }, "adam_beta2"),
            (Hyperparameters { layer_decay: Some(0.0), ..h() }, "layer_decay"),
            (Hyperparameters { gradient_accumulation_steps: Some(0), ..h() }, "gradient_accumulation_steps"),
            (Hyperparameters { early_stopping_patience: Some(0), ..h() }, "early_stopping_patience"),
            (Hyperparameters { class_weights: [("O".to_owned(), -1.0)].into(), ..h() }, "class_weights.O"),
            (Hyperparameters { tokens_per_batch: Some(100), ..h() }, "tokens_per_batch"),
            (Hyperparameters { lora_r: Some(-1), ..h() }, "lora_r"),
            (Hyperparameters { metric_for_best_model: word("bleu"), ..h() }, "metric_for_best_model"),
            (Hyperparameters { warmup_ratio: Some(0.1), warmup_steps: Some(1), ..h() }, "warmup_steps"),
            (Hyperparameters { crf: Some(true), focal_gamma: Some(1.0), ..h() }, "crf"),
            (Hyperparameters { crf: Some(true), balanced_class_weights: Some(true), ..h() }, "crf"),
        ];
        for (given, expected) in cases {
            assert_eq!(wrong(&given), [format!("hyperparameters.{expected}")]);
        }
    }

    #[test]
    fn every_wrong_field_is_told_with_what_is_allowed() {
        let given = Hyperparameters {
            learning_rate: Some(-1.0),
            batch_size: Some(0),
            max_length: Some(2),
            optim: Some("sgd".into()),
            class_weights: [("O".to_owned(), -1.0), ("B-x".to_owned(), f64::NAN)].into(),
            tokens_per_batch: Some(64),
            lora_r: Some(2),
            freeze_layers: Some(1),
            ..Hyperparameters::default()
        };
        let expected = [
            "`hyperparameters.optim`: found `sgd`, expected `adamw`, `adafactor` or `lion`",
            "`hyperparameters.learning_rate`: found -1, expected a number above 0",
            "`hyperparameters.batch_size`: found 0, expected 1 or more",
            "`hyperparameters.max_length`: found 2, expected 3 or more",
            "`hyperparameters.class_weights.B-x`: found NaN, expected a number of 0 or more",
            "`hyperparameters.class_weights.O`: found -1, expected a number of 0 or more",
            "`hyperparameters.lora_r`: is given beside `freeze_layers`; give one of them",
        ];
        assert_eq!(Hyper::from_proto(&given).unwrap_err().to_string(), expected.join("; "));
    }

    fn wrong(given: &Hyperparameters) -> Vec<String> {
        Hyper::from_proto(given).unwrap_err().0.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn rates_fall_from_the_head_down() {
        let given = Hyperparameters { layer_decay: Some(0.5), head_learning_rate: Some(5e-4), ..Default::default() };
        let hyper = Hyper::from_proto(&given).unwrap();
        let scales = [0, 1, 2, 3].map(|depth| hyper.rate_scale(depth, 2, false));
        assert_eq!(scales, [0.125, 0.25, 0.5, 1.0]);
        assert!((hyper.rate_scale(3, 2, true) - 10.0).abs() < 1e-12);
    }
}
