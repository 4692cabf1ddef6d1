//! What attention needs of places: masks, distances and rotary positions, each emitted once for all layers.
use std::collections::BTreeMap;

use quintet_nlp::encoder::{Buckets, Mask};

use super::builder::{Attribute, GraphBuilder};
use crate::onnx::tensor_proto::DataType;

/// The values made so far, by their names in the graph.
#[derive(Debug, Default)]
pub(super) struct Places {
    length: Option<String>,
    range: Option<String>,
    distance: Option<String>,
    masks: BTreeMap<String, String>,
    rows: BTreeMap<String, String>,
    expanded: BTreeMap<String, String>,
    rotary: BTreeMap<u64, [String; 2]>,
}

/// Constants that every graph has, and the mask to add to scores: 0 for a token, the smallest float for padding, [batch, 1, 1,
/// sequence].
pub(super) fn constants(graph: &mut GraphBuilder) {
    graph.floats("one", &[], &[1.0]);
    graph.floats("lowest", &[], &[f32::MIN]);
    graph.ints("axes_of_mask", &[1, 2]);
    let mask = graph.node_with("mask", "Cast", &["attention_mask"], &[("to", Attribute::Int(DataType::Float as i64))]);
    let mask = graph.node("mask", "Sub", &["one", &mask]);
    let mask = graph.node("mask", "Mul", &[&mask, "lowest"]);
    let mask = graph.node("mask", "Unsqueeze", &[&mask, "axes_of_mask"]);
    debug_assert_eq!(mask, KEYS);
}

/// Name of the value that [`constants`] makes of the mask.
const KEYS: &str = "mask/Unsqueeze";

impl Places {
    /// The sequence's length, in one axis.
    pub(super) fn length(&mut self, graph: &mut GraphBuilder) -> String {
        let ends = [("start", Attribute::Int(1)), ("end", Attribute::Int(2))];
        self.length.get_or_insert_with(|| graph.node_with("positions", "Shape", &["input_ids"], &ends)).clone()
    }

    /// 0, 1, 2, ..., int64 [sequence].
    fn range(&mut self, graph: &mut GraphBuilder) -> String {
        let length = self.length(graph);
        self.range
            .get_or_insert_with(|| {
                let length = graph.node("places", "Squeeze", &[&length]);
                let (zero, one) = (graph.int("places/zero", 0), graph.int("places/one", 1));
                graph.node("places", "Range", &[&zero, &length, &one])
            })
            .clone()
    }

    /// Query less key, int64 [sequence, sequence].
    fn distance(&mut self, graph: &mut GraphBuilder) -> String {
        let range = self.range(graph);
        self.distance
            .get_or_insert_with(|| {
                let axis = graph.ints("places/axis", &[1]);
                let queries = graph.node("places", "Unsqueeze", &[&range, &axis]);
                graph.node("places", "Sub", &[&queries, &range])
            })
            .clone()
    }

    /// What is added to scores. Padded queries are of no use to anybody, so that leaving out padded keys is enough for pairs too.
    pub(super) fn mask(&mut self, graph: &mut GraphBuilder, mask: Mask) -> String {
        let Mask::Window(reach) = mask else { return KEYS.to_owned() };
        let key = reach.to_string();
        if let Some(known) = self.masks.get(&key) {
            return known.clone();
        }
        let scope = format!("window_{reach}");
        let distance = self.distance(graph);
        let distance = graph.node(&scope, "Abs", &[&distance]);
        let farthest = graph.int(&format!("{scope}/farthest"), reach as i64);
        let far = graph.node(&scope, "Greater", &[&distance, &farthest]);
        let far = graph.node_with(&scope, "Cast", &[&far], &[("to", Attribute::Int(DataType::Float as i64))]);
        let far = graph.node(&scope, "Mul", &[&far, "lowest"]);
        // The smaller of the two: their sum would be infinite.
        let mask = graph.node(&scope, "Min", &[KEYS, &far]);
        self.masks.insert(key, mask.clone());
        mask
    }

    /// Row of a table for each query and key, int64 [sequence, sequence], for sequences of up to `longest`.
    pub(super) fn rows(&mut self, graph: &mut GraphBuilder, buckets: Buckets, longest: usize) -> String {
        let key = format!("{buckets:?}");
        if let Some(known) = self.rows.get(&key) {
            return known.clone();
        }
        let scope = format!("distances_{}", self.rows.len() + 1);
        let farthest = longest as i64 - 1;
        let table: Vec<i64> = (-farthest..=farthest).map(|distance| buckets.row(distance) as i64).collect();
        let table = graph.ints(&format!("{scope}/rows"), &table);
        let distance = self.distance(graph);
        let first = graph.int(&format!("{scope}/farthest"), farthest);
        let place = graph.node(&scope, "Add", &[&distance, &first]);
        let rows = graph.node(&scope, "Gather", &[&table, &place]);
        self.rows.insert(key, rows.clone());
        rows
    }

    /// The same for each row and head, like `scores` [batch, heads, sequence, sequence].
    pub(super) fn expanded_rows(
        &mut self,
        graph: &mut GraphBuilder,
        buckets: Buckets,
        longest: usize,
        scores: &str,
    ) -> String {
        let rows = self.rows(graph, buckets, longest);
        self.expanded
            .entry(rows.clone())
            .or_insert_with(|| {
                let shape = graph.node("distances", "Shape", &[scores]);
                graph.node("distances", "Expand", &[&rows, &shape])
            })
            .clone()
    }

    /// Cosines and sines of rotary positions [sequence, size].
    pub(super) fn rotary(&mut self, graph: &mut GraphBuilder, theta: f64, size: usize) -> [String; 2] {
        if let Some(known) = self.rotary.get(&theta.to_bits()) {
            return known.clone();
        }
        let scope = format!("rotary_{}", self.rotary.len() + 1);
        let frequency = |at: usize| 1.0 / theta.powf(f64::from((2 * at) as f32 / size as f32)) as f32;
        let frequencies: Vec<f32> = (0..size / 2).chain(0..size / 2).map(frequency).collect();
        let frequencies = graph.floats(&format!("{scope}/frequencies"), &[size], &frequencies);
        let range = self.range(graph);
        let axis = graph.ints(&format!("{scope}/axis"), &[1]);
        let places = graph.node_with(&scope, "Cast", &[&range], &[("to", Attribute::Int(DataType::Float as i64))]);
        let places = graph.node(&scope, "Unsqueeze", &[&places, &axis]);
        let angles = graph.node(&scope, "Mul", &[&places, &frequencies]);
        let tables = [graph.node(&scope, "Cos", &[&angles]), graph.node(&scope, "Sin", &[&angles])];
        self.rotary.insert(theta.to_bits(), tables.clone());
        tables
    }
}
