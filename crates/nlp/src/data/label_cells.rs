//! Labels as the cells of data tell them: by name, by id, in lists, and as a flag for each label.
use std::collections::BTreeSet;

use serde_json::Value;

/// Reads the labels of cells.
#[derive(Debug, Clone, Default)]
pub(super) struct LabelCells {
    /// Names by id, when they are known.
    names: Option<Vec<String>>,
    lists: Lists,
}

/// What lists of numbers say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Lists {
    /// No list told yet.
    #[default]
    Unknown,
    /// The labels that a text has.
    Labels,
    /// For each label whether a text has it.
    Flags,
}

impl LabelCells {
    /// With the names by id of a file of labels.
    pub(super) fn new(names: Option<Vec<String>>) -> Self {
        Self { names, lists: Lists::default() }
    }

    /// Names by id, when they are known.
    pub(super) fn names(&self) -> Option<&Vec<String>> {
        self.names.as_ref()
    }

    /// Takes the names that the data itself has, unless there are others.
    pub(super) fn learn(&mut self, names: Option<&Vec<String>>) {
        if self.names.is_none() {
            self.names = names.cloned();
        }
    }

    /// The name of a label that may be told by its id. `own` are the names by id that the file of this cell has: its numbers are ids of those,
    /// whatever the order of the names known and however the names look.
    pub(super) fn one(&self, cell: &Value, own: Option<&[String]>) -> Result<String, String> {
        let text = match cell {
            Value::String(text) => text.clone(),
            Value::Bool(on) => on.to_string(),
            // Tables with gaps turn whole numbers into fractions.
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => whole.to_string(),
                (None, Some(value)) if value.fract() == 0.0 => format!("{value:.0}"),
                _ => {
                    return Err(format!(
                        "found {number}, expected a label; numbers with a fraction need the task regression"
                    ));
                }
            },
            other => return Err(format!("found {}, expected a label", super::shown(other))),
        };
        if let (Value::Number(_), Some(own), Ok(id)) = (cell, own, text.parse()) {
            return self.known(by_id(own, id)?.to_owned());
        }
        let Some(names) = &self.names else {
            return if text.is_empty() { Err("the label is empty".to_owned()) } else { Ok(text) };
        };
        // Ids are meant where names cannot be taken for numbers.
        match text.parse::<i64>() {
            Ok(id) if !names.iter().any(|name| name.parse::<i64>().is_ok()) => by_id(names, id).map(str::to_owned),
            _ => self.known(text),
        }
    }

    /// The labels of a list: names or ids, or for each label known a number 0 or 1, or a boolean. Numbers are such flags, not ids, when they are written
    /// with a fraction, or when one occurs twice.
    pub(super) fn several(&mut self, items: &[Value], own: Option<&[String]>) -> Result<BTreeSet<String>, String> {
        if items.is_empty() {
            return Ok(BTreeSet::new());
        }
        let repeated = (1..items.len()).find(|at| items[*at].is_number() && items[..*at].contains(&items[*at]));
        let count = own.or(self.names.as_deref()).map(<[String]>::len);
        let fits = |flags: &Vec<bool>| count.is_none_or(|count| count == flags.len());
        if let Some(flags) = items.iter().map(flag).collect::<Option<Vec<bool>>>().filter(fits) {
            let sure = repeated.is_some() || items.iter().any(|item| item.is_boolean() || item.is_f64());
            match self.lists {
                Lists::Labels if sure => {
                    return Err("found a number for each label, but the labels of an earlier row; \
                    give the labels of each row by name"
                        .to_owned());
                }
                Lists::Unknown if !sure => self.lists = Lists::Labels,
                Lists::Labels => {}
                Lists::Unknown | Lists::Flags => {
                    self.lists = Lists::Flags;
                    // The names that `transformers` gives where it knows none.
                    let given = || (0..flags.len()).map(|id| format!("LABEL_{id}")).collect();
                    let names = self.names.get_or_insert_with(|| own.map_or_else(given, <[String]>::to_vec));
                    let chosen: Vec<String> = own
                        .unwrap_or(names)
                        .iter()
                        .zip(flags)
                        .filter(|(_, on)| *on)
                        .map(|(name, _)| name.clone())
                        .collect();
                    return chosen.into_iter().map(|name| self.known(name)).collect();
                }
            }
        }
        if self.lists == Lists::Flags {
            let count = count.unwrap_or_default();
            return Err(format!(
                "found {}, expected {count} numbers 0 or 1, one for each label, as in an earlier row",
                super::shown(&Value::from(items))
            ));
        }
        if let Some(at) = repeated {
            return Err(format!(
                "label {} is there twice; for a number 0 or 1 for each label, give their names as `labels`",
                items[at]
            ));
        }
        if self.names.is_none() {
            self.lists = Lists::Labels;
        }
        items.iter().map(|item| self.one(item, own)).collect()
    }

    fn known(&self, name: String) -> Result<String, String> {
        match &self.names {
            Some(names) if !names.contains(&name) => {
                Err(format!("label `{name}` is unknown, the labels are {}", super::listed(names)))
            }
            _ => Ok(name),
        }
    }
}

fn by_id(names: &[String], id: i64) -> Result<&str, String> {
    match usize::try_from(id).ok().and_then(|id| names.get(id)) {
        Some(name) => Ok(name),
        None if id == -1 => Err("label -1 marks a row without a label; such a split cannot be used".to_owned()),
        None => Err(format!("label {id} is out of range, there are {}", names.len())),
    }
}

fn flag(item: &Value) -> Option<bool> {
    match item.as_f64() {
        Some(0.0) => Some(false),
        Some(1.0) => Some(true),
        Some(_) => None,
        None => item.as_bool(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The labels of lists one after the other, joined; or the first error.
    fn lists(known: Option<&[&str]>, cells: &[Value]) -> Result<Vec<String>, String> {
        let mut reader = LabelCells::new(known.map(names));
        let read = |cell: &Value| {
            reader
                .several(cell.as_array().unwrap(), None)
                .map(|labels| labels.into_iter().collect::<Vec<_>>().join(" "))
        };
        cells.iter().map(read).collect()
    }

    #[test]
    fn ids_are_those_of_the_file_that_has_them() {
        // Sorted as texts, as `class_encode_column` leaves them.
        let own = names(&["0", "1", "10", "11", "2"]);
        let mut reader = LabelCells::default();
        reader.learn(Some(&own));
        let found: Vec<String> = (0..5).map(|id| reader.one(&json!(id), Some(&own)).unwrap()).collect();
        assert_eq!(found, own);
        // A number as text is a name.
        assert_eq!(reader.one(&json!("2"), Some(&own)).unwrap(), "2");
        assert_eq!(reader.several(&[json!(2), json!(4)], Some(&own)).unwrap(), ["10", "2"].map(str::to_owned).into());
        assert!(reader.one(&json!(10), Some(&own)).unwrap_err().contains("10 is out of range, there are 5"));
        let grades = names(&["1", "2", "3"]);
        assert_eq!(LabelCells::new(Some(grades.clone())).one(&json!(0), Some(&grades)).unwrap(), "1");
        // A file of labels, or a training split, in another order.
        let reader = LabelCells::new(Some(names(&["pos", "neg"])));
        assert_eq!(reader.one(&json!(0), Some(&names(&["neg", "pos"]))).unwrap(), "neg");
        assert_eq!(reader.one(&json!(0), None).unwrap(), "pos");
        assert!(reader.one(&json!(0), Some(&names(&["other"]))).unwrap_err().contains("`other` is unknown"));
    }

    #[test]
    fn lists_of_flags_are_no_ids() {
        let five = Some(&["a", "b", "c", "d", "e"][..]);
        assert_eq!(lists(five, &[json!([0, 1, 0, 0, 1]), json!([0, 0, 0, 0, 0])]).unwrap(), ["b e", ""]);
        assert_eq!(lists(five, &[json!([0, 1]), json!([4])]).unwrap(), ["a b", "e"]);
        assert_eq!(
            lists(None, &[json!([0.0, 1.0, 0.0]), json!([]), json!([1, 1, 1])]).unwrap(),
            ["LABEL_1", "", "LABEL_0 LABEL_1 LABEL_2"]
        );
        assert_eq!(lists(None, &[json!([true, false])]).unwrap(), ["LABEL_0"]);
        // Two labels: a first row that repeats none cannot be told from ids, and is read as such.
        assert_eq!(lists(Some(&["a", "b"]), &[json!([0, 1])]).unwrap(), ["a b"]);
        assert_eq!(lists(Some(&["a", "b"]), &[json!([0, 0]), json!([0, 1])]).unwrap(), ["", "b"]);
        for (known, cells, part) in [
            (Some(&["a", "b"][..]), [json!([0, 1]), json!([1, 1])], "the labels of an earlier row"),
            (None, [json!([0.0, 1.0]), json!([0.0, 1.0, 1.0])], "expected 2 numbers 0 or 1"),
            (None, [json!(["x"]), json!([0.0, 1.0])], "the labels of an earlier row"),
            (None, [json!([3, 2]), json!([2, 2])], "label 2 is there twice"),
            (five, [json!([0]), json!([0, 0])], "label 0 is there twice"),
        ] {
            let problem = lists(known, &cells).unwrap_err();
            assert!(problem.contains(part), "{cells:?}: {problem}");
        }
        assert_eq!(lists(None, &[json!(["y", "x", "y"])]).unwrap(), ["x y"]);
    }
}
