//! From the tree to typed messages: a serde deserializer whose errors carry place, path and what is allowed.

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use super::tree::{Key, Node, Problem, Scalar, Yaml};

/// Reads a message from a node; the path in errors begins at the node.
pub(crate) fn read<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Problem> {
    Walk(node).told(T::deserialize(Walk(node)))
}

/// `unknown key ...; did you mean ...? Allowed: ...`.
pub(crate) fn unknown_key(key: &str, allowed: &[&str]) -> String {
    format!("unknown key `{key}`; {}", suggestion(key, allowed))
}

/// What may stand in place of a word, the nearest first.
pub(crate) fn suggestion(word: &str, allowed: &[&str]) -> String {
    let nearest = allowed.iter().map(|candidate| (distance(word, candidate), *candidate)).min();
    let allowed = if allowed.is_empty() { "nothing".into() } else { allowed.join(", ") };
    match nearest {
        Some((far, candidate)) if far <= 1 + word.len() / 4 => {
            format!("did you mean `{candidate}`? Allowed: {allowed}")
        }
        _ => format!("allowed: {allowed}"),
    }
}

/// Levenshtein's distance, without case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase().into_bytes(), b.to_ascii_lowercase().into_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or_default();
            let value = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            diagonal = above;
            left = value;
        }
        if let Some(cell) = row.get_mut(b.len()) {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

impl std::error::Error for Problem {}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl de::Error for Problem {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self { place: None, path: String::new(), message: message.to_string() }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("is {}; expected {}", found_text(&found), expected_text(expected)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        // The messages take each name in two spellings; one is told.
        let told: Vec<&str> =
            expected.iter().copied().filter(|name| !name.contains(|c: char| c.is_ascii_uppercase())).collect();
        Self::custom(unknown_key(field, &told))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let told: Vec<&str> = expected.iter().copied().filter(|name| !name.ends_with("_UNSPECIFIED")).collect();
        Self::custom(format!("`{variant}` is not allowed; {}", suggestion(variant, &told)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is given twice, or beside another one of which only one is allowed"))
    }
}

fn found_text(found: &de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Map => "a mapping".into(),
        de::Unexpected::Seq => "a list".into(),
        de::Unexpected::Unit | de::Unexpected::Option => "empty".into(),
        de::Unexpected::Str(text) => format!("{text:?}"),
        de::Unexpected::Bool(value) => value.to_string(),
        de::Unexpected::Signed(value) => value.to_string(),
        de::Unexpected::Unsigned(value) => value.to_string(),
        de::Unexpected::Float(value) => value.to_string(),
        other => other.to_string(),
    }
}

fn expected_text(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.strip_prefix("struct quintet.v1.") {
        Some(message) => format!("a mapping ({message})"),
        None => text,
    }
}

/// Deserializes one node.
#[derive(Clone, Copy)]
struct Walk<'de>(&'de Node);

impl<'de> Walk<'de> {
    /// Gives an error the place of this node, and words that a person understands.
    fn told<T>(self, result: Result<T, Problem>) -> Result<T, Problem> {
        result.map_err(|mut problem| {
            if problem.place.is_none() {
                problem.place = Some(self.0.place);
                problem.message = reworded(self.0, problem.message);
            }
            problem
        })
    }
}

/// Errors of number parsing name neither the value nor what is allowed.
fn reworded(node: &Node, message: String) -> String {
    if message.contains("'s' suffix") || message.contains("decimal places") {
        return format!("is {}; a duration in seconds is expected, such as 90s or 0.5s", node.value.form());
    }
    let unclear =
        ["untagged enum", "invalid digit", "invalid float", "number too", "out of range integral", "empty string"];
    if !unclear.iter().any(|part| message.contains(part)) {
        return message;
    }
    match node.scalar() {
        Some(Scalar::Float(_)) => format!("is {}; a whole number is expected", node.value.form()),
        Some(Scalar::Int(_) | Scalar::Uint(_)) => {
            format!("is {}; that is outside the range of this number", node.value.form())
        }
        _ => format!("is {}; a number is expected", node.value.form()),
    }
}

impl<'de> Deserializer<'de> for Walk<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let result = match &self.0.value {
            Yaml::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
            Yaml::List(items) => visitor.visit_seq(Items { rest: items.iter().enumerate() }),
            Yaml::Scalar { .. } => match self.0.scalar().unwrap_or(Scalar::Null) {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Bool(value) => visitor.visit_bool(value),
                Scalar::Int(value) => visitor.visit_i64(value),
                Scalar::Uint(value) => visitor.visit_u64(value),
                Scalar::Float(value) if !value.is_finite() => {
                    Err(de::Error::custom(format!("is {}; a finite number is expected", self.0.value.form())))
                }
                Scalar::Float(value) => visitor.visit_f64(value),
                Scalar::Text(text) => visitor.visit_borrowed_str(text),
            },
        };
        self.told(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        // A key with nothing behind it is not an absent key: `tpe:` is an empty message, `epochs:` a mistake.
        self.told(visitor.visit_some(self))
    }

    // Where text is wanted, `5`, `true` and `1e-5` are text, as they were written.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0.text() {
            Some(text) if self.0.scalar() != Some(Scalar::Null) => self.told(visitor.visit_borrowed_str(text)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    // A key with nothing behind it stands for an empty message: `tpe:`.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0.scalar() {
            Some(Scalar::Null) => self.told(visitor.visit_map(Entries { rest: [].iter(), value: None })),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Problem> {
        self.told(visitor.visit_newtype_struct(self))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let text = self.0.text().unwrap_or_default();
        self.told(visitor.visit_enum(text.into_deserializer()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        let value =
            Walk(node).told(seed.deserialize(Walk(node))).map_err(|problem| problem.under(&format!("[{index}]")))?;
        Ok(Some(value))
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, (Key, Node)>,
    value: Option<(&'de Key, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((key, value));
        let text: de::value::BorrowedStrDeserializer<'de, Problem> = de::value::BorrowedStrDeserializer::new(&key.text);
        seed.deserialize(text).map(Some).map_err(|mut problem| {
            problem.place.get_or_insert(key.place);
            problem
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let (key, node) = self.value.take().ok_or_else(|| <Problem as de::Error>::custom("a value without its key"))?;
        Walk(node).told(seed.deserialize(Walk(node))).map_err(|problem| problem.under(&key.text))
    }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{Direction, Resources, SweepSpec, Timeouts, TrainSpec, sampler, sweep_spec::Trial};

    use super::{super::tree, *};

    fn wrong<T: for<'a> Deserialize<'a> + std::fmt::Debug>(text: &str) -> String {
        read::<T>(&tree::parse(text).unwrap()).unwrap_err().text("f")
    }

    #[test]
    fn messages_are_read_in_their_json_form() {
        let text = "
study_name: 7
search_space:
  - name: learning_rate
    float: {low: 1e-5, high: 5e-4, log: true}
  - {name: batch_size, categorical: {choices: [16, 'x', true, null]}}
objective: {metric: validation.f1, direction: MAXIMIZE}
sampler:
  tpe:
pruner: {median: {n_startup_trials: 2}}
max_trials: 8
trial_timeout: 90.5s
seed: '18446744073709551615'
train:
  checkpoint: a
  hyperparameters: {epochs: 2, learning_rate: 3e-5}
";
        let sweep: SweepSpec = read(&tree::parse(text).unwrap()).unwrap();
        assert_eq!((sweep.study_name.as_str(), sweep.max_trials, sweep.seed), ("7", 8, Some(u64::MAX)));
        assert_eq!(sweep.objective.unwrap().direction(), Direction::Maximize);
        assert_eq!(sweep.trial_timeout.unwrap().nanos, 500_000_000);
        assert!(
            matches!(sweep.sampler.unwrap().kind, Some(sampler::Kind::Tpe(_))),
            "an empty message is one all the same"
        );
        let Some(Trial::Train(train)) = sweep.trial else { panic!("no trial") };
        assert_eq!(train.hyperparameters.unwrap().epochs, Some(2));
    }

    #[test]
    fn errors_name_place_path_value_and_what_is_allowed() {
        assert_eq!(
            wrong::<TrainSpec>("checkpoint: a\nhyperparameters:\n  lerning_rate: 1\n"),
            "f:3:3: hyperparameters: unknown key `lerning_rate`; did you mean `learning_rate`? Allowed: learning_rate, \
             batch_size, epochs, weight_decay, warmup_ratio, max_grad_norm, dropout, max_length, seed, group_by_length, \
             load_best_model, optim, adam_beta1, adam_beta2, adam_epsilon, lr_scheduler_type, warmup_steps, \
             head_learning_rate, layer_decay, freeze_layers, gradient_accumulation_steps, gradient_accumulation, \
             label_smoothing_factor, class_weights, balanced_class_weights, focal_gamma, crf, ema_decay, \
             early_stopping_patience, early_stopping_threshold, metric_for_best_model, precision, \
             gradient_checkpointing, tokens_per_batch, lora_r, lora_alpha, auto_find_batch_size"
        );
        assert_eq!(wrong::<SweepSpec>("max_trials: many"), "f:1:13: max_trials: is \"many\"; a number is expected");
        assert_eq!(wrong::<SweepSpec>("max_trials: 1.5"), "f:1:13: max_trials: is \"1.5\"; a whole number is expected");
        assert_eq!(
            wrong::<SweepSpec>("max_trials: 3000000000"),
            "f:1:13: max_trials: is \"3000000000\"; that is outside the range of this number"
        );
        assert_eq!(
            wrong::<SweepSpec>("objective: {direction: MAX}"),
            "f:1:24: objective.direction: `MAX` is not allowed; allowed: MINIMIZE, MAXIMIZE"
        );
        let text = wrong::<SweepSpec>("search_space:\n  - name: a\n    float: {low: x, high: 1}\n");
        assert_eq!(text, "f:3:18: search_space[0].float.low: is \"x\"; a number is expected");
        let text = wrong::<SweepSpec>("train: {checkpoint: a}\ncommand: {command: b}\n");
        assert!(text.contains("only one is allowed"), "{text}");
        assert!(wrong::<Timeouts>("total: 90").starts_with("f:1:8: total: "), "{}", wrong::<Timeouts>("total: 90"));
        assert_eq!(wrong::<SweepSpec>("dry_run: 3"), "f:1:10: dry_run: is 3; expected a boolean");
        assert_eq!(wrong::<Resources>("[1]"), "f:1:1: is a list; expected a mapping (Resources)");
        assert_eq!(wrong::<SweepSpec>("max_trials:\n"), "f:1:11: max_trials: is empty; a number is expected");
        assert_eq!(wrong::<SweepSpec>("study_name: ~"), "f:1:13: study_name: is empty; expected a string");
        assert!(wrong::<SweepSpec>("train: 3").contains("expected a mapping (TrainSpec)"));
    }
}
