//! Self-attention as operators: plain, with distances, with rotary positions.
use quintet_nlp::encoder::{Attention, Relative};

use super::{
    builder::Attribute,
    encoder::{Emitter, Value},
};
use crate::Error;

impl Emitter<'_> {
    /// See `Ops::attention`.
    pub(super) fn attend(&mut self, joined: &Value, attention: &Attention<'_, Value>) -> Result<Value, Error> {
        let (heads, size) = (attention.heads, attention.head_size);
        let hidden = heads * size;
        let joined = self.name(joined);
        let scope = self.scope.rsplit_once('.').map_or(self.scope.clone(), |(parent, _)| parent.to_owned());
        let graph = &mut self.graph;
        let sizes = graph.ints(&format!("{scope}/sizes"), &[hidden as i64; 3]);
        let by_head = graph.ints(&format!("{scope}/by_head"), &[0, 0, heads as i64, size as i64]);
        let together = graph.ints(&format!("{scope}/together"), &[0, 0, hidden as i64]);
        let scale = graph.floats(&format!("{scope}/scale"), &[], &[attention.scale as f32]);
        let last = [("axis", Attribute::Int(-1))];
        let parts = graph.node_outputs(&scope, "Split", &[&joined, &sizes], &last, &["query", "key", "value"]);
        let mut heads_of = |part: usize, order: [i64; 4]| {
            let reshaped = graph.node(&scope, "Reshape", &[&parts[part], &by_head]);
            graph.node_with(&scope, "Transpose", &[&reshaped], &[("perm", Attribute::Ints(order.to_vec()))])
        };
        let needs_key = attention.rotary.is_some() || matches!(attention.relative, Relative::Rows { keys: true, .. });
        let mut query = heads_of(0, [0, 2, 1, 3]);
        let mut key = if needs_key { heads_of(1, [0, 2, 1, 3]) } else { String::new() };
        let plain_key = (!needs_key).then(|| heads_of(1, [0, 2, 3, 1]));
        let value = heads_of(2, [0, 2, 1, 3]);
        if let Some(theta) = attention.rotary {
            let tables = self.places.rotary(&mut self.graph, theta, size);
            query = self.rotate(&scope, &query, &tables, size);
            key = self.rotate(&scope, &key, &tables, size);
        }
        let transposed = plain_key.unwrap_or_else(|| {
            let order = [("perm", Attribute::Ints(vec![0, 1, 3, 2]))];
            self.graph.node_with(&scope, "Transpose", &[&key], &order)
        });
        let scores = self.graph.node(&scope, "MatMul", &[&query, &transposed]);
        let scores = self.relative(&scope, [&query, &key, &transposed], scores, attention)?;
        let mut scores = self.graph.node(&scope, "Mul", &[&scores, &scale]);
        if let Relative::Bias(bias) = attention.relative {
            let bias = self.name(bias);
            scores = self.graph.node(&scope, "Add", &[&scores, &bias]);
        }
        let mask = self.places.mask(&mut self.graph, attention.mask);
        let graph = &mut self.graph;
        let scores = graph.node(&scope, "Add", &[&scores, &mask]);
        let shares = graph.node_with(&scope, "Softmax", &[&scores], &last);
        let context = graph.node(&scope, "MatMul", &[&shares, &value]);
        let order = [("perm", Attribute::Ints(vec![0, 2, 1, 3]))];
        let context = graph.node_with(&scope, "Transpose", &[&context], &order);
        Ok(Value::Graph { name: graph.node(&scope, "Reshape", &[&context, &together]), width: hidden })
    }

    /// Turns the halves of [batch, heads, sequence, size] by their places.
    fn rotate(&mut self, scope: &str, x: &str, tables: &[String; 2], size: usize) -> String {
        let graph = &mut self.graph;
        let last = [("axis", Attribute::Int(-1))];
        let sizes = graph.ints(&format!("{scope}/halves_{x}"), &[size as i64 / 2; 2]);
        let halves = graph.node_outputs(scope, "Split", &[x, &sizes], &last, &["first", "second"]);
        let turned = graph.node(scope, "Neg", &[&halves[1]]);
        let turned = graph.node_with(scope, "Concat", &[&turned, &halves[0]], &last);
        let turned = graph.node(scope, "Mul", &[&turned, &tables[1]]);
        let kept = graph.node(scope, "Mul", &[x, &tables[0]]);
        graph.node(scope, "Add", &[&kept, &turned])
    }

    /// Scores with what distances add to them before scaling. `query` and `key` are [batch, heads, sequence, size], `transposed` is the
    /// key with its last axes swapped.
    fn relative(
        &mut self,
        scope: &str,
        [query, key, transposed]: [&str; 3],
        mut scores: String,
        attention: &Attention<'_, Value>,
    ) -> Result<String, Error> {
        let heads = attention.heads;
        match &attention.relative {
            Relative::None | Relative::Bias(_) => {}
            Relative::Rows { table, buckets, keys } => {
                let rows = self.places.rows(&mut self.graph, *buckets, self.longest);
                let (table, _) = self.table(*table, &format!("{scope}/distances"))?;
                let graph = &mut self.graph;
                let rows = graph.node(scope, "Gather", &[&table, &rows]);
                let equation = [("equation", Attribute::Text("bhld,lrd->bhlr"))];
                let term = graph.node_with(scope, "Einsum", &[query, &rows], &equation);
                scores = graph.node(scope, "Add", &[&scores, &term]);
                if *keys {
                    let equation = [("equation", Attribute::Text("bhrd,lrd->bhlr"))];
                    let term = graph.node_with(scope, "Einsum", &[key, &rows], &equation);
                    scores = graph.node(scope, "Add", &[&scores, &term]);
                }
            }
            Relative::Disentangled { keys, queries, buckets } => {
                let rows = self.places.expanded_rows(&mut self.graph, *buckets, self.longest, &scores);
                let graph = &mut self.graph;
                let size = attention.head_size;
                // Terms of query i and key j: of query i with the position key of i - j, and of key j with the position query of it.
                if let Some(Value::Known(keys)) = keys {
                    let table = keys.by_head(heads, true);
                    let table = graph.floats(&format!("{scope}/position_keys"), &[heads, size, keys.rows()], &table);
                    let term = graph.node(scope, "MatMul", &[query, &table]);
                    let last = [("axis", Attribute::Int(3))];
                    let term = graph.node_with(scope, "GatherElements", &[&term, &rows], &last);
                    scores = graph.node(scope, "Add", &[&scores, &term]);
                }
                if let Some(Value::Known(queries)) = queries {
                    let table = queries.by_head(heads, false);
                    let dims = [heads, queries.rows(), size];
                    let table = graph.floats(&format!("{scope}/position_queries"), &dims, &table);
                    let term = graph.node(scope, "MatMul", &[&table, transposed]);
                    let before = [("axis", Attribute::Int(2))];
                    let term = graph.node_with(scope, "GatherElements", &[&term, &rows], &before);
                    scores = graph.node(scope, "Add", &[&scores, &term]);
                }
            }
        }
        Ok(scores)
    }
}
