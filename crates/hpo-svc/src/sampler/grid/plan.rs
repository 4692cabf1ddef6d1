//! The combinations of a grid by number: counted, written out and recognized without going through them.
//!
//! Each parameter depends on one other at most, so that the parameters form a forest: a combination's number has a digit for
//! each tree, and within a tree one for the value of its root and those of the parameters that exist under that value.

use std::collections::BTreeMap;

use crate::{
    space::{Distribution, Parameter, Space, grid_point},
    study::Trial,
};

/// The grid of a space.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    parameters: &'a [Parameter],
    nodes: Vec<Node>,
    roots: Vec<usize>,
    size: u64,
}

/// One parameter of the grid.
#[derive(Debug)]
struct Node {
    values: Values,
    /// The values under which other parameters exist, by position: how many combinations each stands for, and the parameters.
    special: BTreeMap<u64, (u64, Vec<usize>)>,
    /// The combinations of the parameter and of all that depend on it.
    size: u64,
}

/// The values of one parameter, in order.
#[derive(Debug)]
enum Values {
    /// `low + k * step`
    Range { low: f64, high: f64, step: f64, count: u64 },
    /// Given points, each once.
    List(Vec<f64>),
}

impl Values {
    fn new(parameter: &Parameter, points: Option<&Vec<f64>>) -> Result<Self, String> {
        let (name, distribution) = (&parameter.name, &parameter.distribution);
        if let Some(points) = points {
            if let Some(point) = points.iter().find(|point| !distribution.contains(**point)) {
                return Err(format!("`{name}`: the point {point} is not in the domain {}", distribution.to_json()));
            }
            let mut list: Vec<f64> = Vec::new();
            for point in points {
                if !list.iter().any(|known| distribution.same_value(*known, *point)) {
                    list.push(*point);
                }
            }
            return if list.is_empty() {
                Err(format!("`{name}` has an empty list of points"))
            } else {
                Ok(Self::List(list))
            };
        }
        let range = |low: f64, high: f64, step: f64| {
            let count = ((high - low) / step).round_ties_even();
            // A position has to be exact as a double.
            if count >= (1_u64 << 53) as f64 {
                return Err(format!("`{name}` has too many values for a grid; give it points or a larger step"));
            }
            Ok(Self::Range { low, high, step, count: count as u64 + 1 })
        };
        match distribution {
            Distribution::Int { low, high, step, .. } => range(*low as f64, *high as f64, *step as f64),
            Distribution::Categorical { choices } => range(0.0, choices.len() as f64 - 1.0, 1.0),
            Distribution::Float { low, high, step: Some(step), .. } => range(*low, *high, *step),
            Distribution::Float { low, .. } if distribution.single() => Ok(Self::List(vec![*low])),
            Distribution::Float { .. } => Err(format!(
                "`{name}` is continuous, which no grid can exhaust; give it a step or a list of points, or choose another sampler"
            )),
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Range { count, .. } => *count,
            Self::List(points) => points.len() as u64,
        }
    }

    /// The value at a position below the count.
    fn at(&self, position: u64) -> f64 {
        match self {
            // Sums of steps may miss the last point by a rounding error.
            Self::Range { high, count, .. } if position + 1 == *count => *high,
            Self::Range { low, high, step, .. } => (position as f64 * step + low).clamp(*low, *high),
            Self::List(points) => points.get(position as usize).copied().unwrap_or_default(),
        }
    }

    /// The position of a value of the distribution.
    fn position(&self, value: f64, distribution: &Distribution) -> Option<u64> {
        match self {
            Self::Range { low, step, count, .. } => {
                let point = grid_point(value, *low, *step);
                point.filter(|point| (0.0..*count as f64).contains(point)).map(|point| point as u64)
            }
            Self::List(points) => {
                let position = points.iter().position(|point| distribution.same_value(*point, value));
                position.map(|position| position as u64)
            }
        }
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(space: &'a Space, points: &BTreeMap<String, Vec<f64>>) -> Result<Self, String> {
        let parameters = space.parameters();
        if let Some(name) = points.keys().find(|name| space.get(name).is_none()) {
            return Err(format!("there are points for `{name}`, which is no parameter of the space"));
        }
        let values = parameters.iter().map(|p| Values::new(p, points.get(&p.name))).collect::<Result<Vec<_>, _>>()?;
        let mut nodes: Vec<Node> =
            values.into_iter().map(|values| Node { values, special: BTreeMap::new(), size: 0 }).collect();
        let too_large = || "the grid has more than 2^63 combinations; give fewer points or larger steps".to_owned();
        // From the last to the first: a parameter's condition is on one before it.
        for index in (0..nodes.len()).rev() {
            let node = &mut nodes[index];
            let plain = node.values.count() - node.special.len() as u64;
            let special = node.special.values().try_fold(0_u64, |sum, (weight, _)| sum.checked_add(*weight));
            let size = special.and_then(|special| special.checked_add(plain)).ok_or_else(too_large)?;
            node.size = size;
            let Some(condition) = &parameters[index].condition else { continue };
            let parent = nodes.get_mut(condition.parameter).ok_or("a condition is on no parameter of the space")?;
            let domain = &parameters[condition.parameter].distribution;
            // A value near a point may be none to the space.
            let position = |value: &f64| {
                parent.values.position(*value, domain).filter(|at| domain.same_value(parent.values.at(*at), *value))
            };
            let mut under: Vec<u64> = condition.values.iter().filter_map(position).collect();
            under.sort_unstable();
            under.dedup();
            for position in under {
                let (weight, children) = parent.special.entry(position).or_insert((1, Vec::new()));
                *weight = weight.checked_mul(size).ok_or_else(too_large)?;
                children.push(index);
            }
        }
        let roots: Vec<usize> = (0..nodes.len()).filter(|index| parameters[*index].condition.is_none()).collect();
        let size = roots.iter().try_fold(1_u64, |product, root| product.checked_mul(nodes[*root].size));
        let size = size.filter(|size| *size <= 1 << 63).ok_or_else(too_large)?;
        Ok(Self { parameters, nodes, roots, size })
    }

    /// How many combinations there are; at least one.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The internal values of a combination in the order of the space; `None` for parameters that do not exist in it.
    pub(super) fn values(&self, combination: u64) -> Vec<Option<f64>> {
        let mut values = vec![None; self.nodes.len()];
        self.write(&self.roots, combination, &mut values);
        values
    }

    fn write(&self, indices: &[usize], mut number: u64, values: &mut [Option<f64>]) {
        for index in indices {
            let node = &self.nodes[*index];
            let (position, rest) = node.split(number % node.size);
            number /= node.size;
            values[*index] = Some(node.values.at(position));
            if let Some((_, children)) = node.special.get(&position) {
                self.write(children, rest, values);
            }
        }
    }

    /// The combination that a trial has; `None` when a parameter is missing or not on the grid.
    pub(super) fn combination(&self, trial: &Trial) -> Option<u64> {
        self.read(&self.roots, trial)
    }

    fn read(&self, indices: &[usize], trial: &Trial) -> Option<u64> {
        let (mut number, mut unit) = (0, 1);
        for index in indices {
            let (node, parameter) = (&self.nodes[*index], &self.parameters[*index]);
            let param = trial.param(&parameter.name)?;
            // The index of a choice means nothing in another list of choices.
            let same = param.distribution == parameter.distribution;
            let value = if same { Some(param.value) } else { parameter.distribution.internal(&param.external()) };
            let position = node.values.position(value?, &parameter.distribution)?;
            let rest = match node.special.get(&position) {
                Some((_, children)) => self.read(children, trial)?,
                None => 0,
            };
            number += unit * (node.before(position) + rest);
            // Does not overflow before the last one: the product is the size.
            unit = node.size.saturating_mul(unit);
        }
        Some(number)
    }
}

impl Node {
    /// The position of the value that a number of the tree has, and the number that is left for those below.
    fn split(&self, mut number: u64) -> (u64, u64) {
        let mut next = 0;
        for (position, (weight, _)) in &self.special {
            let plain = position - next;
            if number < plain {
                return (next + number, 0);
            }
            number -= plain;
            if number < *weight {
                return (*position, number);
            }
            number -= weight;
            next = position + 1;
        }
        (next + number, 0)
    }

    /// How many combinations come before the first of that position.
    fn before(&self, position: u64) -> u64 {
        let extra = self.special.range(..position).map(|(_, (weight, _))| weight - 1).sum::<u64>();
        position + extra
    }
}
