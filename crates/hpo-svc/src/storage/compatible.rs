//! The compatibility rule of parameters that share a name in a study, which is Optuna's.

use super::Error;
use crate::space::{Distribution, ParamValue};

/// Refuses a distribution that does not go with the one that the study has under that name.
pub(super) fn check_compatible(name: &str, new: &Distribution, known: &Distribution) -> Result<(), Error> {
    if known.compatible(new) {
        return Ok(());
    }
    Err(Error::Incompatible { name: name.to_owned(), difference: difference(new, known) })
}

/// In what they differ: there may be thousands of choices, so the first one is told rather than all.
fn difference(new: &Distribution, known: &Distribution) -> String {
    match (new, known) {
        (Distribution::Float { log, .. }, Distribution::Float { log: known, .. })
        | (Distribution::Int { log, .. }, Distribution::Int { log: known, .. }) => {
            format!("log is {log}, not {known}")
        }
        (Distribution::Categorical { choices }, Distribution::Categorical { choices: known }) => {
            let equal = |(new, known): (&ParamValue, &ParamValue)| new.to_py().equals(&known.to_py());
            match choices.iter().zip(known.iter()).position(|pair| !equal(pair)) {
                Some(index) => format!("choice {index} is {}, not {}", choices[index], known[index]),
                None => format!("it has {} choices, not {}", choices.len(), known.len()),
            }
        }
        _ => format!("it is {}, not {}", kind(new), kind(known)),
    }
}

/// What Optuna calls it.
fn kind(distribution: &Distribution) -> &'static str {
    match distribution {
        Distribution::Float { .. } => "FloatDistribution",
        Distribution::Int { .. } => "IntDistribution",
        Distribution::Categorical { .. } => "CategoricalDistribution",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told_and_not_all_choices() {
        let choices = |values: &[i64]| {
            Distribution::categorical(values.iter().map(|value| ParamValue::Int(*value)).collect()).unwrap()
        };
        let float = |log| Distribution::float(1.0, 2.0, log, None).unwrap();
        let problem =
            |new: &Distribution, known: &Distribution| check_compatible("x", new, known).unwrap_err().to_string();
        let told = |difference: &str| {
            format!("parameter `x` is incompatible with the study's first one of that name: {difference}")
        };
        let many: Vec<i64> = (0..2000).collect();
        let mut other = many.clone();
        other[1500] = -1;
        assert_eq!(problem(&choices(&other), &choices(&many)), told("choice 1500 is -1, not 1500"));
        assert_eq!(problem(&choices(&many[1..]), &choices(&many)), told("choice 0 is 1, not 0"));
        assert_eq!(problem(&choices(&many[..9]), &choices(&many)), told("it has 9 choices, not 2000"));
        assert_eq!(problem(&float(true), &float(false)), told("log is true, not false"));
        assert_eq!(
            problem(&float(false), &choices(&[1])),
            told("it is FloatDistribution, not CategoricalDistribution")
        );
        assert_eq!(check_compatible("x", &float(true), &float(true)), Ok(()));
    }
}
