//! How much of a status is sent: clients refuse headers that are too large, and their users then see that instead of the error.
//!
//! gRPC's own library takes 8 KiB of metadata; of more it drops the answer, at random up to twice as much and always beyond. A status
//! is in there twice: its message percent-encoded, which triples whatever is no plain ASCII, and once more with its details in base64.
//! Names, choices and lists of users have no such limit, so that everything is cut here, where every status passes.

use std::collections::HashMap;

use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, QuotaViolation};

/// Bytes of the message as its header has it.
const MESSAGE: usize = 1024;
/// Bytes of any other text.
const TEXT: usize = 512;
/// Bytes of the values of the metadata together.
const METADATA: usize = 1024;
/// Bytes of the violations together, or of one that is as long as may be.
const VIOLATIONS: usize = 1536;
/// Bytes that mark the texts of a violation, at most.
const MARKS: usize = 8;
/// Stands for what was left out.
const GAP: &str = " ... ";

/// Bytes of a character in the `grpc-message` header.
fn encoded(character: char) -> usize {
    let plain =
        character.is_ascii_graphic() && !matches!(character, '"' | '#' | '%' | '<' | '>' | '`' | '?' | '{' | '}');
    if plain { 1 } else { 3 * character.len_utf8() }
}

/// The text with its middle left out when it weighs more than `most`: what a message is about stands at its beginning, and what is
/// allowed at its end.
fn cut(text: &str, most: usize, weight: fn(char) -> usize) -> String {
    let weigh = |text: &str| text.chars().map(weight).sum::<usize>();
    if weigh(text) <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(weigh(GAP));
    let tail_room = room / 3;
    let within = |room: usize, character: char, used: &mut usize| {
        *used += weight(character);
        *used <= room
    };
    let mut used = 0;
    let head =
        text.char_indices().find(|(_, c)| !within(room - tail_room, *c, &mut used)).map_or(text.len(), |(at, _)| at);
    used = 0;
    let mut characters = text.char_indices().rev();
    let tail = characters.find(|(_, c)| !within(tail_room, *c, &mut used)).map_or(0, |(at, c)| at + c.len_utf8());
    format!("{}{GAP}{}", &text[..head], &text[tail.max(head)..])
}

fn short(text: &str) -> String {
    cut(text, TEXT, char::len_utf8)
}

/// As much of the message as can be sent.
pub(super) fn message(text: &str) -> String {
    cut(text, MESSAGE, encoded)
}

/// As much of each value as can be sent.
pub(super) fn metadata(values: HashMap<String, String>) -> HashMap<String, String> {
    let most = (METADATA / values.len().max(1)).min(TEXT);
    values.into_iter().map(|(key, value)| (key, cut(&value, most, char::len_utf8))).collect()
}

/// As many of the details as can be sent, each as far as it can be.
pub(super) fn details(details: &mut ErrorDetails) {
    if let Some(bad) = details.bad_request() {
        let shortened =
            bad.field_violations.iter().map(|v| FieldViolation::new(short(&v.field), short(&v.description)));
        let kept =
            first(shortened.collect::<Vec<_>>(), |v| v.field.len() + v.description.len(), |v| &mut v.description);
        details.set_bad_request(kept);
    }
    if let Some(failure) = details.precondition_failure() {
        let shortened = failure
            .violations
            .iter()
            .map(|v| PreconditionViolation::new(short(&v.r#type), short(&v.subject), short(&v.description)));
        let length = |v: &PreconditionViolation| v.r#type.len() + v.subject.len() + v.description.len();
        let kept = first(shortened.collect::<Vec<_>>(), length, |v| &mut v.description);
        details.set_precondition_failure(kept);
    }
    if let Some(failure) = details.quota_failure() {
        let shortened =
            failure.violations.iter().map(|v| QuotaViolation::new(short(&v.subject), short(&v.description)));
        let kept =
            first(shortened.collect::<Vec<_>>(), |v| v.subject.len() + v.description.len(), |v| &mut v.description);
        details.set_quota_failure(kept);
    }
    if let Some(info) = details.resource_info() {
        let [kind, name, owner, description] =
            [&info.resource_type, &info.resource_name, &info.owner, &info.description].map(|text| short(text));
        details.set_resource_info(kind, name, owner, description);
    }
}

/// The first ones, of which the last says how many are not told.
fn first<V>(mut all: Vec<V>, length: impl Fn(&V) -> usize, description: impl Fn(&mut V) -> &mut String) -> Vec<V> {
    let mut used = 0;
    let fit = all.iter().take_while(|violation| {
        used += length(violation) + MARKS;
        used <= VIOLATIONS
    });
    let kept = fit.count().max(1);
    let left_out = all.len().saturating_sub(kept);
    all.truncate(kept);
    if let (Some(last), true) = (all.last_mut(), left_out > 0) {
        description(last).push_str(&format!(" (and {left_out} more)"));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Status;

    use super::*;
    use crate::status::{
        ErrorReason, already_exists, failed_precondition, invalid_argument, invalid_field, not_found,
        resource_exhausted, violation, violations_of,
    };

    /// What a client with gRPC's own library takes for sure, counted as HTTP/2 does.
    const SOFT_LIMIT: usize = 8 << 10;

    fn headers(status: &Status) -> usize {
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    #[test]
    fn no_status_is_larger_than_every_client_takes() {
        let texts =
            ["a".repeat(100_000), "\u{1f600}".repeat(512), "{\"\": 1}, ".repeat(9_000), "\u{4e16}\u{754c}".repeat(256)];
        for text in &texts {
            let many = (0..20).map(|index| violation(format!("field[{index}]"), text.clone()));
            let statuses = [
                invalid_argument(many),
                invalid_field(text.clone(), text.clone()),
                not_found("study", text),
                already_exists("study", text, text),
                resource_exhausted(ErrorReason::StorageFull, text, text.clone()),
                failed_precondition(ErrorReason::IllegalState, text, text.clone(), [("a", text.as_str()), ("b", text)]),
                crate::status::Error::new(ErrorReason::Internal, text.clone())
                    .retry_after(Duration::from_secs(1))
                    .into_status(),
            ];
            for status in statuses {
                let (size, code) = (headers(&status), status.code());
                assert!(size < SOFT_LIMIT, "{size} bytes of {code:?}: {}", status.message());
            }
        }
    }

    #[test]
    fn what_is_cut_keeps_its_beginning_and_its_end() {
        let name = "\u{1f600}".repeat(512);
        let status = already_exists("study", &name, "the name is taken");
        let message = status.message();
        assert!(
            message.starts_with("study `\u{1f600}") && message.ends_with("already exists: the name is taken"),
            "{message}"
        );
        assert_eq!(message.matches(GAP).count(), 1);
        assert_eq!(cut("four", 4, char::len_utf8), "four");
        assert_eq!(cut(&"ab".repeat(20), 14, char::len_utf8), "ababab ... bab");
    }

    #[test]
    fn violations_that_are_not_told_are_counted() {
        let status = invalid_argument((0..1000).map(|index| violation(format!("f{index}"), "is wrong")));
        assert!(headers(&status) < SOFT_LIMIT);
        let told = violations_of(&status);
        assert!((20..1000).contains(&told.len()), "{}", told.len());
        let (field, description) = told.last().unwrap();
        assert_eq!(field, &format!("f{}", told.len() - 1));
        assert_eq!(description, &format!("is wrong (and {} more)", 1000 - told.len()));
    }
}
