//! A data report for a person.
use std::fmt;

use super::{Conflict, DataReport, Distribution, Overlap};
use crate::task::Task;

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, p50, p90, p99, max, mean } = self;
        write!(f, "min {min}, median {p50}, 90 % {p90}, 99 % {p99}, max {max}, mean {mean:.2}")
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.task == Task::TokenClassification { "sentences" } else { "texts" };
        for split in &self.splits {
            writeln!(f, "{}: {} {what}", split.name, split.rows)?;
            writeln!(f, "  words       {}", split.words)?;
            if let Some(sub_tokens) = &split.sub_tokens {
                writeln!(f, "  sub-tokens  {sub_tokens}")?;
                writeln!(f, "  too long    {} rows", split.long_rows)?;
            }
            for (count, text) in [
                (split.cut_entities, "entities would be cut in two"),
                (split.lost_entities, "entities would be cut off"),
                (split.empty_rows, "rows are empty"),
                (split.repeated_rows, "rows repeat a text"),
                (split.unlabelled_rows, "rows have no label"),
            ] {
                if count > 0 {
                    writeln!(f, "  {count} {text}")?;
                }
            }
            if let Some(values) = &split.values {
                writeln!(f, "  values      {values}")?;
            }
            let mut labels: Vec<(&String, &usize)> = split.labels.iter().collect();
            labels.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let widest = labels.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
            for (label, count) in labels {
                writeln!(f, "    {label:widest$}  {count}")?;
            }
        }
        for overlap in &self.overlaps {
            let lines: Vec<String> = overlap.lines.iter().map(|(line, with)| format!("{line} = {with}")).collect();
            let Overlap { split, with, rows, .. } = overlap;
            writeln!(f, "{split}: {rows} rows have a text that is in {with} too (lines {})", lines.join(", "))?;
        }
        if self.conflicting_rows > 0 {
            writeln!(f, "{} rows have a text that has another answer elsewhere:", self.conflicting_rows)?;
        }
        for Conflict { text, first, second } in &self.conflicts {
            writeln!(f, "  {}:{} and {}:{}: {text:?}", first.0, first.1, second.0, second.1)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
